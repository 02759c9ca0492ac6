//! A pod fits on a node that has what it asks for; and among those, prefer the emptier (or, if configured,
//! the fuller) ones.

use crate::framework::{Look, MAX_SCORE, NodeFilter, NodeScore, Plugin, Reason, Unfit};
use crate::plugins::Settings;
use crate::queue::{Event, Events, Hint};
use crate::table::{NodeInfo, Slot, Table};
use crate::view::{PodView, Resources};

/// Which of the nodes that fit are better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The emptier.
    LeastAllocated,
    /// The fuller.
    MostAllocated,
    /// By a function of how much of a resource would be used.
    RequestedToCapacityRatio(Shape),
}

/// Points (used share in percent, score 0 to 10) of a function, by rising share; straight between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub Vec<(i64, i64)>);

impl Shape {
    fn at(&self, used: i64) -> i64 {
        const SCALE: i64 = MAX_SCORE / 10;
        let mut before: Option<(i64, i64)> = None;
        for (share, score) in &self.0 {
            let (share, score) = (*share, score * SCALE);
            if used <= share {
                return match before {
                    Some((x, y)) if share > x => y + (score - y) * (used - x) / (share - x),
                    _ => score,
                };
            }
            before = Some((share, score));
        }
        before.map_or(0, |(_, score)| score)
    }
}

pub struct NodeResourcesFit {
    strategy: Strategy,
    scored: Vec<(String, i64)>,
}

impl NodeResourcesFit {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { strategy: settings.strategy.clone(), scored: settings.scored.clone() }
    }
}

#[derive(Clone)]
struct Filter<'a> {
    wanted: &'a Resources,
    is_zero: bool,
}

impl NodeFilter for Filter<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        let (has, used) = (&node.view.allocatable, &node.requested);
        let full = used.pods + 1 > has.pods;
        if self.is_zero {
            return if full { Err(Unfit::for_now("Too many pods")) } else { Ok(()) };
        }
        let lacks = |wanted: i64, has: i64, used: i64| wanted > 0 && wanted > has - used;
        let wanted = self.wanted;
        let plain = !full
            && !lacks(wanted.cpu, has.cpu, used.cpu)
            && !lacks(wanted.memory, has.memory, used.memory)
            && !lacks(wanted.storage, has.storage, used.storage);
        if plain && wanted.scalars.is_empty() {
            return Ok(());
        }
        let mut unfit = Unfit { reasons: vec![], resolvable: true };
        if full {
            unfit.reasons.push("Too many pods".into());
        }
        let named: [(Reason, i64, i64, i64); 3] = [
            ("Insufficient cpu".into(), wanted.cpu, has.cpu, used.cpu),
            ("Insufficient memory".into(), wanted.memory, has.memory, used.memory),
            ("Insufficient ephemeral-storage".into(), wanted.storage, has.storage, used.storage),
        ];
        let scalars = wanted.scalars.iter().map(|(name, wanted)| {
            (format!("Insufficient {name}").into(), *wanted, has.scalar(name), used.scalar(name))
        });
        for (reason, wanted, has, used) in named.into_iter().chain(scalars) {
            if lacks(wanted, has, used) {
                unfit.reasons.push(reason);
                // not even the empty node has as much
                unfit.resolvable &= wanted <= has;
            }
        }
        if unfit.reasons.is_empty() { Ok(()) } else { Err(unfit) }
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

struct Score<'a> {
    pod: &'a PodView,
    fit: &'a NodeResourcesFit,
}

/// What would be used of a resource with the pod on the node, and how much there is. CPU and memory count
/// with their defaults.
fn used_with(pod: &PodView, node: &NodeInfo, name: &str) -> (i64, i64) {
    let has = node.view.allocatable.get(name);
    let used = match name {
        "cpu" => node.usage[0] + pod.usage[0],
        "memory" => node.usage[1] + pod.usage[1],
        other => node.requested.get(other) + pod.requests.get(other),
    };
    (used, has)
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (mut total, mut weights) = (0, 0);
        for (name, weight) in &self.fit.scored {
            let (used, has) = used_with(self.pod, node, name);
            let is_scalar = !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if has == 0 || (is_scalar && self.pod.requests.get(name) == 0) {
                continue;
            }
            let share = || if used > has { 100 } else { 100 - (has - used) * 100 / has };
            total += weight
                * match &self.fit.strategy {
                    Strategy::LeastAllocated if used > has => 0,
                    Strategy::LeastAllocated => (has - used) * MAX_SCORE / has,
                    Strategy::MostAllocated => used.min(has) * MAX_SCORE / has,
                    Strategy::RequestedToCapacityRatio(shape) => shape.at(share()),
                };
            weights += weight;
        }
        if weights == 0 { 0 } else { total / weights }
    }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        let is_zero = pod.requests.is_zero() && pod.requests.scalars.is_empty();
        Look::Filter(Box::new(Filter { wanted: &pod.requests, is_zero }))
    }

    fn score<'a>(&'a self, pod: &'a PodView, _: &'a Table, _: &[Slot]) -> Option<Box<dyn NodeScore + 'a>> {
        Some(Box::new(Score { pod, fit: self }))
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD
            | Events::NODE_ALLOCATABLE
            | Events::POD_DELETE
            | Events::POD_SCALE_DOWN
            | Events::ITSELF
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        match event {
            Event::NodeAdded(node) | Event::NodeChanged { new: node, .. } => {
                let empty = NodeInfo::new(node.clone());
                let filter = Filter { wanted: &pod.requests, is_zero: pod.requests.is_zero() };
                filter.check(&empty).is_ok().into()
            }
            Event::ItselfChanged { old, new } => (old.requests != new.requests).into(),
            // every pod that goes frees at least its place
            Event::PodDeleted(_) | Event::PodChanged { .. } => Hint::Queue,
            _ => Hint::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    fn judge(pod: &PodView, node: &NodeInfo) -> Result<(), Unfit> {
        let plugin = NodeResourcesFit::new(&Settings::default());
        let table = Table::default();
        match plugin.filter(pod, &table) {
            Look::Filter(filter) => filter.check(node),
            _ => panic!("every pod is filtered"),
        }
    }

    #[test]
    fn every_lack_is_named_and_what_no_empty_node_has_cannot_be_resolved() {
        let mut node = NodeInfo::new(node("n").cpu(1000).memory(1 << 30).pods(1).view());
        node.add(pod("other").cpu(600).view());
        let unfit = judge(&pod("a").cpu(500).scalar("example.com/x", 1).view(), &node).unwrap_err();
        assert_eq!(unfit.reasons, ["Too many pods", "Insufficient cpu", "Insufficient example.com/x"]);
        assert!(!unfit.resolvable, "there is no example.com/x at all");
        let unfit = judge(&pod("a").cpu(500).view(), &node).unwrap_err();
        assert!(unfit.resolvable);
        let unfit = judge(&pod("a").view(), &node).unwrap_err();
        assert_eq!(unfit.reasons, ["Too many pods"]);
    }

    fn score(strategy: Strategy, cpu: i64, memory: i64) -> i64 {
        let settings = Settings { strategy, ..Settings::default() };
        let plugin = NodeResourcesFit::new(&settings);
        let node = NodeInfo::new(node("n").cpu(1000).memory(1000).view());
        let pod = pod("a").cpu(cpu).memory(memory).view();
        plugin.score(&pod, &Table::default(), &[]).unwrap().score(&node)
    }

    #[test]
    fn nodes_are_scored_by_what_is_left() {
        assert_eq!(score(Strategy::LeastAllocated, 250, 750), (75 + 25) / 2);
        assert_eq!(score(Strategy::LeastAllocated, 250, 2000), 75 / 2);
        assert_eq!(score(Strategy::MostAllocated, 250, 750), (25 + 75) / 2);
        let shape = Shape(vec![(0, 0), (50, 10), (100, 0)]);
        assert_eq!(score(Strategy::RequestedToCapacityRatio(shape), 250, 750), 50);
    }
}
