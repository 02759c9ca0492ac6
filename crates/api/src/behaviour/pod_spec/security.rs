//! The faults of security contexts, user namespaces and the fields that depend on the operating system.

use super::containers;
use super::volume_sources::local_path;
use crate::behaviour::check::Check;
use crate::behaviour::fill::items;
use crate::behaviour::names;
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
    WindowsSecurityContextOptions,
};
use std::collections::BTreeSet;

/// Length of a path that the kernel takes, in bytes.
const PROFILE_PATH: usize = 4095;
const SYSCTL_NAME: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";

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
    windows_options(errors, &path.child("windowsOptions"), context.windows_options.as_ref());
    apparmor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
    if let Some(policy) = &context.supplemental_groups_policy {
        errors.one_of(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        errors.one_of(&path.child("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"]);
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
            errors.invalid(&path, profile, "can only be set when seccomp type is Localhost");
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
        if context.privileged == Some(true) {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context, text);
        }
        let added = context.capabilities.as_ref().map_or(&[][..], |c| items(&c.add));
        for _ in added.iter().filter(|c| *c == "CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context, text);
        }
    }
    windows_options(errors, &path.child("windowsOptions"), context.windows_options.as_ref());
    apparmor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
}

fn windows_options(errors: &mut Errors, path: &Path, options: Option<&WindowsSecurityContextOptions>) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        errors.faults(&path.child("gmsaCredentialSpecName"), name, names::dns1123_subdomain(name));
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 << 10 {
            errors.invalid(&path, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = &options.run_as_user_name {
        let path = path.child("runAsUserName");
        if name.is_empty() {
            errors.invalid(&path, name, "runAsUserName cannot be an empty string");
        } else if name.chars().any(char::is_control) {
            errors.invalid(&path, name, "runAsUserName cannot contain control characters");
        } else if name.matches('\\').count() > 1 {
            errors.invalid(&path, name, "runAsUserName cannot contain more than one backslash");
        }
    }
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

/// Fields that the pod's operating system does not have.
pub fn os(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(os) = &spec.os else { return };
    match os.name.as_str() {
        "" => errors.push(Error::required(&path.child("os").child("name"), "")),
        "linux" => linux(errors, path, spec),
        "windows" => windows(errors, path, spec),
        other => errors.one_of(&path.child("os"), other, &["linux", "windows"]),
    }
}

fn linux(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    const TEXT: &str = "windows options cannot be set for a linux pod";
    let own = spec.security_context.as_ref();
    if own.is_some_and(|c| c.windows_options.is_some()) {
        errors.forbidden(&path.child("securityContext").child("windowsOptions"), TEXT);
    }
    containers::visit(path, spec, |path, container| {
        if container.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
            errors.forbidden(&path.child("securityContext").child("windowsOptions"), TEXT);
        }
    });
}

fn windows(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let default = PodSecurityContext::default();
    let context = spec.security_context.as_ref().unwrap_or(&default);
    let at = path.child("securityContext");
    for (path, set) in [
        (at.child("appArmorProfile"), context.app_armor_profile.is_some()),
        (at.child("seLinuxOptions"), context.se_linux_options.is_some()),
        (path.child("hostUsers"), spec.host_users.is_some()),
        (path.child("hostPID"), spec.host_pid == Some(true)),
        (path.child("hostIPC"), spec.host_ipc == Some(true)),
        (at.child("seccompProfile"), context.seccomp_profile.is_some()),
        (at.child("fsGroup"), context.fs_group.is_some()),
        (at.child("fsGroupChangePolicy"), context.fs_group_change_policy.is_some()),
        (at.child("sysctls"), !items(&context.sysctls).is_empty()),
        (path.child("shareProcessNamespace"), spec.share_process_namespace.is_some()),
        (at.child("runAsUser"), context.run_as_user.is_some()),
        (at.child("runAsGroup"), context.run_as_group.is_some()),
        (at.child("supplementalGroups"), context.supplemental_groups.is_some()),
        (at.child("supplementalGroupsPolicy"), context.supplemental_groups_policy.is_some()),
        (at.child("seLinuxChangePolicy"), context.se_linux_change_policy.is_some()),
    ] {
        if set {
            errors.forbidden(&path, NOT_ON_WINDOWS);
        }
    }
    containers::visit(path, spec, |path, container| {
        let Some(context) = &container.security_context else { return };
        for (field, set) in [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("capabilities", context.capabilities.is_some()),
            ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
            ("privileged", context.privileged.is_some()),
            ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
            ("procMount", context.proc_mount.is_some()),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
        ] {
            if set {
                errors.forbidden(&path.child("securityContext").child(field), NOT_ON_WINDOWS);
            }
        }
    });
}
