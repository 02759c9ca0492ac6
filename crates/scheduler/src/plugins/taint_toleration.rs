//! Keeps pods off nodes with taints that they do not tolerate, and prefers nodes with fewer of those that
//! only ask to stay away.

use crate::framework::{Look, NodeFilter, NodeScore, Plugin, Unfit, normalize};
use crate::queue::{Event, Events, Hint};
use crate::table::{NodeInfo, Slot, Table};
use crate::view::{Effect, PodView, Toleration, repelled};

const REASON: &str = "node(s) had untolerated taint(s)";

pub struct TaintToleration;

#[derive(Clone)]
struct Filter<'a>(&'a [Toleration]);

impl NodeFilter for Filter<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if repelled(self.0, &node.view.taints) { Err(Unfit::for_good(REASON)) } else { Ok(()) }
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

/// The tolerations that are about taints which only ask to stay away.
struct Score<'a>(Vec<&'a Toleration>);

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.view.taints.iter().filter(|taint| taint.effect == Effect::PreferNoSchedule);
        soft.filter(|taint| !self.0.iter().any(|toleration| toleration.tolerates(taint))).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize(scores, true);
    }
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        Look::Filter(Box::new(Filter(&pod.tolerations)))
    }

    fn score<'a>(&'a self, pod: &'a PodView, _: &'a Table, _: &[Slot]) -> Option<Box<dyn NodeScore + 'a>> {
        let soft = |effect| matches!(effect, None | Some(Effect::PreferNoSchedule));
        let tolerations = pod.tolerations.iter().filter(|toleration| soft(toleration.effect));
        Some(Box::new(Score(tolerations.collect())))
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD | Events::NODE_TAINT | Events::ITSELF
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        match event {
            Event::NodeAdded(node) => (!repelled(&pod.tolerations, &node.taints)).into(),
            Event::NodeChanged { old, new } => {
                (repelled(&pod.tolerations, &old.taints) && !repelled(&pod.tolerations, &new.taints)).into()
            }
            Event::ItselfChanged { old, new } => (old.tolerations != new.tolerations).into(),
            _ => Hint::Skip,
        }
    }
}
