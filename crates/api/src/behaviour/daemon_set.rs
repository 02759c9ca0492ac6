//! DaemonSets.

use super::check::Check;
use super::fill::{self, str_of, text, value};
use super::pod_spec::{self, defaults};
use super::workload::{self, counts};
use super::{Behaviour, Typed, selector};
use crate::field::{Error, Errors, Path};
use crate::labels::Selector;
use crate::types::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// Where version 1 keeps the count of template changes.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<DaemonSet> {
        default,
        prepare_create,
        prepare_update,
        validate,
        validate_update,
        ..workload::shell()
    })
}

fn default(set: &mut DaemonSet) {
    let spec = set.spec.get_or_insert_default();
    let strategy = spec.update_strategy.get_or_insert_default();
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        value(&mut rolling.max_unavailable, IntOrString::Int(1));
        value(&mut rolling.max_surge, IntOrString::Int(0));
    }
    value(&mut spec.revision_history_limit, 10);
    defaults::template(&mut spec.template);
    set.status.get_or_insert_default();
}

fn template_generation(set: &DaemonSet) -> i64 {
    let annotation = set.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
    annotation.and_then(|a| a.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, value: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), value.to_string());
}

fn prepare_create(set: &mut DaemonSet) {
    workload::prepare_create(set);
    let count = template_generation(set).max(1);
    set_template_generation(set, count);
}

fn prepare_update(new: &mut DaemonSet, old: &DaemonSet) {
    workload::prepare_update(new, old);
    let template = |s: &DaemonSet| s.spec.as_ref().map(|s| s.template.clone());
    let rolled = !fill::same(&template(new), &template(old));
    set_template_generation(new, template_generation(old) + i64::from(rolled));
}

fn validate(set: &DaemonSet) -> Errors {
    let mut errors = Errors::new();
    let default = DaemonSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    selector::validate(&mut errors, &path.child("selector"), &spec.selector);
    let template = path.child("template");
    if let Ok(wanted) = Selector::of(Some(&spec.selector)) {
        selector::matches_template(&mut errors, &template, &wanted, workload::labels(&spec.template));
    }
    if selector::is_empty(&spec.selector) {
        errors.invalid(&path.child("selector"), &spec.selector, "empty selector is invalid for daemonset");
    }
    pod_spec::template(&mut errors, &template, &spec.template);
    workload::runs_for_ever(&mut errors, &template, &spec.template, "DaemonSet");
    counts(&mut errors, &path, &[("minReadySeconds", spec.min_ready_seconds.map(i64::from))]);
    if let Some(strategy) = &spec.update_strategy {
        validate_strategy(&mut errors, &path.child("updateStrategy"), strategy);
    }
    counts(&mut errors, &path, &[("revisionHistoryLimit", spec.revision_history_limit.map(i64::from))]);
    errors
}

fn validate_strategy(errors: &mut Errors, path: &Path, strategy: &DaemonSetUpdateStrategy) {
    let rolling = path.child("rollingUpdate");
    match (str_of(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(Error::required(&rolling, "")),
        ("RollingUpdate", Some(update)) => validate_rolling(errors, &rolling, update),
        (other, update) => {
            let supported = ["RollingUpdate", "OnDelete"];
            errors.push(workload::unknown_strategy(path, other, update, workload::ROLLING, &supported));
        }
    }
}

fn validate_rolling(errors: &mut Errors, path: &Path, update: &RollingUpdateDaemonSet) {
    let (unavailable, surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    let both = [(&unavailable, &update.max_unavailable), (&surge, &update.max_surge)];
    for check in [workload::int_or_percent, workload::at_most_100_percent] {
        for (path, value) in both {
            value.iter().for_each(|value| check(errors, path, value));
        }
    }
    let zero = |value: &Option<IntOrString>| workload::is_zero(value.as_ref());
    match (zero(&update.max_unavailable), zero(&update.max_surge)) {
        (false, false) => {
            let text = "may not be set when maxUnavailable is non-zero";
            errors.invalid(&surge, &update.max_surge, text);
        }
        (true, true) => errors.push(Error::required(&unavailable, "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}

fn validate_update(subresource: &str, new: &DaemonSet, old: &DaemonSet) -> Errors {
    if subresource == "status" {
        return validate_status(new, old);
    }
    let mut errors = validate(new);
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        workload::keeps_selector(&mut errors, &new.selector, &old.selector);
    }
    errors
}

fn validate_status(new: &DaemonSet, old: &DaemonSet) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status");
    let (status, was) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    counts(
        &mut errors,
        &path,
        &[
            ("currentNumberScheduled", Some(status.current_number_scheduled.into())),
            ("numberMisscheduled", Some(status.number_misscheduled.into())),
            ("desiredNumberScheduled", Some(status.desired_number_scheduled.into())),
            ("numberReady", Some(status.number_ready.into())),
            ("observedGeneration", status.observed_generation),
            ("updatedNumberScheduled", status.updated_number_scheduled.map(i64::from)),
            ("numberAvailable", status.number_available.map(i64::from)),
            ("numberUnavailable", status.number_unavailable.map(i64::from)),
            ("collisionCount", status.collision_count.map(i64::from)),
        ],
    );
    workload::collisions(&mut errors, &path, status.collision_count, was.collision_count);
    errors
}
