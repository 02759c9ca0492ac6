//! Growing pauses: between restarts of a container, and between pulls of an image.

use krate_base::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// First pause; it doubles with every failure.
pub const FIRST: Duration = Duration::from_secs(10);
/// Longest pause.
pub const LONGEST: Duration = Duration::from_secs(300);
/// A failure this long after the one before starts again from the first pause.
const FORGET: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Entry {
    pause: Duration,
    updated: Timestamp,
}

/// The pauses of one pod's containers or images, by a key of the caller's.
#[derive(Clone, Debug, Default)]
pub struct Backoff(BTreeMap<String, Entry>);

/// Whether to act now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Now,
    /// Not before this instant; the whole pause is `pause`.
    Later {
        at: Timestamp,
        pause: Duration,
    },
}

impl Backoff {
    /// Whether something that failed at `failed` may be tried again.
    pub fn turn(&self, key: &str, failed: Timestamp, now: Timestamp) -> Turn {
        let Some(entry) = self.0.get(key).filter(|e| !is_old(failed, e.updated)) else { return Turn::Now };
        let at = plus(failed, entry.pause);
        if now < at { Turn::Later { at, pause: entry.pause } } else { Turn::Now }
    }

    /// Notes that something that failed at `failed` is tried again now.
    pub fn next(&mut self, key: &str, failed: Timestamp, now: Timestamp) {
        let pause = match self.0.get(key) {
            Some(entry) if !is_old(failed, entry.updated) => (entry.pause * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0.insert(key.to_owned(), Entry { pause, updated: now });
    }

    pub fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

fn is_old(failed: Timestamp, updated: Timestamp) -> bool {
    failed.duration_since(updated) > jiff::SignedDuration::try_from(FORGET).unwrap_or_default()
}

pub fn plus(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A duration of whole seconds as Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_seconds(duration: Duration) -> String {
    let all = duration.as_secs();
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn pauses_double_to_five_minutes_and_are_forgotten() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.turn("a", at(0), at(0)), Turn::Now);
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..7 {
            backoff.next("a", at(now), at(now));
            let Turn::Later { pause, at: until } = backoff.turn("a", at(now), at(now)) else { panic!() };
            pauses.push(pause.as_secs());
            now = until.as_second();
            assert_eq!(backoff.turn("a", at(now - pause.as_secs() as i64), at(now)), Turn::Now);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.turn("a", at(now + 601), at(now + 601)), Turn::Now);
        backoff.next("a", at(now + 601), at(now + 601));
        assert!(matches!(backoff.turn("a", at(now + 601), at(now + 601)), Turn::Later { pause: FIRST, .. }));
    }

    #[test]
    fn printed_as_go_does() {
        let text = |s| go_seconds(Duration::from_secs(s));
        assert_eq!([text(10), text(80), text(300), text(3600)], ["10s", "1m20s", "5m0s", "1h0m0s"]);
    }
}
