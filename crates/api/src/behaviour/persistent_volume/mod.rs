//! PersistentVolumes.

mod validate;

use super::fill::{self, text, value};
use super::pod_spec::defaults;
use super::{Behaviour, Typed, names};
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
        check_name: names::subdomain_name,
        ..Default::default()
    })
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
    volume.status = Some(PersistentVolumeStatus { phase: Some("Pending".to_owned()), ..Default::default() });
}

fn prepare_update(new: &mut PersistentVolume, old: &PersistentVolume) {
    new.status.clone_from(&old.status);
}

fn prepare_subresource(_: &str, new: &mut PersistentVolume, old: &PersistentVolume) {
    new.spec.clone_from(&old.spec);
}
