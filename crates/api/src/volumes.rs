//! Facts about persistent volumes and claims that several components must see alike: which class they are
//! of, whether they belong to each other, which volume suits a claim best, which nodes see a volume.
//!
//! Pure: it decides nothing and writes nothing.

use crate::k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use crate::labels::{Labels, Selector};
use crate::meta::ObjectMeta;
use crate::placement::Term;
use crate::quantity::Quantity;
use crate::types::core::v1::{
    NodeSelector, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, Volume,
};
use crate::types::storage::v1::StorageClass;
use sha2::Digest as _;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The claim has all that binding writes.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binding was the controller's idea, not the user's.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Who is asked to make a volume for a claim, and the older name of the same.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The node that the scheduler has chosen for the claim's first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// A class was written here once.
pub const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
/// Marks the class of claims that name none.
pub const CLASS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
pub const CLASS_DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// Keeps a claim while pods use it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while it is bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Keeps a volume until its provisioner has removed what is behind it.
pub const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// The provisioner of the cluster's own volumes: folders.
pub const FOLDER_PROVISIONER: &str = "krate.io/folder";
/// On a volume of the cluster that is a folder of one node: which one, as [`node_label`] writes it. By this
/// label the node may follow its volumes, and remove their folders.
pub const FOLDER_NODE: &str = "krate.io/node";
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A node as a label names it: by its name, or by a digest if that is longer than a label's value may be.
#[must_use]
pub fn node_label(node: &str) -> String {
    const LONGEST: usize = 63;
    if node.len() <= LONGEST {
        return node.to_owned();
    }
    let digest = sha2::Sha256::digest(node);
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a volume is a folder of the cluster's own on this node.
#[must_use]
pub fn is_folder_of(volume: &PersistentVolume, node: &str) -> bool {
    let labels = volume.metadata.labels.as_ref();
    annotation(&volume.metadata, PROVISIONED_BY) == Some(FOLDER_PROVISIONER)
        && labels.and_then(|l| l.get(FOLDER_NODE)).is_some_and(|n| *n == node_label(node))
}

/// Whether an annotation is there, whatever it says.
#[must_use]
pub fn annotated(meta: &ObjectMeta, key: &str) -> bool {
    annotation(meta, key).is_some()
}

/// The class that a claim names; `None` when it names none at all, empty when it wants none.
#[must_use]
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, CLASS_BETA).or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// The class of a volume; empty for none.
#[must_use]
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&volume.metadata, CLASS_BETA).or_else(named).unwrap_or_default()
}

/// Whether volumes of this class wait for the first pod.
#[must_use]
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether a class is marked as default.
#[must_use]
pub fn is_default_class(class: &StorageClass) -> bool {
    [CLASS_DEFAULT, CLASS_DEFAULT_BETA].iter().any(|key| annotation(&class.metadata, key) == Some("true"))
}

/// The default among classes: the newest one that is marked, by name among equals.
#[must_use]
pub fn default_class<'a>(classes: impl Iterator<Item = &'a StorageClass>) -> Option<&'a StorageClass> {
    let age = |class: &&StorageClass| {
        let created = class.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (Reverse(created), class.metadata.name.clone())
    };
    classes.filter(|class| is_default_class(class)).min_by_key(age)
}

/// Bytes of storage in a list of amounts.
fn bytes(list: Option<&BTreeMap<String, Text>>) -> i64 {
    list.and_then(|l| l.get("storage")).and_then(|q| Quantity::of(q).ok()).map_or(0, |q| q.value())
}

/// What a claim asks for, in bytes.
#[must_use]
pub fn requested(claim: &PersistentVolumeClaim) -> i64 {
    bytes(claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()))
}

/// What a volume holds, in bytes.
#[must_use]
pub fn capacity(volume: &PersistentVolume) -> i64 {
    bytes(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()))
}

/// The mode of a volume or claim that may not say it.
#[must_use]
pub fn volume_mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Whether a volume's reference names this claim. A reference that the user wrote has no uid yet.
#[must_use]
pub fn refers_to(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    let meta = &claim.metadata;
    let uid = reference.uid.as_deref().unwrap_or_default();
    reference.name == meta.name
        && reference.namespace == meta.namespace
        && (uid.is_empty() || Some(uid) == meta.uid.as_deref())
}

/// Whether a volume is bound to, or meant for, this claim.
#[must_use]
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    reference.is_some_and(|reference| refers_to(reference, claim))
}

/// Whether a claim and its volume have found each other for good.
#[must_use]
pub fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).is_some_and(|v| !v.is_empty());
    named && annotated(&claim.metadata, BIND_COMPLETED)
}

/// Whether a volume offers every access mode that a claim wants.
#[must_use]
pub fn offers_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.spec.as_ref().and_then(|s| s.access_modes.as_ref());
    let wanted = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
    wanted.into_iter().flatten().all(|mode| offered.is_some_and(|offered| offered.contains(mode)))
}

fn same_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref());
    let of_claim = claim.spec.as_ref().and_then(|s| s.volume_mode.as_ref());
    volume_mode(of_volume) == volume_mode(of_claim)
}

fn same_attributes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let of_claim = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    of_volume.unwrap_or_default() == of_claim.unwrap_or_default()
}

/// Why a volume that a claim names cannot serve it.
pub fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), &'static str> {
    if volume.metadata.deletion_timestamp.is_some() {
        return Err("the volume is marked for deletion");
    }
    if capacity(volume) < requested(claim) {
        return Err("requested PV is too small");
    }
    if class_of_volume(volume) != class_of_claim(claim).unwrap_or_default() {
        return Err("storageClassName does not match");
    }
    if !same_attributes(volume, claim) {
        return Err("volumeAttributesClassName does not match");
    }
    if !same_mode(volume, claim) {
        return Err("incompatible volumeMode");
    }
    if !offers_modes(volume, claim) {
        return Err("incompatible accessMode");
    }
    Ok(())
}

/// A node as volumes see it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub name: &'a str,
    pub labels: &'a Labels,
}

/// The volume that suits a claim best: one that is meant for it, or else the smallest that is large enough.
///
/// With a node, only what that node sees counts. `delayed` says that the claim waits for its first pod:
/// without a node it then gets nothing but what is meant for it.
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a PersistentVolume>,
    node: Option<Place<'_>>,
    delayed: bool,
) -> Option<&'a PersistentVolume> {
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = selector.map(|s| Selector::of(Some(s)).unwrap_or_else(|_| Selector::nothing()));
    let mut smallest: Option<(i64, &PersistentVolume)> = None;
    let none = Labels::new();
    for volume in volumes {
        let usable = volume.metadata.deletion_timestamp.is_none() || is_bound_to(volume, claim);
        let visible = node.is_none_or(|node| reaches(volume, node));
        if !usable || !same_mode(volume, claim) || !same_attributes(volume, claim) {
            continue;
        }
        if is_bound_to(volume, claim) {
            if capacity(volume) < requested(claim) {
                continue;
            }
            return visible.then_some(volume);
        }
        let spec = volume.spec.as_ref();
        let free = spec.is_some_and(|s| s.claim_ref.is_none())
            && volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available");
        let labels = volume.metadata.labels.as_ref().unwrap_or(&none);
        if (node.is_none() && delayed)
            || !free
            || !visible
            || selector.as_ref().is_some_and(|s| !s.matches(labels))
            || satisfies(volume, claim).is_err()
        {
            continue;
        }
        let size = capacity(volume);
        let smaller = |(least, other): &(i64, &PersistentVolume)| {
            (size, &volume.metadata.name) < (*least, &other.metadata.name)
        };
        if smallest.as_ref().is_none_or(smaller) {
            smallest = Some((size, volume));
        }
    }
    smallest.map(|(_, volume)| volume)
}

/// Whether a node sees a volume.
#[must_use]
pub fn reaches(volume: &PersistentVolume, node: Place<'_>) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    affinity.and_then(|a| a.required.as_ref()).is_none_or(|required| selects(required, node))
}

/// Whether a selector of nodes selects a node: one of its terms must match.
#[must_use]
pub fn selects(selector: &NodeSelector, node: Place<'_>) -> bool {
    selector.node_selector_terms.iter().any(|term| Term::of(term).matches(node.name, node.labels))
}

/// The name of the claim behind a pod's volume, if there is one.
#[must_use]
pub fn claim_name(pod: &str, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
        (None, None) => None,
    }
}

/// Whether a claim was made for an ephemeral volume of this pod. The error is the original's sentence.
pub fn made_for(pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = |meta: &ObjectMeta| {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}/{}", part(&meta.namespace), part(&meta.name))
    };
    let owners = claim.metadata.owner_references.iter().flatten();
    let owned = owners
        .filter(|owner| owner.controller == Some(true))
        .any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    if owned {
        return Ok(());
    }
    Err(format!(
        "PVC \"{}\" was not created for pod \"{}\" (pod is not owner)",
        name(&claim.metadata),
        name(&pod.metadata)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::{Value, json};

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut all = json!({
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}, "storageClassName": "",
        });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let meta = json!({"name": "data", "namespace": "default", "uid": "u1"});
        PersistentVolumeClaim::from_value(json!({"metadata": meta, "spec": all})).unwrap()
    }

    fn volume(name: &str, size: &str, spec: Value) -> PersistentVolume {
        let mut all =
            json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": size}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let meta = json!({"name": name, "labels": {"tier": name}});
        let status = json!({"phase": "Available"});
        PersistentVolume::from_value(json!({"metadata": meta, "spec": all, "status": status})).unwrap()
    }

    fn chosen(claim: &PersistentVolumeClaim, volumes: &[PersistentVolume]) -> Option<String> {
        best(claim, volumes.iter(), None, false).and_then(|v| v.metadata.name.clone())
    }

    #[test]
    fn the_smallest_that_suits_is_chosen() {
        let volumes = [
            volume("small", "1Gi", json!({})),
            volume("large", "10Gi", json!({})),
            volume("right", "3Gi", json!({})),
            volume("block", "2Gi", json!({"volumeMode": "Block"})),
            volume("other", "2Gi", json!({"storageClassName": "fast"})),
            volume("taken", "2Gi", json!({"claimRef": {"name": "x", "namespace": "default"}})),
            volume("modes", "2Gi", json!({"accessModes": ["ReadOnlyMany"]})),
        ];
        let name = |c: &PersistentVolumeClaim| chosen(c, &volumes);
        assert_eq!(name(&claim(json!({}))).as_deref(), Some("right"));
        assert_eq!(name(&claim(json!({"storageClassName": "fast"}))).as_deref(), Some("other"));
        assert_eq!(name(&claim(json!({"volumeMode": "Block"}))).as_deref(), Some("block"));
        assert_eq!(name(&claim(json!({"accessModes": ["ReadWriteMany"]}))), None);
        let by_label = claim(json!({"selector": {"matchLabels": {"tier": "large"}}}));
        assert_eq!(name(&by_label).as_deref(), Some("large"));
    }

    #[test]
    fn what_is_meant_for_a_claim_goes_first() {
        let meant = json!({"claimRef": {"name": "data", "namespace": "default"}});
        let volumes = [volume("right", "2Gi", json!({})), volume("meant", "20Gi", meant)];
        assert_eq!(chosen(&claim(json!({})), &volumes).as_deref(), Some("meant"));
        let other = json!({"claimRef": {"name": "data", "namespace": "default", "uid": "u2"}});
        assert_eq!(chosen(&claim(json!({})), &[volume("other", "20Gi", other)]), None);
    }

    #[test]
    fn a_node_must_see_the_volume() {
        let affinity = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]},
        ]}}});
        let volumes = [volume("local", "2Gi", affinity)];
        let find = |name: &str| {
            let labels = Labels::from([("kubernetes.io/hostname".to_owned(), name.to_owned())]);
            best(&claim(json!({})), volumes.iter(), Some(Place { name, labels: &labels }), true).is_some()
        };
        assert!(find("n1"));
        assert!(!find("n2"));
        assert!(best(&claim(json!({})), volumes.iter(), None, true).is_none(), "it waits for its pod");
    }

    #[test]
    fn a_volume_that_is_named_must_satisfy() {
        let reason = |spec: Value, size: &str| satisfies(&volume("v", size, spec), &claim(json!({}))).err();
        assert_eq!(reason(json!({}), "2Gi"), None);
        assert_eq!(reason(json!({}), "1Gi"), Some("requested PV is too small"));
        assert_eq!(reason(json!({"storageClassName": "x"}), "2Gi"), Some("storageClassName does not match"));
        assert_eq!(reason(json!({"volumeMode": "Block"}), "2Gi"), Some("incompatible volumeMode"));
        assert_eq!(reason(json!({"accessModes": ["ReadOnlyMany"]}), "2Gi"), Some("incompatible accessMode"));
    }
}
