//! VolumeBinding: a pod goes only where its volumes are or can be, and is bound only when they are its own.
//!
//! Filter finds for each claim that is still free a volume that the node sees, or a class that can make one
//! there; Reserve keeps what was found from other pods; PreBind writes it and waits until the claims are bound.

mod capacity;
#[cfg(test)]
mod tests;

use crate::framework::{Look, NodeFilter, Plugin, Reason, Unfit};
use crate::plugins::Settings;
use crate::queue::{Event, Events, Hint, StorageKind};
use crate::storage::Storage;
use crate::table::{NodeInfo, Table};
use crate::view::{ClaimUse, PodView};
use async_trait::async_trait;
use krate_api::Status;
use krate_api::labels::Labels;
use krate_api::types::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm,
};
use krate_api::types::storage::v1::StorageClass;
use krate_api::volumes::{
    self, BOUND_BY_CONTROLLER, NO_PROVISIONER, Place, SELECTED_NODE, class_of_claim, is_fully_bound, reaches,
    waits_for_consumer,
};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "VolumeBinding";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_SUCH_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const UNBOUND: &str = "pod has unbound immediate PersistentVolumeClaims";
/// How long a pod waits for its volumes before it is tried again.
const PATIENCE: Duration = Duration::from_secs(600);
/// Pods whose findings are kept between Filter and PreBind; beyond, those that never came so far are dropped.
const REMEMBERED: usize = 10_000;

/// What is to be written for a pod on one node.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Claims with the volumes that they get.
    bind: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>)>,
    /// Claims for which volumes are to be made.
    provision: Vec<Arc<PersistentVolumeClaim>>,
    labels: Labels,
}

/// What Filter found, by node.
type Findings = Arc<Mutex<HashMap<Arc<str>, Plan>>>;

pub struct VolumeBinding {
    storage: Storage,
    /// By the pod's uid.
    found: Mutex<HashMap<Arc<str>, Findings>>,
    /// What Reserve has settled on.
    settled: Mutex<HashMap<Arc<str>, Plan>>,
}

impl VolumeBinding {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { storage: settings.storage.clone(), found: Mutex::default(), settled: Mutex::default() }
    }

    /// The claims of a pod by how far they are, or why no node can fit.
    fn sort(&self, pod: &PodView) -> Result<(Vec<Bound>, Vec<Free>), String> {
        let (mut bound, mut free, mut unbound) = (vec![], vec![], false);
        for used in &pod.claims {
            let claim = self.claim(pod, used)?;
            if is_fully_bound(&claim) {
                let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
                bound.push(Bound(self.storage.volume(&name)));
                continue;
            }
            let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
            let class = class_of_claim(&claim).unwrap_or_default();
            let class = match self.storage.class(class) {
                None if !class.is_empty() => {
                    return Err(format!("storageclass.storage.k8s.io \"{class}\" not found"));
                }
                class => class,
            };
            match class.filter(|class| named.is_empty() && waits_for_consumer(class)) {
                Some(class) => free.push(Free { claim, class }),
                None => unbound = true,
            }
        }
        if unbound { Err(UNBOUND.to_owned()) } else { Ok((bound, free)) }
    }

    fn claim(&self, pod: &PodView, used: &ClaimUse) -> Result<Arc<PersistentVolumeClaim>, String> {
        let name = &used.claim;
        let Some(claim) = self.storage.claim(&krate_api::object::key(&pod.namespace, name)) else {
            return Err(if used.ephemeral {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                )
            } else {
                format!("persistentvolumeclaim \"{name}\" not found")
            });
        };
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
            return Err(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let mut owners = claim.metadata.owner_references.iter().flatten();
        if used.ephemeral && !owners.any(|o| o.controller == Some(true) && *o.uid == *pod.uid) {
            return Err(format!(
                "PVC \"{}/{name}\" was not created for pod \"{}\" (pod is not owner)",
                pod.namespace,
                pod.key()
            ));
        }
        Ok(claim)
    }

    fn is_done(&self, plan: &Plan, node: &str, seen: &mut BTreeSet<String>) -> Result<bool, String> {
        let mut done = true;
        for claim in plan.bind.iter().map(|(claim, _)| claim).chain(&plan.provision) {
            let key = key_of(claim);
            let Some(now) = self.storage.claim(&key) else {
                return Err(format!("failed to get pvc {key:?}: not found"));
            };
            if !is_fully_bound(&now) {
                done = false;
                let chosen = now.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
                let kept = chosen.is_some_and(|n| n == node);
                let asked = plan.provision.iter().any(|c| c.metadata.uid == now.metadata.uid);
                if kept {
                    seen.insert(key);
                } else if asked && seen.contains(&key) {
                    let name = now.metadata.name.clone().unwrap_or_default();
                    return Err(format!("provisioning failed for PVC {name:?}"));
                }
                continue;
            }
            let name = now.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
            // The claim may be heard of before its volume.
            let Some(volume) = self.storage.volume(&name) else {
                done = false;
                continue;
            };
            if !reaches(&volume, Place { name: node, labels: &plan.labels }) {
                return Err(format!(
                    "pv {name:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"
                ));
            }
        }
        Ok(done)
    }

    async fn write(&self, plan: &Plan, node: &str) -> Result<(), Status> {
        let Some(writers) = self.storage.writers() else { return Ok(()) };
        for (claim, volume) in &plan.bind {
            if volumes::is_bound_to(volume, claim)
                && volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).is_some_and(|r| r.uid.is_some())
            {
                continue;
            }
            let mut wanted = (**volume).clone();
            if !volumes::is_bound_to(volume, claim) {
                let annotations = wanted.metadata.annotations.get_or_insert_default();
                annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            }
            let reference =
                ObjectReference { field_path: None, ..krate_client::recorder::reference(&**claim) };
            wanted.spec.get_or_insert_default().claim_ref = Some(reference);
            writers.volumes.update(wanted).await?;
        }
        for claim in &plan.provision {
            let (namespace, name) = names(claim);
            let choose = |claim: &mut PersistentVolumeClaim| {
                let annotations = claim.metadata.annotations.get_or_insert_default();
                annotations.insert(SELECTED_NODE.to_owned(), node.to_owned()).as_deref() != Some(node)
            };
            writers.claims.modify(namespace, name, choose).await?;
        }
        Ok(())
    }
}

fn names(claim: &PersistentVolumeClaim) -> (&str, &str) {
    let meta = &claim.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn key_of(claim: &PersistentVolumeClaim) -> String {
    let (namespace, name) = names(claim);
    krate_api::object::key(namespace, name)
}

/// The volume of a bound claim, if it exists.
#[derive(Clone)]
struct Bound(Option<Arc<PersistentVolume>>);

/// A claim that gets its volume with its pod's node.
#[derive(Clone)]
struct Free {
    claim: Arc<PersistentVolumeClaim>,
    class: Arc<StorageClass>,
}

#[derive(Clone)]
struct Filter {
    storage: Storage,
    bound: Vec<Bound>,
    free: Vec<Free>,
    findings: Findings,
}

impl Filter {
    /// What is to be done on a node, or what is missing there.
    fn plan(&self, node: &NodeInfo) -> Result<Plan, &'static str> {
        let place = Place { name: &node.view.name, labels: &node.view.labels };
        let mut plan = Plan { labels: node.view.labels.clone(), ..Plan::default() };
        let mut used = BTreeSet::new();
        for Free { claim, class } in &self.free {
            let chosen = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
            if let Some(chosen) = chosen {
                if **chosen != *node.view.name {
                    return Err(NO_VOLUME);
                }
                plan.provision.push(claim.clone());
                continue;
            }
            let name = class.metadata.name.as_deref().unwrap_or_default();
            let all = self.storage.volumes_for(name, claim);
            let rest = all.iter().filter(|v| !used.contains(&v.metadata.name)).map(AsRef::as_ref);
            if let Some(best) = volumes::best(claim, rest, Some(place), true) {
                used.insert(best.metadata.name.clone());
                let best = all.iter().find(|v| v.metadata.name == best.metadata.name);
                plan.bind.extend(best.map(|best| (claim.clone(), best.clone())));
            } else if !provides(class, &node.view.labels) {
                return Err(NO_VOLUME);
            } else if !capacity::suffices(&self.storage, class, claim, &node.view.labels) {
                return Err(NO_SPACE);
            } else {
                plan.provision.push(claim.clone());
            }
        }
        Ok(plan)
    }
}

/// Whether a class can make a volume for a node.
fn provides(class: &StorageClass, labels: &Labels) -> bool {
    let matches = |term: &TopologySelectorTerm| {
        let wanted = term.match_label_expressions.iter().flatten();
        wanted.into_iter().all(|e| labels.get(&e.key).is_some_and(|value| e.values.contains(value)))
    };
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    !class.provisioner.is_empty()
        && class.provisioner != NO_PROVISIONER
        && (topologies.is_empty() || topologies.iter().any(matches))
}

impl NodeFilter for Filter {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        let place = Place { name: &node.view.name, labels: &node.view.labels };
        let mut reasons: Vec<Reason> = vec![];
        for Bound(volume) in &self.bound {
            match volume {
                None => return Err(Unfit::for_good(NO_SUCH_VOLUME)),
                Some(volume) if !reaches(volume, place) && reasons.is_empty() => {
                    reasons.push(NODE_CONFLICT.into());
                }
                Some(_) => {}
            }
        }
        match self.plan(node) {
            Ok(plan) if reasons.is_empty() => {
                if !self.free.is_empty() {
                    self.findings.lock().insert(node.view.name.clone(), plan);
                }
                return Ok(());
            }
            Ok(_) => {}
            Err(reason) => reasons.push(reason.into()),
        }
        Err(Unfit { reasons, resolvable: false })
    }

    fn is_local(&self) -> bool {
        false
    }

    fn boxed_clone<'a>(&self) -> Box<dyn NodeFilter + 'a>
    where
        Self: 'a,
    {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        if pod.claims.is_empty() {
            return Look::Skip;
        }
        match self.sort(pod) {
            Err(reason) => Look::Reject(Unfit::for_good(reason)),
            Ok((bound, free)) => {
                let findings = Findings::default();
                if !free.is_empty() {
                    let mut found = self.found.lock();
                    if found.len() >= REMEMBERED {
                        found.clear();
                    }
                    found.insert(pod.uid.clone(), findings.clone());
                }
                Look::Filter(Box::new(Filter { storage: self.storage.clone(), bound, free, findings }))
            }
        }
    }

    fn reserve(&self, pod: &PodView, node: &str) -> Result<(), Reason> {
        let Some(findings) = self.found.lock().remove(&pod.uid) else { return Ok(()) };
        let Some(plan) = findings.lock().remove(node) else { return Ok(()) };
        for (claim, volume) in &plan.bind {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let uid = claim.metadata.uid.as_deref().unwrap_or_default();
            if !self.storage.take(name, &key_of(claim), uid) {
                plan.bind.iter().for_each(|(c, _)| {
                    self.storage.give_back(c.metadata.uid.as_deref().unwrap_or_default());
                });
                return Err(NO_VOLUME.into());
            }
        }
        self.settled.lock().insert(pod.uid.clone(), plan);
        Ok(())
    }

    fn unreserve(&self, pod: &PodView, _: &str) {
        let Some(plan) = self.settled.lock().remove(&pod.uid) else { return };
        for (claim, _) in &plan.bind {
            self.storage.give_back(claim.metadata.uid.as_deref().unwrap_or_default());
        }
    }

    async fn pre_bind(&self, pod: &PodView, node: &str) -> Result<(), Status> {
        if pod.claims.is_empty() {
            return Ok(());
        }
        let Some(plan) = self.settled.lock().get(&pod.uid).cloned() else { return Ok(()) };
        let mut changes = self.storage.changes();
        self.write(&plan, node).await?;
        let mut seen = BTreeSet::new();
        let wait = async {
            loop {
                if self.is_done(&plan, node, &mut seen)? || changes.changed().await.is_err() {
                    return Ok::<(), String>(());
                }
            }
        };
        let text = match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(text)) => text,
            Err(_) => "context deadline exceeded".to_owned(),
        };
        Err(Status::internal(format!("binding volumes: {text}")))
    }

    fn post_bind(&self, pod: &PodView, node: &str) {
        // The API says now what was assumed.
        self.unreserve(pod, node);
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD
            | Events::NODE_LABEL
            | Events::CLAIM
            | Events::VOLUME
            | Events::STORAGE_CLASS
            | Events::CSI_DRIVER
            | Events::CSI_CAPACITY
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        match event {
            Event::Storage { kind: StorageKind::Claim, key } => {
                let own = |used: &ClaimUse| krate_api::object::key(&pod.namespace, &used.claim) == *key;
                pod.claims.iter().any(own).into()
            }
            _ => Hint::Queue,
        }
    }
}
