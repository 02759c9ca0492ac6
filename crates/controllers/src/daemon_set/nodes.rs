//! Whether a daemon belongs on a node, and the pod that it is there. Pure.
//!
//! The scheduler places daemons like any other pod; what is decided here is what it would decide, so that no
//! pod is made that could never run.

use crate::history::REVISION_HASH;
use crate::nodes::NodeView;
use crate::{meta, pod_template};
use krate_api::placement::{Effect, NodeChoice, Taint, Toleration, tolerated};
use krate_api::types::apps::v1::DaemonSet;
use krate_api::types::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec,
    Toleration as Tolerates,
};

/// The label of pods that tells how often the template had changed when they were made.
pub const TEMPLATE_GENERATION: &str = "pod-template-generation";
/// Where the API keeps count of a DaemonSet's templates.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// Taints that no daemon minds.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// A taint that daemons in the host's network do not mind either.
const WITHOUT_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Whether a daemon belongs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    Yes,
    /// None is started there; one that runs may stay.
    MayStay,
    No,
}

/// What a DaemonSet's pods demand of their node.
pub struct Demands {
    node_name: Option<String>,
    choice: NodeChoice,
    tolerations: Vec<Toleration>,
}

impl Demands {
    #[must_use]
    pub fn of(set: &DaemonSet) -> Self {
        let mut spec = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
        tolerate(&mut spec);
        Self {
            choice: NodeChoice::of(&spec),
            tolerations: spec.tolerations.iter().flatten().filter_map(Toleration::of).collect(),
            node_name: spec.node_name.filter(|name| !name.is_empty()),
        }
    }

    #[must_use]
    pub fn met_by(&self, node: &NodeView) -> Belongs {
        let named = self.node_name.as_ref().is_none_or(|name| name == node.name());
        if !named || !self.choice.accepts(node.name(), &node.metadata.labels) {
            return Belongs::No;
        }
        let repels =
            |taint: &Taint| taint.effect != Effect::PreferNoSchedule && !tolerated(&self.tolerations, taint);
        let taints: Vec<_> = node.spec.taints.iter().filter_map(Taint::of).filter(repels).collect();
        if taints.iter().any(|taint| taint.effect == Effect::NoExecute) {
            Belongs::No
        } else if taints.is_empty() {
            Belongs::Yes
        } else {
            Belongs::MayStay
        }
    }
}

/// Adds the tolerations that every daemon has.
fn tolerate(spec: &mut PodSpec) {
    let host = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.iter().chain(host.then_some(&WITHOUT_NETWORK)) {
        let toleration = Tolerates {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..Tolerates::default()
        };
        let same = |t: &&mut Tolerates| {
            t.key == toleration.key
                && t.operator == toleration.operator
                && t.effect == toleration.effect
                && t.value.as_deref().unwrap_or("").is_empty()
        };
        match tolerations.iter_mut().find(same) {
            Some(present) => *present = toleration,
            None => tolerations.push(toleration),
        }
    }
}

/// How often the template has changed, as pods say it in their label.
#[must_use]
pub fn generation(set: &DaemonSet) -> Option<&str> {
    meta::annotation(&set.metadata, GENERATION_ANNOTATION).filter(|g| g.parse::<i64>().is_ok())
}

/// The template of a DaemonSet's pods at a revision.
#[must_use]
pub fn template(set: &DaemonSet, hash: &str) -> PodTemplateSpec {
    let mut template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    tolerate(template.spec.get_or_insert_default());
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if let Some(generation) = generation(set) {
        labels.insert(TEMPLATE_GENERATION.to_owned(), generation.to_owned());
    }
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    template
}

/// The pod of a template for one node, to be bound there by the scheduler.
#[must_use]
pub fn pod(set: &DaemonSet, template: &PodTemplateSpec, node: &str) -> Pod {
    let owner = meta::controller_reference(set);
    let mut pod = pod_template::pod(template, meta::namespace(&set.metadata), owner);
    pin(pod.spec.get_or_insert_default().affinity.get_or_insert_default(), node);
    pod
}

/// Puts one node in place of whatever nodes the affinity requires: that they are met is known.
fn pin(affinity: &mut Affinity, node: &str) {
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), ..NodeSelectorTerm::default() };
    affinity.node_affinity.get_or_insert_default().required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon_set::testing::{node, set, taint};

    #[test]
    fn a_daemon_belongs_where_it_is_wanted_and_tolerated() {
        let mut only = set("agent");
        only.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_selector =
            Some([("disk".to_owned(), "ssd".to_owned())].into());
        let mut named = set("agent");
        named.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_name = Some("b".to_owned());
        let mut ssd = node("a");
        ssd.metadata.labels.insert("disk".to_owned(), "ssd".to_owned());
        let any = set("agent");
        for (set, node, wanted) in [
            (&any, node("a"), Belongs::Yes),
            (&only, node("a"), Belongs::No),
            (&only, ssd, Belongs::Yes),
            (&named, node("a"), Belongs::No),
            (&named, node("b"), Belongs::Yes),
            (&any, taint(node("a"), "node.kubernetes.io/unschedulable", "NoSchedule"), Belongs::Yes),
            (&any, taint(node("a"), "node.kubernetes.io/unreachable", "NoExecute"), Belongs::Yes),
            (
                &any,
                taint(node("a"), "node.kubernetes.io/network-unavailable", "NoSchedule"),
                Belongs::MayStay,
            ),
            (&any, taint(node("a"), "dedicated", "NoSchedule"), Belongs::MayStay),
            (&any, taint(node("a"), "dedicated", "PreferNoSchedule"), Belongs::Yes),
            (&any, taint(node("a"), "dedicated", "NoExecute"), Belongs::No),
        ] {
            assert_eq!(Demands::of(set).met_by(&node), wanted, "{node:?}");
        }
    }

    #[test]
    fn a_pod_is_pinned_and_labelled_and_tolerates() {
        let mut set = set("agent");
        set.metadata.annotations = Some([(GENERATION_ANNOTATION.to_owned(), "4".to_owned())].into());
        set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().host_network = Some(true);
        let pod = pod(&set, &template(&set, "abc"), "node-7");
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert_eq!((labels[REVISION_HASH].as_str(), labels[TEMPLATE_GENERATION].as_str()), ("abc", "4"));
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.tolerations.as_ref().unwrap().len(), 7);
        assert_eq!(NodeChoice::of(spec).names(), Some(vec!["node-7"]));
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("agent-"));
    }
}
