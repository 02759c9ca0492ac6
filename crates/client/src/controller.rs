//! The loop that every controller shares: workers take keys from a queue and reconcile them.
//!
//! A reconcile that fails or panics is logged, counted and tried again with back-off; it never ends the
//! controller. Nothing here knows objects.

use crate::queue::{Key, Queue};
use futures::FutureExt;
use krate_base::Shutdown;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// What is to happen with a key after it was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until something changes.
    Done,
    /// It is to be looked at again after this time.
    After(Duration),
    /// It is to be looked at again, with back-off as after a failure.
    Again,
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Done
    }
}

/// Reconciles the keys of `queue` with `workers` workers until `shutdown`.
pub async fn run<K, F, Fut, O, E>(queue: Queue<K>, workers: usize, shutdown: Shutdown, reconcile: F)
where
    K: Key + Sync,
    F: Fn(K) -> Fut + Send + Sync,
    Fut: Future<Output = Result<O, E>> + Send,
    O: Into<Outcome>,
    E: Display,
{
    let work = futures::future::join_all((0..workers.max(1)).map(|_| worker(&queue, &reconcile)));
    let end = async {
        shutdown.cancelled().await;
        queue.shutdown();
        futures::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        _ = work => {}
        () = end => {}
    }
}

async fn worker<K, F, Fut, O, E>(queue: &Queue<K>, reconcile: &F)
where
    K: Key,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<O, E>>,
    O: Into<Outcome>,
    E: Display,
{
    while let Some(key) = queue.get().await {
        let attempt = AssertUnwindSafe(async { reconcile(key.clone()).await }).catch_unwind().await;
        match attempt {
            Ok(Ok(outcome)) => settle(queue, &key, outcome.into()),
            Ok(Err(error)) => {
                tracing::debug!(controller = queue.name(), ?key, %error, "reconcile failed; it will be tried again");
                queue.add_rate_limited(key.clone());
            }
            Err(panic) => {
                let message = message(panic.as_ref());
                tracing::error!(
                    controller = queue.name(),
                    ?key,
                    message,
                    "reconcile panicked; it will be tried again"
                );
                queue.add_rate_limited(key.clone());
            }
        }
        queue.done(&key);
    }
}

fn settle<K: Key>(queue: &Queue<K>, key: &K, outcome: Outcome) {
    if outcome == Outcome::Again {
        return queue.add_rate_limited(key.clone());
    }
    queue.forget(key);
    if let Outcome::After(pause) = outcome {
        queue.add_after(key.clone(), pause);
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_base::metrics::Metrics;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn panics_and_errors_are_retried_and_shutdown_ends_it() {
        let queue: Queue = Queue::new("test", &Metrics::default());
        let (runs, shutdown) = (Arc::new(AtomicU32::new(0)), Shutdown::new());
        let (seen, end) = (runs.clone(), shutdown.clone());
        queue.add("a");
        run(queue, 2, shutdown, move |key: String| {
            let (n, end) = (seen.fetch_add(1, Ordering::SeqCst), end.clone());
            async move {
                assert_eq!(key, "a");
                assert!(n != 0, "the first run panics");
                if n == 1 {
                    return Err("the second fails");
                }
                if n == 2 {
                    return Ok(Outcome::After(Duration::from_secs(60)));
                }
                end.cancel();
                Ok(Outcome::Done)
            }
        })
        .await;
        assert_eq!(runs.load(Ordering::SeqCst), 4);
    }
}
