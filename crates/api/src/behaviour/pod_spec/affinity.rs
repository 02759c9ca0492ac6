//! The faults of affinity.

use super::scheduling::label_keys;
use crate::behaviour::check::Check;
use crate::behaviour::fill::items;
use crate::behaviour::{names, selector};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    WeightedPodAffinityTerm,
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const OPERATOR: &str = "not a valid selector operator";

pub fn validate(errors: &mut Errors, path: &Path, affinity: Option<&Affinity>) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        node_affinity(errors, &path.child("nodeAffinity"), node);
    }
    if let Some(pod) = &affinity.pod_affinity {
        let required = items(&pod.required_during_scheduling_ignored_during_execution);
        let preferred = items(&pod.preferred_during_scheduling_ignored_during_execution);
        pod_terms(errors, &path.child("podAffinity"), required, preferred);
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        let required = items(&pod.required_during_scheduling_ignored_during_execution);
        let preferred = items(&pod.preferred_during_scheduling_ignored_during_execution);
        pod_terms(errors, &path.child("podAntiAffinity"), required, preferred);
    }
}

fn weight(errors: &mut Errors, path: &Path, weight: i32) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), &weight, "must be in the range 1-100");
    }
}

fn node_affinity(errors: &mut Errors, path: &Path, affinity: &NodeAffinity) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        node_selector(errors, &path.child(REQUIRED), required);
    }
    let preferred = items(&affinity.preferred_during_scheduling_ignored_during_execution);
    for (i, term) in preferred.iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(errors, &path, term.weight);
        // A preference may name values that no label can have.
        node_term(errors, &path.child("preference"), &term.preference, false);
    }
}

/// Terms that select nodes.
pub fn node_selector(errors: &mut Errors, path: &Path, selector: &NodeSelector) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Error::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(errors, &path.index(i), term, true);
    }
}

fn node_term(errors: &mut Errors, path: &Path, term: &NodeSelectorTerm, strict: bool) {
    for (i, requirement) in items(&term.match_expressions).iter().enumerate() {
        node_requirement(errors, &path.child("matchExpressions").index(i), requirement, strict);
    }
    for (i, requirement) in items(&term.match_fields).iter().enumerate() {
        node_field(errors, &path.child("matchFields").index(i), requirement);
    }
}

fn node_requirement(errors: &mut Errors, path: &Path, requirement: &NodeSelectorRequirement, strict: bool) {
    let values = items(&requirement.values);
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let text = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(Error::required(&at, text));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), other, OPERATOR),
    }
    errors.faults(&path.child("key"), &requirement.key, names::qualified_name(&requirement.key));
    for (i, value) in values.iter().enumerate().filter(|_| strict) {
        errors.faults(&at.index(i), value, names::label_value(value));
    }
}

fn node_field(errors: &mut Errors, path: &Path, requirement: &NodeSelectorRequirement) {
    let values = items(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&path.child("values"), text));
        }
        "In" | "NotIn" => {}
        other => errors.invalid(&path.child("operator"), other, OPERATOR),
    }
    if requirement.key != "metadata.name" {
        errors.invalid(&path.child("key"), &requirement.key, "not a valid field selector key");
        return;
    }
    for (i, value) in values.iter().enumerate() {
        errors.faults(&path.child("values").index(i), value, names::dns1123_subdomain(value));
    }
}

fn pod_terms(
    errors: &mut Errors,
    path: &Path,
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
) {
    for (i, term) in required.iter().enumerate() {
        pod_term(errors, &path.child(REQUIRED).index(i), term);
    }
    for (i, term) in preferred.iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(errors, &path, term.weight);
        pod_term(errors, &path.child("podAffinityTerm"), &term.pod_affinity_term);
    }
}

fn pod_term(errors: &mut Errors, path: &Path, term: &PodAffinityTerm) {
    selector::validate_opt(errors, &path.child("labelSelector"), &term.label_selector);
    selector::validate_opt(errors, &path.child("namespaceSelector"), &term.namespace_selector);
    for namespace in items(&term.namespaces) {
        errors.faults(&path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
    label_keys(
        errors,
        path,
        items(&term.match_label_keys),
        items(&term.mismatch_label_keys),
        term.label_selector.as_ref(),
    );
    let key = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(Error::required(&key, "can not be empty"));
    }
    errors.faults(&key, &term.topology_key, names::qualified_name(&term.topology_key));
}
