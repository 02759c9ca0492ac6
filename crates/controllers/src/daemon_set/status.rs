//! What a DaemonSet's status says. Pure.

use super::nodes::Belongs;
use super::plan::Observed;
use crate::pods::Availability;
use krate_api::types::apps::v1::DaemonSetStatus;
use std::time::Duration;

/// The status that follows from what is observed, and when it changes by the mere passing of time.
/// `acted` when the present generation was acted upon.
#[must_use]
pub fn status(observed: &Observed, acted: bool) -> (DaemonSetStatus, Option<Duration>) {
    let old = observed.set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut misplaced) = (0, 0, 0);
    let (mut updated, mut ready, mut available) = (0, 0, 0);
    let mut next: Option<Duration> = None;
    for (node, belongs) in &observed.nodes {
        let first = observed.on(node.name()).first();
        if *belongs != Belongs::Yes {
            misplaced += i32::from(first.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = first else { continue };
        current += 1;
        updated += i32::from(observed.is_updated(pod));
        ready += i32::from(pod.is_ready());
        match pod.availability(observed.min_ready(), observed.now) {
            Availability::Yes => available += 1,
            Availability::No => {}
            Availability::In(left) => next = Some(next.map_or(left, |n| n.min(left))),
        }
    }
    let generation = if acted { observed.set.metadata.generation } else { old.observed_generation };
    let unless_zero = |n: i32| (n != 0).then_some(n);
    let status = DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misplaced,
        updated_number_scheduled: unless_zero(updated),
        number_ready: ready,
        number_available: unless_zero(available),
        number_unavailable: unless_zero(desired - available),
        observed_generation: generation,
        ..old
    };
    (status, next)
}
