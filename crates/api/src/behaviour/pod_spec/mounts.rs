//! The faults of volume mounts and of block devices.

use super::volume_sources::{has_backsteps, local_path};
use super::volumes::Usable;
use crate::behaviour::check::Check;
use crate::behaviour::fill::{items, str_of};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{Container, VolumeMount};
use std::collections::BTreeSet;

pub fn mounts(errors: &mut Errors, path: &Path, container: &Container, volumes: &Usable) {
    let devices = items(&container.volume_devices);
    let mut seen = BTreeSet::new();
    for (i, mount) in items(&container.volume_mounts).iter().enumerate() {
        let at = path.index(i);
        errors.required(&at.child("name"), &mount.name);
        if !volumes.contains_key(mount.name.as_str()) {
            errors.push(Error::not_found(&at.child("name"), &mount.name));
        }
        errors.required(&at.child("mountPath"), &mount.mount_path);
        if !seen.insert(&mount.mount_path) {
            errors.invalid(&at.child("mountPath"), &mount.mount_path, "must be unique");
        }
        if devices.iter().any(|d| d.name == mount.name) {
            errors.invalid(&at.child("name"), &mount.name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| d.device_path == mount.mount_path) {
            let text = "must not already exist as a path in volumeDevices";
            errors.invalid(&at.child("mountPath"), &mount.mount_path, text);
        }
        sub_paths(errors, path, &at, mount);
        propagation(errors, &path.child("mountPropagation"), mount, container);
        recursive_read_only(errors, &path.child("recursiveReadOnly"), mount);
    }
}

/// The original tells faults of these at the list, not at the mount; `path` is the list.
fn sub_paths(errors: &mut Errors, path: &Path, at: &Path, mount: &VolumeMount) {
    let (plain, expression) = (str_of(&mount.sub_path), str_of(&mount.sub_path_expr));
    if !plain.is_empty() {
        local_path(errors, &path.child("subPath"), plain);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            let text = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&at.child("subPathExpr"), expression, text);
        }
        local_path(errors, &path.child("subPathExpr"), expression);
    }
}

fn propagation(errors: &mut Errors, path: &Path, mount: &VolumeMount, container: &Container) {
    let Some(mode) = &mount.mount_propagation else { return };
    errors.one_of(path, mode, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false);
    if mode == "Bidirectional" && !privileged {
        errors.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive_read_only(errors: &mut Errors, path: &Path, mount: &VolumeMount) {
    let Some(mode) = &mount.recursive_read_only else { return };
    errors.one_of(path, mode, &["Disabled", "Enabled", "IfPossible"]);
    if !matches!(mode.as_str(), "Enabled" | "IfPossible") {
        return;
    }
    if mount.read_only != Some(true) {
        errors.forbidden(path, "may only be specified when readOnly is true");
    }
    if mount.mount_propagation.as_deref().is_some_and(|m| m != "None") {
        errors.forbidden(path, "may only be specified when mountPropagation is None or not specified");
    }
}

pub fn devices(errors: &mut Errors, path: &Path, container: &Container, volumes: &Usable) {
    let mounts = items(&container.volume_mounts);
    let (mut seen, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in items(&container.volume_devices).iter().enumerate() {
        let at = path.index(i);
        let (name, target) = (&device.name, &device.device_path);
        errors.required(&at.child("name"), name);
        if !name.is_empty() && !seen.insert(name) {
            errors.invalid(&at.child("name"), name, "must be unique");
        }
        match volumes.get(name.as_str()) {
            None => errors.push(Error::not_found(&at.child("name"), name)),
            Some(v) if v.persistent_volume_claim.is_none() && v.ephemeral.is_none() => errors.invalid(
                &at.child("name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        errors.required(&at.child("devicePath"), target);
        if paths.contains(target) {
            errors.invalid(&at.child("devicePath"), target, "must be unique");
        }
        if has_backsteps(target) {
            errors.invalid(&at.child("devicePath"), target, "can not contain backsteps ('..')");
        } else {
            paths.insert(target);
        }
        if mounts.iter().any(|m| m.name == *name) {
            errors.invalid(&at.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| m.mount_path == *target) {
            let text = "must not already exist as a path in volumeMounts";
            errors.invalid(&at.child("devicePath"), target, text);
        }
    }
}
