//! ReplicationControllers.

use super::fill::{self, value};
use super::pod_spec::defaults;
use super::{Behaviour, Typed, names};
use crate::types::core::v1::ReplicationController;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ReplicationController> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        fields,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(rc: &mut ReplicationController) {
    let spec = rc.spec.get_or_insert_default();
    let labels = spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone());
    if let Some(labels) = labels.filter(|l| !l.is_empty()) {
        if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
            spec.selector = Some(labels.clone());
        }
        if rc.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
            rc.metadata.labels = Some(labels);
        }
    }
    value(&mut spec.replicas, 1);
    value(&mut spec.min_ready_seconds, 0);
    if let Some(template) = &mut spec.template {
        defaults::template(template);
    }
    rc.status.get_or_insert_default();
}

fn prepare_create(rc: &mut ReplicationController) {
    rc.status = Some(Default::default());
    rc.metadata.generation = Some(1);
}

fn prepare_update(new: &mut ReplicationController, old: &ReplicationController) {
    new.status.clone_from(&old.status);
    let changed = !fill::same(&new.spec, &old.spec);
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn prepare_subresource(_: &str, new: &mut ReplicationController, old: &ReplicationController) {
    new.spec.clone_from(&old.spec);
}

fn fields(rc: &ReplicationController) -> Vec<(&'static str, String)> {
    vec![("status.replicas", rc.status.as_ref().map_or(0, |s| s.replicas).to_string())]
}
