//! What the scheduler takes the cluster to be: the node table with the pods that are bound, and those that
//! it has decided about and takes to be bound (assumes) until the API says so or refuses.

use crate::table::Table;
use crate::view::PodView;
use std::collections::HashMap;
use std::sync::Arc;

/// Where a pod is.
struct Placed {
    pod: Arc<PodView>,
    node: Arc<str>,
    assumed: bool,
}

#[derive(Default)]
pub struct Cluster {
    pub table: Table,
    placed: HashMap<Arc<str>, Placed>,
}

impl Cluster {
    /// Takes a pod to be on a node from now on.
    pub fn assume(&mut self, pod: Arc<PodView>, node: Arc<str>) {
        self.place(pod, node, true);
    }

    /// The assumption was wrong. True if it still stood.
    pub fn forget(&mut self, uid: &str) -> bool {
        let assumed = self.is_assumed(uid);
        if assumed {
            self.remove(uid);
        }
        assumed
    }

    /// The API says that a pod is on a node (its `node`).
    pub fn set(&mut self, pod: Arc<PodView>) {
        if let Some(node) = pod.node.clone() {
            self.place(pod, node, false);
        }
    }

    /// The pod is gone, or has ended. Its state as it was known.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodView>> {
        let placed = self.placed.remove(uid)?;
        self.table.remove_pod(&placed.node, uid);
        Some(placed.pod)
    }

    #[must_use]
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.placed.get(uid).is_some_and(|placed| placed.assumed)
    }

    #[must_use]
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.placed.get(uid).map(|placed| &placed.node)
    }

    /// Number of pods on nodes, and of those among them that are assumed.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.placed.len(), self.placed.values().filter(|placed| placed.assumed).count())
    }

    fn place(&mut self, pod: Arc<PodView>, node: Arc<str>, assumed: bool) {
        if let Some(before) = self.placed.get_mut(&pod.uid) {
            if before.node == node && same_weight(&before.pod, &pod) {
                // the confirmation of what was assumed changes nothing that anybody judged by
                before.assumed = assumed;
                return;
            }
            let old = before.node.clone();
            self.table.remove_pod(&old, &pod.uid);
        }
        self.table.add_pod(&node, pod.clone());
        self.placed.insert(pod.uid.clone(), Placed { pod, node, assumed });
    }
}

/// Whether two states of a pod weigh the same on a node and to other pods.
fn same_weight(a: &PodView, b: &PodView) -> bool {
    a.requests == b.requests
        && a.usage == b.usage
        && a.ports == b.ports
        && a.labels == b.labels
        && a.priority == b.priority
        && a.deleting == b.deleting
        && a.started == b.started
        && a.nominated == b.nominated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    fn cpu(cluster: &Cluster, name: &str) -> i64 {
        cluster.table.get(name).unwrap().requested.cpu
    }

    #[test]
    fn an_assumed_pod_weighs_until_it_is_forgotten_or_confirmed() {
        let mut cluster = Cluster::default();
        cluster.table.set_node(node("a").view());
        cluster.table.set_node(node("b").view());
        let web = pod("web").cpu(300);
        cluster.assume(web.clone().view(), "a".into());
        assert!(cpu(&cluster, "a") == 300 && cluster.is_assumed("uid-web"));
        assert!(cluster.forget("uid-web"));
        assert!(!cluster.forget("uid-web"));
        assert_eq!(cpu(&cluster, "a"), 0);

        cluster.assume(web.clone().view(), "a".into());
        cluster.set(web.clone().on("a").view());
        assert!(!cluster.forget("uid-web"), "confirmed");
        cluster.set(web.on("b").view());
        assert_eq!((cpu(&cluster, "a"), cpu(&cluster, "b")), (0, 300));
        cluster.remove("uid-web");
        assert_eq!((cpu(&cluster, "b"), cluster.counts()), (0, (0, 0)));
    }
}
