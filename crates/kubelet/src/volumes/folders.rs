//! The cluster's own volumes that are folders of this node: their folders are removed when they are deleted.
//!
//! The node follows the volumes that are labelled with its name. Of one that is being deleted and bound to nothing
//! any more it removes the folder, and says so by taking the provisioner's finalizer away; that is all a node may
//! change of a volume. Only a folder directly below the one for volumes is ever removed, whatever the object says.

use krate_api::Status;
use krate_api::types::core::v1::PersistentVolume;
use krate_api::volumes::{FOLDER_NODE, PROVISIONER_FINALIZER, is_folder_of, node_label};
use krate_base::Shutdown;
use krate_base::metrics::Metrics;
use krate_client::informer::Informer;
use krate_client::recorder::{Recorder, reference};
use krate_client::{Api, Outcome, Queue, controller};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folders that are removed at the same time.
const WORKERS: usize = 2;

/// By which labels a node finds its volumes.
pub fn selector(node: &str) -> String {
    format!("{FOLDER_NODE}={}", node_label(node))
}

/// Removes folders of deleted volumes.
pub struct Folders {
    pub node: String,
    /// Where the volumes' folders are.
    pub folder: PathBuf,
    /// Those of this node, by [`selector`].
    pub volumes: Informer<PersistentVolume>,
    pub api: Api<PersistentVolume>,
    pub recorder: Recorder,
}

impl Folders {
    pub async fn run(self, metrics: Metrics, shutdown: Shutdown) {
        let queue: Queue = Queue::new("volume_folders", &metrics);
        let (q, node) = (queue.clone(), self.node.clone());
        self.volumes.subscribe(move |_, new| {
            if let Some(volume) = new.filter(|v| is_due(v, &node)) {
                q.add(volume.metadata.name.clone().unwrap_or_default());
            }
        });
        let this = Arc::new(self);
        controller::run(queue, WORKERS, shutdown, move |name: String| {
            let this = this.clone();
            async move { this.remove(&name).await.map(|()| Outcome::Done) }
        })
        .await;
    }

    async fn remove(&self, name: &str) -> Result<(), Status> {
        let Some(volume) = self.volumes.get(name).filter(|v| is_due(v, &self.node)) else { return Ok(()) };
        if let Some(folder) = folder_of(&volume, &self.folder)
            && let Err(error) = remove_all(folder.clone()).await
        {
            let text = format!("removing {}: {error}", folder.display());
            self.recorder.warning(&reference(&*volume), "VolumeFailedDelete", text.clone());
            return Err(Status::internal(text));
        }
        let mut wanted = (*volume).clone();
        let left = wanted.metadata.finalizers.take().into_iter().flatten();
        wanted.metadata.finalizers = Some(left.filter(|f| f != PROVISIONER_FINALIZER).collect());
        match self.api.update(wanted).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

/// Whether the volume is to go, and its folder has not been removed yet.
fn is_due(volume: &PersistentVolume, node: &str) -> bool {
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    is_folder_of(volume, node)
        && volume.metadata.deletion_timestamp.is_some()
        && phase != Some("Bound")
        && volume.metadata.finalizers.iter().flatten().any(|f| f == PROVISIONER_FINALIZER)
}

fn folder_of(volume: &PersistentVolume, below: &Path) -> Option<PathBuf> {
    let path = PathBuf::from(&volume.spec.as_ref()?.local.as_ref()?.path);
    let name = path.file_name()?;
    (below.join(name) == path).then_some(path)
}

async fn remove_all(folder: PathBuf) -> io::Result<()> {
    let done = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    done.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::Kind;
    use krate_api::volumes::{FOLDER_PROVISIONER, PROVISIONED_BY};
    use serde_json::json;

    fn volume(node: &str, path: &str, deleting: bool) -> PersistentVolume {
        let at = deleting.then_some("2026-01-01T00:00:00Z");
        let meta = json!({"name": "pv", "labels": {FOLDER_NODE: node}, "deletionTimestamp": at,
            "annotations": {PROVISIONED_BY: FOLDER_PROVISIONER}, "finalizers": [PROVISIONER_FINALIZER]});
        PersistentVolume::from_value(json!({"metadata": meta, "spec": {"local": {"path": path}}})).unwrap()
    }

    #[test]
    fn a_node_removes_its_own_and_only_what_is_deleted() {
        assert!(is_due(&volume("n1", "/v/a", true), "n1"));
        assert!(!is_due(&volume("n1", "/v/a", false), "n1"));
        assert!(!is_due(&volume("n2", "/v/a", true), "n1"));
    }

    #[test]
    fn nothing_outside_of_the_folder_is_removed() {
        let of = |path: &str| folder_of(&volume("n1", path, true), Path::new("/v"));
        assert_eq!(of("/v/pvc-1"), Some("/v/pvc-1".into()));
        for path in ["/etc", "/v", "/v/..", "/v/a/b", "/", "v/a"] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
