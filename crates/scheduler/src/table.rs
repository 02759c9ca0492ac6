//! The node table: every node with what runs on it, kept incrementally.
//!
//! A node has a slot for as long as it exists, and a generation that grows with every change to it or to
//! its pods: who remembers a judgement remembers the generation beside it.

use crate::tally::{Carried, Question, Selectors, Tallies, Tally};
use crate::view::{HostPort, NodeView, PodView, Resources};
use krate_api::labels::Labels;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Index of a node in the table.
pub type Slot = usize;

/// A node and what is on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub view: Arc<NodeView>,
    pub pods: Vec<Arc<PodView>>,
    /// What its pods ask for; `pods` is their number.
    pub requested: Resources,
    /// CPU and memory that its pods are taken to use when nodes are scored.
    pub usage: [i64; 2],
    pub ports: Vec<HostPort>,
    /// Where it is in the table.
    pub slot: Slot,
}

impl NodeInfo {
    #[must_use]
    pub fn new(view: Arc<NodeView>) -> Self {
        Self { view, ..Self::default() }
    }

    pub fn add(&mut self, pod: Arc<PodView>) {
        self.requested.add(&pod.requests);
        self.requested.pods += 1;
        self.usage = [self.usage[0] + pod.usage[0], self.usage[1] + pod.usage[1]];
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Takes a pod away; `None` if it is not here.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodView>> {
        let at = self.pods.iter().position(|pod| &*pod.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.sub(&pod.requests);
        self.requested.pods -= 1;
        self.usage = [self.usage[0] - pod.usage[0], self.usage[1] - pod.usage[1]];
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
        Some(pod)
    }
}

/// Labels of the namespaces.
#[derive(Default)]
pub struct Namespaces(HashMap<String, Labels>);

impl Namespaces {
    #[must_use]
    pub fn labels(&self, name: &str) -> &Labels {
        static NONE: Labels = BTreeMap::new();
        self.0.get(name).unwrap_or(&NONE)
    }
}

/// All nodes.
#[derive(Default)]
pub struct Table {
    slots: Vec<Option<NodeInfo>>,
    /// Of each slot. Beside the nodes, not in them: a search that remembers looks at nothing else.
    generations: Vec<u64>,
    free: Vec<Slot>,
    names: HashMap<Arc<str>, Slot>,
    /// Pods on nodes that we have not heard of yet.
    homeless: HashMap<Arc<str>, Vec<Arc<PodView>>>,
    /// The order in which nodes are tried: zone by zone in turns.
    order: Vec<Slot>,
    unordered: bool,
    generation: u64,
    /// Grows when what is counted over all nodes changes: their number, their images.
    epoch: u64,
    /// On how many nodes an image is.
    images: HashMap<String, usize>,
    namespaces: Namespaces,
    /// What plugins have asked to be counted.
    tallies: Mutex<Tallies>,
    carried: Carried,
    /// What Services and controllers select.
    pub selectors: Selectors,
}

impl Table {
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    #[must_use]
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.names.get(name).copied()
    }

    /// The node in a slot of [`Table::order`] or [`Table::slot`].
    #[must_use]
    pub fn node(&self, slot: Slot) -> &NodeInfo {
        self.slots[slot].as_ref().expect("a slot that is handed out holds a node")
    }

    /// Grows with every change of the node in a slot, or of its pods. Never 0 where there is a node.
    #[must_use]
    pub fn generation(&self, slot: Slot) -> u64 {
        self.generations[slot]
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NodeInfo> {
        self.slot(name).map(|slot| self.node(slot))
    }

    /// Upper bound of all slots.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The order in which nodes are tried. [`Table::settle`] after nodes came or went.
    #[must_use]
    pub fn order(&self) -> &[Slot] {
        &self.order
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.slots.iter().flatten()
    }

    /// On how many nodes an image is.
    #[must_use]
    pub fn spread_of_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.namespaces.0.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.0.remove(name)),
        }
        self.tallies.get_mut().namespace_changed();
    }

    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The answer to a question, which follows the table from now on.
    #[must_use]
    pub fn tally(&self, question: Question) -> Arc<Tally> {
        let nodes = self.slots.iter().enumerate().filter_map(|(slot, node)| Some((slot, node.as_ref()?)));
        self.tallies.lock().of(question, nodes, &self.namespaces)
    }

    /// What the pods on the nodes want of others.
    #[must_use]
    pub fn carried(&self) -> &Carried {
        &self.carried
    }

    /// Adds a node or replaces what is known of it.
    pub fn set_node(&mut self, view: Arc<NodeView>) {
        if let Some(slot) = self.slot(&view.name) {
            self.touch(slot);
            let node = self.slots[slot].as_mut().expect("a named slot holds a node");
            let old = std::mem::replace(&mut node.view, view.clone());
            if old.images != view.images {
                self.count_images(&old, false);
                self.count_images(&view, true);
                self.epoch += 1;
            }
            self.unordered |= old.zone() != view.zone();
            if old.labels != view.labels || old.taints != view.taints {
                self.recount(slot, &old);
            }
            return;
        }
        let mut node = NodeInfo::new(view.clone());
        for pod in self.homeless.remove(&view.name).unwrap_or_default() {
            self.carried.count(&view, &pod, 1);
            node.add(pod);
        }
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
            self.generations.push(0);
        }
        self.touch(slot);
        node.slot = slot;
        self.tallies.get_mut().set_node(slot, &node, &self.namespaces);
        self.slots[slot] = Some(node);
        self.names.insert(view.name.clone(), slot);
        self.count_images(&view, true);
        self.epoch += 1;
        self.unordered = true;
    }

    /// A node's labels or taints are others than before: so are the domains that its pods are in.
    fn recount(&mut self, slot: Slot, old: &NodeView) {
        let Some(node) = &self.slots[slot] else { return };
        for pod in &node.pods {
            self.carried.count(old, pod, -1);
            self.carried.count(&node.view, pod, 1);
        }
        self.tallies.get_mut().set_node(slot, node, &self.namespaces);
    }

    /// Forgets a node; its pods are homeless until they go as well.
    pub fn remove_node(&mut self, name: &str) {
        let Some((name, slot)) = self.names.remove_entry(name) else { return };
        let Some(node) = self.slots[slot].take() else { return };
        self.free.push(slot);
        self.count_images(&node.view, false);
        self.tallies.get_mut().remove_node(slot);
        node.pods.iter().for_each(|pod| self.carried.count(&node.view, pod, -1));
        if !node.pods.is_empty() {
            self.homeless.insert(name, node.pods);
        }
        self.epoch += 1;
        self.unordered = true;
    }

    pub fn add_pod(&mut self, node: &Arc<str>, pod: Arc<PodView>) {
        let Some(slot) = self.slot(node) else {
            return self.homeless.entry(node.clone()).or_default().push(pod);
        };
        self.touch(slot);
        if let Some(info) = self.slots[slot].as_mut() {
            self.carried.count(&info.view, &pod, 1);
            self.tallies.get_mut().count(slot, &pod, 1, &self.namespaces);
            info.add(pod);
        }
    }

    pub fn remove_pod(&mut self, node: &str, uid: &str) {
        let Some(slot) = self.slot(node) else { return self.remove_homeless(node, uid) };
        self.touch(slot);
        let Some(info) = self.slots[slot].as_mut() else { return };
        if let Some(pod) = info.remove(uid) {
            self.carried.count(&info.view, &pod, -1);
            self.tallies.get_mut().count(slot, &pod, -1, &self.namespaces);
        }
    }

    /// What was remembered of a slot holds no longer.
    fn touch(&mut self, slot: Slot) {
        self.generation += 1;
        self.generations[slot] = self.generation;
    }

    fn remove_homeless(&mut self, node: &str, uid: &str) {
        let Some(pods) = self.homeless.get_mut(node) else { return };
        pods.retain(|pod| &*pod.uid != uid);
        if pods.is_empty() {
            self.homeless.remove(node);
        }
    }

    /// Puts the order right after nodes came or went.
    pub fn settle(&mut self) {
        if !std::mem::take(&mut self.unordered) {
            return;
        }
        let mut zones: BTreeMap<(String, String), Vec<(Arc<str>, Slot)>> = BTreeMap::new();
        for (slot, node) in self.slots.iter().enumerate().filter_map(|(slot, n)| Some((slot, n.as_ref()?))) {
            zones.entry(node.view.zone()).or_default().push((node.view.name.clone(), slot));
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        zones.values_mut().for_each(|zone| zone.sort());
        self.order = (0..longest)
            .flat_map(|turn| zones.values().filter_map(move |zone| zone.get(turn)).map(|(_, slot)| *slot))
            .collect();
    }

    fn count_images(&mut self, view: &NodeView, here: bool) {
        for name in view.images.keys() {
            let count = self.images.entry(name.clone()).or_default();
            *count = if here { *count + 1 } else { *count - 1 };
            if *count == 0 {
                self.images.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn a_pod_that_came_before_its_node_is_counted_when_the_node_comes() {
        let mut table = Table::default();
        table.add_pod(&"n".into(), pod("a").cpu(500).view());
        assert!(table.is_empty());
        table.set_node(node("n").view());
        assert_eq!(table.get("n").unwrap().requested.cpu, 500);
        table.remove_node("n");
        table.set_node(node("n").view());
        assert_eq!(table.get("n").unwrap().requested.pods, 1);
        table.remove_pod("n", "uid-a");
        assert_eq!(table.get("n").unwrap().requested, Resources::default());
    }

    #[test]
    fn zones_take_turns() {
        let mut table = Table::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
            table.set_node(node(name).label("topology.kubernetes.io/zone", zone).view());
        }
        table.settle();
        let order: Vec<_> = table.order().iter().map(|slot| &*table.node(*slot).view.name).collect();
        assert_eq!(order, ["a1", "b1", "a2", "a3"]);
    }

    #[test]
    fn every_change_is_a_new_generation() {
        let mut table = Table::default();
        table.set_node(node("n").view());
        let generation = |table: &Table| table.generation(table.slot("n").unwrap());
        let first = generation(&table);
        table.add_pod(&"n".into(), pod("a").view());
        let second = generation(&table);
        assert!(second > first);
        table.set_node(node("n").unschedulable().view());
        assert!(generation(&table) > second);
    }
}
