//! Finding again what runs: after a restart of this program, and when a shim dies.

use super::EmbeddedRuntime;
use super::client::Call;
use super::state::{
    CONTAINER_RECORD, ContainerEntry, ContainerRecord, SANDBOX_RECORD, SandboxEntry, SandboxRecord, load,
    read_phase,
};
use crate::cri::{ContainerEventType, ContainerState, Result};
use crate::shim::protocol::{Answer, Request};
use crate::shim::spec::{CONTAINERS, Exited};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl EmbeddedRuntime {
    pub(super) async fn recover(&self) {
        for folder in folders(&self.config.root.join("sandboxes")) {
            let Some(record) = load::<SandboxRecord>(&folder.join(SANDBOX_RECORD)) else {
                // Killed between making the folder and writing the record: nothing was started.
                let _ = std::fs::remove_dir_all(&folder);
                continue;
            };
            self.recover_sandbox(folder, record).await;
        }
    }

    async fn recover_sandbox(&self, folder: PathBuf, record: SandboxRecord) {
        let entry = Arc::new(SandboxEntry::new(folder.clone(), record.clone(), false));
        self.tables.write().sandboxes.insert(record.id.clone(), entry.clone());
        for folder in folders(&folder.join(CONTAINERS)) {
            match load::<ContainerRecord>(&folder.join(CONTAINER_RECORD)) {
                Some(container) => {
                    let phase = read_phase(&folder);
                    let id = container.id.clone();
                    let container = Arc::new(ContainerEntry::new(folder, container, phase));
                    self.tables.write().containers.insert(id, container);
                }
                None => drop(std::fs::remove_dir_all(&folder)),
            }
        }
        if record.stopped {
            return;
        }
        let complete = record.pause != 0;
        match self.watch_shim(&entry).await {
            Ok(()) => {
                // What happened between reading the files and listening.
                for container in self.containers_of(&record.id) {
                    container.phase.send_replace(read_phase(&container.folder));
                }
                entry.ready.send_replace(complete);
            }
            Err(error) => {
                tracing::info!(sandbox = %record.id, %error, "the sandbox does not run any more");
                self.shim_died(&entry).await;
            }
        }
    }

    /// Listens to a shim from now on, after taking note of what it says that runs.
    pub(super) async fn watch_shim(&self, entry: &Arc<SandboxEntry>) -> Result<()> {
        let mut watch = Call::connect(&entry.folder).await?;
        watch.send(&Request::Watch, &[]).await?;
        watch.receive().await?;
        let (this, entry) = (self.this.clone(), entry.clone());
        tokio::spawn(async move {
            loop {
                let answer = watch.receive().await;
                let Some(this) = this.upgrade() else { return };
                match answer {
                    Ok(Answer::Running { container, started }) => {
                        if let Ok(container) = this.container(&container) {
                            this.started(&container, started);
                        }
                    }
                    Ok(Answer::Event { container, exited }) => {
                        if let Ok(container) = this.container(&container) {
                            this.exited(&container, exited);
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return this.shim_died(&entry).await,
                }
            }
        });
        Ok(())
    }

    /// The shim's connection ended: its pause process and containers went with it.
    async fn shim_died(&self, entry: &Arc<SandboxEntry>) {
        let id = entry.record.lock().id.clone();
        let was_ready = entry.ready.send_replace(false);
        if let Err(error) = self.clear_leftovers(entry).await {
            tracing::warn!(sandbox = %id, %error, "clean up after a shim");
        }
        for container in self.containers_of(&id) {
            // The shim writes ends down before anything else; it may have had the time.
            let recorded = read_phase(&container.folder);
            if let Some(started) = recorded.started {
                self.started(&container, started);
            }
            if let Some(exited) = recorded.exited {
                self.exited(&container, exited);
            } else if container.state() == ContainerState::Running {
                self.hierarchies.group(&container.record.lock().cgroup).kill();
                self.exited(&container, Exited::unseen(self.now()));
            }
        }
        if was_ready && !entry.record.lock().stopped {
            self.announce(&id, &id, ContainerEventType::Stopped);
        }
    }
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
