//! What a StatefulSet's status says. Pure.

use super::identity;
use super::plan::{Observed, is_running_and_ready, revision};
use krate_api::types::apps::v1::StatefulSetStatus;

/// The status that follows from what is observed.
#[must_use]
pub fn status(observed: &Observed, collisions: i32) -> StatefulSetStatus {
    let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
    for pod in observed.pods.values() {
        ready += i32::from(is_running_and_ready(pod));
        available += i32::from(observed.is_available(pod));
        if !pod.is_deleting() {
            current += i32::from(revision(pod) == observed.current);
            updated += i32::from(revision(pod) == observed.update);
        }
    }
    let total = i32::try_from(observed.pods.len()).unwrap_or(i32::MAX);
    let wanted = identity::ordinals(observed.set);
    let wanted = wanted.end - wanted.start;
    let strategy = observed.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let rolls = strategy.is_some_and(|s| s.type_.as_deref() == Some("RollingUpdate"));
    // The update is complete: where it went to is where the next one comes from.
    let complete = rolls && [updated, ready, total] == [wanted; 3];
    let unless_zero = |n: i32| (n != 0).then_some(n);
    StatefulSetStatus {
        replicas: total,
        ready_replicas: unless_zero(ready),
        available_replicas: Some(available),
        current_replicas: unless_zero(if complete { updated } else { current }),
        updated_replicas: unless_zero(updated),
        current_revision: Some(if complete { observed.update } else { observed.current }.to_owned()),
        update_revision: Some(observed.update.to_owned()),
        observed_generation: observed.set.metadata.generation,
        collision_count: Some(collisions),
        conditions: observed.set.status.as_ref().and_then(|s| s.conditions.clone()),
    }
}
