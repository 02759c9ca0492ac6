//! ReplicaSets and ReplicationControllers: as many pods of a template as the spec says.
//!
//! The two kinds differ in where their fields are ([`kinds`]); everything else is one controller. How many
//! pods to make or to delete and what the status says is computed in [`plan`].

mod kinds;
mod plan;
#[cfg(test)]
mod tests;

use crate::claim::claim_all;
use crate::env::{Env, synced};
use crate::meta;
use crate::pods::{self, PodView, Wake};
use crate::{pod_template, ranking, slow_start};
use kinds::Replicated;
use krate_api::Status;
use krate_api::labels::Selector;
use krate_api::meta::OwnerReference;
use krate_api::types::apps::v1::ReplicaSet;
use krate_api::types::core::v1::{Pod, ReplicationController};
use krate_base::Clock;
use krate_client::api::delete_uid;
use krate_client::recorder::{Reference, reference};
use krate_client::{Api, Expectations, Index, Informer, Outcome, Queue, Recorder};
use plan::{BURST, Failure, Plan};
use std::sync::Arc;

const WORKERS: usize = 5;

pub fn start_replica_sets(env: &Env) {
    start::<ReplicaSet>(env);
}

pub fn start_replication_controllers(env: &Env) {
    start::<ReplicationController>(env);
}

/// The controller of one of the kinds.
struct Controller<K: Replicated> {
    api: Api<K>,
    pod_api: Api<Pod>,
    owners: Informer<K>,
    /// Owners by the uid of their own owner: the siblings of one Deployment.
    siblings: Index<K>,
    by_controller: Index<PodView>,
    expectations: Expectations,
    recorder: Recorder,
    clock: Clock,
    queue: Queue,
}

fn start<K: Replicated>(env: &Env) {
    let (owners, pods) = (env.informers.of::<K>(), pods::informer(&env.informers));
    let controller = Arc::new(Controller::<K> {
        api: env.api(K::ACCOUNT),
        pod_api: env.api(K::ACCOUNT),
        siblings: owners.index("owner", |o: &K| {
            meta::controller_of(o.meta()).map(|owner| owner.uid.clone()).into_iter().collect()
        }),
        owners: owners.clone(),
        by_controller: pods::by_controller(&pods),
        expectations: Expectations::default(),
        recorder: env.recorder(K::ACCOUNT, K::ACCOUNT),
        clock: env.clock.clone(),
        queue: env.queue(K::QUEUE),
    });
    let c = controller.clone();
    owners.subscribe(move |old, new| c.owner_changed(old, new));
    let c = controller.clone();
    pods.subscribe(move |old, new| pods::wakes(old, new, |wake| c.wake(&wake)));
    let queue = controller.queue.clone();
    env.run(&queue, WORKERS, synced!(owners, pods), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl<K: Replicated> Controller<K> {
    fn owner_changed(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        if let (Some(gone), None) = (old, new) {
            self.expectations.forget(&meta::key(gone.meta()));
        }
        if let Some(owner) = new.or(old) {
            self.queue.add(meta::key(owner.meta()));
        }
    }

    fn wake(&self, wake: &Wake) {
        match wake {
            Wake::Created(owner, pod) => {
                if let Some(key) = self.key_of(owner, pod) {
                    self.expectations.creation_observed(&key);
                    self.queue.add(key);
                }
            }
            Wake::Deleted(owner, pod) => {
                if let Some(key) = self.key_of(owner, pod) {
                    self.expectations.deletion_observed(&key, pod.uid());
                    self.queue.add(key);
                }
            }
            Wake::Changed(owner, pod) => {
                if let Some(key) = self.key_of(owner, pod) {
                    self.queue.add(key);
                }
            }
            Wake::Orphan(pod) => {
                for owner in self.owners.list_in(pod.namespace()) {
                    if owner.selector().is_ok_and(|s| s.matches(&pod.metadata.labels)) {
                        self.queue.add(meta::key(owner.meta()));
                    }
                }
            }
        }
    }

    /// The key of the owner that a pod refers to, if it is one of ours and still the same.
    fn key_of(&self, owner: &OwnerReference, pod: &PodView) -> Option<String> {
        let key = krate_api::object::key(pod.namespace(), &owner.name);
        let known = meta::refers_to::<K>(owner)
            && self.owners.get(&key).is_some_and(|o| meta::uid(o.meta()) == owner.uid);
        known.then_some(key)
    }

    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(owner) = self.owners.get(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let Ok(selector) = owner.selector() else {
            tracing::warn!(key, "the selector is invalid");
            return Ok(Outcome::Done);
        };
        let settled = self.expectations.satisfied(key);
        let pods = self.claim(&owner, &selector).await?;
        let active: Vec<_> = pods.iter().filter(|p| p.is_active()).cloned().collect();
        let mut failure = None;
        if settled && owner.meta().deletion_timestamp.is_none() {
            failure = self.manage(key, &owner, &active).await;
        }
        let now = self.clock.now();
        let counted = plan::count(&*owner, &pods, now);
        let wanted = plan::status(&*owner, &counted, failure.as_ref(), self.clock.now_seconds());
        if wanted != owner.status() {
            let mut changed = (*owner).clone();
            changed.set_status(wanted);
            self.api.update_status(changed).await?;
        }
        match (failure, counted.next) {
            (Some(failure), _) => Err(failure.status),
            (None, Some(pause)) => Ok(Outcome::After(pause)),
            (None, None) => Ok(Outcome::Done),
        }
    }

    async fn claim(&self, owner: &Arc<K>, selector: &Selector) -> Result<Vec<Arc<PodView>>, Status> {
        let mut pods = self.by_controller.get(meta::uid(owner.meta()));
        pods.extend(self.by_controller.get(&pods::orphans(meta::namespace(owner.meta()))));
        pods.retain(|p| !p.is_finished());
        claim_all(pods, &**owner, selector, &self.pod_api, &self.api).await
    }

    /// Makes or deletes pods. What fails is told, and left to the next time.
    async fn manage(&self, key: &str, owner: &Arc<K>, active: &[Arc<PodView>]) -> Option<Failure> {
        match plan::plan(active.len(), owner.replicas()) {
            Plan::Nothing => None,
            Plan::Create(count) => self.create(key, owner, count.min(BURST)).await,
            Plan::Delete(count) => self.delete(key, owner, active, count.min(BURST)).await,
        }
    }

    async fn create(&self, key: &str, owner: &Arc<K>, count: usize) -> Option<Failure> {
        let template = owner.template()?;
        let about = reference(&**owner);
        let pod =
            pod_template::pod(template, meta::namespace(owner.meta()), meta::controller_reference(&**owner));
        self.expectations.expect(key, count, []);
        let done = slow_start::slow_start(count, |_| self.create_one(key, &about, &pod)).await;
        self.expectations.creations_skipped(key, count - done.attempted);
        let status = done.failure.filter(|status| !meta::namespace_is_terminating(status))?;
        Some(Failure { reason: "FailedCreate", status })
    }

    async fn create_one(&self, key: &str, about: &Reference, pod: &Pod) -> Result<(), Status> {
        match self.pod_api.create(pod.clone()).await {
            Ok(created) => {
                let name = meta::name(&created.metadata);
                self.recorder.normal(about, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(status) => {
                self.expectations.creation_observed(key);
                if !meta::namespace_is_terminating(&status) {
                    self.recorder.warning(about, "FailedCreate", format!("Error creating: {status}"));
                }
                Err(status)
            }
        }
    }

    async fn delete(
        &self,
        key: &str,
        owner: &Arc<K>,
        active: &[Arc<PodView>],
        count: usize,
    ) -> Option<Failure> {
        let related = self.related(owner);
        let doomed = ranking::to_delete(active.to_vec(), &related, count, self.clock.now());
        self.expectations.expect(key, 0, doomed.iter().map(|p| p.uid().to_owned()));
        let about = reference(&**owner);
        let results =
            futures::future::join_all(doomed.iter().map(|pod| self.delete_one(key, &about, pod))).await;
        let status = results.into_iter().find_map(Result::err)?;
        Some(Failure { reason: "FailedDelete", status })
    }

    async fn delete_one(&self, key: &str, about: &Reference, pod: &PodView) -> Result<(), Status> {
        match self.pod_api.delete(pod.namespace(), pod.name(), delete_uid(pod.uid())).await {
            Ok(()) => {
                self.recorder.normal(about, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(status) => {
                self.expectations.deletion_observed(key, pod.uid());
                if status.is_not_found() {
                    return Ok(());
                }
                self.recorder.warning(about, "FailedDelete", format!("Error deleting: {status}"));
                Err(status)
            }
        }
    }

    /// The pods of all the owner's siblings (of one Deployment), or its own.
    fn related(&self, owner: &Arc<K>) -> Vec<Arc<PodView>> {
        let siblings = match meta::controller_of(owner.meta()) {
            Some(deployment) => self.siblings.get(&deployment.uid),
            None => vec![owner.clone()],
        };
        siblings.iter().flat_map(|s| self.by_controller.get(meta::uid(s.meta()))).collect()
    }
}
