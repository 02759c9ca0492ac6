//! The faults of a job's policies on failed pods and on success.

use super::indexes;
use crate::behaviour::check::Check;
use crate::behaviour::fill::{items, str_of};
use crate::behaviour::names;
use crate::field::{Error, Errors, Path};
use crate::types::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};
use std::collections::BTreeSet;

const RULES: usize = 20;
const CODES: usize = 255;
const CONDITIONS: usize = 20;
/// Length of a list of indexes, in bytes.
const INDEXES: usize = 64 << 10;

pub fn failure(errors: &mut Errors, path: &Path, policy: &PodFailurePolicy, job: &JobSpec) {
    let path = path.child("rules");
    if policy.rules.len() > RULES {
        errors.push(Error::too_many(&path, policy.rules.len(), RULES));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        failure_rule(errors, &path.index(i), rule, job);
    }
}

fn failure_rule(errors: &mut Errors, path: &Path, rule: &PodFailurePolicyRule, job: &JobSpec) {
    let action = path.child("action");
    required_one_of(errors, &action, &rule.action, &["Count", "FailIndex", "FailJob", "Ignore"]);
    if rule.action == "FailIndex" && job.backoff_limit_per_index.is_none() {
        errors.invalid(&action, &rule.action, "requires the backoffLimitPerIndex to be set");
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(errors, &path.child("onExitCodes"), codes, job);
    }
    let conditions = items(&rule.on_pod_conditions);
    let at = path.child("onPodConditions");
    if conditions.len() > CONDITIONS {
        errors.push(Error::too_many(&at, conditions.len(), CONDITIONS));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let path = at.index(i);
        errors.faults(&path.child("type"), &condition.type_, names::qualified_name(&condition.type_));
        let status = str_of(&condition.status);
        required_one_of(errors, &path.child("status"), status, &["False", "True", "Unknown"]);
    }
    match (rule.on_exit_codes.is_some(), conditions.is_empty()) {
        (true, false) => {
            let text = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(Error::untold(path, text));
        }
        (false, true) => {
            let text = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(Error::untold(path, text));
        }
        _ => {}
    }
}

/// As the shared check, with the choice told when nothing is chosen.
fn required_one_of(errors: &mut Errors, path: &Path, value: &str, supported: &[&str]) {
    if value.is_empty() {
        let quoted: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        errors.push(Error::required(path, &format!("valid values: [{}]", quoted.join(" "))));
    } else {
        errors.one_of(path, value, supported);
    }
}

fn exit_codes(
    errors: &mut Errors,
    path: &Path,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    job: &JobSpec,
) {
    required_one_of(errors, &path.child("operator"), &codes.operator, &["In", "NotIn"]);
    if let Some(name) = &codes.container_name {
        let spec = job.template.spec.clone().unwrap_or_default();
        if !spec.containers.iter().chain(items(&spec.init_containers)).any(|c| c.name == *name) {
            let text = "must be one of the container or initContainer names in the pod template";
            errors.invalid(&path.child("containerName"), name, text);
        }
    }
    let path = path.child("values");
    if codes.values.is_empty() {
        errors.invalid(&path, &codes.values, "at least one value is required");
    } else if codes.values.len() > CODES {
        errors.push(Error::too_many(&path, codes.values.len(), CODES));
    }
    let mut seen = BTreeSet::new();
    let mut sorted = true;
    for (i, value) in codes.values.iter().enumerate() {
        if *value == 0 && codes.operator == "In" {
            errors.invalid(&path.index(i), value, "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            errors.push(Error::duplicate(&path.index(i), value));
        }
        sorted &= i == 0 || codes.values[i - 1] <= *value;
    }
    if !sorted {
        errors.invalid(&path, &codes.values, "must be ordered");
    }
}

pub fn success(errors: &mut Errors, path: &Path, policy: &SuccessPolicy, completions: i32) {
    let path = path.child("rules");
    if policy.rules.is_empty() {
        errors.push(Error::required(
            &path,
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    if policy.rules.len() > RULES {
        errors.push(Error::too_many(&path, policy.rules.len(), RULES));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        let path = path.index(i);
        if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
            let text = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(Error::required(&path, text));
        }
        let mut total = None;
        if let Some(text) = &rule.succeeded_indexes {
            let path = path.child("succeededIndexes");
            if text.len() > INDEXES {
                errors.push(Error::too_long(&path, INDEXES));
            }
            let intervals = indexes::parse(text, completions);
            if let Err(fault) = &intervals {
                errors.invalid(&path, text, &format!("error parsing succeededIndexes: {fault}"));
            }
            total = Some(indexes::count(&intervals.unwrap_or_default()));
        }
        let Some(count) = rule.succeeded_count else { continue };
        let path = path.child("succeededCount");
        errors.not_negative(&path, Some(i64::from(count)));
        if count > completions {
            let text =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.invalid(&path, &count, &text);
        }
        if let Some(total) = total.filter(|total| count > *total) {
            let text = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.invalid(&path, &count, &text);
        }
    }
}
