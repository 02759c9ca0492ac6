//! Which daemons to start and to end, node by node. Pure but for the memory of failures that it is given.

use super::nodes::{Belongs, Demands, TEMPLATE_GENERATION, generation};
use crate::history::REVISION_HASH;
use crate::nodes::NodeView;
use crate::patience::Patience;
use crate::pods::{Availability, PodView};
use jiff::Timestamp;
use krate_api::types::apps::v1::DaemonSet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A pod as it is shared with the cache.
pub type Daemon = Arc<PodView>;

/// What a plan is made of.
pub struct Observed<'a> {
    pub set: &'a DaemonSet,
    /// The hash of the present revision.
    pub hash: &'a str,
    /// The nodes, and whether a daemon belongs there.
    pub nodes: Vec<(&'a NodeView, Belongs)>,
    /// The daemons by their node, the oldest first. Finished ones that are being deleted are left out.
    pub daemons: BTreeMap<&'a str, Vec<Daemon>>,
    pub now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Actions {
    /// Nodes that get a daemon.
    pub create: Vec<String>,
    pub delete: Vec<Daemon>,
    /// Ended daemons among those to delete, which are told about.
    pub ended: Vec<Daemon>,
    /// When something is to be done by the mere passing of time.
    pub again: Option<Duration>,
}

impl Actions {
    pub fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |before| before.min(after)));
    }
}

impl<'a> Observed<'a> {
    #[must_use]
    pub fn new(
        set: &'a DaemonSet,
        hash: &'a str,
        nodes: &'a [Arc<NodeView>],
        pods: &'a [Daemon],
        now: Timestamp,
    ) -> Self {
        let demands = Demands::of(set);
        let nodes = nodes.iter().map(|node| (&**node, demands.met_by(node))).collect();
        let mut daemons: BTreeMap<&str, Vec<Daemon>> = BTreeMap::new();
        for pod in pods.iter().filter(|p| !(p.is_deleting() && p.is_finished())) {
            daemons.entry(pod.target_node()).or_default().push(pod.clone());
        }
        for on_node in daemons.values_mut() {
            on_node.sort_by(|a, b| {
                let key = |p: &Daemon| (p.spec.node_name.is_empty(), p.metadata.created());
                key(a).cmp(&key(b)).then_with(|| a.name().cmp(b.name()))
            });
        }
        Self { set, hash, nodes, daemons, now }
    }

    #[must_use]
    pub fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    #[must_use]
    pub fn is_available(&self, pod: &PodView) -> bool {
        pod.is_available(self.min_ready(), self.now)
    }

    /// Whether a pod is of the present template.
    #[must_use]
    pub fn is_updated(&self, pod: &PodView) -> bool {
        let same = |label, wanted: Option<&str>| wanted.is_some() && pod.label(label) == wanted;
        same(REVISION_HASH, Some(self.hash)) || same(TEMPLATE_GENERATION, generation(self.set))
    }

    /// Nodes on which a daemon is wanted.
    #[must_use]
    pub fn desired(&self) -> usize {
        self.nodes.iter().filter(|(_, belongs)| *belongs == Belongs::Yes).count()
    }

    /// The daemons of a node.
    #[must_use]
    pub fn on(&self, node: &str) -> &[Daemon] {
        self.daemons.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// Brings every node to one daemon or none. `surges` when two may be there during an update.
    pub fn manage(&self, surges: bool, patience: &mut impl Patience) -> Actions {
        let mut actions = Actions::default();
        for (node, belongs) in &self.nodes {
            let here = self.on(node.name());
            match belongs {
                Belongs::Yes if here.is_empty() => actions.create.push(node.name().to_owned()),
                Belongs::No => {
                    actions.delete.extend(here.iter().filter(|p| !p.is_deleting()).cloned());
                }
                _ => {
                    let running = drop_ended(node.name(), here, patience, &mut actions);
                    if surges {
                        self.at_most_two(node.name(), *belongs, &running, &mut actions);
                    } else {
                        actions.delete.extend(running.into_iter().skip(1));
                    }
                }
            }
        }
        actions.delete.extend(self.stranded());
        actions
    }

    /// An old and a new daemon may be together until the new one is available, or the old one is not ready.
    fn at_most_two(&self, node: &str, belongs: Belongs, running: &[Daemon], actions: &mut Actions) {
        if running.is_empty() && belongs == Belongs::Yes {
            actions.create.push(node.to_owned());
        }
        if running.len() < 2 {
            return;
        }
        let (mut new, mut old) = (None, None);
        for pod in running {
            let is_new = pod.label(REVISION_HASH) == Some(self.hash);
            let place = if is_new { &mut new } else { &mut old };
            if place.is_none() {
                *place = Some(pod);
            } else {
                actions.delete.push(pod.clone());
            }
        }
        let (Some(new), Some(old)) = (new, old) else { return };
        match new.availability(self.min_ready(), self.now) {
            _ if !old.is_ready() => actions.delete.push(old.clone()),
            Availability::Yes => actions.delete.push(old.clone()),
            Availability::In(left) => actions.look_again(left),
            Availability::No => {}
        }
    }

    /// Daemons that were never bound, of nodes that are gone: nobody else would remove them.
    fn stranded(&self) -> impl Iterator<Item = Daemon> {
        let known = |name: &str| self.nodes.iter().any(|(node, _)| node.name() == name);
        let gone = self.daemons.iter().filter(move |(node, _)| !known(node));
        gone.flat_map(|(_, pods)| pods).filter(|p| p.spec.node_name.is_empty() && !p.is_deleting()).cloned()
    }
}

/// Ends what has ended by itself; returns the others that are not on their way out.
fn drop_ended(
    node: &str,
    here: &[Daemon],
    patience: &mut impl Patience,
    actions: &mut Actions,
) -> Vec<Daemon> {
    let mut running = vec![];
    for pod in here.iter().filter(|p| !p.is_deleting()) {
        if !pod.is_finished() {
            running.push(pod.clone());
            continue;
        }
        if pod.status.phase == "Failed"
            && let Err(wait) = patience.replace(node)
        {
            actions.look_again(wait);
            continue;
        }
        actions.ended.push(pod.clone());
        actions.delete.push(pod.clone());
    }
    running
}
