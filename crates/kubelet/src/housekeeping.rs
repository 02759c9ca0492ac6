//! What a node looks after at intervals, because nothing tells of it: memory and disk that run out, logs that
//! grow, images that nobody uses. The intervals are the original's.

use crate::context::Context;
use crate::eviction::{Manager, stall::Stalls};
use crate::image::garbage::Collector;
use crate::logs::rotate;
use krate_api::types::core::v1::ObjectReference;
use krate_base::Timestamp;
use krate_runtime::cri::{ContainerFilter, ContainerState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at pressure, limits and logs (`evictionMonitoringPeriod`, `containerLogMonitorInterval`).
pub const EVERY: Duration = Duration::from_secs(10);
/// Between two looks at images (`imageGCPeriod`).
pub const IMAGES_EVERY: Duration = Duration::from_secs(5 * 60);

pub struct Housekeeping {
    pub context: Arc<Context>,
    pub eviction: Manager,
    /// None where images belong to others too.
    pub images: Option<Collector>,
    pub logs: rotate::Limits,
}

impl Housekeeping {
    /// Runs for ever.
    pub async fn run(mut self) {
        let mut stalls =
            Stalls::watch().inspect_err(|error| tracing::debug!(%error, "no word of stalls")).ok();
        let mut images_at = Instant::now() + IMAGES_EVERY;
        loop {
            self.find_images().await;
            let again = self.eviction.look(self.images.as_mut()).await;
            self.rotate_logs().await;
            if Instant::now() >= images_at {
                self.collect_images().await;
                images_at = Instant::now() + IMAGES_EVERY;
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause(again)) => {}
                () = stalled(&mut stalls) => {}
            }
        }
    }

    fn pause(&self, again: Option<Timestamp>) -> Duration {
        let left = |at: Timestamp| {
            Duration::try_from(at.duration_since(self.context.clock.now())).unwrap_or_default()
        };
        again.map_or(EVERY, |at| left(at).clamp(Duration::from_secs(1), EVERY))
    }

    /// Where the images lie is asked until the runtime says it: the answer does not change.
    async fn find_images(&mut self) {
        if self.eviction.image_folder.is_none()
            && let Ok(info) = self.context.puller.images().image_fs_info().await
        {
            let folder = info.image_filesystems.first().map(|fs| fs.mountpoint.clone());
            self.eviction.image_folder = folder.filter(|f| !f.is_empty()).map(Into::into);
        }
    }

    async fn rotate_logs(&self) {
        let running = ContainerFilter { state: Some(ContainerState::Running), ..Default::default() };
        let Ok(containers) = self.context.runtime.list_containers(&running).await else { return };
        for container in containers {
            let Ok(status) = self.context.runtime.container_status(&container.id).await else { continue };
            if status.log_path.is_empty() {
                continue;
            }
            let (runtime, log) = (&*self.context.runtime, Path::new(&status.log_path));
            let now = self.context.clock.now();
            if let Err(error) = rotate::rotate(runtime, &container.id, log, self.logs, now).await {
                tracing::warn!(log = %log.display(), %error, "a container's log cannot be rotated");
            }
        }
    }

    async fn collect_images(&mut self) {
        let (Some(images), Some(folder)) = (&mut self.images, &self.eviction.image_folder) else { return };
        let Ok(fs) = nix::sys::statvfs::statvfs(folder.as_path()) else { return };
        let (available, capacity) =
            (fs.blocks_available() * fs.fragment_size(), fs.blocks() * fs.fragment_size());
        if let Err(error) = images.collect(available, capacity, self.context.clock.now()).await {
            tracing::warn!(%error, "images could not be collected");
            let node = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(self.context.node_name.clone()),
                uid: Some(self.context.node_name.clone()),
                ..Default::default()
            };
            self.context.recorder.warning(&node, "FreeDiskSpaceFailed", error);
        }
    }
}

async fn stalled(stalls: &mut Option<Stalls>) {
    match stalls {
        Some(stalls) => stalls.next().await,
        None => std::future::pending().await,
    }
}
