//! Node selectors and node affinity, required and preferred.

use crate::framework::{Look, NodeFilter, NodeScore, Plugin, Unfit, normalize};
use crate::queue::{Event, Events, Hint};
use crate::table::{NodeInfo, Slot, Table};
use crate::view::{NodeChoice, NodeView, PodView};

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
/// The terms contradict each other: they allow no node at all.
const CONFLICT: &str = "pod affinity terms conflict";

pub struct NodeAffinity;

#[derive(Clone)]
struct Filter<'a> {
    choice: &'a NodeChoice,
    only: Option<Vec<&'a str>>,
}

impl NodeFilter for Filter<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if accepts(self.choice, &node.view) { Ok(()) } else { Err(Unfit::for_good(REASON)) }
    }

    fn only(&self) -> Option<&[&str]> {
        self.only.as_deref()
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

fn accepts(choice: &NodeChoice, node: &NodeView) -> bool {
    choice.accepts(&node.name, &node.labels)
}

struct Score<'a>(&'a NodeChoice);

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let matching = |term: &crate::view::Term| term.matches(&node.view.name, &node.view.labels);
        self.0.preferred.iter().filter(|(_, term)| matching(term)).map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize(scores, false);
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        if !pod.choice.demands() {
            return Look::Skip;
        }
        let only = pod.choice.names();
        if only.as_ref().is_some_and(Vec::is_empty) {
            return Look::Reject(Unfit::for_good(CONFLICT));
        }
        Look::Filter(Box::new(Filter { choice: &pod.choice, only }))
    }

    fn score<'a>(&'a self, pod: &'a PodView, _: &'a Table, _: &[Slot]) -> Option<Box<dyn NodeScore + 'a>> {
        (!pod.choice.preferred.is_empty()).then(|| Box::new(Score(&pod.choice)) as Box<dyn NodeScore>)
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD | Events::NODE_LABEL
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        match event {
            Event::NodeAdded(node) => accepts(&pod.choice, node).into(),
            Event::NodeChanged { old, new } => {
                (accepts(&pod.choice, new) && !accepts(&pod.choice, old)).into()
            }
            _ => Hint::Skip,
        }
    }
}
