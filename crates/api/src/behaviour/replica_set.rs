//! ReplicaSets.

use super::fill::value;
use super::pod_spec::defaults;
use super::workload::{self, ReplicasStatus, counts};
use super::{Behaviour, Typed};
use crate::field::{Errors, Path};
use crate::types::apps::v1::{ReplicaSet, ReplicaSetSpec};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ReplicaSet> { default, validate, validate_update, ..workload::shell() })
}

fn default(set: &mut ReplicaSet) {
    let spec = set.spec.get_or_insert_default();
    value(&mut spec.replicas, 1);
    defaults::template(spec.template.get_or_insert_default());
    set.status.get_or_insert_default();
}

fn validate(set: &ReplicaSet) -> Errors {
    let mut errors = Errors::new();
    let default = ReplicaSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    counts(
        &mut errors,
        &path,
        &[
            ("replicas", spec.replicas.map(i64::from)),
            ("minReadySeconds", spec.min_ready_seconds.map(i64::from)),
        ],
    );
    let none = Default::default();
    let template = spec.template.as_ref().unwrap_or(&none);
    // The original calls it a deployment too.
    workload::selector_and_template(&mut errors, &path, &spec.selector, template, "deployment", "ReplicaSet");
    errors
}

fn validate_update(subresource: &str, new: &ReplicaSet, old: &ReplicaSet) -> Errors {
    if subresource == "status" {
        return validate_status(new);
    }
    let mut errors = validate(new);
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        workload::keeps_selector(&mut errors, &new.selector, &old.selector);
    }
    errors
}

fn validate_status(set: &ReplicaSet) -> Errors {
    let status = set.status.clone().unwrap_or_default();
    workload::replicas_status(&ReplicasStatus {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas,
        ready: status.ready_replicas,
        available: status.available_replicas,
        terminating: status.terminating_replicas,
        observed_generation: status.observed_generation,
    })
}
