//! ReplicaSets.

use super::fill::{self, value};
use super::pod_spec::defaults;
use super::{Behaviour, Typed, names};
use crate::types::apps::v1::ReplicaSet;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ReplicaSet> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(set: &mut ReplicaSet) {
    let spec = set.spec.get_or_insert_default();
    value(&mut spec.replicas, 1);
    defaults::template(spec.template.get_or_insert_default());
    set.status.get_or_insert_default();
}

fn prepare_create(set: &mut ReplicaSet) {
    set.status = Some(Default::default());
    set.metadata.generation = Some(1);
}

fn prepare_update(new: &mut ReplicaSet, old: &ReplicaSet) {
    new.status.clone_from(&old.status);
    let changed = !fill::same(&new.spec, &old.spec);
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn prepare_subresource(_: &str, new: &mut ReplicaSet, old: &ReplicaSet) {
    new.spec.clone_from(&old.spec);
}
