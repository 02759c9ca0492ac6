//! How soon a failed daemon is replaced: at once, then ever later while it fails again on the same node.

use super::plan::Patience;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX: Duration = Duration::from_secs(15 * 60);

/// Pauses by DaemonSet and node.
#[derive(Default)]
pub struct Backoff(HashMap<(String, String), (Instant, Duration)>);

impl Backoff {
    /// The failures of one DaemonSet, told by its uid.
    pub fn of<'a>(&'a mut self, set: &'a str) -> impl Patience + use<'a> {
        OfSet { all: self, set }
    }

    /// Forgets what has been well for long.
    pub fn prune(&mut self) {
        self.0.retain(|_, (since, _)| since.elapsed() <= 2 * MAX);
    }
}

struct OfSet<'a> {
    all: &'a mut Backoff,
    set: &'a str,
}

impl Patience for OfSet<'_> {
    fn replace(&mut self, node: &str) -> Result<(), Duration> {
        let key = (self.set.to_owned(), node.to_owned());
        let last = self.all.0.get(&key).filter(|(since, _)| since.elapsed() <= 2 * MAX);
        let pause = match last {
            Some((since, pause)) if since.elapsed() < *pause => return Err(*pause - since.elapsed()),
            Some((_, pause)) => (*pause * 2).min(MAX),
            None => FIRST,
        };
        self.all.0.insert(key, (Instant::now(), pause));
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
        assert!(backoff.0.is_empty());
    }
}
