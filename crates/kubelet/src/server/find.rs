//! From the names in a request's path to what the runtime knows.

use crate::logs::LogQuery;
use http::StatusCode;
use krate_api::types::core::v1::{ContainerStatus, Pod};
use krate_runtime::cri::{
    ContainerFilter, ContainerState, ContainerStatus as CriStatus, PodSandboxFilter, PodSandboxState, Runtime,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels by which the kubelet finds its own sandboxes and containers again.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// The pods of this node.
pub trait Lookup: Send + Sync + 'static {
    /// The pod as the API shows it, or a static pod.
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;
    fn list(&self) -> Vec<Arc<Pod>>;
    /// The uid by which the runtime's labels name the pod (that of the manifest, for static pods).
    fn runtime_uid(&self, pod: &Pod) -> String;
}

/// Why something was not found, with the status code for the client.
#[derive(Debug)]
pub struct NotFound(pub StatusCode, pub String);

impl NotFound {
    fn missing(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }
    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

/// The client shows the text of a 500, and of a 404 only that something was not found.
fn not_running(text: String) -> NotFound {
    NotFound(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Looks things up for one request.
pub struct Finder<'a> {
    pub pods: &'a dyn Lookup,
    pub runtime: &'a dyn Runtime,
}

impl Finder<'_> {
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, NotFound> {
        self.pods.get(namespace, name).ok_or_else(|| NotFound::missing(format!("pod \"{name}\" not found")))
    }

    /// The newest container of that name that runs, to execute something in.
    pub async fn to_exec(&self, pod: &Pod, container: &str) -> Result<String, NotFound> {
        self.running(pod, container)
            .await?
            .ok_or_else(|| not_running(format!("container not found ({container:?})")))
    }

    /// The newest container of that name that runs, to attach to.
    pub async fn to_attach(&self, pod: &Pod, container: &str) -> Result<String, NotFound> {
        self.running(pod, container).await?.ok_or_else(|| {
            let name = pod.metadata.name.as_deref().unwrap_or("");
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            not_running(format!("container {container} not found in pod {name}_{namespace}"))
        })
    }

    async fn running(&self, pod: &Pod, container: &str) -> Result<Option<String>, NotFound> {
        let all = self.containers(pod, container).await?;
        Ok(all.into_iter().find(|c| c.state == ContainerState::Running).map(|c| c.id))
    }

    /// The ready sandbox of a pod.
    pub async fn sandbox(&self, pod: &Pod) -> Result<String, NotFound> {
        let filter = PodSandboxFilter {
            id: None,
            state: Some(PodSandboxState::Ready),
            label_selector: BTreeMap::from([(POD_UID.to_owned(), self.pods.runtime_uid(pod))]),
        };
        let found = self.runtime.list_pod_sandbox(&filter).await.map_err(|e| failed(&e))?;
        found.into_iter().next().map(|s| s.id).ok_or_else(|| NotFound::missing("sandbox not found"))
    }

    /// The container whose log is asked for.
    pub async fn logged(&self, pod: &Pod, container: &str, query: &LogQuery) -> Result<CriStatus, NotFound> {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        let shown = status_of(pod, container);
        let all = self.containers(pod, container).await?;
        let at = usize::from(query.previous && all.first().is_some_and(|c| restarted(shown, &c.id)));
        if query.previous {
            let previous = all.into_iter().skip(at).find(|c| c.state == ContainerState::Exited);
            return previous.ok_or_else(|| {
                NotFound::bad(format!(
                    "previous terminated container \"{container}\" in pod \"{name}\" not found"
                ))
            });
        }
        all.into_iter().find(|c| c.state != ContainerState::Created).ok_or_else(|| {
            let waiting = shown.and_then(|s| s.state.as_ref()).and_then(|s| s.waiting.as_ref());
            let reason = waiting.and_then(|w| w.reason.as_deref()).unwrap_or("ContainerCreating");
            let problem = if matches!(
                reason,
                "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull"
            ) {
                "trying and failing to pull image".to_owned()
            } else {
                reason.to_owned()
            };
            NotFound::bad(format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {problem}"
            ))
        })
    }

    /// Every container of that name, the newest first.
    async fn containers(&self, pod: &Pod, container: &str) -> Result<Vec<CriStatus>, NotFound> {
        let filter = ContainerFilter {
            id: None,
            state: None,
            pod_sandbox_id: None,
            label_selector: BTreeMap::from([
                (POD_UID.to_owned(), self.pods.runtime_uid(pod)),
                (CONTAINER_NAME.to_owned(), container.to_owned()),
            ]),
        };
        let mut found = self.runtime.list_containers(&filter).await.map_err(|e| failed(&e))?;
        found.sort_by_key(|c| std::cmp::Reverse((c.metadata.attempt, c.created_at)));
        let mut statuses = Vec::with_capacity(found.len());
        for container in found {
            match self.runtime.container_status(&container.id).await {
                Ok(status) => statuses.push(status),
                // Removed meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(statuses)
    }
}

/// Whether the newest container is the one that the status shows as current (and an older one is "previous").
fn restarted(shown: Option<&ContainerStatus>, newest: &str) -> bool {
    let last = shown.and_then(|s| s.last_state.as_ref()).and_then(|s| s.terminated.as_ref());
    let last = last.and_then(|t| t.container_id.as_deref()).unwrap_or("");
    !last.ends_with(newest)
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == container)
}

fn failed(error: &krate_runtime::cri::Error) -> NotFound {
    NotFound(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
