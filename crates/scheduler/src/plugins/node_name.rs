//! A pod that names its node goes there or nowhere.

use crate::framework::{Look, NodeFilter, Plugin, Unfit};
use crate::queue::{Event, Events, Hint};
use crate::table::{NodeInfo, Table};
use crate::view::PodView;

const REASON: &str = "node(s) didn't match the requested node name";

pub struct NodeName;

#[derive(Clone)]
struct Filter<'a>(&'a str);

impl NodeFilter for Filter<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if *node.view.name == *self.0 { Ok(()) } else { Err(Unfit::for_good(REASON)) }
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        match &pod.node {
            Some(name) => Look::Filter(Box::new(Filter(name))),
            None => Look::Skip,
        }
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        matches!(event, Event::NodeAdded(node) if pod.node.as_ref() == Some(&node.name)).into()
    }
}
