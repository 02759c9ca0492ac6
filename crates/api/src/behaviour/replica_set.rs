//! ReplicaSets.

use super::check::Check;
use super::fill::value;
use super::pod_spec::defaults;
use super::workload::{self, counts};
use super::{Behaviour, Typed, names};
use crate::field::{Errors, Path};
use crate::types::apps::v1::{ReplicaSet, ReplicaSetSpec};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ReplicaSet> {
        default,
        prepare_create: workload::prepare_create,
        prepare_update: workload::prepare_update,
        prepare_subresource: workload::prepare_subresource,
        validate,
        validate_update,
        warnings: workload::warnings,
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
        errors.unchanged(&Path::new("spec").child("selector"), &new.selector, &old.selector);
    }
    errors
}

fn validate_status(set: &ReplicaSet) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status");
    let status = set.status.clone().unwrap_or_default();
    workload::status_counts(
        &mut errors,
        &path,
        status.replicas,
        &[
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ],
    );
    counts(
        &mut errors,
        &path,
        &[
            ("observedGeneration", status.observed_generation),
            ("terminatingReplicas", status.terminating_replicas.map(i64::from)),
        ],
    );
    errors
}
