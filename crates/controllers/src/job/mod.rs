//! Jobs: pods that run to their end, counted once each.
//!
//! [`plan`] decides; this is the shell: status first, then finalizers, then pods. [`ttl`] removes finished
//! Jobs when their time is over.

mod backoff;
mod indexes;
mod manage;
mod metrics;
pub mod plan;
mod pod;
mod policy;
mod tally;
#[cfg(test)]
mod tests;
pub mod ttl;

use backoff::Backoff;

use crate::claim::claim_all;
use crate::env::{Env, synced};
use crate::meta;
use crate::pods::{self, PodView, Wake};
use crate::slow_start;
use krate_api::Status;
use krate_api::labels::Selector;
use krate_api::meta::OwnerReference;
use krate_api::types::batch::v1::{Job, JobStatus};
use krate_api::types::core::v1::Pod;
use krate_base::Clock;
use krate_client::api::delete_uid;
use krate_client::recorder::{EventType, Reference, reference};
use krate_client::{Api, Expectations, Index, Informer, Outcome, PatchKind, Queue, Recorder};
use metrics::Counts;
use parking_lot::Mutex;
use plan::{FINALIZER, NewPod, Observed, Plan, is_finished, is_tracked};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

const ACCOUNT: &str = "job-controller";
const WORKERS: usize = 5;
/// Who manages a Job, if not this controller.
const MANAGED_BY: &str = "kubernetes.io/job-controller";

struct Controller {
    api: Api<Job>,
    pod_api: Api<Pod>,
    jobs: Informer<Job>,
    pods: Informer<PodView>,
    by_controller: Index<PodView>,
    expectations: Expectations,
    backoffs: Mutex<HashMap<String, Backoff>>,
    recorder: Recorder,
    clock: Clock,
    counts: Counts,
    queue: Queue,
    /// Pods that carry our finalizer and have no Job any more.
    strays: Queue,
}

pub fn start(env: &Env) {
    let (jobs, pods) = (env.informers.of::<Job>(), pods::informer(&env.informers));
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        pod_api: env.api(ACCOUNT),
        jobs: jobs.clone(),
        pods: pods.clone(),
        by_controller: pods::by_controller(&pods),
        expectations: Expectations::default(),
        backoffs: Mutex::default(),
        recorder: env.recorder(ACCOUNT, ACCOUNT),
        clock: env.clock.clone(),
        counts: Counts::new(&env.metrics),
        queue: env.queue("job"),
        strays: env.queue("job_orphan_pod"),
    });
    let c = controller.clone();
    jobs.subscribe(move |old, new| c.job_changed(old, new));
    let c = controller.clone();
    pods.subscribe(move |old, new| {
        pods::wakes(old, new, |wake| c.wake(&wake));
        let ended = |p: Option<&Arc<PodView>>| p.is_some_and(|p| is_tracked(p) && p.is_finished());
        match (ended(old), ended(new)) {
            (false, true) => c.counts.tracked("add"),
            (true, false) => c.counts.tracked("delete"),
            _ => {}
        }
        // Those too that come before their Jobs are known: the queue is worked on when all are.
        if let Some(pod) = new.filter(|p| is_tracked(p) && !c.has_job(p)) {
            c.strays.add(pod.metadata.key());
        }
    });
    let (queue, strays) = (controller.queue.clone(), controller.strays.clone());
    let c = controller.clone();
    env.run(&queue, WORKERS, synced!(jobs, pods), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
    env.run(&strays, 1, synced!(jobs, pods), move |key: String| {
        let controller = c.clone();
        async move { controller.free_stray(&key).await }
    });
}

impl Controller {
    fn job_changed(&self, old: Option<&Arc<Job>>, new: Option<&Arc<Job>>) {
        let Some(job) = new.or(old) else { return };
        let key = meta::key(&job.metadata);
        if let (None, Some(manager)) = (old, other_manager(job)) {
            self.counts.external(manager);
        }
        if new.is_none() {
            self.expectations.forget(&key);
            self.backoffs.lock().remove(&key);
            for pod in self.by_controller.get(meta::uid(&job.metadata)) {
                self.strays.add(pod.metadata.key());
            }
        }
        self.queue.add(key);
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
                for job in self.jobs.list_in(pod.namespace()) {
                    if selector(&job).is_ok_and(|s| s.matches(&pod.metadata.labels)) {
                        self.queue.add(meta::key(&job.metadata));
                    }
                }
            }
        }
    }

    fn key_of(&self, owner: &OwnerReference, pod: &PodView) -> Option<String> {
        let key = krate_api::object::key(pod.namespace(), &owner.name);
        let same = |job: Arc<Job>| meta::uid(&job.metadata) == owner.uid;
        (meta::refers_to::<Job>(owner) && self.jobs.get(&key).is_some_and(same)).then_some(key)
    }

    /// Whether a Job that is there will see to the pod's finalizer.
    fn has_job(&self, pod: &PodView) -> bool {
        pod.controller().is_some_and(|owner| self.key_of(owner, pod).is_some())
    }

    async fn free_stray(&self, key: &str) -> Result<Outcome, Status> {
        if let Some(pod) = self.pods.get(key).filter(|p| is_tracked(p) && !self.has_job(p)) {
            self.free(&pod).await?;
        }
        Ok(Outcome::Done)
    }

    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(job) = self.jobs.get(key) else { return Ok(Outcome::Done) };
        let Ok(selector) = selector(&job) else { return Ok(Outcome::Done) };
        if other_manager(&job).is_some() {
            return Ok(Outcome::Done);
        }
        let (begun, mut action) = (Instant::now(), "reconciling");
        let done = self.reconcile_ours(key, &job, &selector, &mut action).await;
        if !is_finished(&job) {
            self.counts.synced(&job, action, done.is_ok(), begun.elapsed());
        }
        done
    }

    /// `action` becomes what was done to pods.
    async fn reconcile_ours(
        &self,
        key: &str,
        job: &Arc<Job>,
        selector: &Selector,
        action: &mut &'static str,
    ) -> Result<Outcome, Status> {
        // What the caches do not show yet must not be made or ended again; counting can go on.
        let settled = self.expectations.satisfied(key);
        let mut pods = self.by_controller.get(meta::uid(&job.metadata));
        pods.extend(self.by_controller.get(&pods::orphans(meta::namespace(&job.metadata))));
        let pods = claim_all(pods, &**job, selector, &self.pod_api, &self.api).await?;
        let backoff = self.backoffs.lock().get(key).cloned().unwrap_or_default();
        let now = self.clock.now_seconds();
        let plan = plan::plan(Observed { job, pods: &pods, backoff, settled, now });
        self.carry_out(key, job, plan, settled, action).await
    }

    async fn carry_out(
        &self,
        key: &str,
        job: &Job,
        plan: Plan,
        settled: bool,
        action: &mut &'static str,
    ) -> Result<Outcome, Status> {
        if job.status.as_ref() != Some(&plan.status) {
            let mut told = job.clone();
            told.status = Some(plan.status.clone());
            // A conflict means that the cache is behind: nothing of the plan may be done.
            self.api.update_status(told).await?;
            self.counts.written(job, &plan.status);
            let about = reference(job);
            for told in plan.events {
                let kind = if told.warning { EventType::Warning } else { EventType::Normal };
                self.recorder.event(&about, kind, &told.reason, told.message);
            }
        }
        if is_finished(job) {
            self.backoffs.lock().remove(key);
        } else {
            self.backoffs.lock().insert(key.to_owned(), plan.backoff);
        }
        let freed = futures::future::join_all(plan.free.iter().map(|pod| self.free(pod))).await;
        let done = plan.free.iter().zip(&freed).filter(|(_, freed)| matches!(freed, Ok(true)));
        done.for_each(|(pod, _)| self.counts.freed(job, pod));
        freed.into_iter().collect::<Result<Vec<bool>, _>>()?;
        if settled && !plan.delete.is_empty() {
            *action = "pods_deleted";
            self.delete(key, job, &plan.delete, plan.uncounted).await?;
        } else if settled && !plan.create.is_empty() {
            *action = "pods_created";
            self.create(key, job, &plan.create, &plan.status).await?;
        } else if settled {
            *action = "tracking";
        }
        let expiry = (!settled).then(|| self.expectations.expires_in(key));
        Ok(plan.after.into_iter().chain(expiry).min().map_or(Outcome::Done, Outcome::After))
    }

    /// Takes our finalizer off a pod; whether it did. If the pod has changed its event brings us back.
    async fn free(&self, pod: &PodView) -> Result<bool, Status> {
        match self.patch_free(pod).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
            done => Ok(done.is_ok()),
        }
    }

    async fn patch_free(&self, pod: &PodView) -> Result<(), Status> {
        let left: Vec<_> = pod.metadata.finalizers.iter().filter(|f| *f != FINALIZER).collect();
        let patch = serde_json::json!({"metadata": {
            "uid": pod.uid(),
            "resourceVersion": pod.metadata.resource_version,
            "finalizers": left,
        }});
        let patched = self.pod_api.patch(pod.namespace(), pod.name(), PatchKind::Merge, patch.to_string());
        patched.await.map(drop)
    }

    /// Deletes pods; those that are not to count are freed first.
    async fn delete(
        &self,
        key: &str,
        job: &Job,
        doomed: &[Arc<PodView>],
        uncounted: bool,
    ) -> Result<(), Status> {
        self.expectations.expect(key, 0, doomed.iter().map(|p| p.uid().to_owned()));
        let about = reference(job);
        let each = doomed.iter().map(|pod| self.delete_one(key, &about, pod, uncounted));
        let results = futures::future::join_all(each).await;
        results.into_iter().collect::<Result<Vec<()>, _>>().map(drop)
    }

    async fn delete_one(
        &self,
        key: &str,
        about: &Reference,
        pod: &PodView,
        uncounted: bool,
    ) -> Result<(), Status> {
        let deletion = async {
            if uncounted && is_tracked(pod) {
                self.patch_free(pod).await?;
            }
            self.pod_api.delete(pod.namespace(), pod.name(), delete_uid(pod.uid())).await
        };
        match deletion.await {
            Ok(()) => {
                self.recorder.normal(about, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(status) => {
                self.expectations.deletion_observed(key, pod.uid());
                if status.is_not_found() {
                    return Ok(());
                }
                // A pod that has changed meanwhile is no failure to tell of.
                if !status.is_conflict() {
                    self.recorder.warning(about, "FailedDelete", format!("Error deleting: {status}"));
                }
                Err(status)
            }
        }
    }

    async fn create(&self, key: &str, job: &Job, new: &[NewPod], status: &JobStatus) -> Result<(), Status> {
        let about = reference(job);
        self.expectations.expect(key, new.len(), []);
        let make = |n: usize| self.create_one(key, &about, pod::pod(job, new[n]));
        let done = slow_start::slow_start(new.len(), make).await;
        self.expectations.creations_skipped(key, new.len() - done.attempted);
        self.counts.created(job, status, done.succeeded, done.attempted - done.succeeded);
        done.failure.filter(|status| !meta::namespace_is_terminating(status)).map_or(Ok(()), Err)
    }

    async fn create_one(&self, key: &str, about: &Reference, pod: Pod) -> Result<(), Status> {
        match self.pod_api.create(pod).await {
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
}

/// Who manages the Job, when it is not this controller.
fn other_manager(job: &Job) -> Option<&str> {
    job.spec.as_ref().and_then(|s| s.managed_by.as_deref()).filter(|manager| *manager != MANAGED_BY)
}

fn selector(job: &Job) -> Result<Selector, krate_api::labels::SelectorError> {
    Selector::of(job.spec.as_ref().and_then(|s| s.selector.as_ref()))
}
