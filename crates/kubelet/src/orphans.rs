//! What the runtime and the disk still hold of pods that nobody knows any more: found once, after the
//! kubelet has read the API, and ended like any pod that is gone.
//!
//! Before anything is ended the API is asked again: the pod may be younger than the list.

use crate::context::Context;
use crate::observed::{POD_GRACE, POD_NAME, POD_NAMESPACE, POD_UID};
use crate::spec;
use crate::statics::Statics;
use crate::workers::Workers;
use krate_api::meta::ObjectMeta;
use krate_api::types::core::v1::{Pod, PodSpec};
use krate_client::Api;
use krate_client::informer::Informer;
use krate_runtime::cri::{ContainerFilter, Map, PodSandboxFilter};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Pause before the runtime or the API is asked again.
const RETRY: Duration = Duration::from_secs(5);

pub struct Orphans {
    pub context: Arc<Context>,
    pub workers: Workers,
    pub statics: Statics,
    pub pods: Informer<Pod>,
    pub api: Api<Pod>,
}

impl Orphans {
    /// Looks until it could look at everything.
    pub async fn clean_up(self) {
        self.pods.synced().await;
        while let Err(error) = self.try_once().await {
            tracing::warn!(%error, "orphaned pods cannot be looked for now");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_once(&self) -> Result<(), String> {
        for (uid, pod) in self.found().await? {
            if self.is_known(&uid) {
                continue;
            }
            let present =
                self.api.get_opt(spec::namespace(&pod), spec::name(&pod)).await.map_err(|e| e.to_string())?;
            match present.filter(|p| spec::uid(p) == uid) {
                Some(present) => self.workers.update(&present),
                None => {
                    tracing::info!(pod = %spec::describe(&pod), "ending a pod that nobody knows");
                    self.workers.orphan(&Arc::new(pod));
                }
            }
        }
        self.remove_folders().await.map_err(|e| e.to_string())
    }

    fn is_known(&self, uid: &str) -> bool {
        self.workers.knows(uid) || self.statics.list().iter().any(|pod| spec::uid(pod) == uid)
    }

    /// What the runtime knows of pods, by uid, with as much of the pod as the labels tell.
    async fn found(&self) -> Result<BTreeMap<String, Pod>, String> {
        let runtime = &self.context.runtime;
        let sandboxes =
            runtime.list_pod_sandbox(&PodSandboxFilter::default()).await.map_err(|e| e.to_string())?;
        let containers =
            runtime.list_containers(&ContainerFilter::default()).await.map_err(|e| e.to_string())?;
        let mut out = BTreeMap::new();
        for labels in sandboxes.iter().map(|s| &s.labels) {
            out.extend(from_labels(labels, None));
        }
        for container in &containers {
            let grace = container.annotations.get(POD_GRACE).and_then(|text| text.parse().ok());
            out.extend(from_labels(&container.labels, grace));
        }
        Ok(out)
    }

    /// Folders of pods of which not even the runtime knows.
    async fn remove_folders(&self) -> std::io::Result<()> {
        let mut entries = match tokio::fs::read_dir(self.context.paths.pods()).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        while let Some(entry) = entries.next_entry().await? {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if !self.is_known(&uid) {
                self.context.volumes.tear_down(&uid).await?;
            }
        }
        Ok(())
    }
}

fn from_labels(labels: &Map, grace: Option<i64>) -> Option<(String, Pod)> {
    let uid = labels.get(POD_UID)?.clone();
    let pod = Pod {
        metadata: ObjectMeta {
            name: labels.get(POD_NAME).cloned(),
            namespace: labels.get(POD_NAMESPACE).cloned(),
            uid: Some(uid.clone()),
            ..Default::default()
        },
        spec: Some(PodSpec { termination_grace_period_seconds: grace, ..Default::default() }),
        status: None,
    };
    Some((uid, pod))
}
