//! Which nodes a pod selects: node selectors, node affinity, taints and tolerations, compiled once and compared
//! often. The scheduler decides by it, and so does whoever must know beforehand what it would decide. Pure.

use crate::labels::Labels;
use crate::types::core::v1 as core;

/// How one requirement compares a label (or the field) of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
    /// The requirement is malformed: it matches nothing.
    Never,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub test: Test,
}

/// A term: all of its requirements must hold. One without any matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    pub labels: Vec<Requirement>,
    /// On the node's fields; only `metadata.name` exists.
    pub fields: Vec<Requirement>,
}

impl Requirement {
    fn of(requirement: &core::NodeSelectorRequirement) -> Self {
        let values = requirement.values.clone().unwrap_or_default();
        let number = || values.first().filter(|_| values.len() == 1).and_then(|value| value.parse().ok());
        let test = match requirement.operator.as_str() {
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            "Gt" => number().map_or(Test::Never, Test::Gt),
            "Lt" => number().map_or(Test::Never, Test::Lt),
            _ => Test::Never,
        };
        Self { key: requirement.key.clone(), test }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let is_in = |values: &[String]| value.is_some_and(|value| values.iter().any(|v| v == value));
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => is_in(values),
            Test::NotIn(values) => !is_in(values),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Gt(bound) => number().is_some_and(|number| number > *bound),
            Test::Lt(bound) => number().is_some_and(|number| number < *bound),
            Test::Never => false,
        }
    }
}

impl Term {
    #[must_use]
    pub fn of(term: &core::NodeSelectorTerm) -> Self {
        let all = |list: &Option<Vec<core::NodeSelectorRequirement>>| {
            list.iter().flatten().map(Requirement::of).collect()
        };
        Self { labels: all(&term.match_expressions), fields: all(&term.match_fields) }
    }

    #[must_use]
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        let field = |key: &str| (key == "metadata.name").then_some(name);
        (!self.labels.is_empty() || !self.fields.is_empty())
            && self.labels.iter().all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
            && self.fields.iter().all(|r| r.matches(field(&r.key)))
    }

    /// The names of the nodes that it can match, when it says so by field.
    #[must_use]
    pub fn names(&self) -> Option<Vec<&str>> {
        let mut names: Option<Vec<&str>> = None;
        for requirement in self.fields.iter().filter(|r| r.key == "metadata.name") {
            let Test::In(values) = &requirement.test else { continue };
            let values = values.iter().map(String::as_str);
            names = Some(match names {
                None => values.collect(),
                Some(before) => values.filter(|value| before.contains(value)).collect(),
            });
        }
        names
    }
}

/// What a pod demands of its node, and what it prefers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeChoice {
    /// `spec.nodeSelector`: every label, exactly.
    pub selector: Vec<(String, String)>,
    /// Required node affinity: one of the terms. `None` is no demand.
    pub required: Option<Vec<Term>>,
    pub preferred: Vec<(i64, Term)>,
}

impl NodeChoice {
    #[must_use]
    pub fn of(spec: &core::PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred =
            affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: spec.node_selector.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            required: required.map(|r| r.node_selector_terms.iter().map(Term::of).collect()),
            preferred: preferred
                .into_iter()
                .flatten()
                .filter(|term| term.weight != 0)
                .map(|term| (i64::from(term.weight), Term::of(&term.preference)))
                .collect(),
        }
    }

    /// Whether there is any demand.
    #[must_use]
    pub fn demands(&self) -> bool {
        !self.selector.is_empty() || self.required.is_some()
    }

    /// Whether a node meets the demands.
    #[must_use]
    pub fn accepts(&self, name: &str, labels: &Labels) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// The names of the nodes that can be accepted, when every term says so by field.
    #[must_use]
    pub fn names(&self) -> Option<Vec<&str>> {
        let terms = self.required.as_ref().filter(|terms| !terms.is_empty())?;
        let mut all: Vec<&str> = Vec::new();
        for term in terms {
            all.extend(term.names()?);
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl Effect {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: Effect,
}

impl Taint {
    /// `None` when it has no known effect.
    #[must_use]
    pub fn of(taint: &core::Taint) -> Option<Self> {
        let effect = Effect::parse(&taint.effect)?;
        Some(Self { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// Empty for every key.
    pub key: String,
    /// `None` tolerates every value.
    pub value: Option<String>,
    /// `None` tolerates every effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// `None` when it can tolerate nothing.
    #[must_use]
    pub fn of(toleration: &core::Toleration) -> Option<Self> {
        let value = match toleration.operator.as_deref().unwrap_or("") {
            "Exists" => None,
            "" | "Equal" => Some(toleration.value.clone().unwrap_or_default()),
            _ => return None,
        };
        let effect = match toleration.effect.as_deref().unwrap_or("") {
            "" => None,
            effect => Some(Effect::parse(effect)?),
        };
        Some(Self { key: toleration.key.clone().unwrap_or_default(), value, effect })
    }

    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
    }
}

/// Whether one of the tolerations tolerates the taint.
#[must_use]
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

/// Whether one of a node's taints keeps away pods that do not tolerate it.
#[must_use]
pub fn repelled(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    let hard = |effect| matches!(effect, Effect::NoSchedule | Effect::NoExecute);
    taints.iter().any(|taint| hard(taint.effect) && !tolerated(tolerations, taint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(affinity: serde_json::Value) -> NodeChoice {
        let pod = serde_json::json!({"spec": {"containers": [], "affinity": {"nodeAffinity": affinity}}});
        let pod = <core::Pod as crate::Kind>::from_value(pod).unwrap();
        NodeChoice::of(&pod.spec.unwrap())
    }

    fn required(terms: serde_json::Value) -> NodeChoice {
        choice(serde_json::json!({
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }))
    }

    #[test]
    fn every_operator_compares_as_the_api_says() {
        let labels = Labels::from([("zone".into(), "a".into()), ("cores".into(), "8".into())]);
        for (key, operator, values, want) in [
            ("zone", "In", vec!["b", "a"], true),
            ("zone", "In", vec!["b"], false),
            ("rack", "In", vec!["a"], false),
            ("zone", "NotIn", vec!["b"], true),
            ("zone", "NotIn", vec!["a"], false),
            ("rack", "NotIn", vec!["a"], true),
            ("zone", "Exists", vec![], true),
            ("rack", "Exists", vec![], false),
            ("rack", "DoesNotExist", vec![], true),
            ("zone", "DoesNotExist", vec![], false),
            ("cores", "Gt", vec!["7"], true),
            ("cores", "Gt", vec!["8"], false),
            ("cores", "Lt", vec!["9"], true),
            ("cores", "Lt", vec!["8"], false),
            ("zone", "Gt", vec!["1"], false),
            ("cores", "Gt", vec!["x"], false),
            ("cores", "About", vec!["8"], false),
        ] {
            let terms = serde_json::json!([
                {"matchExpressions": [{"key": key, "operator": operator, "values": values}]},
            ]);
            assert_eq!(required(terms).accepts("n", &labels), want, "{key} {operator}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_an_empty_one_matches_nothing() {
        let labels = Labels::from([("zone".into(), "a".into())]);
        let terms = serde_json::json!([
            {},
            {"matchExpressions": [{"key": "zone", "operator": "Exists"}],
             "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1", "n2"]}]},
        ]);
        assert!(required(terms.clone()).accepts("n1", &labels));
        assert!(!required(terms.clone()).accepts("n3", &labels));
        assert_eq!(required(terms).names(), None, "the first term does not say by field");
        assert!(!required(serde_json::json!([{}])).accepts("n1", &labels));
    }

    #[test]
    fn a_daemons_pod_names_its_node() {
        let terms = serde_json::json!([
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
        ]);
        assert_eq!(required(terms).names(), Some(vec!["n1"]));
    }

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint = Taint { key: "k".into(), value: "v".into(), effect: Effect::NoSchedule };
        for (json, want) in [
            (serde_json::json!({"operator": "Exists"}), true),
            (serde_json::json!({"key": "k", "operator": "Exists"}), true),
            (serde_json::json!({"key": "k", "value": "v"}), true),
            (serde_json::json!({"key": "k", "operator": "Equal", "value": "w"}), false),
            (serde_json::json!({"key": "l", "operator": "Exists"}), false),
            (serde_json::json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (serde_json::json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}), true),
            (serde_json::json!({"key": "k", "operator": "Near", "value": "v"}), false),
        ] {
            let pod = serde_json::json!({"spec": {"containers": [], "tolerations": [json.clone()]}});
            let pod = <core::Pod as crate::Kind>::from_value(pod).unwrap();
            let tolerations: Vec<_> =
                pod.spec.unwrap().tolerations.iter().flatten().filter_map(Toleration::of).collect();
            assert_eq!(tolerated(&tolerations, &taint), want, "{json}");
        }
    }
}
