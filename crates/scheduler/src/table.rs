//! The node table: every node with what runs on it, kept incrementally.
//!
//! A node has a slot for as long as it exists, and a generation that grows with every change to it or to
//! its pods: who remembers a judgement remembers the generation beside it.

use crate::view::{HostPort, NodeView, PodView, Resources};
use krate_api::labels::Labels;
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
    /// Number of its pods with required anti-affinity.
    pub anti_affine: usize,
    pub generation: u64,
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
        self.anti_affine += usize::from(is_anti_affine(&pod));
        self.pods.push(pod);
    }

    /// Takes a pod away; `None` if it is not here.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodView>> {
        let at = self.pods.iter().position(|pod| &*pod.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.sub(&pod.requests);
        self.requested.pods -= 1;
        self.usage = [self.usage[0] - pod.usage[0], self.usage[1] - pod.usage[1]];
        self.anti_affine -= usize::from(is_anti_affine(&pod));
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
        Some(pod)
    }
}

fn is_anti_affine(pod: &PodView) -> bool {
    pod.affinity.as_ref().is_some_and(|affinity| !affinity.required_anti.is_empty())
}

/// All nodes.
#[derive(Default)]
pub struct Table {
    slots: Vec<Option<NodeInfo>>,
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
    /// Number of pods with required anti-affinity.
    anti_affine: usize,
    /// Labels of the namespaces.
    namespaces: HashMap<String, Labels>,
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

    #[must_use]
    pub fn has_anti_affine_pods(&self) -> bool {
        self.anti_affine > 0
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
    }

    #[must_use]
    pub fn namespace(&self, name: &str) -> &Labels {
        static NONE: Labels = BTreeMap::new();
        self.namespaces.get(name).unwrap_or(&NONE)
    }

    /// Adds a node or replaces what is known of it.
    pub fn set_node(&mut self, view: Arc<NodeView>) {
        self.generation += 1;
        if let Some(slot) = self.slot(&view.name) {
            let generation = self.generation;
            let node = self.slots[slot].as_mut().expect("a named slot holds a node");
            let old = std::mem::replace(&mut node.view, view.clone());
            node.generation = generation;
            if old.images != view.images {
                self.count_images(&old, false);
                self.count_images(&view, true);
                self.epoch += 1;
            }
            self.unordered |= old.zone() != view.zone();
            return;
        }
        let mut node = NodeInfo::new(view.clone());
        node.generation = self.generation;
        for pod in self.homeless.remove(&view.name).unwrap_or_default() {
            node.add(pod);
        }
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(node);
        self.names.insert(view.name.clone(), slot);
        self.count_images(&view, true);
        self.epoch += 1;
        self.unordered = true;
    }

    /// Forgets a node; its pods are homeless until they go as well.
    pub fn remove_node(&mut self, name: &str) {
        let Some((name, slot)) = self.names.remove_entry(name) else { return };
        let Some(node) = self.slots[slot].take() else { return };
        self.free.push(slot);
        self.count_images(&node.view, false);
        if !node.pods.is_empty() {
            self.homeless.insert(name, node.pods);
        }
        self.epoch += 1;
        self.unordered = true;
    }

    pub fn add_pod(&mut self, node: &Arc<str>, pod: Arc<PodView>) {
        self.anti_affine += usize::from(is_anti_affine(&pod));
        self.generation += 1;
        let generation = self.generation;
        match self.slot(node).and_then(|slot| self.slots[slot].as_mut()) {
            Some(info) => {
                info.add(pod);
                info.generation = generation;
            }
            None => self.homeless.entry(node.clone()).or_default().push(pod),
        }
    }

    pub fn remove_pod(&mut self, node: &str, uid: &str) {
        self.generation += 1;
        let generation = self.generation;
        let removed = match self.slot(node).and_then(|slot| self.slots[slot].as_mut()) {
            Some(info) => {
                info.generation = generation;
                info.remove(uid)
            }
            None => self.homeless.get_mut(node).and_then(|pods| {
                let at = pods.iter().position(|pod| &*pod.uid == uid)?;
                Some(pods.swap_remove(at))
            }),
        };
        if self.homeless.get(node).is_some_and(Vec::is_empty) {
            self.homeless.remove(node);
        }
        self.anti_affine -= usize::from(removed.is_some_and(|pod| is_anti_affine(&pod)));
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
        let first = table.get("n").unwrap().generation;
        table.add_pod(&"n".into(), pod("a").view());
        let second = table.get("n").unwrap().generation;
        assert!(second > first);
        table.set_node(node("n").unschedulable().view());
        assert!(table.get("n").unwrap().generation > second);
    }
}
