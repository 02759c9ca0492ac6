//! Keeps pods off cordoned nodes, unless they tolerate that.

use crate::framework::{Look, NodeFilter, Plugin, Unfit};
use crate::queue::{Event, Events, Hint};
use crate::table::{NodeInfo, Table};
use crate::view::{Effect, PodView, Taint, tolerated};

const REASON: &str = "node(s) were unschedulable";

pub struct NodeUnschedulable;

#[derive(Clone)]
struct Filter;

impl NodeFilter for Filter {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if node.view.unschedulable { Err(Unfit::for_good(REASON)) } else { Ok(()) }
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

fn tolerates(pod: &PodView) -> bool {
    let key = "node.kubernetes.io/unschedulable".to_owned();
    !pod.tolerations.is_empty()
        && tolerated(&pod.tolerations, &Taint { key, value: String::new(), effect: Effect::NoSchedule })
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        if tolerates(pod) { Look::Skip } else { Look::Filter(Box::new(Filter)) }
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD | Events::NODE_TAINT | Events::ITSELF
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        match event {
            Event::NodeAdded(node) => (!node.unschedulable || tolerates(pod)).into(),
            Event::NodeChanged { old, new } => (old.unschedulable && !new.unschedulable).into(),
            Event::ItselfChanged { new, .. } => tolerates(new).into(),
            _ => Hint::Skip,
        }
    }
}
