//! How many pods to make or delete, and what the status says. Pure.

use super::kinds::{CommonStatus, Condition, Replicated};
use crate::meta;
use crate::pods::{Availability, PodView};
use jiff::Timestamp;
use krate_api::Status;
use krate_api::meta::Time;
use std::sync::Arc;
use std::time::Duration;

/// Pods made or deleted in one reconcile.
pub const BURST: usize = 500;
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What to do about the number of pods.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    Nothing,
    Create(usize),
    Delete(usize),
}

#[must_use]
pub fn plan(active: usize, wanted: usize) -> Plan {
    match active.cmp(&wanted) {
        std::cmp::Ordering::Equal => Plan::Nothing,
        std::cmp::Ordering::Less => Plan::Create(wanted - active),
        std::cmp::Ordering::Greater => Plan::Delete(active - wanted),
    }
}

/// Why pods could not be made or deleted.
pub struct Failure {
    /// The condition's reason.
    pub reason: &'static str,
    pub status: Status,
}

/// The pods of an owner, counted.
#[derive(Debug, Default, PartialEq)]
pub struct Counted {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
    /// When the next pod becomes available by the mere passing of time.
    pub next: Option<Duration>,
}

#[must_use]
pub fn count<K: Replicated>(owner: &K, pods: &[Arc<PodView>], now: Timestamp) -> Counted {
    let template = owner.template().and_then(|t| t.metadata.as_ref());
    let labels = template.map(meta::labels);
    let mut counted = Counted::default();
    for pod in pods {
        if !pod.is_active() {
            counted.terminating += i32::from(pod.is_deleting() && !pod.is_finished());
            continue;
        }
        counted.replicas += 1;
        let has = |(k, v): (&String, &String)| pod.metadata.labels.get(k) == Some(v);
        counted.fully_labeled += i32::from(labels.is_none_or(|l| l.iter().all(has)));
        counted.ready += i32::from(pod.is_ready());
        match pod.availability(owner.min_ready_seconds(), now) {
            Availability::Yes => counted.available += 1,
            Availability::No => {}
            Availability::In(left) => {
                counted.next = Some(counted.next.map_or(left, |n| n.min(left)));
            }
        }
    }
    counted
}

/// The status that follows. Equal to the present one when nothing changed.
#[must_use]
pub fn status<K: Replicated>(
    owner: &K,
    counted: &Counted,
    failure: Option<&Failure>,
    now: Timestamp,
) -> CommonStatus {
    let old = owner.status();
    let mut conditions = old.conditions;
    match failure {
        // While it lasts it stays as it was first told.
        Some(_) if conditions.iter().any(|c| c.kind == REPLICA_FAILURE) => {}
        Some(failure) => conditions.push(Condition {
            kind: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.status.message().to_owned()),
            changed: Some(Time(now)),
        }),
        None => conditions.retain(|c| c.kind != REPLICA_FAILURE),
    }
    CommonStatus {
        replicas: counted.replicas,
        fully_labeled: counted.fully_labeled,
        ready: counted.ready,
        available: counted.available,
        terminating: K::COUNTS_TERMINATING.then_some(counted.terminating),
        observed_generation: owner.meta().generation.unwrap_or(0),
        conditions,
    }
}
