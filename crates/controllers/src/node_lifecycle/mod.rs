//! Nodes that are silent or out of order: their conditions, their taints, and the readiness of their pods.
//!
//! A node lives by its lease and its status. Each renewal moves its deadline; nothing is done until a
//! deadline passes. Taints that evict come no faster than [`zones`] allows; who is evicted is decided by
//! [`crate::taint_eviction`].

pub mod health;
#[cfg(test)]
mod tests;
mod zones;

use crate::env::{Cluster, Env, synced};
use crate::nodes::{self, NodeView};
use crate::pods::{self, PodView};
use krate_api::Status;
use krate_api::types::coordination::v1::Lease;
use krate_api::types::core::v1::{Node, Pod};
use krate_base::Clock;
use krate_client::{Api, Index, Informer, Outcome, Queue, Recorder, Reference, Source};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;
use zones::{Zones, zone_of};

const ACCOUNT: &str = "node-controller";
const COMPONENT: &str = "node-controller";
const LEASES: &str = "kube-node-lease";
const WORKERS: usize = 8;

struct Controller {
    api: Api<Node>,
    pod_api: Api<Pod>,
    nodes: Informer<NodeView>,
    pods_by_node: Index<PodView>,
    recorder: Recorder,
    clock: Clock,
    cluster: Arc<Cluster>,
    queue: Queue,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each node last gave a sign of life.
    seen: HashMap<String, Instant>,
    zones: Zones,
}

pub fn start(env: &Env) {
    let (nodes, pods) = (nodes::informer(&env.informers), pods::informer(&env.informers));
    let leases = env.informers.get::<Lease>(Source::of::<Lease>().namespace(LEASES));
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        pod_api: env.api(ACCOUNT),
        nodes: nodes.clone(),
        pods_by_node: pods::by_node(&pods),
        recorder: env.recorder(ACCOUNT, COMPONENT),
        clock: env.clock.clone(),
        cluster: env.cluster.clone(),
        queue: env.queue("node_lifecycle"),
        state: Mutex::default(),
    });
    let c = controller.clone();
    nodes.subscribe(move |old, new| c.node_changed(old, new));
    let c = controller.clone();
    leases.subscribe(move |old, new| {
        let renewed = |l: &Arc<Lease>| l.spec.as_ref().and_then(|s| s.renew_time.clone());
        if let Some(lease) = new.filter(|new| old.is_none_or(|old| renewed(old) != renewed(new))) {
            let name = crate::meta::name(&lease.metadata).to_owned();
            c.state.lock().seen.insert(name, Instant::now());
        }
    });
    let queue = controller.queue.clone();
    env.run(&queue, WORKERS, synced!(nodes, pods, leases), move |name: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&name).await }
    });
}

impl Controller {
    fn node_changed(&self, old: Option<&Arc<NodeView>>, new: Option<&Arc<NodeView>>) {
        let Some(node) = new.or(old) else { return };
        let (name, about) = (node.name(), reference(node));
        let heartbeat = |n: &Arc<NodeView>| n.condition("Ready").map(|c| c.last_heartbeat_time.clone());
        let standing = |n: &Arc<NodeView>| (zone_of(n), health::ready(&n.status.conditions) == "True");
        let (before, after) = (old.map(standing), new.map(standing));
        let mut state = self.state.lock();
        match new {
            Some(new) if old.is_none_or(|old| heartbeat(old) != heartbeat(new)) => {
                state.seen.insert(name.to_owned(), Instant::now());
            }
            Some(_) => {}
            None => {
                state.seen.remove(name);
            }
        }
        let was_down = state.zones.all_down();
        let news = state.zones.change(before.clone(), after.clone());
        let down = state.zones.all_down();
        if was_down && !down {
            // We were cut off: everybody gets a fresh start.
            let now = Instant::now();
            state.seen.values_mut().for_each(|seen| *seen = now);
        }
        drop(state);
        if news {
            self.wake_unready();
        }
        match (old, new) {
            (None, Some(_)) => {
                let text = format!("Node {name} event: Registered Node {name} in Controller");
                self.recorder.normal(&about, "RegisteredNode", text);
            }
            (Some(_), None) => {
                let text = format!("Node {name} event: Removing Node {name} from Controller");
                self.recorder.normal(&about, "RemovingNode", text);
            }
            _ => {}
        }
        if before.is_some_and(|(_, ready)| ready) && after.is_some_and(|(_, ready)| !ready) {
            let text = format!("Node {name} status is now: NodeNotReady");
            self.recorder.normal(&about, "NodeNotReady", text);
        }
        self.queue.add(name);
    }

    /// What may be done to nodes that are not ready depends on how many there are.
    fn wake_unready(&self) {
        for node in self.nodes.list() {
            if health::ready(&node.status.conditions) != "True" {
                self.queue.add(node.name());
            }
        }
    }

    async fn reconcile(&self, name: &str) -> Result<Outcome, Status> {
        let Some(node) = self.nodes.get(name) else { return Ok(Outcome::Done) };
        let seen = *self.state.lock().seen.entry(name.to_owned()).or_insert_with(Instant::now);
        let known = node.condition("Ready").is_some();
        let grace = if known { self.cluster.node_grace } else { self.cluster.node_startup_grace };
        let mut conditions = node.status.conditions.clone();
        let now = self.clock.now_seconds();
        let silent = seen.elapsed() >= grace;
        if silent && health::silence(&mut conditions, node.metadata.created(), now) {
            self.silence(name, seen, now).await?;
            // The change comes back as an event.
            return Ok(Outcome::Done);
        }
        if known && health::ready(&conditions) != "True" {
            self.unready_pods(name).await?;
        }
        let wait = self.taint(&node).await?;
        let left = (!silent).then(|| grace.saturating_sub(seen.elapsed()));
        Ok(match (left, wait) {
            (Some(a), Some(b)) => Outcome::After(a.min(b)),
            (Some(a), None) | (None, Some(a)) => Outcome::After(a),
            (None, None) => Outcome::Done,
        })
    }

    /// Writes that nothing is known of a node any more, unless it has spoken meanwhile.
    async fn silence(&self, name: &str, seen: Instant, now: jiff::Timestamp) -> Result<(), Status> {
        if self.state.lock().seen.get(name) != Some(&seen) {
            return Ok(());
        }
        let change = |node: &mut Node| {
            let created = crate::meta::created(&node.metadata);
            let status = node.status.get_or_insert_default();
            health::silence(status.conditions.get_or_insert_default(), created, now)
        };
        match self.api.modify_status("", name, change).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    /// Pods of a node that is not ready serve nobody.
    async fn unready_pods(&self, name: &str) -> Result<(), Status> {
        for pod in self.pods_by_node.get(name) {
            if !pod.is_ready() || pod.is_finished() {
                continue;
            }
            let now = self.clock.now_seconds();
            let change = |live: &mut Pod| {
                let status = live.status.get_or_insert_default();
                let ready = status.conditions.iter_mut().flatten().find(|c| c.type_ == "Ready");
                let Some(ready) = ready.filter(|c| c.status == "True") else { return false };
                ready.status = "False".to_owned();
                ready.last_transition_time = Some(krate_api::meta::Time(now));
                true
            };
            match self.pod_api.modify_status(pod.namespace(), pod.name(), change).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
            self.recorder.warning(&pod.reference(), "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    /// Brings the taints up to date. How long until the evicting one may be asked for again.
    async fn taint(&self, node: &NodeView) -> Result<Option<std::time::Duration>, Status> {
        let conditions = &node.status.conditions;
        let mut evict =
            if node.condition("Ready").is_some() { health::eviction_taint(conditions) } else { None };
        let mut wait = None;
        if evict.is_some() {
            let mut state = self.state.lock();
            let evicts = |key: &str| key == health::NOT_READY || key == health::UNREACHABLE;
            let has = node.spec.taints.iter().any(|t| t.effect == health::NO_EXECUTE && evicts(&t.key));
            if state.zones.all_down() {
                evict = None;
            } else if !has && let Err(pause) = state.zones.ask(&zone_of(node), Instant::now()) {
                evict = None;
                wait = pause;
            }
        }
        let schedule = health::schedule_taints(conditions, node.spec.unschedulable);
        let now = self.clock.now_seconds();
        if health::taints(&node.spec.taints, &schedule, evict, now) == node.spec.taints {
            return Ok(wait);
        }
        let change = |live: &mut Node| {
            let spec = live.spec.get_or_insert_default();
            let present = spec.taints.clone().unwrap_or_default();
            let wanted = health::taints(&present, &schedule, evict, now);
            let differs = wanted != present;
            spec.taints = Some(wanted).filter(|t| !t.is_empty());
            differs
        };
        match self.api.modify("", node.name(), change).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(wait),
        }
    }
}

fn reference(node: &NodeView) -> Reference {
    Reference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.name().to_owned()),
        uid: Some(node.metadata.uid.clone()),
        ..Reference::default()
    }
}
