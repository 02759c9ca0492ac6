//! Two pods cannot have one port of a node.

use crate::framework::{Look, NodeFilter, Plugin, Unfit};
use crate::queue::{Event, Events, Hint};
use crate::table::{NodeInfo, Table};
use crate::view::{HostPort, PodView};

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

pub struct NodePorts;

#[derive(Clone)]
struct Filter<'a>(&'a [HostPort]);

impl NodeFilter for Filter<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        let taken = self.0.iter().any(|port| node.ports.iter().any(|taken| taken.conflicts(port)));
        if taken { Err(Unfit::for_now(REASON)) } else { Ok(()) }
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        if pod.ports.is_empty() { Look::Skip } else { Look::Filter(Box::new(Filter(&pod.ports))) }
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD | Events::POD_DELETE
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        match event {
            Event::PodDeleted(gone) => {
                pod.ports.iter().any(|port| gone.ports.iter().any(|freed| freed.conflicts(port))).into()
            }
            _ => Hint::Queue,
        }
    }
}
