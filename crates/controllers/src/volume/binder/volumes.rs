//! The volume's side of binding, and what becomes of it when its claim is gone.

use super::{Binder, claim_key, volume_name};
use crate::meta;
use krate_api::Status;
use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim};
use krate_api::volumes::{self, PROVISIONED_BY, annotated};
use krate_client::recorder::reference;
use std::sync::Arc;

impl Binder {
    pub(super) async fn sync_volume(&self, name: &str) -> Result<(), Status> {
        let Some(volume) = self.volumes.get(name) else { return Ok(()) };
        let claim_ref = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        let uid = claim_ref.and_then(|r| r.uid.as_deref()).unwrap_or_default();
        if uid.is_empty() {
            // Free, or kept for a claim that is still to come.
            return self.volume_phase(&volume, "Available", "").await.map(drop);
        }
        let Some(claim) = self.claim_of(&volume, uid).await? else {
            return self.release(&volume).await;
        };
        match volume_name(&claim) {
            // The claim's own turn completes the binding.
            "" => Ok(()),
            bound if bound == name => self.volume_phase(&volume, "Bound", "").await.map(drop),
            // The claim has found another volume in the meantime.
            _ if annotated(&volume.metadata, PROVISIONED_BY) && policy(&volume) == "Delete" => {
                self.release(&volume).await
            }
            _ => self.unbind(&volume).await,
        }
    }

    /// The claim that a volume is bound to, if it still exists.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
        uid: &str,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, Status> {
        let key = claim_key(volume).unwrap_or_default();
        let same = |claim: &Arc<PersistentVolumeClaim>| claim.metadata.uid.as_deref() == Some(uid);
        if let Some(claim) = self.claims.get(&key).filter(same) {
            return Ok(Some(claim));
        }
        // Nothing is given up on old news.
        let (namespace, name) = krate_api::object::split_key(&key);
        Ok(self.claim_api.get_opt(namespace, name).await?.filter(same))
    }

    /// Its claim is gone.
    async fn release(&self, volume: &PersistentVolume) -> Result<(), Status> {
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if phase == "Failed" {
            return Ok(());
        }
        let volume = self.volume_phase(volume, "Released", "").await?;
        match policy(&volume) {
            // Whoever made it takes it away.
            "Delete" if annotated(&volume.metadata, PROVISIONED_BY) => Ok(()),
            "Delete" => {
                let text = "error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched";
                let text = text.replace("{}", meta::name(&volume.metadata));
                self.fail(&volume, "VolumeFailedDelete", &text).await
            }
            "Recycle" => self.recycle(&volume).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn fail(
        &self,
        volume: &PersistentVolume,
        reason: &str,
        message: &str,
    ) -> Result<(), Status> {
        self.volume_phase(volume, "Failed", message).await?;
        self.recorder.warning(&reference(volume), reason, message);
        Ok(())
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// Whether the user, not the controller, chose the claim of a volume.
pub(super) fn chosen_by_user(volume: &PersistentVolume) -> bool {
    !annotated(&volume.metadata, volumes::BOUND_BY_CONTROLLER)
}
