//! What the kubelet asks of a pod's specification and metadata, as small pure functions.
//!
//! Nothing here looks at a running container, and nothing here changes a pod.

pub mod hash;
pub mod qos;
pub mod resources;
pub mod sysctls;

use krate_api::types::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Annotation that says where a pod came from (`api`, `file`, `http`).
pub const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// Annotation of a mirror pod: the hash of the static pod that it shows.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Annotation of a static pod: the hash of its file.
pub const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// Annotation with the time at which the kubelet first saw the pod.
pub const SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";

/// The grace period of a pod that names none, in seconds.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Which of a pod's three lists a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Init,
    Regular,
    Ephemeral,
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// The identity of the pod. A static pod's is made from its file, a mirror pod's is the server's.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, the way log lines and messages name a pod.
pub fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The specification; a pod without one has no containers.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
    pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// Ephemeral containers in the form of ordinary ones.
pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    spec(pod).ephemeral_containers.iter().flatten().map(as_container).collect()
}

fn as_container(from: &EphemeralContainer) -> Container {
    let from = from.clone();
    Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        name: from.name,
        resources: from.resources,
        security_context: from.security_context,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_devices: from.volume_devices,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
        ..Container::default()
    }
}

/// The container of that name, in whichever list it stands.
pub fn find_container(pod: &Pod, name: &str) -> Option<(Role, Container)> {
    let by_name = |list: &[Container]| list.iter().find(|c| c.name == name).cloned();
    by_name(init_containers(pod))
        .map(|c| (Role::Init, c))
        .or_else(|| by_name(containers(pod)).map(|c| (Role::Regular, c)))
        .or_else(|| by_name(&ephemeral_containers(pod)).map(|c| (Role::Ephemeral, c)))
}

/// The path of a container within its pod, as events carry it in `involvedObject.fieldPath`.
pub fn field_path(role: Role, container: &str) -> String {
    let list = match role {
        Role::Init => "initContainers",
        Role::Regular => "containers",
        Role::Ephemeral => "ephemeralContainers",
    };
    format!("spec.{list}{{{container}}}")
}

/// Whether this init container is a sidecar: it keeps running beside the regular containers.
pub fn is_restartable_init(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub fn has_restartable_init(pod: &Pod) -> bool {
    init_containers(pod).iter().any(is_restartable_init)
}

pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

pub fn is_host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// Where the pod came from; what says nothing came from the API.
pub fn source(pod: &Pod) -> &str {
    annotation(pod, SOURCE_ANNOTATION).unwrap_or("api")
}

pub fn is_static(pod: &Pod) -> bool {
    source(pod) != "api"
}

pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR_ANNOTATION).is_some()
}

pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the API says that the pod has run its course.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Seconds that the containers get to end: of the deletion if there is one, else of the specification.
pub fn grace_seconds(pod: &Pod) -> i64 {
    pod.metadata
        .deletion_grace_period_seconds
        .filter(|_| is_deleting(pod))
        .or(spec(pod).termination_grace_period_seconds)
        .unwrap_or(DEFAULT_GRACE_SECONDS)
}

/// The host name inside the pod and, when the pod has a subdomain, its domain.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = spec(pod);
    let hostname = match (&spec.hostname_override, &spec.hostname) {
        (Some(name), _) if !name.is_empty() => return (name.clone(), String::new()),
        (_, Some(name)) if !name.is_empty() => name.clone(),
        _ => truncate_hostname(name(pod)),
    };
    let domain = match spec.subdomain.as_deref() {
        Some(sub) if !sub.is_empty() => format!("{sub}.{}.svc.{cluster_domain}", namespace(pod)),
        _ => String::new(),
    };
    (hostname, domain)
}

/// The kernel's host names have at most 64 bytes, the API's 63; a cut name must not end in `-` or `.`.
fn truncate_hostname(name: &str) -> String {
    const MAX: usize = 63;
    name.get(..MAX).unwrap_or(name).trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
pub mod build {
    //! Builders of pods for tests.
    use super::*;
    use krate_api::meta::ObjectMeta;

    pub fn pod(name: &str) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("default".into()),
                uid: Some(format!("uid-{name}")),
                ..Default::default()
            },
            spec: Some(PodSpec { containers: vec![container("web")], ..Default::default() }),
            ..Default::default()
        }
    }

    pub fn container(name: &str) -> Container {
        Container { name: name.into(), image: Some("nginx:1".into()), ..Default::default() }
    }

    pub fn sidecar(name: &str) -> Container {
        Container { restart_policy: Some("Always".into()), ..container(name) }
    }

    pub fn edit(mut pod: Pod, change: impl FnOnce(&mut PodSpec)) -> Pod {
        change(pod.spec.get_or_insert_default());
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::{build::*, *};

    #[test]
    fn a_long_name_is_cut_for_the_host_name() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        assert_eq!(hostname_and_domain(&pod(&long), "cluster.local").0, "a".repeat(62));
    }

    #[test]
    fn a_subdomain_gives_a_domain() {
        let pod = edit(pod("db-0"), |s| {
            s.hostname = Some("db-0".into());
            s.subdomain = Some("db".into());
        });
        assert_eq!(
            hostname_and_domain(&pod, "cluster.local"),
            ("db-0".into(), "db.default.svc.cluster.local".into())
        );
    }

    #[test]
    fn the_deletion_decides_the_grace_period() {
        let mut pod = edit(pod("web"), |s| s.termination_grace_period_seconds = Some(7));
        assert_eq!(grace_seconds(&pod), 7);
        pod.metadata.deletion_timestamp = Some(krate_api::meta::Time(krate_base::Timestamp::UNIX_EPOCH));
        pod.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(grace_seconds(&pod), 0);
    }
}
