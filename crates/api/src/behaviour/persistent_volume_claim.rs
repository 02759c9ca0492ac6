//! PersistentVolumeClaims.

use super::fill::{self, text, value};
use super::{Behaviour, Typed, names};
use crate::types::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedObjectReference,
};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PersistentVolumeClaim> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

pub(super) fn default(claim: &mut PersistentVolumeClaim) {
    text(&mut claim.status.get_or_insert_default().phase, "Pending");
    let spec = claim.spec.get_or_insert_default();
    value(&mut spec.volume_mode, "Filesystem".to_owned());
    let resources = spec.resources.get_or_insert_default();
    fill::resources(&mut resources.requests);
    fill::resources(&mut resources.limits);
    if let Some(status) = &mut claim.status {
        fill::resources(&mut status.capacity);
        fill::resources(&mut status.allocated_resources);
    }
}

fn prepare_create(claim: &mut PersistentVolumeClaim) {
    claim.status =
        Some(PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..Default::default() });
    if let Some(spec) = &mut claim.spec {
        pair_sources(spec);
    }
}

/// `dataSource` and `dataSourceRef` say the same where they can.
fn pair_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if source.namespace.as_deref().unwrap_or("").is_empty() => {
            spec.data_source = Some(crate::types::core::v1::TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

fn prepare_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    new.status.clone_from(&old.status);
    if let Some(spec) = &mut new.spec {
        pair_sources(spec);
    }
}

fn prepare_subresource(_: &str, new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    new.spec.clone_from(&old.spec);
}
