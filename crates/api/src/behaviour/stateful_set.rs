//! StatefulSets.

use super::fill::{self, items_mut, text, value};
use super::pod_spec::defaults;
use super::{Behaviour, Typed, names, persistent_volume_claim};
use crate::types::apps::v1::StatefulSet;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<StatefulSet> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(set: &mut StatefulSet) {
    let spec = set.spec.get_or_insert_default();
    text(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    if fill::is_empty(&strategy.type_) {
        strategy.type_ = Some("RollingUpdate".to_owned());
        strategy.rolling_update.get_or_insert_default();
    }
    if strategy.type_.as_deref() == Some("RollingUpdate")
        && let Some(rolling) = &mut strategy.rolling_update
    {
        value(&mut rolling.partition, 0);
    }
    let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    text(&mut retention.when_deleted, "Retain");
    text(&mut retention.when_scaled, "Retain");
    value(&mut spec.replicas, 1);
    value(&mut spec.revision_history_limit, 10);
    defaults::template(&mut spec.template);
    for claim in items_mut(&mut spec.volume_claim_templates) {
        persistent_volume_claim::default(claim);
    }
    set.status.get_or_insert_default();
}

fn prepare_create(set: &mut StatefulSet) {
    set.status = Some(Default::default());
    set.metadata.generation = Some(1);
}

fn prepare_update(new: &mut StatefulSet, old: &StatefulSet) {
    new.status.clone_from(&old.status);
    let changed = !fill::same(&new.spec, &old.spec);
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn prepare_subresource(_: &str, new: &mut StatefulSet, old: &StatefulSet) {
    new.spec.clone_from(&old.spec);
}
