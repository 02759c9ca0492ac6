//! What the tests of StatefulSets are made of.

use crate::world::{named, selector, template};
use krate_api::types::apps::v1::StatefulSet;
use krate_api::types::core::v1::PersistentVolumeClaim;

/// A StatefulSet in `default` as the API would have defaulted it.
pub fn set(name: &str, replicas: i32) -> StatefulSet {
    let mut set = StatefulSet::default();
    named(&mut set, name);
    set.metadata.uid = Some("set".to_owned());
    let spec = set.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector = selector(name);
    spec.template = template(name, "nginx:1");
    spec.revision_history_limit = Some(10);
    spec.pod_management_policy = Some("OrderedReady".to_owned());
    let strategy = spec.update_strategy.get_or_insert_default();
    strategy.type_ = Some("RollingUpdate".to_owned());
    strategy.rolling_update.get_or_insert_default().partition = Some(0);
    set
}

pub fn parallel(mut set: StatefulSet) -> StatefulSet {
    set.spec.get_or_insert_default().pod_management_policy = Some("Parallel".to_owned());
    set
}

pub fn with_claim(mut set: StatefulSet, name: &str) -> StatefulSet {
    let mut claim = PersistentVolumeClaim::default();
    claim.metadata.name = Some(name.to_owned());
    set.spec.get_or_insert_default().volume_claim_templates.get_or_insert_default().push(claim);
    set
}

pub fn retention(mut set: StatefulSet, deleted: &str, scaled: &str) -> StatefulSet {
    let spec = set.spec.get_or_insert_default();
    let policy = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    policy.when_deleted = Some(deleted.to_owned());
    policy.when_scaled = Some(scaled.to_owned());
    set
}
