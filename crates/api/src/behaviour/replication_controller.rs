//! ReplicationControllers.

use super::fill::value;
use super::pod_spec::{self, defaults};
use super::workload::{self, ReplicasStatus, counts};
use super::{Behaviour, Typed, selector};
use crate::field::{Error, Errors, Path};
use crate::labels::Selector;
use crate::types::core::v1::{ReplicationController, ReplicationControllerSpec};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ReplicationController> {
        default,
        validate,
        validate_update,
        fields,
        ..workload::shell()
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

fn fields(rc: &ReplicationController) -> Vec<(&'static str, String)> {
    vec![("status.replicas", rc.status.as_ref().map_or(0, |s| s.replicas).to_string())]
}

fn validate(rc: &ReplicationController) -> Errors {
    let mut errors = Errors::new();
    let default = ReplicationControllerSpec::default();
    let spec = rc.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    counts(&mut errors, &path, &[("minReadySeconds", spec.min_ready_seconds.map(i64::from))]);
    let wanted = spec.selector.clone().unwrap_or_default();
    if wanted.is_empty() {
        errors.push(Error::required(&path.child("selector"), ""));
    }
    counts(&mut errors, &path, &[("replicas", spec.replicas.map(i64::from))]);
    let path = path.child("template");
    let Some(template) = &spec.template else {
        errors.push(Error::required(&path, ""));
        return errors;
    };
    selector::matches_template(
        &mut errors,
        &path,
        &Selector::from_labels(&wanted),
        workload::labels(template),
    );
    pod_spec::template(&mut errors, &path, template);
    workload::runs_for_ever(&mut errors, &path, template, "ReplicationController");
    errors
}

fn validate_update(subresource: &str, new: &ReplicationController, _: &ReplicationController) -> Errors {
    if subresource != "status" {
        return validate(new);
    }
    let status = new.status.clone().unwrap_or_default();
    workload::replicas_status(&ReplicasStatus {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas,
        ready: status.ready_replicas,
        available: status.available_replicas,
        terminating: None,
        observed_generation: status.observed_generation,
    })
}
