//! Finds the volume behind a claim of a pod, and makes sure that the pod may have it here.
//!
//! What was found stays found for as long as the pod lives: a volume does not change under a pod.

use super::Error;
use crate::spec;
use krate_api::labels::Labels;
use krate_api::types::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use krate_api::volumes::{Place, is_bound_to, is_fully_bound, made_for, reaches, volume_mode};
use krate_client::{Api, Transport};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Reads claims and volumes with the node's rights.
pub struct Claims {
    claims: Api<PersistentVolumeClaim>,
    volumes: Api<PersistentVolume>,
    nodes: Api<Node>,
    node: String,
    /// By the pod's uid and the name of its volume.
    found: Mutex<HashMap<(String, String), Arc<PersistentVolume>>>,
}

impl Claims {
    #[must_use]
    pub fn new(transport: &Arc<dyn Transport>, node: &str) -> Self {
        Self {
            claims: Api::new(transport.clone()),
            volumes: Api::new(transport.clone()),
            nodes: Api::new(transport.clone()),
            node: node.to_owned(),
            found: Mutex::default(),
        }
    }

    /// The volume that is bound to a claim of the pod.
    pub async fn find(
        &self,
        pod: &Pod,
        volume: &Volume,
        claim: &str,
    ) -> Result<Arc<PersistentVolume>, Error> {
        let key = (spec::uid(pod).to_owned(), volume.name.clone());
        if let Some(found) = self.found.lock().get(&key) {
            return Ok(found.clone());
        }
        let failed = |reason: String| Error::Process { volume: volume.name.clone(), reason };
        let found = self.ask(pod, volume, claim).await.map_err(failed)?;
        check_mode(pod, volume, &found).map_err(failed)?;
        self.check_node(&found).await?;
        self.found.lock().insert(key, found.clone());
        Ok(found)
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        self.found.lock().retain(|(pod, _), _| pod != uid);
    }

    async fn ask(&self, pod: &Pod, volume: &Volume, name: &str) -> Result<Arc<PersistentVolume>, String> {
        let namespace = spec::namespace(pod);
        let failed = |reason: String| format!("error processing PVC {namespace}/{name}: {reason}");
        let claim = self.claims.get(namespace, name).await;
        let claim =
            claim.map_err(|s| failed(format!("failed to fetch PVC from API server: {}", s.message())))?;
        if volume.ephemeral.is_some() {
            made_for(pod, &claim)?;
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(failed("PVC is being deleted".to_owned()));
        }
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase != Some("Bound") || !is_fully_bound(&claim) {
            return Err(failed("PVC is not bound".to_owned()));
        }
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        let found = self.volumes.get("", &named).await;
        let found = found
            .map_err(|s| failed(format!("failed to fetch PV {named:?} from API server: {}", s.message())))?;
        if is_bound_to(&found, &claim) {
            return Ok(found);
        }
        let reference = found.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.clone());
        Err(failed(format!(
            "PV {named:?} is bound to another claim: its claimRef has uid {:?}, the claim has {:?}",
            reference.unwrap_or_default(),
            claim.metadata.uid.clone().unwrap_or_default()
        )))
    }

    /// A volume of other nodes must not be mounted here, whoever put the pod here.
    async fn check_node(&self, volume: &PersistentVolume) -> Result<(), Error> {
        if volume.spec.as_ref().is_none_or(|s| s.node_affinity.is_none()) {
            return Ok(());
        }
        let name = volume.metadata.name.clone().unwrap_or_default();
        let node = self.nodes.get("", &self.node).await;
        let node = node
            .map_err(|s| Error::SetUp { volume: name.clone(), reason: format!("reading the node: {s}") })?;
        let labels = node.metadata.labels.clone().unwrap_or_else(Labels::new);
        let here = Place { name: &self.node, labels: &labels };
        if reaches(volume, here) { Ok(()) } else { Err(Error::Elsewhere { volume: name }) }
    }
}

/// Containers must ask for a volume as what it is: files, or a device.
fn check_mode(pod: &Pod, volume: &Volume, found: &PersistentVolume) -> Result<(), String> {
    let mode = volume_mode(found.spec.as_ref().and_then(|s| s.volume_mode.as_ref()));
    let ephemeral = spec::ephemeral_containers(pod);
    let all = || spec::containers(pod).iter().chain(spec::init_containers(pod)).chain(&ephemeral);
    let name = &volume.name;
    let mounted = all().any(|c| c.volume_mounts.iter().flatten().any(|m| m.name == *name));
    let device = all().any(|c| c.volume_devices.iter().flatten().any(|d| d.name == *name));
    if mode == "Block" && mounted {
        return Err(format!("volume {name} has volumeMode {mode}, but is specified in volumeMounts"));
    }
    if mode == "Filesystem" && device {
        return Err(format!("volume {name} has volumeMode {mode}, but is specified in volumeDevices"));
    }
    Ok(())
}
