//! What to do with a StatefulSet's pods, in which order, and where to stop and wait. Pure.
//!
//! `OrderedReady`: pods are started from the lowest ordinal up, each when all before it are available; ended
//! from the highest down, one at a time; and updated so too. `Parallel` starts and ends all at once, and
//! only updates one by one. A set that waits for a pod that will never be ready waits for ever: that pod has
//! to be deleted by hand, as documented.

use super::identity;
use crate::history::REVISION_HASH;
use crate::pods::{Availability, PodView};
use crate::portion::of_total;
use jiff::Timestamp;
use krate_api::types::apps::v1::StatefulSet;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// What a plan is made of.
pub struct Observed<'a> {
    pub set: &'a StatefulSet,
    /// The names of the revision that the set comes from and of the one that it goes to.
    pub current: &'a str,
    pub update: &'a str,
    /// The set's pods by ordinal.
    pub pods: BTreeMap<i32, Arc<PodView>>,
    pub claims: &'a dyn Claims,
    pub now: Timestamp,
}

/// What is known of the claims of a set.
pub trait Claims: Sync {
    /// Whether the owners of an ordinal's claims are those that the retention policy asks for.
    fn retained_rightly(&self, ordinal: i32, pod: &PodView, condemned: bool) -> bool;
    /// Whether a claim of an ordinal still belongs to a pod that is gone, and will go after it.
    fn stale(&self, ordinal: i32) -> bool;
    /// Whether one is missing.
    fn missing(&self, ordinal: i32) -> bool;
}

/// One step.
#[derive(Clone, Debug)]
pub enum Action {
    /// Make the pod of an ordinal, its claims first.
    Create {
        ordinal: i32,
        revision: String,
    },
    /// Make the claims that a pod waits for.
    CreateClaims {
        ordinal: i32,
    },
    Delete {
        pod: Arc<PodView>,
        why: Why,
    },
    /// Make labels and claims' owners say again what they should.
    Correct {
        ordinal: i32,
        pod: Arc<PodView>,
        condemned: bool,
    },
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It ended by itself and comes back.
    Ended,
    /// There are to be fewer pods.
    Condemned,
    /// It is of another revision.
    Outdated,
}

impl Observed<'_> {
    fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn is_parallel(&self) -> bool {
        let policy = self.set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref());
        policy == Some("Parallel")
    }

    /// Running, and ready for long enough.
    #[must_use]
    pub fn is_available(&self, pod: &PodView) -> bool {
        is_running_and_ready(pod) && pod.is_available(self.min_ready(), self.now)
    }

    /// When the next pod becomes available by the mere passing of time.
    #[must_use]
    pub fn next_available(&self) -> Option<Duration> {
        let left = |pod: &Arc<PodView>| match pod.availability(self.min_ready(), self.now) {
            Availability::In(left) => Some(left),
            _ => None,
        };
        self.pods.values().filter_map(left).min()
    }

    /// The revision that a new pod of an ordinal gets: below the partition it stays the current one.
    #[must_use]
    pub fn revision_of_new(&self, ordinal: i32) -> &str {
        let start = identity::ordinals(self.set).start;
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let rolling = strategy.filter(|s| s.type_.as_deref() == Some("RollingUpdate"));
        let Some(rolling) = rolling else { return self.update };
        let first_new = match &rolling.rolling_update {
            Some(update) => update.partition.unwrap_or(0),
            None => self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
        };
        if ordinal < start.saturating_add(first_new) { self.current } else { self.update }
    }
}

#[must_use]
pub fn is_running_and_ready(pod: &PodView) -> bool {
    pod.status.phase == "Running" && pod.is_ready()
}

#[must_use]
pub fn revision(pod: &PodView) -> &str {
    pod.label(REVISION_HASH).unwrap_or("")
}

/// The steps to take now.
#[must_use]
pub fn plan(observed: &Observed) -> Vec<Action> {
    let mut actions = vec![];
    if observed.set.metadata.deletion_timestamp.is_some() {
        return actions;
    }
    if keep(observed, &mut actions) || condemn(observed, &mut actions) {
        return actions;
    }
    update(observed, &mut actions);
    actions
}

/// Sees to the pods that are to be. Whether nothing else may be done before something has changed.
fn keep(observed: &Observed, actions: &mut Vec<Action>) -> bool {
    let monotonic = !observed.is_parallel();
    for ordinal in identity::ordinals(observed.set) {
        let wait = match observed.pods.get(&ordinal) {
            None => create(observed, ordinal, actions),
            Some(pod) => keep_one(observed, ordinal, pod, actions),
        };
        if wait && monotonic {
            return true;
        }
    }
    false
}

/// Always to be waited for: for the pod, or for stale claims to go.
fn create(observed: &Observed, ordinal: i32, actions: &mut Vec<Action>) -> bool {
    if !observed.claims.stale(ordinal) {
        let revision = observed.revision_of_new(ordinal).to_owned();
        actions.push(Action::Create { ordinal, revision });
    }
    true
}

/// Whether the pod is to be waited for.
fn keep_one(observed: &Observed, ordinal: i32, pod: &Arc<PodView>, actions: &mut Vec<Action>) -> bool {
    if pod.is_finished() {
        if !pod.is_deleting() {
            actions.push(Action::Delete { pod: pod.clone(), why: Why::Ended });
        }
        return true;
    }
    if pod.status.phase == "Pending" && !pod.is_deleting() && observed.claims.missing(ordinal) {
        actions.push(Action::CreateClaims { ordinal });
    }
    let wait = pod.is_deleting() || !observed.is_available(pod);
    let right = identity::matches(observed.set, ordinal, pod)
        && identity::storage_matches(observed.set, ordinal, pod)
        && observed.claims.retained_rightly(ordinal, pod, false);
    // In order, a pod is corrected when it is available; at once otherwise.
    if !right && (!wait || observed.is_parallel()) {
        actions.push(Action::Correct { ordinal, pod: pod.clone(), condemned: false });
    }
    wait
}

/// Ends the pods beyond the wanted ordinals, from the highest down. Whether to wait.
fn condemn(observed: &Observed, actions: &mut Vec<Action>) -> bool {
    let wanted = identity::ordinals(observed.set);
    let condemned = || observed.pods.iter().rev().filter(|(ordinal, _)| !wanted.contains(ordinal));
    for (ordinal, pod) in condemned() {
        if !observed.claims.retained_rightly(*ordinal, pod, true) {
            actions.push(Action::Correct { ordinal: *ordinal, pod: pod.clone(), condemned: true });
        }
    }
    if observed.is_parallel() {
        let doomed = condemned().filter(|(_, pod)| !pod.is_deleting());
        actions.extend(doomed.map(|(_, pod)| Action::Delete { pod: pod.clone(), why: Why::Condemned }));
        return false;
    }
    let healthy = |pod: &PodView| is_running_and_ready(pod) && !pod.is_deleting();
    let kept = wanted.clone().filter_map(|ordinal| observed.pods.get(&ordinal));
    let mut all = kept.chain(observed.pods.iter().filter(|(o, _)| !wanted.contains(o)).map(|(_, pod)| pod));
    // Nothing is ended while another pod is unwell, but that pod itself.
    let unwell = all.find(|pod| !healthy(pod));
    let Some((_, pod)) = condemned().next() else { return false };
    let is_it = unwell.is_some_and(|unwell| unwell.uid() == pod.uid());
    if !pod.is_deleting() && (observed.is_available(pod) || is_it) {
        actions.push(Action::Delete { pod: pod.clone(), why: Why::Condemned });
    }
    true
}

/// Ends pods of another revision than the one to go to, from the highest ordinal down to the partition.
fn update(observed: &Observed, actions: &mut Vec<Action>) {
    let strategy = observed.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    if strategy.is_some_and(|s| s.type_.as_deref() == Some("OnDelete")) {
        return;
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let all = identity::ordinals(observed.set);
    let most = match rolling.and_then(|r| r.max_unavailable.as_ref()) {
        None => return one_by_one(observed, actions),
        Some(most) => of_total(Some(most), all.end - all.start, false).max(1),
    };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let missing = all.clone().filter(|ordinal| !is_well(observed, *ordinal)).count();
    let doomed: Vec<_> = targets(observed)
        .filter_map(|ordinal| observed.pods.get(&ordinal))
        .filter(|pod| revision(pod) != observed.update && !pod.is_deleting())
        .take(most.saturating_sub(missing))
        .cloned()
        .collect();
    delete_outdated(doomed, actions);
}

/// The highest pod of another revision, unless one above it is not available yet.
fn one_by_one(observed: &Observed, actions: &mut Vec<Action>) {
    for ordinal in targets(observed) {
        let Some(pod) = observed.pods.get(&ordinal) else { return };
        if revision(pod) != observed.update && !pod.is_deleting() {
            return delete_outdated(vec![pod.clone()], actions);
        }
        if !is_well(observed, ordinal) {
            return;
        }
    }
}

fn is_well(observed: &Observed, ordinal: i32) -> bool {
    observed.pods.get(&ordinal).is_some_and(|pod| !pod.is_deleting() && observed.is_available(pod))
}

/// The ordinals that are to be updated, the highest first.
fn targets(observed: &Observed) -> impl Iterator<Item = i32> {
    let strategy = observed.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let partition = strategy.and_then(|s| s.rolling_update.as_ref()?.partition).unwrap_or(0);
    let all = identity::ordinals(observed.set);
    (all.start.saturating_add(partition)..all.end).rev()
}

fn delete_outdated(pods: Vec<Arc<PodView>>, actions: &mut Vec<Action>) {
    let before = actions.iter().filter_map(|action| match action {
        Action::Delete { pod, .. } => Some(pod.uid().to_owned()),
        _ => None,
    });
    let before: HashSet<String> = before.collect();
    let new = pods.into_iter().filter(|pod| !before.contains(pod.uid()));
    actions.extend(new.map(|pod| Action::Delete { pod, why: Why::Outdated }));
}
