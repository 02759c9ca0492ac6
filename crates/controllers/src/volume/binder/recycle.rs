//! The reclaim policy Recycle: a pod empties the volume, and the volume is free again. Only folders of hosts and of
//! NFS servers are recycled, as the original does.
//!
//! The pod's name says which volume it empties, so that whoever comes after an interruption goes on with it, and an
//! annotation for the end of which claim: what an earlier pod did says nothing about what was written since.

use super::Binder;
use crate::meta::{self, MetaView};
use krate_api::Status;
use krate_api::quantity::Quantity;
use krate_api::types::core::v1::{Container, PersistentVolume, Pod, PodSpec, Volume, VolumeMount};
use krate_client::api::delete_uid;
use krate_client::recorder::reference;

const NAMESPACE: &str = "default";
const PREFIX: &str = "recycler-for-";
/// The original's image for it; without access to its registry, import one of that name.
const IMAGE: &str = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6";
/// What any shell and any find understand: everything below goes, hidden files too.
const SCRIPT: &str = "cd /scrub && find . ! -name . -prune -exec rm -rf {} + && test -z \"$(ls -A)\"";
/// Least time that the pod gets, and what every GiB of the volume adds to it, in seconds
/// (`--pv-recycler-minimum-timeout-hostpath`, `-nfs`, `--pv-recycler-timeout-increment-*`).
const LEAST_HOST_PATH: i64 = 60;
const LEAST_NFS: i64 = 300;
const EACH_GIB: i64 = 30;

/// The uid of the claim whose data the pod removes.
const CLAIM: &str = "krate.io/recycled-claim";

/// The volume that a pod empties, by its name.
pub(super) fn volume_of(pod: &MetaView) -> Option<&str> {
    pod.name.strip_prefix(PREFIX).filter(|_| pod.namespace == NAMESPACE)
}

impl Binder {
    /// One step: begins it, waits for it, or says how it ended.
    pub(super) async fn recycle(&self, volume: &PersistentVolume) -> Result<(), Status> {
        let Some(wanted) = recycler(volume) else {
            return self
                .fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
                .await;
        };
        let name = meta::name(&wanted.metadata).to_owned();
        let Some(pod) = self.pod_api.get_opt(NAMESPACE, &name).await? else {
            return self.pod_api.create(wanted).await.map(drop);
        };
        if meta::annotation(&pod.metadata, CLAIM) != meta::annotation(&wanted.metadata, CLAIM) {
            // It is begun when the earlier one is gone.
            return self.dismiss(&pod).await;
        }
        let status = pod.status.clone().unwrap_or_default();
        match status.phase.as_deref() {
            Some("Succeeded") => {
                self.dismiss(&pod).await?;
                self.recorder.normal(&reference(volume), "VolumeRecycled", "Volume recycled");
                self.unbind(volume).await
            }
            Some("Failed") => {
                self.dismiss(&pod).await?;
                let unknown = "pod failed, pod.Status.Message unknown".to_owned();
                let why = status.message.filter(|text| !text.is_empty()).unwrap_or(unknown);
                self.fail(volume, "VolumeFailedRecycle", &format!("Recycle failed: {why}")).await
            }
            _ => Ok(()),
        }
    }

    async fn dismiss(&self, pod: &Pod) -> Result<(), Status> {
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let options = delete_uid(meta::uid(&pod.metadata));
        match self.pod_api.delete(NAMESPACE, meta::name(&pod.metadata), options).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

/// The pod that empties a volume; none for one of another kind.
fn recycler(volume: &PersistentVolume) -> Option<Pod> {
    let spec = volume.spec.as_ref()?;
    let mut source = Volume { name: "vol".to_owned(), ..Volume::default() };
    let least = if spec.host_path.is_some() {
        source.host_path.clone_from(&spec.host_path);
        LEAST_HOST_PATH
    } else {
        source.nfs = Some(spec.nfs.clone()?);
        LEAST_NFS
    };
    let size = spec.capacity.as_ref().and_then(|all| all.get("storage"));
    let gib = size.and_then(|q| Quantity::of(q).ok()).map_or(0, |q| q.value() >> 30);
    let mut pod = Pod::default();
    pod.metadata.name = Some(format!("{PREFIX}{}", meta::name(&volume.metadata)));
    pod.metadata.namespace = Some(NAMESPACE.to_owned());
    let claim = spec.claim_ref.as_ref().and_then(|r| r.uid.clone()).unwrap_or_default();
    pod.metadata.annotations = Some([(CLAIM.to_owned(), claim)].into());
    pod.spec = Some(PodSpec {
        active_deadline_seconds: Some(least.max(gib.saturating_mul(EACH_GIB))),
        restart_policy: Some("Never".to_owned()),
        volumes: Some(vec![source]),
        containers: vec![Container {
            name: "pv-recycler".to_owned(),
            image: Some(IMAGE.to_owned()),
            command: Some(vec!["/bin/sh".to_owned()]),
            args: Some(vec!["-c".to_owned(), SCRIPT.to_owned()]),
            volume_mounts: Some(vec![VolumeMount {
                name: "vol".to_owned(),
                mount_path: "/scrub".to_owned(),
                ..VolumeMount::default()
            }]),
            ..Container::default()
        }],
        ..PodSpec::default()
    });
    Some(pod)
}
