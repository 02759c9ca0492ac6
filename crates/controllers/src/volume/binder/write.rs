//! The writes of a binding. Each returns the object as it is then, and writes nothing that is already so.

use super::Binder;
use super::volumes::chosen_by_user;
use crate::meta;
use krate_api::Status;
use krate_api::types::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use krate_api::volumes::{self, BIND_COMPLETED, BOUND_BY_CONTROLLER};
use std::sync::Arc;

impl Binder {
    /// Brings a claim and a volume together.
    pub(super) async fn bind(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), Status> {
        let volume = self.point_volume(volume, claim).await?;
        let volume = self.volume_phase(&volume, "Bound", "").await?;
        let claim = self.point_claim(claim, &volume).await?;
        self.claim_phase(&claim, "Bound", Some(&volume)).await.map(drop)
    }

    async fn point_volume(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<Arc<PersistentVolume>, Status> {
        let mut wanted = volume.clone();
        if !volumes::is_bound_to(volume, claim) {
            let annotations = wanted.metadata.annotations.get_or_insert_default();
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        let spec = wanted.spec.get_or_insert_default();
        let complete = spec.claim_ref.as_ref().is_some_and(|r| r.uid == claim.metadata.uid);
        if !complete {
            spec.claim_ref = Some(ObjectReference {
                kind: Some("PersistentVolumeClaim".to_owned()),
                api_version: Some("v1".to_owned()),
                namespace: claim.metadata.namespace.clone(),
                name: claim.metadata.name.clone(),
                uid: claim.metadata.uid.clone(),
                resource_version: claim.metadata.resource_version.clone(),
                field_path: None,
            });
        }
        if wanted == *volume { Ok(Arc::new(wanted)) } else { self.volume_api.update(wanted).await }
    }

    async fn point_claim(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<Arc<PersistentVolumeClaim>, Status> {
        let mut wanted = claim.clone();
        let spec = wanted.spec.get_or_insert_default();
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        if spec.volume_name != volume.metadata.name {
            spec.volume_name.clone_from(&volume.metadata.name);
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        annotations.entry(BIND_COMPLETED.to_owned()).or_insert_with(|| "yes".to_owned());
        if wanted == *claim { Ok(Arc::new(wanted)) } else { self.claim_api.update(wanted).await }
    }

    /// Makes a volume free again. One that its user meant for a claim stays meant for that name.
    pub(super) async fn unbind(&self, volume: &PersistentVolume) -> Result<(), Status> {
        let mut wanted = volume.clone();
        let spec = wanted.spec.get_or_insert_default();
        if chosen_by_user(volume) {
            if let Some(reference) = &mut spec.claim_ref {
                reference.uid = None;
            }
        } else {
            spec.claim_ref = None;
            wanted.metadata.annotations.get_or_insert_default().remove(BOUND_BY_CONTROLLER);
        }
        let volume = self.volume_api.update(wanted).await?;
        self.volume_phase(&volume, "Available", "").await.map(drop)
    }

    pub(super) async fn volume_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: &str,
    ) -> Result<Arc<PersistentVolume>, Status> {
        let mut wanted = volume.clone();
        let status = wanted.status.get_or_insert_default();
        if status.phase.as_deref() == Some(phase) {
            return Ok(Arc::new(wanted));
        }
        status.phase = Some(phase.to_owned());
        status.message = (!message.is_empty()).then(|| message.to_owned());
        self.volume_api.update_status(wanted).await
    }

    /// Sets the phase of a claim, and with a volume what it has of it.
    pub(super) async fn claim_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<Arc<PersistentVolumeClaim>, Status> {
        let mut wanted = claim.clone();
        let status = wanted.status.get_or_insert_default();
        let was = status.phase.replace(phase.to_owned());
        match volume.and_then(|v| v.spec.as_ref()) {
            None => {
                status.access_modes = None;
                status.capacity = None;
            }
            Some(spec) => {
                status.access_modes.clone_from(&spec.access_modes);
                // Later, whoever lets it grow says how large it is.
                if was.as_deref() != Some("Bound") || status.capacity.is_none() {
                    status.capacity.clone_from(&spec.capacity);
                }
                let class = &spec.volume_attributes_class_name;
                if class.is_some() {
                    status.current_volume_attributes_class_name.clone_from(class);
                }
            }
        }
        if wanted == *claim {
            return Ok(Arc::new(wanted));
        }
        tracing::debug!(claim = meta::key(&claim.metadata), phase, "the phase of a claim");
        self.claim_api.update_status(wanted).await
    }
}
