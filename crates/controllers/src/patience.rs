//! How soon a failed pod is replaced: at once, then ever later while its place fails again.
//!
//! A node that refuses a pod at once would otherwise be given pod after pod, as fast as the API takes them.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX: Duration = Duration::from_secs(15 * 60);

/// Whether a failed pod may be replaced in its place now, or how long that has to wait.
pub trait Patience {
    fn replace(&mut self, place: &str) -> Result<(), Duration>;
}

/// Pauses by owner and place: a daemon's node, an ordinal of a StatefulSet.
pub struct Backoff {
    longest: Duration,
    last: HashMap<(String, String), (Instant, Duration)>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(MAX)
    }
}

impl Backoff {
    #[must_use]
    pub fn up_to(longest: Duration) -> Self {
        Self { longest, last: HashMap::new() }
    }

    /// The failures of one owner, told by its uid.
    pub fn of<'a>(&'a mut self, owner: &'a str) -> impl Patience + use<'a> {
        OfOwner { all: self, owner }
    }

    /// Forgets what has been well for long.
    pub fn prune(&mut self) {
        let long = 2 * self.longest;
        self.last.retain(|_, (since, _)| since.elapsed() <= long);
    }
}

struct OfOwner<'a> {
    all: &'a mut Backoff,
    owner: &'a str,
}

impl Patience for OfOwner<'_> {
    fn replace(&mut self, place: &str) -> Result<(), Duration> {
        let key = (self.owner.to_owned(), place.to_owned());
        let (now, long) = (Instant::now(), 2 * self.all.longest);
        let last = self.all.last.get(&key).map(|(since, pause)| (now.duration_since(*since), *pause));
        let pause = match last.filter(|(passed, _)| *passed <= long) {
            Some((passed, pause)) if passed < pause => return Err(pause - passed),
            Some((_, pause)) => (pause * 2).min(self.all.longest),
            None => FIRST,
        };
        self.all.last.insert(key, (now, pause));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_ever_longer_and_forgets() {
        let mut backoff = Backoff::default();
        for pause in [1, 2, 4, 8] {
            assert_eq!(backoff.of("set").replace("a"), Ok(()));
            assert_eq!(backoff.of("set").replace("a"), Err(Duration::from_secs(pause)));
            assert_eq!(backoff.of("other").replace(&pause.to_string()), Ok(()));
            tokio::time::advance(Duration::from_secs(pause)).await;
        }
        tokio::time::advance(3 * MAX).await;
        backoff.prune();
        assert!(backoff.last.is_empty());
    }
}
