//! The faults of tolerations, scheduling gates and topology spread constraints.

use crate::behaviour::check::Check;
use crate::behaviour::fill::{items, str_of};
use crate::behaviour::{names, selector};
use crate::field::{Error, Errors, Path};
use crate::meta::LabelSelector;
use crate::types::core::v1::{PodSchedulingGate, Toleration, TopologySpreadConstraint};
use std::collections::BTreeSet;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The effect of a taint, or of a toleration where it may be empty.
pub fn taint_effect(errors: &mut Errors, path: &Path, effect: &str, may_be_empty: bool) {
    if may_be_empty {
        errors.one_of(path, effect, &EFFECTS);
    } else {
        errors.required_one_of(path, effect, &EFFECTS);
    }
}

pub fn tolerations(errors: &mut Errors, path: &Path, tolerations: &[Toleration]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (str_of(&toleration.key), str_of(&toleration.operator));
        let effect = str_of(&toleration.effect);
        if key.is_empty() {
            if operator != "Exists" {
                let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                errors.invalid(&path.child("operator"), operator, text);
            }
        } else {
            errors.faults(&path.child("key"), key, names::qualified_name(key));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.child("effect"), effect, text);
        }
        toleration_value(errors, &path.child("operator"), operator, str_of(&toleration.value));
        if !effect.is_empty() {
            taint_effect(errors, &path.child("effect"), effect, true);
        }
    }
}

/// The original tells faults of the value at the operator.
fn toleration_value(errors: &mut Errors, path: &Path, operator: &str, value: &str) {
    match operator {
        "" | "Equal" => {
            let faults = names::label_value(value);
            if !faults.is_empty() {
                errors.invalid(path, value, &faults.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.invalid(path, value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        "Lt" | "Gt" => {
            errors.push(Error::not_supported(path, operator, &["Equal", "Exists", "Lt", "Gt"]));
        }
        _ => errors.push(Error::not_supported(path, operator, &["Equal", "Exists"])),
    }
}

pub fn gates(errors: &mut Errors, path: &Path, gates: &[PodSchedulingGate]) {
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        errors.faults(&path.index(i), &gate.name, names::qualified_name(&gate.name));
        if !seen.insert(&gate.name) {
            errors.push(Error::duplicate(&path.index(i), &gate.name));
        }
    }
}

pub fn spread(errors: &mut Errors, path: &Path, constraints: &[TopologySpreadConstraint]) {
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        if constraint.max_skew <= 0 {
            errors.invalid(&path.child("maxSkew"), &constraint.max_skew, "must be greater than zero");
        }
        if constraint.topology_key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        }
        let action = &constraint.when_unsatisfiable;
        errors.one_of(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let twin = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == *action
        };
        if constraints[i + 1..].iter().any(twin) {
            let pair = format!("{{{}, {action}}}", constraint.topology_key);
            errors.push(Error::duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), &pair));
        }
        if let Some(domains) = constraint.min_domains {
            min_domains(errors, &path.child("minDomains"), domains, action);
        }
        for (field, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy {
                errors.one_of(&path.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        label_keys(
            errors,
            &path,
            items(&constraint.match_label_keys),
            &[],
            constraint.label_selector.as_ref(),
        );
        selector::validate_opt(errors, &path.child("labelSelector"), &constraint.label_selector);
    }
}

fn min_domains(errors: &mut Errors, path: &Path, domains: i32, action: &str) {
    if domains <= 0 {
        errors.invalid(path, &domains, "must be greater than zero");
    }
    if action != "DoNotSchedule" {
        let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(path, &domains, &text);
    }
}

/// Keys whose values are taken from the pod's own labels.
pub fn label_keys(
    errors: &mut Errors,
    path: &Path,
    matching: &[String],
    mismatching: &[String],
    selector: Option<&LabelSelector>,
) {
    for (field, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", mismatching)] {
        let path = path.child(field);
        if !keys.is_empty() && selector.is_none() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            errors.faults(&path.index(i), key, names::qualified_name(key));
        }
    }
    if let Some(selector) = selector {
        let mut seen: BTreeSet<&String> = selector.match_labels.iter().flatten().map(|(k, _)| k).collect();
        for expression in items(&selector.match_expressions) {
            if let Some(i) = matching.iter().rposition(|k| *k == expression.key)
                && seen.contains(&expression.key)
            {
                let text = "exists in both matchLabelKeys and labelSelector";
                errors.invalid(&path.index(i), &expression.key, text);
            }
            seen.insert(&expression.key);
        }
    }
    for (i, key) in matching.iter().enumerate().filter(|(_, k)| mismatching.contains(k)) {
        let path = path.child("matchLabelKeys").index(i);
        errors.invalid(&path, key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

/// One requirement of a storage class's topology.
pub fn topology_key_requirement(errors: &mut Errors, path: &Path, key: &str, values: &[String]) {
    if values.is_empty() {
        errors.push(Error::required(&path.child("values"), ""));
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if !seen.insert(value) {
            errors.push(Error::duplicate(&path.child("values").index(i), value));
        }
    }
    errors.faults(&path.child("key"), key, names::qualified_name(key));
}

/// What an update may do to tolerations: add some, and change for how long the old ones hold.
pub fn only_added_tolerations(errors: &mut Errors, path: &Path, new: &[Toleration], old: &[Toleration]) {
    let same = |a: &Toleration, b: &Toleration| {
        Toleration { toleration_seconds: None, ..a.clone() }
            == Toleration { toleration_seconds: None, ..b.clone() }
    };
    if old.iter().any(|o| !new.iter().any(|n| same(n, o))) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
        return;
    }
    tolerations(errors, path, new);
}

/// What an update may do to scheduling gates: take some away.
pub fn only_removed_gates(
    errors: &mut Errors,
    path: &Path,
    new: &[PodSchedulingGate],
    old: &[PodSchedulingGate],
) {
    for (i, gate) in new.iter().enumerate().filter(|(_, g)| !old.contains(g)) {
        let text = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.forbidden(&path.index(i).child("name"), &text);
    }
}
