//! Wall-clock time, derived from tokio's clock so that a test that pauses tokio's clock pauses ours.
//!
//! Durations and deadlines are `tokio::time` directly; this module only answers "what does the calendar
//! say now", for timestamps in objects, certificates and tokens.

use jiff::SignedDuration;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::time::Instant;

pub use jiff::Timestamp;

/// A source of calendar time. Cheap to clone and to share.
#[derive(Clone, Debug)]
pub struct Clock {
    origin_wall: Timestamp,
    origin: Origin,
}

#[derive(Clone, Debug)]
enum Origin {
    /// The machine's calendar clock, read each time (it may be stepped by its administrator).
    System,
    /// A calendar that starts at `origin_wall` and follows tokio's (pausable) clock; all clones are stepped
    /// together, by so many milliseconds until now.
    Virtual(Instant, Arc<AtomicI64>),
}

impl Clock {
    /// The machine's own clock.
    #[must_use]
    pub fn system() -> Self {
        Self { origin_wall: Timestamp::UNIX_EPOCH, origin: Origin::System }
    }

    /// A clock that shows `start` now and then follows tokio's clock. Call it inside a runtime.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { origin_wall: start, origin: Origin::Virtual(Instant::now(), Arc::default()) }
    }

    /// Sets the calendar forward (or back), for all who share this clock, as an administrator or a time
    /// server may: timers go on as they were. Only a virtual clock can be stepped; the machine's stays.
    pub fn step(&self, by: SignedDuration) {
        if let Origin::Virtual(_, steps) = &self.origin {
            let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            steps.fetch_add(millis, Ordering::Relaxed);
        }
    }

    /// The present instant, with nanoseconds.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's calendar enters")]
    pub fn now(&self) -> Timestamp {
        match &self.origin {
            Origin::System => Timestamp::now(),
            Origin::Virtual(start, steps) => {
                let elapsed = SignedDuration::try_from(start.elapsed()).unwrap_or(SignedDuration::MAX);
                let steps = SignedDuration::from_millis(steps.load(Ordering::Relaxed));
                let elapsed = elapsed.saturating_add(steps);
                self.origin_wall.checked_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// The present instant cut to whole seconds, as `metav1.Time` carries it.
    #[must_use]
    pub fn now_seconds(&self) -> Timestamp {
        truncate(self.now(), 1_000_000_000)
    }

    /// The present instant cut to whole microseconds, as `metav1.MicroTime` carries it.
    #[must_use]
    pub fn now_micros(&self) -> Timestamp {
        truncate(self.now(), 1_000)
    }
}

fn truncate(at: Timestamp, unit: i128) -> Timestamp {
    Timestamp::from_nanosecond(at.as_nanosecond().div_euclid(unit) * unit).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_follows_the_runtime() {
        let clock = Clock::starting_at(Timestamp::from_second(1_000).unwrap());
        tokio::time::advance(Duration::from_millis(2_500)).await;
        assert_eq!(clock.now().as_millisecond(), 1_002_500);
        assert_eq!(clock.now_seconds().as_millisecond(), 1_002_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_seen_by_every_clone() {
        let clock = Clock::starting_at(Timestamp::from_second(1_000).unwrap());
        let other = clock.clone();
        clock.step(SignedDuration::from_secs(-30));
        assert_eq!(other.now().as_second(), 970);
        other.step(SignedDuration::from_secs(90));
        assert_eq!(clock.now().as_second(), 1_060);
    }
}
