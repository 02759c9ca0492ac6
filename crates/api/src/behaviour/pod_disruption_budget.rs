//! PodDisruptionBudgets.

use super::check::Check;
use super::fill;
use super::workload::{self, counts};
use super::{Behaviour, Typed, conditions, internal, names, selector};
use crate::field::{Error, Errors, Path};
use crate::types::policy::v1::PodDisruptionBudget;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PodDisruptionBudget> {
        default: |budget| {
            budget.spec.get_or_insert_default();
            budget.status.get_or_insert_default();
        },
        prepare_create: |budget| {
            budget.metadata.generation = Some(1);
            budget.status = Some(Default::default());
        },
        prepare_update: |new, old| {
            new.status.clone_from(&old.status);
            let changed = !fill::same(&new.spec, &old.spec);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        validate,
        validate_update: |subresource, new, _| {
            if subresource == "status" { validate_status(new) } else { validate(new) }
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(budget: &PodDisruptionBudget) -> Errors {
    let mut errors = Errors::new();
    let Some(spec) = &budget.spec else { return errors };
    let path = Path::new("spec");
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        let text = "minAvailable and maxUnavailable cannot be both set";
        errors.push(Error::invalid(&path, "", text).showing(internal::show(spec, internal::BUDGET)));
    }
    for (field, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
        if let Some(value) = value {
            workload::int_or_percent(&mut errors, &path.child(field), value);
            workload::at_most_100_percent(&mut errors, &path.child(field), value);
        }
    }
    selector::validate_opt(&mut errors, &path.child("selector"), &spec.selector);
    if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
        let path = path.child("unhealthyPodEvictionPolicy");
        errors.one_of(&path, policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
    errors
}

fn validate_status(budget: &PodDisruptionBudget) -> Errors {
    let mut errors = Errors::new();
    let status = budget.status.clone().unwrap_or_default();
    let path = Path::new("status");
    conditions::validate(&mut errors, &path.child("conditions"), fill::items(&status.conditions));
    counts(
        &mut errors,
        &path,
        &[
            ("disruptionsAllowed", status.disruptions_allowed.map(i64::from)),
            ("currentHealthy", status.current_healthy.map(i64::from)),
            ("desiredHealthy", status.desired_healthy.map(i64::from)),
            ("expectedPods", status.expected_pods.map(i64::from)),
        ],
    );
    errors
}
