//! The status of a Deployment: numbers and conditions. Pure.

use super::model::{Sets, Wanted};
use jiff::{SignedDuration, Timestamp};
use krate_api::meta::Time;
use krate_api::types::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use std::time::Duration;

pub const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

pub const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
pub const PAUSED: &str = "DeploymentPaused";
pub const RESUMED: &str = "DeploymentResumed";

#[must_use]
pub fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Sets a condition, unless it says the same already.
pub fn set_condition(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let old = condition(status, kind);
    if old.is_some_and(|c| c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    let since = old.filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
    let new = DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    };
    remove_condition(status, kind);
    status.conditions.get_or_insert_default().push(new);
}

pub fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// Everything that is wanted is of the new template and available, and nothing else is left.
#[must_use]
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.replicas();
    let n = |number: Option<i32>| number.unwrap_or(0);
    n(status.updated_replicas) == wanted
        && n(status.replicas) == wanted
        && n(status.available_replicas) == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// The numbers, and whether the Deployment is available. Other conditions stay as they are.
#[must_use]
pub fn counted(deployment: &Deployment, sets: &Sets, now: Timestamp) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let available = sets.available();
    let some = |n: i32| (n != 0).then_some(n);
    let terminating = |s: &super::model::Set| s.object.status.as_ref().and_then(|s| s.terminating_replicas);
    let mut status = DeploymentStatus {
        observed_generation: Some(deployment.metadata.generation.unwrap_or(0)),
        replicas: some(sets.actual()),
        updated_replicas: some(sets.new.as_ref().map_or(0, super::model::Set::actual)),
        ready_replicas: some(sets.iter().map(super::model::Set::ready).sum()),
        available_replicas: some(available),
        unavailable_replicas: some((sets.total() - available).max(0)),
        terminating_replicas: sets.iter().map(terminating).sum(),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let (value, reason, message) = if available >= deployment.replicas() - deployment.max_unavailable() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, AVAILABLE, value, reason, message.to_owned(), now);
    status
}

/// The status during a rollout: the numbers, how it progresses, and what failed.
#[must_use]
pub fn rollout(deployment: &Deployment, sets: &Sets, now: Timestamp) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counted(deployment, sets, now);
    if deployment.progress_deadline().is_none() {
        remove_condition(&mut status, PROGRESSING);
    } else if !was_complete(&old, &status) {
        progress(deployment, sets, &old, &mut status, now);
    }
    failures(sets, &mut status);
    status
}

/// A finished rollout stays finished whatever happens to its pods.
fn was_complete(old: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    status.replicas == status.updated_replicas
        && condition(old, PROGRESSING).is_some_and(|c| c.reason.as_deref() == Some(NEW_AVAILABLE))
}

fn progress(
    deployment: &Deployment,
    sets: &Sets,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    let who = match &sets.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name()),
        None => format!("Deployment \"{}\"", crate::meta::name(&deployment.metadata)),
    };
    if is_complete(deployment, status) {
        let message = format!("{who} has successfully progressed.");
        set_condition(status, PROGRESSING, "True", NEW_AVAILABLE, message, now);
    } else if has_progressed(old, status) {
        // Replaced even if it says the same: its time is from where the deadline counts.
        let since = condition(old, PROGRESSING)
            .filter(|c| c.status == "True")
            .and_then(|c| c.last_transition_time.clone());
        remove_condition(status, PROGRESSING);
        let message = format!("{who} is progressing.");
        set_condition(status, PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let Some(new) = status.conditions.iter_mut().flatten().find(|c| c.type_ == PROGRESSING) {
            new.last_transition_time = since.or(new.last_transition_time.take());
        }
    } else if is_overdue(deployment, status, now) {
        let message = format!("{who} has timed out progressing.");
        set_condition(status, PROGRESSING, "False", TIMED_OUT, message, now);
    }
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |number: Option<i32>| number.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// How long until the rollout is overdue; `None` when it cannot become so.
fn time_left(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<SignedDuration> {
    let deadline = SignedDuration::from_secs(deployment.progress_deadline()?);
    let condition = condition(status, PROGRESSING)?;
    if condition.reason.as_deref() == Some(NEW_AVAILABLE) {
        return None;
    }
    let since = condition.last_update_time.as_ref().map_or(now, |t| t.0);
    Some(deadline - now.duration_since(since))
}

fn is_overdue(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let already = condition(status, PROGRESSING).is_some_and(|c| c.reason.as_deref() == Some(TIMED_OUT));
    already || time_left(deployment, status, now).is_some_and(|left| left < SignedDuration::ZERO)
}

/// When to look again although nothing changes: at the deadline of a rollout that is under way.
#[must_use]
pub fn look_again(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let timed_out = condition(status, PROGRESSING).is_some_and(|c| c.reason.as_deref() == Some(TIMED_OUT));
    if timed_out || is_complete(deployment, status) || deployment.is_paused() {
        return None;
    }
    let left = time_left(deployment, status, now)?.max(SignedDuration::ZERO);
    Some(left.unsigned_abs() + Duration::from_secs(1))
}

/// Shows the first failure of a set to make its pods, the new set's before the others'.
fn failures(sets: &Sets, status: &mut DeploymentStatus) {
    let of = |set: &super::model::Set| {
        let conditions = set.object.status.as_ref().and_then(|s| s.conditions.clone());
        conditions.into_iter().flatten().find(|c| c.type_ == REPLICA_FAILURE)
    };
    let failure = sets.new.iter().chain(&sets.old).find_map(of);
    let Some(failure) = failure else { return remove_condition(status, REPLICA_FAILURE) };
    let at = failure.last_transition_time.map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    let (reason, message) = (failure.reason.unwrap_or_default(), failure.message.unwrap_or_default());
    set_condition(status, REPLICA_FAILURE, &failure.status, &reason, message, at);
}

/// Says that a Deployment was paused or resumed: no deadline counts meanwhile. Whether anything changed.
pub fn pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) -> bool {
    if deployment.progress_deadline().is_none() {
        return false;
    }
    let reason = condition(status, PROGRESSING).and_then(|c| c.reason.as_deref());
    let (paused, told) = (deployment.is_paused(), reason == Some(PAUSED));
    if reason == Some(TIMED_OUT) || paused == told {
        return false;
    }
    let (reason, message) =
        if paused { (PAUSED, "Deployment is paused") } else { (RESUMED, "Deployment is resumed") };
    set_condition(status, PROGRESSING, "Unknown", reason, message.to_owned(), now);
    true
}
