//! Pods that were marked as about to be ended from outside, and then were not: the mark is taken back.

use super::plan::DELETION_TIMEOUT;
use crate::meta;
use crate::pods::PodView;
use jiff::{SignedDuration, Timestamp};
use krate_api::Status;
use krate_api::meta::Time;
use krate_api::types::core::v1::Pod;
use krate_client::Api;
use std::time::Duration;

const MARK: &str = "DisruptionTarget";
/// What the kubelet marks it ends itself, however long that takes.
const BY_KUBELET: &str = "TerminationByKubelet";

/// How long until the mark of a pod is stale; none if it has none that can be.
#[must_use]
pub fn left(pod: &PodView, now: Timestamp) -> Option<Duration> {
    let mark = pod.condition(MARK).filter(|c| c.status == "True")?;
    if pod.is_deleting() || pod.is_finished() || mark.reason.as_deref() == Some(BY_KUBELET) {
        return None;
    }
    let since = mark.last_transition_time.as_ref().map_or(now, |t| t.0);
    let left = DELETION_TIMEOUT - now.duration_since(since);
    Some(left.max(SignedDuration::ZERO).unsigned_abs())
}

/// Takes the mark back.
pub async fn clear(api: &Api<Pod>, pod: &PodView, now: Timestamp) -> Result<(), Status> {
    let uid = pod.uid().to_owned();
    let clear = |live: &mut Pod| {
        if meta::uid(&live.metadata) != uid || live.metadata.deletion_timestamp.is_some() {
            return false;
        }
        let generation = live.metadata.generation;
        let conditions = live.status.as_mut().and_then(|s| s.conditions.as_mut());
        let mark = conditions.and_then(|all| all.iter_mut().find(|c| c.type_ == MARK && c.status == "True"));
        let Some(mark) = mark else { return false };
        *mark = Default::default();
        (mark.type_, mark.status) = (MARK.to_owned(), "False".to_owned());
        mark.last_transition_time = Some(Time(now));
        mark.observed_generation = generation;
        true
    };
    match api.modify_status(pod.namespace(), pod.name(), clear).await {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}
