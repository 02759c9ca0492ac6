//! DaemonSets: one pod on every node that fits, on nodes that join later too.
//!
//! A reconcile first sees to it that every node has one pod or none ([`plan`]); when nothing is left to do
//! there, it takes a step of the rolling update ([`rollout`]); then it writes the status if it differs
//! ([`status`]). Where a daemon belongs is told in [`nodes`], and its templates are kept in [`revisions`].
//! Pods are bound by the scheduler: each is pinned to its node by affinity.

mod nodes;
mod plan;
mod revisions;
mod rollout;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::claim::claim_all;
use crate::env::{Env, synced};
use crate::history::History;
use crate::meta;
use crate::nodes::NodeView;
use crate::owners::Owners;
use crate::patience::Backoff;
use crate::pod_control::{For, PodControl};
use crate::pods::{self, PodView};
use krate_api::labels::Selector;
use krate_api::types::apps::v1::DaemonSet;
use krate_api::types::core::v1::Pod;
use krate_api::{Object, Status};
use krate_base::Clock;
use krate_client::recorder::reference;
use krate_client::{Api, Index, Informer, Outcome};
use nodes::Demands;
use parking_lot::Mutex;
use plan::{Actions, Observed};
use std::sync::Arc;
use std::time::Duration;

const ACCOUNT: &str = "daemon-set-controller";
const COMPONENT: &str = "daemonset-controller";
const WORKERS: usize = 2;
/// Pods made or deleted in one reconcile.
const BURST: usize = 250;

struct Controller {
    api: Api<DaemonSet>,
    pod_api: Api<Pod>,
    pod_control: PodControl,
    sets: Arc<Owners<DaemonSet>>,
    history: History,
    nodes: Informer<NodeView>,
    by_controller: Index<PodView>,
    backoff: Mutex<Backoff>,
    clock: Clock,
}

pub fn start(env: &Env) {
    let (pods, nodes) = (pods::informer(&env.informers), crate::nodes::informer(&env.informers));
    let by_controller = pods::by_controller(&pods);
    let sets = Owners::<DaemonSet>::watch(env, "daemonset", &pods, selector);
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        pod_api: env.api(ACCOUNT),
        pod_control: PodControl { api: env.api(ACCOUNT), recorder: env.recorder(ACCOUNT, COMPONENT) },
        history: History::watch(env, ACCOUNT, &sets),
        sets: sets.clone(),
        nodes: nodes.clone(),
        by_controller,
        backoff: Mutex::default(),
        clock: env.clock.clone(),
    });
    let c = controller.clone();
    nodes.subscribe(move |old, new| c.node_changed(old.map(|n| &**n), new.map(|n| &**n)));
    let (informer, revisions) = (sets.informer.clone(), controller.history.informer().clone());
    env.run(&sets.queue, WORKERS, synced!(informer, revisions, pods, nodes), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

fn selector(set: &DaemonSet) -> Option<Selector> {
    Selector::of(set.spec.as_ref().map(|s| &s.selector)).ok()
}

impl Controller {
    /// Wakes the sets to which the change makes a difference.
    fn node_changed(&self, old: Option<&NodeView>, new: Option<&NodeView>) {
        if let (Some(old), Some(new)) = (old, new)
            && old.metadata.labels == new.metadata.labels
            && old.spec.taints == new.spec.taints
        {
            return;
        }
        for set in self.sets.informer.list() {
            let demands = Demands::of(&set);
            let belongs = |node: Option<&NodeView>| node.map(|node| demands.met_by(node));
            if belongs(old) != belongs(new) {
                self.sets.queue.add(meta::key(&set.metadata));
            }
        }
    }

    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(set) = self.sets.informer.get(key) else {
            self.sets.expectations.forget(key);
            self.backoff.lock().prune();
            return Ok(Outcome::Done);
        };
        let selector = match selector(&set) {
            Some(selector) if !selector.is_everything() => selector,
            _ => {
                let message = "This daemon set is selecting all pods. A non-empty selector is required.";
                self.pod_control.recorder.warning(&reference(&*set), "SelectingAll", message);
                return Ok(Outcome::Done);
            }
        };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        if self.sets.is_gone(&set) {
            return Ok(Outcome::Done);
        }
        let settled = self.sets.expectations.satisfied(key);
        let revisions = self.revisions(&set, &selector).await?;
        let (hash, nodes) = (revisions.hash(), self.nodes.list());
        let pods = self.pods(&set, &selector).await?;
        let observed = Observed::new(&set, hash, &nodes, &pods, self.clock.now());
        let (acted, result) =
            if settled { (true, self.act(key, &observed).await) } else { (false, Ok(None)) };
        if acted && result.is_ok() {
            self.clean_up(&set, &revisions, &pods).await?;
        }
        let (status, next) = status::status(&observed, acted);
        if set.status.as_ref() != Some(&status) {
            let changed = DaemonSet { status: Some(status), ..(*set).clone() };
            match self.api.update_status(changed).await {
                Err(status) if status.is_not_found() => {
                    self.sets.say_gone(&set);
                    return Ok(Outcome::Done);
                }
                told => told.map(drop)?,
            }
        }
        let expiry = (!settled).then(|| self.sets.expectations.expires_in(key));
        let again = [result?, next, expiry].into_iter().flatten().min();
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    async fn pods(&self, set: &DaemonSet, selector: &Selector) -> Result<Vec<Arc<PodView>>, Status> {
        let mut pods = self.by_controller.get(meta::uid(&set.metadata));
        pods.extend(self.by_controller.get(&pods::orphans(meta::namespace(&set.metadata))));
        claim_all(pods, set, selector, &self.pod_api, &self.api).await
    }

    /// Does what is to be done; a step of the update only when nothing else is. When to look again.
    async fn act(&self, key: &str, observed: &Observed<'_>) -> Result<Option<Duration>, Status> {
        let surges = rollout::surges(observed.set);
        let actions = {
            let mut backoff = self.backoff.lock();
            observed.manage(surges, &mut backoff.of(meta::uid(observed.set.meta())))
        };
        self.tell_ended(observed.set, &actions);
        let idle = actions.create.is_empty() && actions.delete.is_empty();
        let mut again = actions.again;
        self.carry_out(key, observed, actions).await?;
        let strategy = observed.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        if idle && strategy.and_then(|s| s.type_.as_deref()) == Some("RollingUpdate") {
            let step = rollout::step(observed);
            again = again.into_iter().chain(step.again).min();
            self.carry_out(key, observed, step).await?;
        }
        Ok(again)
    }

    fn tell_ended(&self, set: &DaemonSet, actions: &Actions) {
        let about = reference(set);
        for pod in &actions.ended {
            let (namespace, name, node) = (pod.namespace(), pod.name(), pod.target_node());
            if pod.status.phase == "Failed" {
                let message =
                    format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
                self.pod_control.recorder.warning(&about, "FailedDaemonPod", message);
            } else {
                let message = format!(
                    "Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"
                );
                self.pod_control.recorder.normal(&about, "SucceededDaemonPod", message);
            }
        }
    }

    async fn carry_out(
        &self,
        key: &str,
        observed: &Observed<'_>,
        mut actions: Actions,
    ) -> Result<(), Status> {
        actions.create.truncate(BURST);
        actions.delete.truncate(BURST);
        let (create, delete) = (actions.create, actions.delete);
        if create.is_empty() && delete.is_empty() {
            return Ok(());
        }
        let (set, expectations) = (observed.set, &self.sets.expectations);
        expectations.expect(key, create.len(), delete.iter().map(|p| p.uid().to_owned()));
        let owner = For { key, about: reference(set), expectations };
        let template = nodes::template(set, observed.hash);
        let pod = |n: usize| nodes::pod(set, &template, create.get(n).map_or("", String::as_str));
        let created = self.pod_control.create(&owner, create.len(), pod).await;
        let deleted = self.pod_control.delete(&owner, &delete).await;
        created.or(deleted).map_or(Ok(()), Err)
    }
}
