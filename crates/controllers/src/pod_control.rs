//! Pods made and deleted for an owner: with its expectations kept, and told in events about it.

use crate::pods::PodView;
use crate::{meta, slow_start};
use krate_api::Status;
use krate_api::types::core::v1::Pod;
use krate_client::api::delete_uid;
use krate_client::recorder::Reference;
use krate_client::{Api, Expectations, Recorder};
use std::sync::Arc;

/// How a controller makes and deletes pods.
pub struct PodControl {
    pub api: Api<Pod>,
    pub recorder: Recorder,
}

/// For whom: the key in the queue, what events are about, and the owner's expectations.
pub struct For<'a> {
    pub key: &'a str,
    pub about: Reference,
    pub expectations: &'a Expectations,
}

impl PodControl {
    /// Makes `count` expected pods, carefully. The failure that stopped it; none when the namespace is going
    /// away, for then there is nothing to be done about it.
    pub async fn create(&self, owner: &For<'_>, count: usize, pod: impl Fn(usize) -> Pod) -> Option<Status> {
        let done = slow_start::slow_start(count, |n| self.create_one(owner, pod(n))).await;
        owner.expectations.creations_skipped(owner.key, count - done.attempted);
        done.failure.filter(|status| !meta::namespace_is_terminating(status))
    }

    async fn create_one(&self, owner: &For<'_>, pod: Pod) -> Result<(), Status> {
        match self.api.create(pod).await {
            Ok(created) => {
                let name = meta::name(&created.metadata);
                self.recorder.normal(&owner.about, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(status) => {
                owner.expectations.creation_observed(owner.key);
                if !meta::namespace_is_terminating(&status) {
                    self.recorder.warning(&owner.about, "FailedCreate", format!("Error creating: {status}"));
                }
                Err(status)
            }
        }
    }

    /// Deletes pods whose deletion is expected, all at once. The first failure.
    pub async fn delete(&self, owner: &For<'_>, pods: &[Arc<PodView>]) -> Option<Status> {
        let deletions = pods.iter().map(|pod| self.delete_one(owner, pod));
        futures::future::join_all(deletions).await.into_iter().find_map(Result::err)
    }

    async fn delete_one(&self, owner: &For<'_>, pod: &PodView) -> Result<(), Status> {
        match self.api.delete(pod.namespace(), pod.name(), delete_uid(pod.uid())).await {
            Ok(()) => {
                let message = format!("Deleted pod: {}", pod.name());
                self.recorder.normal(&owner.about, "SuccessfulDelete", message);
                Ok(())
            }
            Err(status) => {
                owner.expectations.deletion_observed(owner.key, pod.uid());
                if status.is_not_found() {
                    return Ok(());
                }
                self.recorder.warning(&owner.about, "FailedDelete", format!("Error deleting: {status}"));
                Err(status)
            }
        }
    }
}
