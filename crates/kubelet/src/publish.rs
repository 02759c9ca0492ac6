//! Writes pods' statuses to the API, and finishes their deletion.
//!
//! The workers say what a status should be and never wait for the API. What differs from the present
//! status is written; conditions of others stay; a conflict reads again. A pod is deleted from the API
//! here and nowhere else, only when its deletion was asked for and everything of it has ended.

use crate::spec;
use crate::status::conditions::{DISRUPTION_TARGET, OWNED};
use krate_api::meta::{DeleteOptions, Preconditions};
use krate_api::types::core::v1::{Pod, PodCondition, PodStatus};
use krate_api::{Reason, Status};
use krate_base::metrics::Metrics;
use krate_client::Api;
use krate_client::informer::Informer;
use krate_client::queue::Queue;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Statuses that are written at the same time.
const WRITERS: usize = 4;
/// Tries to write over somebody else's writes before the queue's back-off takes over.
const ATTEMPTS: usize = 4;

/// What one pod should show.
#[derive(Clone, Debug)]
struct Wanted {
    namespace: String,
    name: String,
    status: PodStatus,
    /// Everything of the pod has ended: a deletion that was asked for may be finished.
    finished: bool,
    /// The pod is a static one, shown by its mirror pod with this hash.
    mirror: Option<String>,
    /// The object as our last write left it; it may be newer than the informer's.
    written: Option<Arc<Pod>>,
}

/// Says what pods should show; clones share one.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    api: Api<Pod>,
    pods: Informer<Pod>,
    queue: Queue,
    wanted: Mutex<HashMap<String, Wanted>>,
}

impl Publisher {
    pub fn new(api: Api<Pod>, pods: Informer<Pod>, metrics: &Metrics) -> Self {
        let queue = Queue::new("pod_status", metrics);
        Self(Arc::new(Inner { api, pods, queue, wanted: Mutex::default() }))
    }

    /// Says what the pod should show.
    pub fn publish(&self, pod: &Pod, status: &PodStatus, finished: bool) {
        let uid = spec::uid(pod).to_owned();
        let mut all = self.0.wanted.lock();
        let before = all.get(&uid);
        if before.is_some_and(|w| w.status == *status && w.finished == finished && !finished) {
            return;
        }
        let written = before.and_then(|w| w.written.clone());
        let wanted = Wanted {
            namespace: spec::namespace(pod).to_owned(),
            name: spec::name(pod).to_owned(),
            status: status.clone(),
            finished,
            mirror: spec::is_static(pod)
                .then(|| spec::annotation(pod, spec::HASH_ANNOTATION).unwrap_or_default().to_owned()),
            written,
        };
        all.insert(uid.clone(), wanted);
        drop(all);
        self.0.queue.add(uid);
    }

    /// Writes a pod's status again if it differs: somebody else may have changed it, or the mirror pod of
    /// a static pod may have come.
    pub fn refresh(&self, uid: &str) {
        if self.0.wanted.lock().contains_key(uid) {
            self.0.queue.add(uid);
        }
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.wanted.lock().remove(uid);
    }

    /// Writes until the queue is shut down.
    pub async fn run(&self) {
        let workers = (0..WRITERS).map(|_| self.work());
        futures::future::join_all(workers).await;
    }

    pub fn shutdown(&self) {
        self.0.queue.shutdown();
    }

    async fn work(&self) {
        while let Some(uid) = self.0.queue.get().await {
            match self.write(&uid).await {
                Ok(()) => self.0.queue.forget(&uid),
                Err(error) => {
                    tracing::warn!(pod = %uid, %error, "the pod's status cannot be written now");
                    self.0.queue.add_rate_limited(uid.clone());
                }
            }
            self.0.queue.done(&uid);
        }
    }

    async fn write(&self, uid: &str) -> Result<(), Status> {
        let Some(wanted) = self.0.wanted.lock().get(uid).cloned() else { return Ok(()) };
        let Some(mut present) = self.present(uid, &wanted).await? else {
            if wanted.mirror.is_none() {
                self.forget(uid);
            }
            return Ok(());
        };
        match self.write_over(uid, &wanted, present).await? {
            Some(now) => present = now,
            // The pod is gone, or another one has its name.
            None => {
                self.forget(uid);
                return Ok(());
            }
        }
        if wanted.finished && wanted.mirror.is_none() && spec::is_deleting(&present) {
            self.finish(uid, &wanted).await?;
        }
        Ok(())
    }

    /// Writes the status over the present object, reading again after conflicts; the object as it is then.
    async fn write_over(
        &self,
        uid: &str,
        wanted: &Wanted,
        mut present: Arc<Pod>,
    ) -> Result<Option<Arc<Pod>>, Status> {
        let mut attempt = 1;
        while let Some(changed) = with_status(&present, &wanted.status) {
            match self.0.api.update_status(changed).await {
                Ok(written) => {
                    if let Some(wanted) = self.0.wanted.lock().get_mut(uid) {
                        wanted.written = Some(written.clone());
                    }
                    return Ok(Some(written));
                }
                Err(status) if status.is_not_found() => return Ok(None),
                Err(status) if status.is_conflict() && attempt < ATTEMPTS => {
                    attempt += 1;
                    match self.0.api.get_opt(&wanted.namespace, &wanted.name).await? {
                        Some(pod) if fits(&pod, uid, wanted) => present = pod,
                        _ => return Ok(None),
                    }
                }
                Err(status) => return Err(status),
            }
        }
        Ok(Some(present))
    }

    /// The object that shows the pod, as new as it is known here.
    async fn present(&self, uid: &str, wanted: &Wanted) -> Result<Option<Arc<Pod>>, Status> {
        let key = krate_api::object::key(&wanted.namespace, &wanted.name);
        let cached = self.0.pods.get(&key).filter(|pod| fits(pod, uid, wanted));
        let newest = cached.into_iter().chain(wanted.written.clone()).max_by_key(|pod| revision(pod));
        if newest.is_some() {
            return Ok(newest);
        }
        Ok(self.0.api.get_opt(&wanted.namespace, &wanted.name).await?.filter(|pod| fits(pod, uid, wanted)))
    }

    /// The last step of a graceful deletion.
    async fn finish(&self, uid: &str, wanted: &Wanted) -> Result<(), Status> {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..Default::default()
        };
        match self.0.api.delete(&wanted.namespace, &wanted.name, options).await {
            // Gone, or another pod of that name has come: either way it is done.
            Err(status) if !status.is_not_found() && !status.is(Reason::Conflict) => Err(status),
            _ => Ok(()),
        }
    }
}

fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn fits(pod: &Pod, uid: &str, wanted: &Wanted) -> bool {
    match &wanted.mirror {
        Some(hash) => spec::annotation(pod, spec::MIRROR_ANNOTATION) == Some(hash),
        None => spec::uid(pod) == uid,
    }
}

/// The pod with its new status, or `None` if it has it already.
fn with_status(present: &Pod, wanted: &PodStatus) -> Option<Pod> {
    let status = merged(present.status.as_ref(), wanted);
    if present.status.as_ref() == Some(&status) {
        return None;
    }
    Some(Pod { status: Some(status), ..present.clone() })
}

/// What is ours from the new status, what is others' from the present one.
fn merged(present: Option<&PodStatus>, wanted: &PodStatus) -> PodStatus {
    let ours = |type_: &str| OWNED.contains(&type_);
    let mut out = wanted.clone();
    let Some(present) = present else { return out };
    let theirs = |c: &&PodCondition| present.conditions.iter().flatten().any(|p| p.type_ == c.type_);
    let own = wanted.conditions.iter().flatten();
    let own = own.filter(|c| ours(&c.type_) || (c.type_ == DISRUPTION_TARGET && !theirs(c))).cloned();
    let others = present.conditions.iter().flatten().filter(|c| !ours(&c.type_)).cloned();
    out.conditions = Some(own.chain(others).collect());
    out.nominated_node_name = present.nominated_node_name.clone();
    out.resource_claim_statuses = present.resource_claim_statuses.clone();
    out.extended_resource_claim_status = present.extended_resource_claim_status.clone();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(type_: &str, status: &str) -> PodCondition {
        PodCondition { type_: type_.into(), status: status.into(), ..Default::default() }
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let present = PodStatus {
            conditions: Some(vec![condition("Ready", "False"), condition("x.io/up", "True")]),
            ..Default::default()
        };
        let wanted = PodStatus { conditions: Some(vec![condition("Ready", "True")]), ..Default::default() };
        let got = merged(Some(&present), &wanted).conditions.unwrap();
        assert_eq!(got, [condition("Ready", "True"), condition("x.io/up", "True")]);
    }
}
