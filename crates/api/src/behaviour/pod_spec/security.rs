//! The faults of security contexts, user namespaces and the fields that depend on the operating system.

use super::volume_sources::local_path;
use super::{containers, windows};
use crate::behaviour::check::Check;
use crate::behaviour::fill::items;
use crate::behaviour::{internal, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext, Sysctl};
use std::collections::BTreeSet;

/// Length of a path that the kernel takes, in bytes.
const PROFILE_PATH: usize = 4095;
const SYSCTL_NAME: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn id(errors: &mut Errors, path: &Path, id: Option<i64>) {
    if let Some(id) = id {
        for fault in names::user_id(id) {
            errors.invalid(path, &id, &fault);
        }
    }
}

pub fn pod(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(context) = &spec.security_context else { return };
    let path = path.child("securityContext");
    id(errors, &path.child("fsGroup"), context.fs_group);
    id(errors, &path.child("runAsUser"), context.run_as_user);
    id(errors, &path.child("runAsGroup"), context.run_as_group);
    for (i, group) in items(&context.supplemental_groups).iter().enumerate() {
        id(errors, &path.child("supplementalGroups").index(i), Some(*group));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), &true, text);
    }
    sysctls(errors, &path.child("sysctls"), items(&context.sysctls), spec);
    if let Some(policy) = &context.fs_group_change_policy {
        errors.one_of(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    windows::options(errors, &path.child("windowsOptions"), context.windows_options.as_ref());
    apparmor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
    if let Some(policy) = &context.supplemental_groups_policy {
        errors.one_of(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        // The other policy belongs to a feature that is off.
        errors.one_of(&path.child("seLinuxChangePolicy"), policy, &["Recursive"]);
    }
}

fn is_sysctl(name: &str) -> bool {
    let lower = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        bytes.first().is_some_and(|c| lower(*c))
            && bytes.last().is_some_and(|c| lower(*c))
            && bytes.iter().all(|c| lower(*c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= SYSCTL_NAME && name.split(['.', '/']).all(segment)
}

fn sysctls(errors: &mut Errors, path: &Path, sysctls: &[Sysctl], spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(i).child("name");
        let name = &sysctl.name;
        if errors.required(&path, name) {
            if !is_sysctl(name) {
                let text = format!("must have at most {SYSCTL_NAME} characters and match regex {SYSCTL}");
                errors.invalid(&path, name, &text);
            } else if seen.contains(name) {
                errors.push(Error::duplicate(&path, name));
            }
        }
        let dotted = name.replace('/', ".");
        let ipc = dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg")
            || dotted == "kernel.sem"
            || dotted.starts_with("fs.mqueue.");
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if spec.host_ipc == Some(true) && ipc {
            errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
        seen.insert(name);
    }
}

fn seccomp(errors: &mut Errors, path: &Path, profile: Option<&SeccompProfile>) {
    let Some(profile) = profile else { return };
    let kind = path.child("type");
    if profile.type_.is_empty() {
        errors.push(Error::required(&kind, "type is required when seccompProfile is set"));
    } else {
        errors.one_of(&kind, &profile.type_, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    let path = path.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => {
            errors.push(Error::required(&path, "must be set when seccomp type is Localhost"));
        }
        (Some(file), true) => local_path(errors, &path, file),
        (Some(_), false) => {
            let text = "can only be set when seccomp type is Localhost";
            errors.push(Error::invalid(&path, "", text).showing(internal::show(profile, internal::SECCOMP)));
        }
        (None, false) => {}
    }
}

fn apparmor(errors: &mut Errors, path: &Path, profile: Option<&AppArmorProfile>) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return };
    let file = path.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.push(Error::required(&file, NEEDED)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&file, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                errors.push(Error::required(&file, NEEDED));
            }
            if name.len() > PROFILE_PATH {
                errors.push(Error::too_long(&file, PROFILE_PATH));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(&file, name, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(Error::required(&path.child("type"), "type is required when appArmorProfile is set"));
        }
        (other, _) => {
            errors.one_of(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}

pub fn container(errors: &mut Errors, path: &Path, context: Option<&SecurityContext>, host_users: bool) {
    let Some(context) = context else { return };
    id(errors, &path.child("runAsUser"), context.run_as_user);
    id(errors, &path.child("runAsGroup"), context.run_as_group);
    if let Some(mount) = &context.proc_mount {
        let path = path.child("procMount");
        errors.one_of(&path, mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            errors.invalid(&path, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    if context.allow_privilege_escalation == Some(false) {
        let shown = || internal::show(context, internal::SECURITY_CONTEXT);
        if context.privileged == Some(true) {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(path, "", text).showing(shown()));
        }
        let added = context.capabilities.as_ref().map_or(&[][..], |c| items(&c.add));
        for _ in added.iter().filter(|c| *c == "CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(path, "", text).showing(shown()));
        }
    }
    windows::options(errors, &path.child("windowsOptions"), context.windows_options.as_ref());
    apparmor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
}

/// A pod with users of its own cannot share what belongs to the host's.
pub fn host_users(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    const FALSE: &str = "when `hostUsers` is false";
    if spec.host_users.unwrap_or(true) {
        return;
    }
    for (field, shared) in
        [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
    {
        if shared == Some(true) {
            errors.forbidden(&path.child(field), FALSE);
        }
    }
    containers::visit(path, spec, |path, container| {
        if !items(&container.volume_devices).is_empty() {
            errors.forbidden(&path.child("volumeDevices"), FALSE);
        }
    });
}
