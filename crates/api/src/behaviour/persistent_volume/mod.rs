//! PersistentVolumes.

mod validate;

use super::fill::{self, text, value};
use super::pod_spec::{defaults, warnings};
use super::{Behaviour, Typed, names};
use crate::field::Path;
use crate::types::core::v1::{PersistentVolume, PersistentVolumeStatus};
use std::sync::Arc;
pub use validate::inline as validate_inline;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PersistentVolume> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        validate: validate::create,
        validate_update: validate::update,
        warnings: |volume, _| doubts(volume),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

/// Where the class was written once.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Warnings about a volume.
fn doubts(volume: &PersistentVolume) -> Vec<String> {
    let mut list = vec![];
    if volume.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OLD_CLASS)) {
        let path = Path::new("metadata").child("annotations").key(OLD_CLASS);
        list.push(format!("{path}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
    let Some(spec) = &volume.spec else { return list };
    let path = Path::new("spec");
    if spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
        list.push(format!(
            "{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
             provisioning.",
            path.child("persistentVolumeReclaimPolicy")
        ));
    }
    if let Some(required) = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref()) {
        let path = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
        for (i, term) in required.node_selector_terms.iter().enumerate() {
            list.extend(warnings::node_term(&path.index(i), term));
        }
    }
    let gone = [
        ("cephfs", spec.cephfs.is_some(), 28, 31),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some(), 11, 16),
        ("scaleIO", spec.scale_io.is_some(), 16, 22),
        ("storageOS", spec.storageos.is_some(), 22, 25),
        ("glusterfs", spec.glusterfs.is_some(), 25, 26),
        ("rbd", spec.rbd.is_some(), 28, 31),
    ];
    for (field, _, since, until) in gone.into_iter().filter(|(_, set, ..)| *set) {
        list.push(format!("{}: deprecated in v1.{since}, non-functional in v1.{until}+", path.child(field)));
    }
    list
}

fn default(volume: &mut PersistentVolume) {
    text(&mut volume.status.get_or_insert_default().phase, "Pending");
    let spec = volume.spec.get_or_insert_default();
    fill::resources(&mut spec.capacity);
    text(&mut spec.persistent_volume_reclaim_policy, "Retain");
    value(&mut spec.volume_mode, "Filesystem".to_owned());
    if let Some(s) = &mut spec.host_path {
        value(&mut s.type_, String::new());
    }
    if let Some(s) = &mut spec.iscsi {
        text(&mut s.iscsi_interface, "default");
    }
    if let Some(s) = &mut spec.rbd {
        text(&mut s.pool, "rbd");
        text(&mut s.user, "admin");
        text(&mut s.keyring, "/etc/ceph/keyring");
    }
    if let Some(s) = &mut spec.azure_disk {
        defaults::azure_disk(s);
    }
    if let Some(s) = &mut spec.scale_io {
        text(&mut s.storage_mode, "ThinProvisioned");
        text(&mut s.fs_type, "xfs");
    }
}

fn prepare_create(volume: &mut PersistentVolume) {
    volume.status = Some(PersistentVolumeStatus {
        phase: Some("Pending".to_owned()),
        last_phase_transition_time: volume.metadata.creation_timestamp.clone(),
        ..Default::default()
    });
}

fn prepare_update(new: &mut PersistentVolume, old: &PersistentVolume) {
    new.status.clone_from(&old.status);
}

fn prepare_subresource(_: &str, new: &mut PersistentVolume, old: &PersistentVolume) {
    new.spec.clone_from(&old.spec);
}
