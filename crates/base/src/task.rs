//! Tasks with one shutdown signal, and components that are restarted with back-off when they fail.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
pub use tokio_util::sync::CancellationToken as Shutdown;
use tokio_util::task::TaskTracker;

/// First pause before a failed component is started again; doubles up to [`RESTART_MAX`].
pub const RESTART_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a failed component is started again.
pub const RESTART_MAX: Duration = Duration::from_secs(30);

/// What a component last did, for `krate status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Running,
    /// It failed with this message and will be started again.
    Failed(String),
    Stopped,
}

/// Runs named components and keeps them running until shutdown.
#[derive(Clone)]
pub struct Supervisor {
    shutdown: Shutdown,
    tracker: TaskTracker,
    health: Arc<watch::Sender<BTreeMap<String, Health>>>,
}

impl Supervisor {
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, tracker: TaskTracker::new(), health: Arc::default() }
    }

    /// A supervisor for a part of this one's work, such as a term of leadership: it is stopped by itself, and
    /// what its components do is told by both.
    #[must_use]
    pub fn within(&self, shutdown: Shutdown) -> Self {
        Self { shutdown, tracker: TaskTracker::new(), health: self.health.clone() }
    }

    /// The signal that ends every component of this supervisor.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Starts a component. `run` is called with a child of the shutdown signal; when it ends with an
    /// error or a panic before shutdown it is called again after a back-off. `Ok(())` ends it for good.
    pub fn component<F, Fut, E>(&self, name: &str, mut run: F)
    where
        F: FnMut(Shutdown) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let (name, this) = (name.to_owned(), self.clone());
        self.tracker.spawn(async move {
            let mut pause = RESTART_FIRST;
            while !this.shutdown.is_cancelled() {
                this.set(&name, Health::Running);
                let started = Instant::now();
                let failure = match tokio::spawn(run(this.shutdown.child_token())).await {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => panic.to_string(),
                };
                if this.shutdown.is_cancelled() {
                    break;
                }
                tracing::error!(component = %name, error = %failure, "component failed; it will be started again");
                this.set(&name, Health::Failed(failure));
                if started.elapsed() > RESTART_MAX {
                    pause = RESTART_FIRST;
                }
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(pause) => {}
                    () = this.shutdown.cancelled() => {}
                }
                pause = (pause * 2).min(RESTART_MAX);
            }
            this.set(&name, Health::Stopped);
        });
    }

    /// Starts a plain task that ends by itself or on shutdown.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// What each component does now.
    #[must_use]
    pub fn health(&self) -> BTreeMap<String, Health> {
        self.health.borrow().clone()
    }

    /// As [`Supervisor::health`], with word of every change.
    #[must_use]
    pub fn watch_health(&self) -> watch::Receiver<BTreeMap<String, Health>> {
        self.health.subscribe()
    }

    /// Signals shutdown and waits until every task has ended.
    pub async fn stop(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn set(&self, name: &str, health: Health) {
        self.health
            .send_if_modified(|all| all.insert(name.to_owned(), health.clone()).as_ref() != Some(&health));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_failing_component_is_started_again() {
        let supervisor = Supervisor::new(Shutdown::new());
        let runs = Arc::new(AtomicU32::new(0));
        let seen = runs.clone();
        supervisor.component("flaky", move |shutdown| {
            let n = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(n != 1, "second run panics");
                if n == 0 {
                    return Err("first run fails");
                }
                shutdown.cancelled().await;
                Ok(())
            }
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(supervisor.health()["flaky"], Health::Running);
        supervisor.stop().await;
        assert_eq!(supervisor.health()["flaky"], Health::Stopped);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_stopped_alone_and_told_of_by_the_whole() {
        let whole = Supervisor::new(Shutdown::new());
        let mut told = whole.watch_health();
        let part = whole.within(whole.shutdown().child_token());
        part.component("inner", |shutdown: Shutdown| async move {
            shutdown.cancelled().await;
            Ok::<(), String>(())
        });
        told.wait_for(|all| all.get("inner") == Some(&Health::Running)).await.unwrap();
        part.stop().await;
        assert_eq!(whole.health()["inner"], Health::Stopped);
        assert!(!whole.shutdown().is_cancelled());
    }
}
