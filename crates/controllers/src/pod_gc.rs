//! Pods that nobody else ends: of nodes that are gone, deleted before they were scheduled, stuck on nodes
//! that are out of service, and finished ones beyond a number.

use crate::env::{Env, synced};
use crate::nodes::{self, NodeView};
use crate::pods::{self, PodView};
use krate_api::Status;
use krate_api::meta::DeleteOptions;
use krate_api::types::core::v1::{Node, Pod};
use krate_base::Clock;
use krate_client::api::delete_uid;
use krate_client::{Api, Informer, Outcome, PatchKind, Queue};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const ACCOUNT: &str = "pod-garbage-collector";
const WORKERS: usize = 4;
/// A node must be gone for this long before its pods are taken for lost.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The queue's key of the count of finished pods; no pod has it.
const COUNT: &str = "";

struct Controller {
    api: Api<Pod>,
    node_api: Api<Node>,
    nodes: Informer<NodeView>,
    pods: Informer<PodView>,
    clock: Clock,
    threshold: usize,
    finished: Mutex<BTreeSet<String>>,
    /// Since when a node that pods are bound to is missing.
    missing: Mutex<HashMap<String, Instant>>,
}

pub fn start(env: &Env) {
    let (nodes, pods) = (nodes::informer(&env.informers), pods::informer(&env.informers));
    let queue: Queue = env.queue("pod_gc");
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        node_api: env.api(ACCOUNT),
        nodes: nodes.clone(),
        pods: pods.clone(),
        clock: env.clock.clone(),
        threshold: env.cluster.terminated_pods,
        finished: Mutex::default(),
        missing: Mutex::default(),
    });
    let (q, c) = (queue.clone(), controller.clone());
    pods.subscribe(move |old, new| c.pod_changed(&q, old, new));
    let (q, c, by_node) = (queue.clone(), controller.clone(), pods::by_node(&pods));
    nodes.subscribe(move |old, new| {
        let Some(node) = new.or(old) else { return };
        let is_out = |n: &Arc<NodeView>| n.spec.taints.iter().any(|t| t.key == OUT_OF_SERVICE);
        if new.is_some() {
            c.missing.lock().remove(node.name());
        }
        if new.is_none_or(is_out) {
            by_node.keys(node.name()).into_iter().for_each(|key| q.add(key));
        }
    });
    env.run(&queue, WORKERS, synced!(nodes, pods), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    fn pod_changed(&self, queue: &Queue, old: Option<&Arc<PodView>>, new: Option<&Arc<PodView>>) {
        let Some(pod) = new.or(old) else { return };
        let key = pod.metadata.key();
        let mut finished = self.finished.lock();
        if new.is_some_and(|p| p.is_finished()) {
            finished.insert(key.clone());
            if self.threshold > 0 && finished.len() > self.threshold {
                queue.add(COUNT);
            }
        } else {
            finished.remove(&key);
        }
        drop(finished);
        let Some(pod) = new else { return };
        let bound = !pod.spec.node_name.is_empty();
        let homeless = bound && self.nodes.has_synced() && self.nodes.get(&pod.spec.node_name).is_none();
        let just_bound = bound && old.is_none_or(|o| o.spec.node_name.is_empty());
        if pod.is_deleting() || homeless || just_bound {
            queue.add(key);
        }
    }

    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        if key == COUNT {
            return self.trim().await;
        }
        let Some(pod) = self.pods.get(key) else { return Ok(Outcome::Done) };
        if pod.spec.node_name.is_empty() {
            if pod.is_deleting() {
                self.end(&pod, None).await?;
            }
            return Ok(Outcome::Done);
        }
        if let Some(node) = self.nodes.get(&pod.spec.node_name) {
            let out = node.spec.taints.iter().any(|t| t.key == OUT_OF_SERVICE);
            let ready = node.condition("Ready").is_some_and(|c| c.status == "True");
            if out && !ready && pod.is_deleting() {
                self.end(&pod, None).await?;
            }
            return Ok(Outcome::Done);
        }
        let name = &pod.spec.node_name;
        let since = *self.missing.lock().entry(name.clone()).or_insert_with(Instant::now);
        if let Some(left) = QUARANTINE.checked_sub(since.elapsed()).filter(|l| !l.is_zero()) {
            return Ok(Outcome::After(left));
        }
        // Only the API itself says for sure that it is gone.
        if self.node_api.get_opt("", name).await?.is_none() {
            self.end(&pod, Some("PodGC: node no longer exists")).await?;
        }
        Ok(Outcome::Done)
    }

    /// Removes a pod for good. What was still alive is told to have failed, and why.
    async fn end(&self, pod: &PodView, lost: Option<&str>) -> Result<(), Status> {
        let gone = |status: Status| if status.is_not_found() { Ok(()) } else { Err(status) };
        if !pod.is_finished() {
            let mut conditions = pod.status.conditions.clone();
            if let Some(message) = lost {
                pods::disrupt(&mut conditions, "DeletionByPodGC", message, self.clock.now_seconds());
            }
            // The list is replaced as a whole: only if the pod is still as it was seen.
            let patch = serde_json::json!({
                "metadata": {"uid": pod.uid(), "resourceVersion": pod.metadata.resource_version},
                "status": {"phase": "Failed", "conditions": conditions},
            });
            let patch = patch.to_string();
            let told = self.api.patch_status(pod.namespace(), pod.name(), PatchKind::Merge, patch).await;
            told.map(drop).or_else(gone)?;
        }
        let options = DeleteOptions { grace_period_seconds: Some(0), ..delete_uid(pod.uid()) };
        self.api.delete(pod.namespace(), pod.name(), options).await.or_else(gone)
    }

    /// Removes the oldest finished pods beyond the threshold.
    async fn trim(&self) -> Result<Outcome, Status> {
        let keys: Vec<String> = self.finished.lock().iter().cloned().collect();
        let mut finished: Vec<_> =
            keys.iter().filter_map(|key| self.pods.get(key)).filter(|p| p.is_finished()).collect();
        finished.sort_by_key(|p| (p.metadata.created(), p.metadata.key()));
        let excess = finished.len().saturating_sub(self.threshold);
        for pod in finished.iter().take(excess).filter(|p| !p.is_deleting()) {
            self.end(pod, None).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Cluster;
    use crate::world::{World, named};

    fn pod(w: &World, name: &str, phase: &str) {
        let mut pod = Pod::default();
        named(&mut pod, name);
        pod.spec.get_or_insert_default().node_name = Some("node-1".to_owned());
        pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        w.fake.put(&pod);
    }

    #[tokio::test(start_paused = true)]
    async fn pods_of_a_node_that_is_gone_go_after_a_while() {
        let w = World::new(&[start]);
        let mut node = Node::default();
        node.metadata.name = Some("node-1".to_owned());
        w.fake.put(&node);
        pod(&w, "a", "Running");
        w.pass(600).await;
        assert_eq!(w.names::<Pod>(), ["a"]);
        w.fake.remove::<Node>("", "node-1");
        w.pass(35).await;
        assert_eq!(w.names::<Pod>(), ["a"]);
        w.pass(10).await;
        assert!(w.names::<Pod>().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_finished_pods_go_beyond_the_threshold() {
        let w = World::with(Cluster { terminated_pods: 2, ..Cluster::default() }, &[start]);
        let mut node = Node::default();
        node.metadata.name = Some("node-1".to_owned());
        w.fake.put(&node);
        for name in ["d", "c", "b", "a"] {
            pod(&w, name, "Succeeded");
            w.pass(2).await;
        }
        assert_eq!(w.names::<Pod>(), ["a", "b"]);
    }
}
