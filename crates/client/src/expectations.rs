//! What a controller has asked for and not yet seen in its caches: until it has, it must not count again.
//!
//! Creations are counted; deletions are remembered by uid, so that a deletion seen twice (marked, then
//! gone) counts once. Expectations that are not met within [`EXPIRY`] are dropped: a lost answer must not
//! stop an object for ever.

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// After this time an unmet expectation no longer holds anything up.
pub const EXPIRY: Duration = Duration::from_secs(5 * 60);

/// The expectations of one controller by the key of the owning object.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<String, Expected>>);

struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether everything asked for has been seen, or has expired.
    #[must_use]
    pub fn satisfied(&self, key: &str) -> bool {
        self.0
            .lock()
            .get(key)
            .is_none_or(|e| (e.creations == 0 && e.deletions.is_empty()) || e.since.elapsed() > EXPIRY)
    }

    /// How long until what is still expected no longer holds anything up. Who finds the key unsatisfied looks
    /// again after this time: of an object that came and went while its watch was broken no event ever tells.
    #[must_use]
    pub fn expires_in(&self, key: &str) -> Duration {
        let since = self.0.lock().get(key).map(|e| e.since.elapsed());
        since.map_or(Duration::ZERO, |since| EXPIRY.saturating_sub(since) + Duration::from_millis(1))
    }

    /// Replaces what is expected: `creations` new objects and the deletion of these uids. Call it before
    /// asking, so that an answer that comes at once is counted.
    pub fn expect(&self, key: &str, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let expected =
            Expected { creations, deletions: deletions.into_iter().collect(), since: Instant::now() };
        self.0.lock().insert(key.to_owned(), expected);
    }

    /// A creation was seen, or failed and will not be seen.
    pub fn creation_observed(&self, key: &str) {
        if let Some(e) = self.0.lock().get_mut(key) {
            e.creations = e.creations.saturating_sub(1);
        }
    }

    /// `count` creations will not be tried after all.
    pub fn creations_skipped(&self, key: &str, count: usize) {
        if let Some(e) = self.0.lock().get_mut(key) {
            e.creations = e.creations.saturating_sub(count);
        }
    }

    /// A deletion was seen (even its mark only), or failed.
    pub fn deletion_observed(&self, key: &str, uid: &str) {
        if let Some(e) = self.0.lock().get_mut(key) {
            e.deletions.remove(uid);
        }
    }

    /// The owning object is gone.
    pub fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hold_until_seen() {
        let e = Expectations::default();
        assert!(e.satisfied("x"));
        e.expect("x", 2, []);
        e.creation_observed("x");
        assert!(!e.satisfied("x"));
        e.creation_observed("x");
        assert!(e.satisfied("x"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_counts_once() {
        let e = Expectations::default();
        e.expect("x", 0, ["u1".to_owned(), "u2".to_owned()]);
        e.deletion_observed("x", "u1");
        e.deletion_observed("x", "u1");
        assert!(!e.satisfied("x"));
        e.deletion_observed("x", "u2");
        assert!(e.satisfied("x"));
    }

    #[tokio::test(start_paused = true)]
    async fn expire() {
        let e = Expectations::default();
        e.expect("x", 1, []);
        tokio::time::advance(EXPIRY + Duration::from_secs(1)).await;
        assert!(e.satisfied("x"));
    }

    #[tokio::test(start_paused = true)]
    async fn are_worth_another_look_when_they_have_expired() {
        let e = Expectations::default();
        e.expect("x", 1, []);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(!e.satisfied("x"));
        tokio::time::advance(e.expires_in("x")).await;
        assert!(e.satisfied("x"));
    }
}
