//! Disruption budgets: how many pods may be evicted now.
//!
//! The status is what the eviction subresource goes by: it takes one disruption at a time and names the pod in
//! `disruptedPods`; here that is counted as unhealthy until the pod is seen to go. [`plan`] computes the
//! numbers, [`scale`] asks how many pods there should be, [`stale`] takes back marks that came to nothing.

mod plan;
mod scale;
mod stale;
#[cfg(test)]
mod tests;

use crate::env::{Env, synced, wake_due};
use crate::meta;
use crate::pods::{self, PodView};
use krate_api::labels::Selector;
use krate_api::types::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use krate_api::types::core::v1::{Pod, ReplicationController};
use krate_api::types::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use krate_api::{Kind, Status};
use krate_base::Clock;
use krate_client::recorder::reference;
use krate_client::{Api, Informer, Outcome, Queue, Recorder};
use scale::Owners;
use std::sync::Arc;

const ACCOUNT: &str = "disruption-controller";
/// The component of events, as the original names itself.
const COMPONENT: &str = "controllermanager";

struct Controller {
    api: Api<PodDisruptionBudget>,
    pod_api: Api<Pod>,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<PodView>,
    owners: Owners,
    recorder: Recorder,
    clock: Clock,
    queue: Queue,
    /// Pods whose mark may be stale.
    marked: Queue,
}

pub fn start(env: &Env) {
    let (budgets, pods) = (env.informers.of::<PodDisruptionBudget>(), pods::informer(&env.informers));
    let owners = Owners {
        deployments: env.informers.of(),
        replica_sets: env.informers.of(),
        stateful_sets: env.informers.of(),
        controllers: env.informers.of(),
        transport: env.transport(ACCOUNT),
        resources: env.resources.clone(),
    };
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        pod_api: env.api(ACCOUNT),
        budgets: budgets.clone(),
        pods: pods.clone(),
        owners,
        recorder: env.recorder(ACCOUNT, COMPONENT),
        clock: env.clock.clone(),
        queue: env.queue("disruption"),
        marked: env.queue("stale_pod_disruption"),
    });
    wake_due(&budgets, &controller.queue, |_| true);
    let c = controller.clone();
    pods.subscribe(move |old, new| c.pod_changed(old, new));
    let owners = &controller.owners;
    let replicas = |d: &Deployment| d.spec.as_ref().and_then(|s| s.replicas);
    controller.follow(&owners.deployments, replicas);
    controller.follow(&owners.replica_sets, |r: &ReplicaSet| r.spec.as_ref().and_then(|s| s.replicas));
    controller.follow(&owners.stateful_sets, |s: &StatefulSet| s.spec.as_ref().and_then(|s| s.replicas));
    let replicas = |r: &ReplicationController| r.spec.as_ref().and_then(|s| s.replicas);
    controller.follow(&owners.controllers, replicas);
    controller.run(env);
}

impl Controller {
    fn run(self: &Arc<Self>, env: &Env) {
        let (c, owners) = (self.clone(), &self.owners);
        let (above, beside) = (
            synced!(self.budgets, self.pods),
            synced!(owners.deployments, owners.replica_sets, owners.stateful_sets, owners.controllers),
        );
        let all = move || {
            let both = (above(), beside());
            let wait: futures::future::BoxFuture<'static, ()> = Box::pin(async move {
                both.0.await;
                both.1.await;
            });
            wait
        };
        env.run(&self.queue, 1, all, move |key: String| {
            let controller = c.clone();
            async move { controller.reconcile(&key).await }
        });
        let c = self.clone();
        env.run(&self.marked, 1, synced!(self.pods), move |key: String| {
            let controller = c.clone();
            async move { controller.check_mark(&key).await }
        });
    }

    /// The number of pods that somebody wants has changed: the budgets of the namespace are computed anew.
    fn follow<K: Kind>(self: &Arc<Self>, owners: &Informer<K>, replicas: fn(&K) -> Option<i32>) {
        let (queue, budgets) = (self.queue.clone(), self.budgets.clone());
        owners.subscribe(move |old, new| {
            let Some(owner) = new.or(old) else { return };
            if old.map(|o| replicas(o)) != new.map(|n| replicas(n)) {
                for budget in budgets.list_in(meta::namespace(owner.meta())) {
                    queue.add(meta::key(&budget.metadata));
                }
            }
        });
    }

    fn pod_changed(&self, old: Option<&Arc<PodView>>, new: Option<&Arc<PodView>>) {
        let Some(pod) = new.or(old) else { return };
        for budget in self.budgets.list_in(pod.namespace()) {
            let Ok(selector) = selector(&budget) else { continue };
            // Also the one that it has just left.
            if [old, new].into_iter().flatten().any(|p| selector.matches(&p.metadata.labels)) {
                self.queue.add(meta::key(&budget.metadata));
            }
        }
        if new.is_some_and(|p| stale::left(p, self.clock.now()).is_some()) {
            self.marked.add(pod.metadata.key());
        }
    }

    async fn check_mark(&self, key: &str) -> Result<Outcome, Status> {
        let now = self.clock.now();
        let Some((pod, left)) = self.pods.get(key).and_then(|p| stale::left(&p, now).map(|left| (p, left)))
        else {
            return Ok(Outcome::Done);
        };
        if !left.is_zero() {
            return Ok(Outcome::After(left));
        }
        stale::clear(&self.pod_api, &pod, self.clock.now_seconds()).await?;
        Ok(Outcome::Done)
    }

    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Outcome::Done) };
        let Ok(selector) = selector(&budget) else { return Ok(Outcome::Done) };
        let mut pods = self.pods.list_in(meta::namespace(&budget.metadata));
        pods.retain(|p| selector.matches(&p.metadata.labels));
        let about = reference(&*budget);
        if pods.is_empty() {
            self.recorder.normal(&about, "NoPods", "No matching pods found".to_owned());
        }
        let now = self.clock.now_seconds();
        let all = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        let expected = match budget.spec.as_ref().is_some_and(plan::needs_scale) {
            true => self.owners.expected(&pods).await,
            false => Ok(all),
        };
        let expected = match expected {
            Ok(expected) => expected,
            Err(fault) => {
                let text = format!("Failed to calculate the number of expected pods: {fault}");
                self.recorder.warning(&about, "CalculateExpectedPodCountFailed", text);
                self.write(&budget, plan::closed(&budget, &fault.to_string(), now)).await?;
                return Ok(Outcome::Again);
            }
        };
        let plan = plan::plan(&budget, &pods, expected, now);
        for pod in &plan.not_deleted {
            let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.warning(&pod.reference(), "NotDeleted", text);
        }
        self.write(&budget, plan.status).await?;
        Ok(plan.after.map_or(Outcome::Done, Outcome::After))
    }

    /// Writes a status that differs. An eviction that came between is a conflict, and is counted next time.
    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Status> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut told = budget.clone();
        told.status = Some(status);
        self.api.update_status(told).await.map(drop)
    }
}

fn selector(budget: &PodDisruptionBudget) -> Result<Selector, krate_api::labels::SelectorError> {
    Selector::of(budget.spec.as_ref().and_then(|s| s.selector.as_ref()))
}
