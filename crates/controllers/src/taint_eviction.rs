//! Pods on nodes with NoExecute taints: those that do not tolerate them go at once, those that tolerate
//! them for a time go when it is over.

use crate::env::{Env, synced};
use crate::nodes::{self, NodeView};
use crate::pods::{self, PodView};
use jiff::{SignedDuration, Timestamp};
use krate_api::Status;
use krate_api::types::core::v1::{Pod, Taint, Toleration};
use krate_base::Clock;
use krate_client::api::delete_uid;
use krate_client::{Api, Informer, Outcome, Queue, Recorder};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

const ACCOUNT: &str = "node-controller";
const COMPONENT: &str = "taint-eviction-controller";
const WORKERS: usize = 8;

struct Controller {
    api: Api<Pod>,
    nodes: Informer<NodeView>,
    pods: Informer<PodView>,
    recorder: Recorder,
    clock: Clock,
    /// By pod uid, since when it is on borrowed time.
    since: Mutex<HashMap<String, Timestamp>>,
}

pub fn start(env: &Env) {
    let (nodes, pods) = (nodes::informer(&env.informers), pods::informer(&env.informers));
    let queue: Queue = env.queue("noexec_taint_pod");
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        nodes: nodes.clone(),
        pods: pods.clone(),
        recorder: env.recorder(ACCOUNT, COMPONENT),
        clock: env.clock.clone(),
        since: Mutex::default(),
    });
    let by_node = pods::by_node(&pods);
    let (q, c) = (queue.clone(), controller.clone());
    pods.subscribe(move |old, new| {
        let Some(pod) = new.or(old) else { return };
        let same = old.zip(new).is_some_and(|(old, new)| {
            old.spec.node_name == new.spec.node_name && old.spec.tolerations == new.spec.tolerations
        });
        if new.is_none() {
            c.since.lock().remove(pod.uid());
        } else if !same && !pod.spec.node_name.is_empty() {
            q.add(pod.metadata.key());
        }
    });
    let q = queue.clone();
    nodes.subscribe(move |old, new| {
        let taints = |n: &Arc<NodeView>| no_execute(n).cloned().collect::<Vec<_>>();
        if let Some(node) = new.filter(|n| old.map(taints).unwrap_or_default() != taints(n)) {
            by_node.keys(node.name()).into_iter().for_each(|key| q.add(key));
        }
    });
    env.run(&queue, WORKERS, synced!(nodes, pods), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

fn no_execute(node: &NodeView) -> impl Iterator<Item = &Taint> {
    node.spec.taints.iter().filter(|t| t.effect == "NoExecute")
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(pod) = self.pods.get(key).filter(|p| !p.is_deleting()) else { return Ok(Outcome::Done) };
        let Some(node) = self.nodes.get(&pod.spec.node_name) else { return Ok(Outcome::Done) };
        let taints: Vec<&Taint> = no_execute(&node).collect();
        let now = self.clock.now();
        match verdict(&taints, &pod.spec.tolerations) {
            Verdict::Stay => {
                if self.since.lock().remove(pod.uid()).is_some() {
                    let text = format!("Cancelling deletion of Pod {key}");
                    self.recorder.normal(&pod.reference(), "TaintManagerEviction", text);
                }
                Ok(Outcome::Done)
            }
            Verdict::Go => self.evict(key, &pod).await,
            Verdict::GoAfter(seconds) => {
                let added = taints.iter().filter_map(|t| t.time_added.as_ref().map(|t| t.0)).max();
                let since =
                    *self.since.lock().entry(pod.uid().to_owned()).or_insert_with(|| added.unwrap_or(now));
                let left = SignedDuration::from_secs(seconds) - now.duration_since(since);
                if left <= SignedDuration::ZERO {
                    return self.evict(key, &pod).await;
                }
                Ok(Outcome::After(left.unsigned_abs()))
            }
        }
    }

    async fn evict(&self, key: &str, pod: &PodView) -> Result<Outcome, Status> {
        let text = format!("Marking for deletion Pod {key}");
        self.recorder.normal(&pod.reference(), "TaintManagerEviction", text);
        let message = "Taint manager: deleting due to NoExecute taint";
        let now = self.clock.now_seconds();
        let told = self.api.modify_status(pod.namespace(), pod.name(), |live: &mut Pod| {
            let conditions = live.status.get_or_insert_default().conditions.get_or_insert_default();
            live.metadata.uid.as_deref() == Some(pod.uid())
                && pods::disrupt(conditions, "DeletionByTaintManager", message, now)
        });
        let gone = |status: Status| if status.is_not_found() { Ok(()) } else { Err(status) };
        told.await.map(drop).or_else(gone)?;
        self.api.delete(pod.namespace(), pod.name(), delete_uid(pod.uid())).await.or_else(gone)?;
        self.since.lock().remove(pod.uid());
        Ok(Outcome::Done)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stay,
    Go,
    /// Seconds after the taint came.
    GoAfter(i64),
}

/// Every taint must be tolerated; the shortest toleration that is used counts.
fn verdict(taints: &[&Taint], tolerations: &[Toleration]) -> Verdict {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let mut used = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
        if used.peek().is_none() {
            return Verdict::Go;
        }
        for seconds in used.filter_map(|t| t.toleration_seconds) {
            shortest = Some(shortest.map_or(seconds, |s| s.min(seconds)));
        }
    }
    match shortest {
        None => Verdict::Stay,
        Some(seconds) if seconds <= 0 => Verdict::Go,
        Some(seconds) => Verdict::GoAfter(seconds),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    #[test]
    fn the_shortest_used_toleration_counts_and_all_taints_need_one() {
        let taint =
            |key: &str| Taint { key: key.to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() };
        let (a, b) = (taint("a"), taint("b"));
        assert_eq!(verdict(&[], &[]), Verdict::Stay);
        assert_eq!(verdict(&[&a], &[]), Verdict::Go);
        assert_eq!(verdict(&[&a], &[toleration("a", None)]), Verdict::Stay);
        assert_eq!(verdict(&[&a], &[toleration("a", Some(300))]), Verdict::GoAfter(300));
        assert_eq!(verdict(&[&a, &b], &[toleration("a", Some(300))]), Verdict::Go);
        let both = [toleration("a", Some(300)), toleration("b", Some(60))];
        assert_eq!(verdict(&[&a, &b], &both), Verdict::GoAfter(60));
        let all = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
        assert_eq!(verdict(&[&a, &b], &[all]), Verdict::Stay);
    }
}
