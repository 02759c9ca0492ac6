//! `matchLabelKeys`: requirements that a new pod's own labels bring into its selectors (KEP-3633, KEP-3243).

use crate::behaviour::fill::{items, items_mut};
use crate::meta::{LabelSelector, LabelSelectorRequirement};
use crate::types::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use std::collections::BTreeMap;

/// Merges the keys of affinity terms and spread constraints into their selectors.
pub fn merge(pod: &mut Pod) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return };
    for constraint in items_mut(&mut spec.topology_spread_constraints) {
        let keys = constraint.match_label_keys.clone();
        add(&mut constraint.label_selector, items(&keys), "In", &labels);
    }
    let Some(affinity) = &mut spec.affinity else { return };
    if let Some(near) = &mut affinity.pod_affinity {
        let required = &mut near.required_during_scheduling_ignored_during_execution;
        let preferred = &mut near.preferred_during_scheduling_ignored_during_execution;
        terms(required, preferred, &labels);
    }
    if let Some(apart) = &mut affinity.pod_anti_affinity {
        let required = &mut apart.required_during_scheduling_ignored_during_execution;
        let preferred = &mut apart.preferred_during_scheduling_ignored_during_execution;
        terms(required, preferred, &labels);
    }
}

fn terms(
    required: &mut Option<Vec<PodAffinityTerm>>,
    preferred: &mut Option<Vec<WeightedPodAffinityTerm>>,
    labels: &BTreeMap<String, String>,
) {
    let preferred = items_mut(preferred).iter_mut().map(|term| &mut term.pod_affinity_term);
    for term in items_mut(required).iter_mut().chain(preferred) {
        let (same, other) = (term.match_label_keys.clone(), term.mismatch_label_keys.clone());
        add(&mut term.label_selector, items(&same), "In", labels);
        add(&mut term.label_selector, items(&other), "NotIn", labels);
    }
}

/// A requirement for each key that the pod has a label of. Without a selector there is nothing to narrow.
fn add(
    selector: &mut Option<LabelSelector>,
    keys: &[String],
    operator: &str,
    labels: &BTreeMap<String, String>,
) {
    let Some(selector) = selector else { return };
    for key in keys {
        let Some(value) = labels.get(key) else { continue };
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        });
    }
}
