//! How long a Job waits before it makes another pod. Pure.

use crate::pods::{INDEX_FAILURES, INDEX_IGNORED_FAILURES, PodView};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;

/// Pause after the first failure of a pod; doubles with each, up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(600);

/// Failures since the last success, to space new attempts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    pub failures: u32,
    pub last: Option<Timestamp>,
    /// Ended pods that are taken in already and not free yet.
    pub seen: BTreeSet<String>,
}

impl Backoff {
    /// How long until the next pod may be made.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        left(self.failures, self.last?, now)
    }

    /// Takes in pods that have ended since, in any order. Failures before the last success do not count.
    pub fn remember(&mut self, succeeded: &[Timestamp], failed: &[Timestamp]) {
        let success = succeeded.iter().max();
        if success.is_some_and(|success| self.last.is_none_or(|last| last <= *success)) {
            (self.failures, self.last) = (0, None);
        }
        let since = failed.iter().filter(|at| success.is_none_or(|success| *at > success));
        for at in since {
            self.failures = self.failures.saturating_add(1);
            self.last = self.last.max(Some(*at));
        }
    }
}

fn left(failures: u32, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?.min(10);
    let pause = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let left = pause - now.duration_since(last);
    (left > SignedDuration::ZERO).then(|| left.unsigned_abs())
}

/// How long until a pod of the same index may replace a failed one.
#[must_use]
pub fn left_for_index(failed: &PodView, now: Timestamp) -> Option<Duration> {
    left(absolute_failures(failed).saturating_add(1), ended(failed, now), now)
}

/// Failures of the index before this pod that counted.
#[must_use]
pub fn index_failures(pod: &PodView) -> u32 {
    number(pod, INDEX_FAILURES)
}

/// Failures of the index before this pod that did not count.
#[must_use]
pub fn ignored_failures(pod: &PodView) -> u32 {
    number(pod, INDEX_IGNORED_FAILURES)
}

/// All failures of the index before this pod.
#[must_use]
pub fn absolute_failures(pod: &PodView) -> u32 {
    index_failures(pod).saturating_add(ignored_failures(pod))
}

fn number(pod: &PodView, annotation: &str) -> u32 {
    pod.metadata.annotations.get(annotation).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// When a pod ended, as well as it is known.
#[must_use]
pub fn ended(pod: &PodView, now: Timestamp) -> Timestamp {
    let exits = pod.status.container_statuses.iter().filter_map(|c| c.state.terminated.as_ref());
    let exit = exits.filter_map(|t| t.finished_at.as_ref().map(|t| t.0)).max();
    let unready = || pod.condition("Ready").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    exit.or_else(unready).or_else(deleted).unwrap_or(now).min(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_pause_doubles_to_ten_minutes_and_a_success_ends_it() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.left(at(0)), None);
        for (n, pause) in [10u64, 20, 40, 80, 160, 320, 600, 600].into_iter().enumerate() {
            let now = at(1000 * (n as i64 + 1));
            backoff.remember(&[], &[now]);
            assert_eq!(backoff.left(now), Some(Duration::from_secs(pause)));
        }
        backoff.remember(&[at(9000)], &[at(8500), at(9001)]);
        assert_eq!((backoff.failures, backoff.left(at(9001))), (1, Some(Duration::from_secs(10))));
        assert_eq!(backoff.left(at(9011)), None);
    }
}
