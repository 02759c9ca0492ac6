//! Security contexts: a container's own settings over its pod's, in the runtime's words.

use super::namespaces;
use crate::spec;
use krate_api::types::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};
use krate_runtime::cri::{
    Capability, Image, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, ProfileType,
    SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy,
};

/// Parts of `/proc` and `/sys` that an unprivileged container does not see.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Parts that it only reads.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn of_pod(pod: &Pod) -> PodSecurityContext {
    spec::spec(pod).security_context.clone().unwrap_or_default()
}

fn own(container: &Container) -> SecurityContext {
    container.security_context.clone().unwrap_or_default()
}

pub fn is_privileged(container: &Container) -> bool {
    own(container).privileged == Some(true)
}

/// The sandbox's, from the pod alone.
pub fn sandbox(pod: &Pod, seccomp_root: &str) -> LinuxSandboxSecurityContext {
    let context = of_pod(pod);
    LinuxSandboxSecurityContext {
        namespace_options: namespaces(pod),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user,
        run_as_group: context.run_as_group,
        readonly_rootfs: false,
        supplemental_groups: groups(&context),
        supplemental_groups_policy: groups_policy(&context),
        privileged: spec::containers(pod).iter().chain(spec::init_containers(pod)).any(is_privileged),
        seccomp: Some(
            context.seccomp_profile.as_ref().map_or_else(runtime_default, |p| seccomp(p, seccomp_root)),
        ),
        apparmor: None,
    }
}

fn runtime_default() -> SecurityProfile {
    SecurityProfile { profile_type: ProfileType::RuntimeDefault, localhost_ref: String::new() }
}

/// The supplemental groups of the pod, the owner of its volumes among them.
fn groups(context: &PodSecurityContext) -> Vec<i64> {
    context.supplemental_groups.iter().flatten().copied().chain(context.fs_group).collect()
}

fn groups_policy(context: &PodSecurityContext) -> SupplementalGroupsPolicy {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

/// A container's, or why it cannot be: a promise not to run as root that cannot be kept.
pub fn container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    seccomp_root: &str,
) -> Result<LinuxContainerSecurityContext, String> {
    let (pods, own) = (of_pod(pod), own(container));
    let user = own.run_as_user.or(pods.run_as_user);
    if own.run_as_non_root.or(pods.run_as_non_root) == Some(true) {
        verify_non_root(pod, container, user, image)?;
    }
    let privileged = own.privileged == Some(true);
    let masked = !privileged && own.proc_mount.as_deref() != Some("Unmasked");
    let paths = |list: &[&str]| if masked { list.iter().map(|p| (*p).to_owned()).collect() } else { vec![] };
    let profile = own.seccomp_profile.as_ref().or(pods.seccomp_profile.as_ref());
    let apparmor_profile = own.app_armor_profile.as_ref().or(pods.app_armor_profile.as_ref());
    Ok(LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: namespaces(pod),
        selinux_options: own.se_linux_options.as_ref().or(pods.se_linux_options.as_ref()).map(selinux),
        run_as_user: user.or(if image.username.is_empty() { image.uid } else { None }),
        run_as_group: own.run_as_group.or(pods.run_as_group),
        run_as_username: if user.is_none() { image.username.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(&pods),
        supplemental_groups_policy: groups_policy(&pods),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READONLY),
        seccomp: (!privileged).then(|| profile.map_or_else(unconfined, |p| seccomp(p, seccomp_root))),
        apparmor: apparmor_profile.map(apparmor),
    })
}

fn verify_non_root(pod: &Pod, container: &Container, user: Option<i64>, image: &Image) -> Result<(), String> {
    let whose = format!("(pod: \"{}\", container: {})", spec::describe(pod), container.name);
    match (user, image.username.is_empty(), image.uid) {
        (Some(0), _, _) => Err(format!("container's runAsUser breaks non-root policy {whose}")),
        (Some(_), _, _) => Ok(()),
        (None, false, _) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {whose}",
            image.username
        )),
        (None, true, Some(0) | None) => {
            Err(format!("container has runAsNonRoot and image will run as root {whose}"))
        }
        (None, true, Some(_)) => Ok(()),
    }
}

fn unconfined() -> SecurityProfile {
    SecurityProfile { profile_type: ProfileType::Unconfined, localhost_ref: String::new() }
}

fn seccomp(profile: &SeccompProfile, root: &str) -> SecurityProfile {
    match profile.type_.as_str() {
        "RuntimeDefault" => runtime_default(),
        "Localhost" => SecurityProfile {
            profile_type: ProfileType::Localhost,
            localhost_ref: format!("{root}/{}", profile.localhost_profile.as_deref().unwrap_or_default()),
        },
        _ => unconfined(),
    }
}

fn apparmor(profile: &AppArmorProfile) -> SecurityProfile {
    match profile.type_.as_str() {
        "RuntimeDefault" => runtime_default(),
        "Localhost" => SecurityProfile {
            profile_type: ProfileType::Localhost,
            localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
        },
        _ => unconfined(),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build;

    fn with(context: SecurityContext) -> Container {
        Container { security_context: Some(context), ..build::container("web") }
    }

    #[test]
    fn a_container_overrides_its_pod() {
        let pod = build::edit(build::pod("web"), |s| {
            s.security_context = Some(PodSecurityContext {
                run_as_user: Some(1000),
                run_as_group: Some(2000),
                fs_group: Some(3000),
                ..Default::default()
            });
        });
        let c = with(SecurityContext { run_as_user: Some(7), ..Default::default() });
        let got = container(&pod, &c, &Image::default(), "").unwrap();
        assert_eq!((got.run_as_user, got.run_as_group), (Some(7), Some(2000)));
        assert_eq!(got.supplemental_groups, [3000]);
        assert!(!got.masked_paths.is_empty());
        let privileged = with(SecurityContext { privileged: Some(true), ..Default::default() });
        assert!(container(&pod, &privileged, &Image::default(), "").unwrap().masked_paths.is_empty());
    }

    #[test]
    fn a_promise_not_to_be_root_is_verified() {
        let c = with(SecurityContext { run_as_non_root: Some(true), ..Default::default() });
        let verdict = |image: Image| container(&build::pod("web"), &c, &image, "").map(drop);
        let text = verdict(Image::default()).unwrap_err();
        assert_eq!(
            text,
            "container has runAsNonRoot and image will run as root (pod: \"web_default(uid-web)\", container: web)"
        );
        assert!(verdict(Image { uid: Some(5), ..Default::default() }).is_ok());
        assert!(
            verdict(Image { username: "app".into(), ..Default::default() })
                .unwrap_err()
                .contains("non-numeric user (app)")
        );
    }
}
