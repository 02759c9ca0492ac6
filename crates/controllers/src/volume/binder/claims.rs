//! The claim's side of binding.

use super::{Binder, volume_name};
use crate::meta;
use krate_api::Status;
use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim};
use krate_api::volumes::{
    self, BIND_COMPLETED, BOUND_BY_CONTROLLER, NO_PROVISIONER, PROVISIONER, PROVISIONER_BETA, SELECTED_NODE,
    annotated, class_of_claim,
};
use krate_client::recorder::{EventType, reference};

const WAIT_FOR_CONSUMER: &str = "waiting for first consumer to be created before binding";
const NOTHING: &str = "no persistent volumes available for this claim and no storage class is set";

impl Binder {
    pub(super) async fn sync_claim(&self, key: &str) -> Result<(), Status> {
        let Some(claim) = self.claims.get(key) else { return Ok(()) };
        if annotated(&claim.metadata, BIND_COMPLETED) {
            return self.sync_bound(&claim).await;
        }
        match volume_name(&claim) {
            "" => self.find_volume(&claim).await,
            name => self.take_named(&claim, name).await,
        }
    }

    fn tell(&self, claim: &PersistentVolumeClaim, kind: EventType, reason: &str, message: impl Into<String>) {
        self.recorder.event(&reference(claim), kind, reason, message);
    }

    /// A claim that leaves the choice to us.
    async fn find_volume(&self, claim: &PersistentVolumeClaim) -> Result<(), Status> {
        let class = class_of_claim(claim);
        let found = class.filter(|c| !c.is_empty()).and_then(|name| self.classes.get(name));
        let delayed = !annotated(&claim.metadata, SELECTED_NODE)
            && found.as_ref().is_some_and(|class| volumes::waits_for_consumer(class));
        let all = self.volumes.list();
        if let Some(volume) = volumes::best(claim, all.iter().map(AsRef::as_ref), None, delayed) {
            return self.bind(volume, claim).await;
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        match class {
            None if self.assign_default(claim).await? => return Ok(()),
            None | Some("") => self.tell(claim, EventType::Normal, "FailedBinding", NOTHING),
            Some(_) if delayed => self.tell_delayed(claim),
            Some(name) => return self.request_volume(claim, name).await,
        }
        self.claim_phase(claim, "Pending", None).await.map(drop)
    }

    fn tell_delayed(&self, claim: &PersistentVolumeClaim) {
        let pods = self.pods.get(&meta::key(&claim.metadata));
        let waiting = pods.iter().filter(|p| p.is_active() && p.spec.node_name.is_empty()).map(|p| p.name());
        match waiting.min() {
            None => self.tell(claim, EventType::Normal, "WaitForFirstConsumer", WAIT_FOR_CONSUMER),
            Some(pod) => {
                let text = format!("waiting for pod {pod} to be scheduled");
                self.tell(claim, EventType::Normal, "WaitForPodScheduled", text);
            }
        }
    }

    /// Gives the default class to a claim that was there before it.
    async fn assign_default(&self, claim: &PersistentVolumeClaim) -> Result<bool, Status> {
        let classes = self.classes.list();
        let Some(class) = volumes::default_class(classes.iter().map(AsRef::as_ref)) else { return Ok(false) };
        let mut wanted = claim.clone();
        wanted.spec.get_or_insert_default().storage_class_name.clone_from(&class.metadata.name);
        self.claim_api.update(wanted).await?;
        Ok(true)
    }

    /// Asks the class's provisioner for a volume.
    async fn request_volume(&self, claim: &PersistentVolumeClaim, name: &str) -> Result<(), Status> {
        let claim = self.claim_phase(claim, "Pending", None).await?;
        let Some(class) = self.classes.get(name) else {
            let text = format!("storageclass.storage.k8s.io \"{name}\" not found");
            self.tell(&claim, EventType::Warning, "ProvisioningFailed", text);
            return Ok(());
        };
        let provisioner = &class.provisioner;
        if provisioner == NO_PROVISIONER {
            let text = "storageclass has no provisioner; a volume has to be created by the administrator";
            self.tell(&claim, EventType::Normal, "FailedBinding", text);
            return Ok(());
        }
        let mut wanted = claim.as_ref().clone();
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        for key in [PROVISIONER, PROVISIONER_BETA] {
            annotations.insert(key.to_owned(), provisioner.clone());
        }
        if wanted.metadata.annotations != claim.metadata.annotations {
            self.claim_api.update(wanted).await?;
        }
        let text = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.tell(&claim, EventType::Normal, "ExternalProvisioning", text);
        Ok(())
    }

    /// A claim that names its volume.
    async fn take_named(&self, claim: &PersistentVolumeClaim, name: &str) -> Result<(), Status> {
        let pending = || self.claim_phase(claim, "Pending", None);
        let Some(volume) = self.volumes.get(name) else { return pending().await.map(drop) };
        if volumes::is_bound_to(&volume, claim) {
            return self.bind(&volume, claim).await;
        }
        if volume.spec.as_ref().is_none_or(|s| s.claim_ref.is_none()) {
            if let Err(reason) = volumes::satisfies(&volume, claim) {
                let text = format!("Cannot bind to requested volume \"{name}\": {reason}");
                self.tell(claim, EventType::Warning, "VolumeMismatch", text);
                return pending().await.map(drop);
            }
            return self.bind(&volume, claim).await;
        }
        if !annotated(&claim.metadata, BOUND_BY_CONTROLLER) {
            let text = format!("volume \"{name}\" already bound to a different claim.");
            self.tell(claim, EventType::Warning, "FailedBinding", text);
        }
        pending().await.map(drop)
    }

    /// A claim that was bound once: its volume must still be its own.
    async fn sync_bound(&self, claim: &PersistentVolumeClaim) -> Result<(), Status> {
        const LOST_NAME: &str =
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        const LOST: &str = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        const MISBOUND: &str = "Two claims are bound to the same volume, this one is bound incorrectly";
        let name = volume_name(claim);
        if name.is_empty() {
            return self.lose(claim, "ClaimLost", LOST_NAME).await;
        }
        let Some(volume) = self.present(name).await? else {
            return self.lose(claim, "ClaimLost", LOST).await;
        };
        let taken = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
        if taken && !volumes::is_bound_to(&volume, claim) {
            return self.lose(claim, "ClaimMisbound", MISBOUND).await;
        }
        self.bind(&volume, claim).await
    }

    /// A volume as the cache knows it, or, when it does not, the server: data is not called lost on old news.
    async fn present(&self, name: &str) -> Result<Option<std::sync::Arc<PersistentVolume>>, Status> {
        match self.volumes.get(name) {
            Some(volume) => Ok(Some(volume)),
            None => self.volume_api.get_opt("", name).await,
        }
    }

    async fn lose(&self, claim: &PersistentVolumeClaim, reason: &str, message: &str) -> Result<(), Status> {
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") {
            self.claim_phase(claim, "Lost", None).await?;
            self.tell(claim, EventType::Warning, reason, message);
        }
        Ok(())
    }
}
