//! What a pod wants of other pods: topology spread constraints, affinity and anti-affinity between pods.

use krate_api::labels::{Labels, Selector};
use krate_api::types::core::v1 as core;

/// One topology spread constraint.
#[derive(Clone, Debug)]
pub struct Spread {
    pub max_skew: i64,
    pub key: String,
    /// `DoNotSchedule`; otherwise it is only a preference.
    pub hard: bool,
    pub selector: Selector,
    pub min_domains: i64,
    /// Nodes that the pod's node affinity rules out do not count.
    pub honor_affinity: bool,
    /// Nodes with taints that the pod does not tolerate do not count.
    pub honor_taints: bool,
}

impl Spread {
    /// All constraints of a pod.
    #[must_use]
    pub fn all(spec: &core::PodSpec, labels: Option<&Labels>) -> Vec<Self> {
        spec.topology_spread_constraints.iter().flatten().map(|c| Self::of(c, labels)).collect()
    }

    fn of(constraint: &core::TopologySpreadConstraint, labels: Option<&Labels>) -> Self {
        Self {
            max_skew: i64::from(constraint.max_skew),
            key: constraint.topology_key.clone(),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            selector: with_keys(
                constraint.label_selector.as_ref(),
                constraint.match_label_keys.as_deref().unwrap_or_default(),
                labels,
            ),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

/// A selector that also demands the pod's own values of some labels.
fn with_keys(
    selector: Option<&krate_api::meta::LabelSelector>,
    keys: &[String],
    labels: Option<&Labels>,
) -> Selector {
    let mut selector = selector.cloned();
    for key in keys {
        let Some(value) = labels.and_then(|labels| labels.get(key)) else { continue };
        let selector = selector.get_or_insert_default();
        selector.match_labels.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    Selector::of(selector.as_ref()).unwrap_or_else(|_| Selector::nothing())
}

/// One term of affinity between pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodTerm {
    pub key: String,
    pub selector: Selector,
    pub namespaces: Vec<String>,
    /// Namespaces by label; `None` selects none beyond `namespaces`.
    pub namespace_selector: Option<Selector>,
}

impl PodTerm {
    fn of(term: &core::PodAffinityTerm, namespace: &str) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let selector = |s| Selector::of(Some(s)).unwrap_or_else(|_| Selector::nothing());
        Self {
            key: term.topology_key.clone(),
            selector: Selector::of(term.label_selector.as_ref()).unwrap_or_else(|_| Selector::nothing()),
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(selector),
        }
    }

    /// Whether the term is about a pod with these labels in this namespace.
    #[must_use]
    pub fn matches(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        let in_namespace = self.namespaces.iter().any(|name| name == namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| s.matches(namespace_labels));
        in_namespace && self.selector.matches(labels)
    }
}

impl PodTerm {
    /// Whether the term may be about a pod, as far as can be told without the labels of its namespace.
    #[must_use]
    pub fn may_match(&self, namespace: &str, labels: &Labels) -> bool {
        let in_namespace =
            self.namespace_selector.is_some() || self.namespaces.iter().any(|name| name == namespace);
        in_namespace && self.selector.matches(labels)
    }
}

/// The terms of a pod's affinity and anti-affinity to other pods.
#[derive(Clone, Debug, Default)]
pub struct PodAffinity {
    pub required: Vec<PodTerm>,
    pub required_anti: Vec<PodTerm>,
    /// Weights are negative for anti-affinity.
    pub preferred: Vec<(i64, PodTerm)>,
}

impl PodAffinity {
    /// `None` when the pod has none.
    #[must_use]
    pub fn of(spec: &core::PodSpec, namespace: &str) -> Option<Self> {
        let affinity = spec.affinity.as_ref()?;
        let term = |term: &core::PodAffinityTerm| PodTerm::of(term, namespace);
        let mut all = Self::default();
        if let Some(to) = &affinity.pod_affinity {
            let required = to.required_during_scheduling_ignored_during_execution.iter().flatten();
            all.required.extend(required.map(term));
            let preferred = to.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            all.preferred.extend(preferred.map(|p| (i64::from(p.weight), term(&p.pod_affinity_term))));
        }
        if let Some(from) = &affinity.pod_anti_affinity {
            let required = from.required_during_scheduling_ignored_during_execution.iter().flatten();
            all.required_anti.extend(required.map(term));
            let preferred = from.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            all.preferred.extend(preferred.map(|p| (-i64::from(p.weight), term(&p.pod_affinity_term))));
        }
        let none = all.required.is_empty() && all.required_anti.is_empty() && all.preferred.is_empty();
        (!none).then_some(all)
    }
}
