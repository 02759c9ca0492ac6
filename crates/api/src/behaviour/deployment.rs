//! Deployments.

use super::check::Check;
use super::fill::{self, str_of, text, value};
use super::pod_spec::defaults;
use super::workload::{self, counts};
use super::{Behaviour, Typed};
use crate::field::{Error, Errors, Path};
use crate::types::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Deployment> {
        default,
        prepare_update,
        prepare_subresource,
        validate,
        validate_update,
        ..workload::shell()
    })
}

fn default(deployment: &mut Deployment) {
    let spec = deployment.spec.get_or_insert_default();
    value(&mut spec.replicas, 1);
    let strategy = spec.strategy.get_or_insert_default();
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        value(&mut rolling.max_unavailable, IntOrString::String("25%".to_owned()));
        value(&mut rolling.max_surge, IntOrString::String("25%".to_owned()));
    }
    value(&mut spec.revision_history_limit, 10);
    value(&mut spec.progress_deadline_seconds, 600);
    defaults::template(&mut spec.template);
    deployment.status.get_or_insert_default();
}

fn prepare_update(new: &mut Deployment, old: &Deployment) {
    workload::prepare_update(new, old);
    // Annotations count: they carry what a rollback asks for.
    let annotations = |d: &Deployment| d.metadata.annotations.clone().unwrap_or_default();
    if annotations(new) != annotations(old) {
        fill::generation(&mut new.metadata, &old.metadata, true);
    }
}

fn prepare_subresource(_: &str, new: &mut Deployment, old: &Deployment) {
    workload::prepare_subresource("", new, old);
    new.metadata.labels.clone_from(&old.metadata.labels);
}

fn validate(deployment: &Deployment) -> Errors {
    let mut errors = Errors::new();
    let default = DeploymentSpec::default();
    let spec = deployment.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    errors.not_negative(&path.child("replicas"), spec.replicas.map(i64::from));
    workload::selector_and_template(
        &mut errors,
        &path,
        &spec.selector,
        &spec.template,
        "deployment",
        "ReplicaSet",
    );
    if let Some(strategy) = &spec.strategy {
        validate_strategy(&mut errors, &path.child("strategy"), strategy);
    }
    let ready = spec.min_ready_seconds.unwrap_or(0);
    counts(
        &mut errors,
        &path,
        &[
            ("minReadySeconds", Some(i64::from(ready))),
            ("revisionHistoryLimit", spec.revision_history_limit.map(i64::from)),
            ("progressDeadlineSeconds", spec.progress_deadline_seconds.map(i64::from)),
        ],
    );
    if let Some(seconds) = spec.progress_deadline_seconds.filter(|s| *s <= ready) {
        let path = path.child("progressDeadlineSeconds");
        errors.invalid(&path, &seconds, "must be greater than minReadySeconds");
    }
    errors
}

fn validate_strategy(errors: &mut Errors, path: &Path, strategy: &DeploymentStrategy) {
    let rolling = path.child("rollingUpdate");
    match (str_of(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(Error::required(&rolling, "this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(update)) => validate_rolling(errors, &rolling, update),
        (other, update) => {
            let supported = ["Recreate", "RollingUpdate"];
            errors.push(workload::unknown_strategy(path, other, update, workload::ROLLING, &supported));
        }
    }
}

fn validate_rolling(errors: &mut Errors, path: &Path, update: &RollingUpdateDeployment) {
    let (unavailable, surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    for (path, value) in [(&unavailable, &update.max_unavailable), (&surge, &update.max_surge)] {
        if let Some(value) = value {
            workload::int_or_percent(errors, path, value);
        }
    }
    if workload::is_zero(update.max_unavailable.as_ref()) && workload::is_zero(update.max_surge.as_ref()) {
        errors.invalid(&unavailable, &update.max_unavailable, "may not be 0 when `maxSurge` is 0");
    }
    if let Some(value) = &update.max_unavailable {
        workload::at_most_100_percent(errors, &unavailable, value);
    }
}

fn validate_update(subresource: &str, new: &Deployment, old: &Deployment) -> Errors {
    if subresource == "status" {
        return validate_status(new, old);
    }
    let mut errors = validate(new);
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        workload::keeps_selector(&mut errors, &new.selector, &old.selector);
    }
    errors
}

fn validate_status(new: &Deployment, old: &Deployment) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status");
    let (status, was) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let count = |n: Option<i32>| n.map(i64::from);
    let parts = [
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    let [updated, ready, available] = parts.map(|(field, value)| (field, count(value)));
    counts(
        &mut errors,
        &path,
        &[
            ("observedGeneration", status.observed_generation),
            ("replicas", count(status.replicas)),
            updated,
            ready,
            available,
            ("unavailableReplicas", count(status.unavailable_replicas)),
            ("terminatingReplicas", count(status.terminating_replicas)),
            ("collisionCount", count(status.collision_count)),
        ],
    );
    let replicas = status.replicas.unwrap_or(0);
    workload::within_replicas(&mut errors, &path, replicas, &parts, "readyReplicas");
    workload::collisions(&mut errors, &path, status.collision_count, was.collision_count);
    errors
}
