//! What the components of a cluster's process do, kept in a file beside its state for `krate status`: a
//! process says so itself, also when the API does not answer. Never read by the components.

use crate::wiring::identity::write_private;
use krate_base::{Health, Supervisor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the file in a process's data folder.
pub const FILE: &str = "health.json";

/// Components that are not running, with what they said.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Report {
    /// The process that wrote this; another one's words are old.
    pub pid: u32,
    pub running: Vec<String>,
    /// Failed with this message, and about to be started again.
    pub failed: BTreeMap<String, String>,
}

impl Report {
    fn of(health: &BTreeMap<String, Health>) -> Self {
        let mut report = Self { pid: std::process::id(), ..Self::default() };
        for (name, health) in health {
            match health {
                Health::Running => report.running.push(name.clone()),
                Health::Failed(message) => {
                    report.failed.insert(name.clone(), message.clone());
                }
                Health::Stopped => {}
            }
        }
        report
    }

    /// What the process `pid` said last.
    pub fn read(folder: &Path, pid: i32) -> Option<Self> {
        let report: Self = serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()?;
        (i64::from(report.pid) == i64::from(pid)).then_some(report)
    }
}

/// Keeps the file true until shutdown.
pub fn keep(supervisor: &Supervisor, folder: &Path) {
    let (mut changes, shutdown) = (supervisor.watch_health(), supervisor.shutdown());
    let file: PathBuf = folder.join(FILE);
    supervisor.spawn(async move {
        loop {
            let report = Report::of(&changes.borrow_and_update());
            let file = file.clone();
            let write = tokio::task::spawn_blocking(move || {
                let text = serde_json::to_vec(&report).unwrap_or_default();
                if let Err(error) = write_private(&file, &text) {
                    tracing::warn!(error = error.what, "what the components do cannot be written down");
                }
            });
            let _ = write.await;
            if !matches!(shutdown.run_until_cancelled(changes.changed()).await, Some(Ok(()))) {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_base::Shutdown;

    #[tokio::test]
    async fn a_failed_component_is_told_until_it_runs_again() {
        let folder = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(Shutdown::new());
        keep(&supervisor, folder.path());
        supervisor.component("broken", |_| async { Err::<(), _>("no such device") });
        let mut health = supervisor.watch_health();
        health.wait_for(|all| matches!(all.get("broken"), Some(Health::Failed(_)))).await.unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        loop {
            if let Some(report) = Report::read(folder.path(), own)
                && report.failed.get("broken").is_some_and(|m| m == "no such device")
            {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(Report::read(folder.path(), own + 1), None);
        supervisor.stop().await;
    }
}
