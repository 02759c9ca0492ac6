//! The faults of what only pods of Windows have, and of what they, or those of Linux, cannot have.

use super::containers;
use crate::behaviour::check::Check;
use crate::behaviour::fill::items;
use crate::behaviour::names;
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{PodSecurityContext, PodSpec, WindowsSecurityContextOptions};

const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
/// Size of a credential specification, in KiB.
const CREDENTIALS: usize = 64;
/// Length of the domain of a user's name, in bytes.
const DOMAIN: usize = 256;
/// Length of a user's name without the domain, in bytes.
const USER: usize = 104;
/// Length of a NetBIOS name, in bytes.
const NET_BIOS: usize = 15;

pub fn options(errors: &mut Errors, path: &Path, options: Option<&WindowsSecurityContextOptions>) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        errors.faults(&path.child("gmsaCredentialSpecName"), name, names::dns1123_subdomain(name));
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > CREDENTIALS << 10 {
            let text = format!("gmsaCredentialSpec size must be under {CREDENTIALS} KiB");
            errors.invalid(&path, spec, &text);
        }
    }
    if let Some(name) = &options.run_as_user_name {
        let faults = user_name(name);
        errors.faults(&path.child("runAsUserName"), name, faults);
    }
}

/// `USER` or `DOMAIN\USER`.
fn user_name(name: &str) -> Vec<String> {
    let fault = |text: &str| vec![format!("runAsUserName{text}")];
    if name.is_empty() {
        return fault(" cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return fault(" cannot contain control characters");
    }
    if name.matches('\\').count() > 1 {
        return fault(" cannot contain more than one backslash");
    }
    let (domain, user) = match name.split_once('\\') {
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    let mut faults = vec![];
    let domain_length = domain.map_or(0, str::len);
    let wrong_domain = domain.is_some_and(|d| !is_net_bios(d) && !is_domain(d));
    let forbidden = |c: char| "\"/\\:;|=,+*?<>@[]".contains(c);
    for (wrong, text) in [
        (domain_length >= DOMAIN, format!("'s Domain length must be under {DOMAIN} characters")),
        (wrong_domain, "'s Domain doesn't match the NetBios nor the DNS format".to_owned()),
        (user.is_empty(), "'s User cannot be empty".to_owned()),
        (user.len() > USER, format!("'s User length must not be longer than {USER} characters")),
        (
            !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')),
            "'s User cannot contain only periods or spaces".to_owned(),
        ),
        (
            user.contains(forbidden),
            "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned(),
        ),
    ] {
        if wrong {
            faults.extend(fault(&text));
        }
    }
    faults
}

fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=NET_BIOS).contains(&length)
        && !domain.starts_with('.')
        && !domain.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_domain(domain: &str) -> bool {
    domain.split('.').all(|label| names::dns1123_label(&label.to_lowercase()).is_empty())
}

/// Containers that are processes of the host: all of a pod, or none.
pub fn host_process(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let own =
        spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()).and_then(|o| o.host_process);
    let (mut all, mut of_host) = (0, 0);
    containers::visit(path, spec, |path, container| {
        all += 1;
        let options = container.security_context.as_ref().and_then(|c| c.windows_options.as_ref());
        let of_container = options.and_then(|o| o.host_process);
        if let (Some(own), Some(of_container)) = (own, of_container)
            && own != of_container
        {
            let path = path.child("securityContext").child("windowsOptions").child("hostProcess");
            let text = format!("pod hostProcess value must be identical if both are specified, was {own}");
            errors.invalid(&path, &of_container, &text);
        }
        of_host += usize::from(of_container.or(own) == Some(true));
    });
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let text =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", text);
    }
    if spec.host_network != Some(true) {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), &false, text);
    }
}

/// Fields that the pod's operating system does not have.
pub fn os(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(os) = &spec.os else { return };
    match os.name.as_str() {
        "" => errors.push(Error::required(&path.child("os").child("name"), "cannot be empty")),
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
