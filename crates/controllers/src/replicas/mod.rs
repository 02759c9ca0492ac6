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
use crate::owners::Owners;
use crate::pod_control::{For, PodControl};
use crate::pods::{self, PodView};
use crate::{pod_template, ranking};
use kinds::Replicated;
use krate_api::Status;
use krate_api::labels::Selector;
use krate_api::types::apps::v1::ReplicaSet;
use krate_api::types::core::v1::ReplicationController;
use krate_base::Clock;
use krate_client::recorder::reference;
use krate_client::{Api, Index, Outcome};
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
    pod_control: PodControl,
    owners: Arc<Owners<K>>,
    /// Owners by the uid of their own owner: the siblings of one Deployment.
    siblings: Index<K>,
    by_controller: Index<PodView>,
    clock: Clock,
}

fn start<K: Replicated>(env: &Env) {
    let pods = pods::informer(&env.informers);
    let by_controller = pods::by_controller(&pods);
    let siblings = env.informers.of::<K>().index("owner", |o: &K| {
        meta::controller_of(o.meta()).map(|owner| owner.uid.clone()).into_iter().collect()
    });
    let owners = Owners::<K>::watch(env, K::QUEUE, &pods, |owner| owner.selector().ok());
    let (informer, queue) = (owners.informer.clone(), owners.queue.clone());
    let controller = Arc::new(Controller {
        api: env.api(K::ACCOUNT),
        pod_control: PodControl { api: env.api(K::ACCOUNT), recorder: env.recorder(K::ACCOUNT, K::ACCOUNT) },
        owners,
        siblings,
        by_controller,
        clock: env.clock.clone(),
    });
    env.run(&queue, WORKERS, synced!(informer, pods), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl<K: Replicated> Controller<K> {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(owner) = self.owners.informer.get(key) else {
            self.owners.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        if self.owners.is_gone(&owner) {
            return Ok(Outcome::Done);
        }
        let Ok(selector) = owner.selector() else {
            tracing::warn!(key, "the selector is invalid");
            return Ok(Outcome::Done);
        };
        let settled = self.owners.expectations.satisfied(key);
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
            match self.api.update_status(changed).await {
                Err(status) if status.is_not_found() => {
                    self.owners.say_gone(&owner);
                    return Ok(Outcome::Done);
                }
                result => result.map(drop)?,
            }
        }
        let expiry = (!settled).then(|| self.owners.expectations.expires_in(key));
        match (failure, counted.next.into_iter().chain(expiry).min()) {
            (Some(failure), _) => Err(failure.status),
            (None, Some(pause)) => Ok(Outcome::After(pause)),
            (None, None) => Ok(Outcome::Done),
        }
    }

    async fn claim(&self, owner: &Arc<K>, selector: &Selector) -> Result<Vec<Arc<PodView>>, Status> {
        let mut pods = self.by_controller.get(meta::uid(owner.meta()));
        pods.extend(self.by_controller.get(&pods::orphans(meta::namespace(owner.meta()))));
        pods.retain(|p| !p.is_finished());
        claim_all(pods, &**owner, selector, &self.pod_control.api, &self.api).await
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
        let pod =
            pod_template::pod(template, meta::namespace(owner.meta()), meta::controller_reference(&**owner));
        self.owners.expectations.expect(key, count, []);
        let status = self.pod_control.create(&self.owner(key, owner), count, |_| pod.clone()).await?;
        Some(Failure { reason: "FailedCreate", status })
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
        self.owners.expectations.expect(key, 0, doomed.iter().map(|p| p.uid().to_owned()));
        let status = self.pod_control.delete(&self.owner(key, owner), &doomed).await?;
        Some(Failure { reason: "FailedDelete", status })
    }

    fn owner<'a>(&'a self, key: &'a str, owner: &K) -> For<'a> {
        For { key, about: reference(owner), expectations: &self.owners.expectations }
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
