//! Claims that grow. A folder needs nothing done to it: the volume's capacity, and then the claim's, become
//! what was asked for, by the steps that everybody who watches a resize knows. Volumes of others are left to
//! their own resizers.

use super::provisioner::is_ours;
use crate::env::{Env, synced, wake_due};
use crate::meta;
use krate_api::Status;
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::meta::Time;
use krate_api::types::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition, PersistentVolumeClaimStatus,
};
use krate_api::volumes::{capacity, is_bound_to, requested};
use krate_base::Clock;
use krate_client::recorder::reference;
use krate_client::{Api, Informer, Outcome, PatchKind, Queue, Recorder};
use std::sync::Arc;

const ACCOUNT: &str = "expand-controller";
/// A resize is under way; where, says its state.
const IN_PROGRESS: &str = "ControllerResizeInProgress";

struct Controller {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    claim_api: Api<PersistentVolumeClaim>,
    volume_api: Api<PersistentVolume>,
    recorder: Recorder,
    clock: Clock,
}

pub fn start(env: &Env) {
    let claims = env.informers.of::<PersistentVolumeClaim>();
    let volumes = env.informers.of::<PersistentVolume>();
    let controller = Arc::new(Controller {
        claims: claims.clone(),
        volumes: volumes.clone(),
        claim_api: env.api(ACCOUNT),
        volume_api: env.api(ACCOUNT),
        recorder: env.recorder(ACCOUNT, "volume_expand"),
        clock: env.clock.clone(),
    });
    let queue: Queue = env.queue("volume_expand");
    wake_due(&claims, &queue, wants_more);
    env.run(&queue, 2, synced!(claims, volumes), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await.map(|()| Outcome::Done) }
    });
}

fn has(status: &PersistentVolumeClaimStatus) -> Option<&Quantity> {
    status.capacity.as_ref()?.get("storage")
}

fn wanted(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
}

fn wants_more(claim: &PersistentVolumeClaim) -> bool {
    let Some(status) = claim.status.as_ref().filter(|s| s.phase.as_deref() == Some("Bound")) else {
        return false;
    };
    let bytes = |q: &Quantity| krate_api::quantity::Quantity::of(q).map_or(0, |q| q.value());
    let unfinished = status.allocated_resource_statuses.as_ref().is_some_and(|s| s.contains_key("storage"));
    has(status).is_some_and(|have| requested(claim) > bytes(have)) || unfinished
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<(), Status> {
        let Some(claim) = self.claims.get(key).filter(|c| wants_more(c)) else { return Ok(()) };
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        let Some(volume) = self.volumes.get(name).filter(|v| is_bound_to(v, &claim)) else { return Ok(()) };
        let Some(size) = wanted(&claim).cloned() else { return Ok(()) };
        if !is_ours(&volume) {
            let text = "waiting for an external controller to expand this PVC";
            self.recorder.normal(&reference(&*claim), "ExternalExpanding", text);
            return Ok(());
        }
        self.set_status(&claim, |status, now| begin(status, &size, now)).await?;
        if capacity(&volume) < requested(&claim) {
            let text = format!("External resizer is resizing volume {name}");
            self.recorder.normal(&reference(&*claim), "Resizing", text);
            let patch = serde_json::json!({"spec": {"capacity": {"storage": size.0}}});
            self.volume_api.patch("", name, PatchKind::Merge, patch.to_string()).await?;
        }
        self.set_status(&claim, |status, _| finish(status, &size)).await?;
        let text = "Resize volume succeeded";
        self.recorder.normal(&reference(&*claim), "VolumeResizeSuccessful", text);
        tracing::debug!(claim = key, "a claim has grown");
        Ok(())
    }

    /// Changes the status of a claim by a patch of what differs, against the state that the server has.
    async fn set_status(
        &self,
        claim: &PersistentVolumeClaim,
        change: impl Fn(&mut PersistentVolumeClaimStatus, Time) + Send + Sync,
    ) -> Result<(), Status> {
        let (namespace, name) = (meta::namespace(&claim.metadata), meta::name(&claim.metadata));
        let now = Time(self.clock.now_seconds());
        let edit = |claim: &mut PersistentVolumeClaim| {
            let before = claim.status.clone();
            change(claim.status.get_or_insert_default(), now.clone());
            claim.status != before
        };
        self.claim_api.modify_status(namespace, name, edit).await.map(drop)
    }
}

fn begin(status: &mut PersistentVolumeClaimStatus, size: &Quantity, now: Time) {
    let storage = || "storage".to_owned();
    status.allocated_resources.get_or_insert_default().insert(storage(), size.clone());
    status.allocated_resource_statuses.get_or_insert_default().insert(storage(), IN_PROGRESS.to_owned());
    let conditions = status.conditions.get_or_insert_default();
    if !conditions.iter().any(|c| c.type_ == "Resizing" && c.status == "True") {
        conditions.retain(|c| c.type_ != "Resizing");
        conditions.push(PersistentVolumeClaimCondition {
            type_: "Resizing".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(now),
            ..Default::default()
        });
    }
}

fn finish(status: &mut PersistentVolumeClaimStatus, size: &Quantity) {
    status.capacity.get_or_insert_default().insert("storage".to_owned(), size.clone());
    status.allocated_resource_statuses = None;
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| !matches!(c.type_.as_str(), "Resizing" | "FileSystemResizePending"));
    }
    status.conditions = status.conditions.take().filter(|c| !c.is_empty());
}
