//! What the runtime says about one pod, and the labels and annotations by which a restarted kubelet knows
//! its containers again.
//!
//! The names are those that every kubelet writes, so that tools which read a CRI runtime understand ours.

use crate::spec::{self, hash};
use krate_api::types::core::v1::{Container, Pod};
use krate_runtime::cri::{
    ContainerFilter, ContainerState, ContainerStatus, Map, PodSandboxFilter, PodSandboxState,
    PodSandboxStatus, Result, Runtime,
};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";

/// One container (an attempt of it) as the runtime knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub sandbox: String,
    pub status: ContainerStatus,
}

impl Observed {
    pub fn id(&self) -> &str {
        &self.status.id
    }

    pub fn name(&self) -> &str {
        &self.status.metadata.name
    }

    pub fn is_running(&self) -> bool {
        self.status.state == ContainerState::Running
    }

    pub fn has_exited(&self) -> bool {
        self.status.state == ContainerState::Exited
    }

    pub fn restart_count(&self) -> u32 {
        let written = self.status.annotations.get(RESTART_COUNT).and_then(|text| text.parse().ok());
        written.unwrap_or(self.status.metadata.attempt)
    }

    /// Whether it was made from another version of the container.
    pub fn differs_from(&self, container: &Container) -> bool {
        self.status.annotations.get(CONTAINER_HASH).is_some_and(|h| *h != hash::container_hash(container))
    }
}

/// Everything that the runtime has of one pod, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodRuntime {
    pub sandboxes: Vec<PodSandboxStatus>,
    pub containers: Vec<Observed>,
}

impl PodRuntime {
    /// Asks the runtime.
    pub async fn read(runtime: &dyn Runtime, uid: &str) -> Result<Self> {
        let label_selector: Map = [(POD_UID.to_owned(), uid.to_owned())].into();
        let filter = PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() };
        let mut out = Self::default();
        for sandbox in runtime.list_pod_sandbox(&filter).await? {
            match runtime.pod_sandbox_status(&sandbox.id).await {
                Ok(status) => out.sandboxes.push(status),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let filter = ContainerFilter { label_selector, ..Default::default() };
        for container in runtime.list_containers(&filter).await? {
            match runtime.container_status(&container.id).await {
                Ok(status) => out.containers.push(Observed { sandbox: container.pod_sandbox_id, status }),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        out.sort();
        Ok(out)
    }

    fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.metadata.attempt, s.created_at)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.status.metadata.attempt, c.status.created_at)));
    }

    /// The newest attempt of a container.
    pub fn latest(&self, name: &str) -> Option<&Observed> {
        self.containers.iter().find(|c| c.name() == name)
    }

    /// The newest attempt of a container within one sandbox.
    pub fn latest_in(&self, sandbox: &str, name: &str) -> Option<&Observed> {
        self.containers.iter().find(|c| c.name() == name && c.sandbox == sandbox)
    }

    pub fn running(&self) -> impl Iterator<Item = &Observed> {
        self.containers.iter().filter(|c| c.is_running())
    }

    /// The newest sandbox, ready or not.
    pub fn sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes.first()
    }

    pub fn ready_sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandbox().filter(|s| s.state == PodSandboxState::Ready)
    }

    /// Addresses of the ready sandbox, primary first.
    pub fn ips(&self) -> Vec<String> {
        let Some(sandbox) = self.ready_sandbox().filter(|s| !s.network.ip.is_empty()) else {
            return Vec::new();
        };
        std::iter::once(&sandbox.network.ip).chain(&sandbox.network.additional_ips).cloned().collect()
    }
}

/// Labels of a pod's sandbox: the pod's own and its identity.
pub fn sandbox_labels(pod: &Pod) -> Map {
    let mut labels: Map = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    labels
}

pub fn identity(pod: &Pod) -> Map {
    [(POD_NAME, spec::name(pod)), (POD_NAMESPACE, spec::namespace(pod)), (POD_UID, spec::uid(pod))]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

pub fn container_labels(pod: &Pod, container: &Container) -> Map {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    labels
}

/// What has to be known again after a restart of the kubelet, even when the pod is gone from the API.
pub fn container_annotations(pod: &Pod, container: &Container, restart_count: u32) -> Map {
    let text = |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.to_owned());
    [
        (CONTAINER_HASH, hash::container_hash(container)),
        (RESTART_COUNT, restart_count.to_string()),
        (TERMINATION_PATH, text(&container.termination_message_path, "/dev/termination-log")),
        (TERMINATION_POLICY, text(&container.termination_message_policy, "File")),
        (
            POD_GRACE,
            spec::spec(pod)
                .termination_grace_period_seconds
                .unwrap_or(spec::DEFAULT_GRACE_SECONDS)
                .to_string(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

#[cfg(test)]
pub mod build {
    //! Builders of observed sandboxes and containers for tests.
    use super::*;
    use krate_runtime::cri::{ContainerMetadata, ImageSpec, PodSandboxMetadata, PodSandboxNetworkStatus};

    pub const SECOND: i64 = 1_000_000_000;

    pub fn sandbox(id: &str, attempt: u32) -> PodSandboxStatus {
        PodSandboxStatus {
            id: id.into(),
            metadata: PodSandboxMetadata { attempt, ..Default::default() },
            network: PodSandboxNetworkStatus { ip: "10.0.0.2".into(), ..Default::default() },
            ..Default::default()
        }
    }

    pub fn running(name: &str, attempt: u32) -> Observed {
        let spec = crate::spec::build::container(name);
        Observed {
            sandbox: "s0".into(),
            status: ContainerStatus {
                id: format!("{name}-{attempt}"),
                metadata: ContainerMetadata { name: name.into(), attempt },
                state: ContainerState::Running,
                created_at: i64::from(attempt) * 100 * SECOND,
                started_at: i64::from(attempt) * 100 * SECOND + SECOND,
                image: ImageSpec { image: "nginx:1".into(), ..Default::default() },
                annotations: [
                    (RESTART_COUNT.to_owned(), attempt.to_string()),
                    (CONTAINER_HASH.to_owned(), hash::container_hash(&spec)),
                ]
                .into(),
                ..Default::default()
            },
        }
    }

    pub fn exited(name: &str, attempt: u32, code: i32) -> Observed {
        let mut out = running(name, attempt);
        out.status.state = ContainerState::Exited;
        out.status.exit_code = code;
        out.status.reason = if code == 0 { "Completed" } else { "Error" }.into();
        out.status.finished_at = out.status.started_at + 5 * SECOND;
        out
    }

    pub fn pod_runtime(containers: Vec<Observed>) -> PodRuntime {
        let mut out = PodRuntime { sandboxes: vec![sandbox("s0", 0)], containers };
        out.sort();
        out
    }
}
