//! Pods that wait for a node which is being cleared for them: they count on that node for pods that are
//! no more important than they.

use crate::view::PodView;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Default)]
pub struct Nominated {
    nodes: HashMap<Arc<str>, Vec<Arc<PodView>>>,
    pods: HashMap<Arc<str>, Arc<str>>,
}

impl Nominated {
    /// Nominates a pod to a node, and no other.
    pub fn set(&mut self, pod: Arc<PodView>, node: Arc<str>) {
        self.remove(&pod.uid);
        self.pods.insert(pod.uid.clone(), node.clone());
        self.nodes.entry(node).or_default().push(pod);
    }

    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.pods.remove(uid) else { return };
        if let Some(pods) = self.nodes.get_mut(&node) {
            pods.retain(|pod| &*pod.uid != uid);
            if pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    #[must_use]
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.pods.get(uid)
    }

    /// The pods nominated to a node that count when `pod` is tried there.
    pub fn guests<'a>(&'a self, node: &str, pod: &'a PodView) -> impl Iterator<Item = &'a Arc<PodView>> {
        let there = self.nodes.get(node);
        let counts = |other: &&Arc<PodView>| other.priority >= pod.priority && other.uid != pod.uid;
        there.into_iter().flatten().filter(counts)
    }

    /// The pods nominated to a node that are less important than `priority`.
    #[must_use]
    pub fn below(&self, node: &str, priority: i32) -> Vec<Arc<PodView>> {
        let there = self.nodes.get(node).into_iter().flatten();
        there.filter(|pod| pod.priority < priority).cloned().collect()
    }
}
