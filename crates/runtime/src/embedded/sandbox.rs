//! Sandboxes: their files, their shim, their network, and their end.

use super::client::call;
use super::plan;
use super::state::{SANDBOX_RECORD, SandboxEntry, SandboxRecord, save};
use super::{EmbeddedRuntime, blocking};
use crate::cri::{
    ContainerEventType, Error, LinuxContainerResources, NamespaceMode, PodSandboxConfig, Result,
};
use crate::shim::Ready;
use crate::shim::protocol::Request;
use crate::shim::spec::{CONTAINERS, SANDBOX_FILE, SHM_FOLDER};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader};

/// What a shim prints that could not be started; its log keeps the rest.
const SHIM_LOG: &str = "shim.log";

impl EmbeddedRuntime {
    pub(super) async fn run_sandbox(&self, config: &PodSandboxConfig, handler: &str) -> Result<String> {
        let metadata = &config.metadata;
        if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
            return Err(Error::InvalidArgument("sandbox config must include metadata".into()));
        }
        if !handler.is_empty() {
            return Err(Error::InvalidArgument(format!(
                "failed to get sandbox runtime: no runtime for {handler:?} is configured"
            )));
        }
        let entry = self.reserve_sandbox(config, handler)?;
        let id = entry.record.lock().id.clone();
        let made = self.make_sandbox(&entry).await;
        if let Err(error) = made {
            let _ = self.end_sandbox(&entry).await;
            self.forget_sandbox(&entry).await;
            return Err(error);
        }
        self.announce(&id, &id, ContainerEventType::Created);
        self.announce(&id, &id, ContainerEventType::Started);
        Ok(id)
    }

    /// Writes the record and enters it in the table, not ready yet.
    fn reserve_sandbox(&self, config: &PodSandboxConfig, handler: &str) -> Result<Arc<SandboxEntry>> {
        let id = self.new_id();
        let parent = match config.linux.cgroup_parent.as_str() {
            "" => format!("{}/pod{}", self.config.cgroup_parent.trim_matches('/'), config.metadata.uid),
            given => given.to_owned(),
        };
        let folder = self.config.root.join("sandboxes").join(&id);
        let record = SandboxRecord {
            id: id.clone(),
            config: config.clone(),
            runtime_handler: handler.to_owned(),
            created_at: self.now(),
            cgroup: self.group_path(&parent)?,
            ..SandboxRecord::default()
        };
        let entry = Arc::new(SandboxEntry::new(folder.clone(), record, false));
        {
            let mut tables = self.tables.write();
            let taken = tables
                .sandboxes
                .values()
                .find(|known| known.record.lock().config.metadata == config.metadata);
            if let Some(taken) = taken {
                let (name, by) = (&config.metadata.name, taken.record.lock().id.clone());
                return Err(Error::AlreadyExists(format!(
                    "failed to reserve sandbox name {name:?}: it is reserved for {by:?}"
                )));
            }
            tables.sandboxes.insert(id.clone(), entry.clone());
        }
        let made = std::fs::create_dir_all(folder.join(CONTAINERS))
            .map_err(|error| Error::io("make the sandbox's folder", error));
        let written = made.and_then(|()| save(&folder.join(SANDBOX_RECORD), &*entry.record.lock()));
        if let Err(error) = written {
            self.tables.write().sandboxes.remove(&id);
            return Err(error);
        }
        Ok(entry)
    }

    async fn make_sandbox(&self, entry: &Arc<SandboxEntry>) -> Result<()> {
        let record = entry.record.lock().clone();
        let shims = format!("{}/shims", self.config.cgroup_parent.trim_matches('/'));
        let spec =
            plan::sandbox(&record.id, &record.config, format!("{}/{}", record.cgroup, record.id), shims);
        save(&entry.folder.join(SANDBOX_FILE), &spec)?;
        write_files(&entry.folder, &record.config)?;
        self.make_group(&record).await?;
        let pause = self.spawn_shim(&entry.folder).await?;
        entry.update(|record| record.pause = pause)?;
        self.watch_shim(entry).await?;
        if !spec.host_network {
            let attached = self.config.network.attach(&record.id, &entry.netns(), &record.config).await;
            let addresses: Vec<IpAddr> = attached.map_err(|error| {
                Error::Internal(format!("failed to setup network for sandbox {:?}: {error}", record.id))
            })?;
            entry.update(|record| record.addresses = addresses)?;
        }
        entry.ready.send_replace(true);
        Ok(())
    }

    /// Holds the pod as a whole to its weight and limits before anything runs in it.
    async fn make_group(&self, record: &SandboxRecord) -> Result<()> {
        let (group, resources) =
            (self.hierarchies.group(&record.cgroup), record.config.linux.resources.clone());
        blocking(move || {
            let made = group.create().and_then(|()| group.apply(&resources.unwrap_or_default()));
            made.map_err(|error| Error::io("failed to make the pod's control group", error))
        })
        .await
    }

    /// Starts a shim and waits until its pod's namespaces are there.
    async fn spawn_shim(&self, folder: &Path) -> Result<i32> {
        let failed = |error: std::io::Error| Error::io("failed to start the sandbox's shim", error);
        let (program, args) = self
            .config
            .shim_command
            .split_first()
            .ok_or_else(|| Error::Internal("no shim command".into()))?;
        let log = std::fs::File::create(folder.join(SHIM_LOG)).map_err(failed)?;
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).await.map_err(failed)?;
        }
        // Waited for so that it leaves no zombie; it ends with its sandbox, or outlives us.
        tokio::spawn(async move { child.wait().await });
        match serde_json::from_str(&line) {
            Ok(Ready::Pause(pid)) => Ok(pid),
            Ok(Ready::Failed(error)) => {
                Err(Error::Internal(format!("failed to start sandbox container: {error}")))
            }
            Err(_) => {
                let said = std::fs::read_to_string(folder.join(SHIM_LOG)).unwrap_or_default();
                Err(Error::Internal(format!(
                    "failed to start sandbox container: the shim ended: {}",
                    said.trim()
                )))
            }
        }
    }

    /// The group of the pod, which its sandboxes share.
    pub(super) async fn update_sandbox(&self, id: &str, wanted: &LinuxContainerResources) -> Result<()> {
        let entry = self.sandbox(id)?;
        let (group, resources) = (self.hierarchies.group(&entry.record.lock().cgroup), wanted.clone());
        blocking(move || {
            group.apply(&resources).map_err(|error| Error::io("failed to update the pod's resources", error))
        })
        .await?;
        entry.update(|record| {
            let now = record.config.linux.resources.take().unwrap_or_default();
            record.config.linux.resources = Some(super::container::merge(now, wanted));
        })
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let entry = match self.sandbox(id) {
            Ok(entry) => entry,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let _turn = entry.turn.lock().await;
        self.end_sandbox(&entry).await
    }

    /// Everything that runs is killed, the network given back, the shim ended. Goes on after a failure and
    /// reports the first.
    async fn end_sandbox(&self, entry: &Arc<SandboxEntry>) -> Result<()> {
        let record = entry.record.lock().clone();
        if record.stopped {
            return Ok(());
        }
        let containers = self.containers_of(&record.id);
        let kills = containers.iter().map(|container| self.stop(container, std::time::Duration::ZERO));
        let mut result: Result<()> = futures::future::join_all(kills).await.into_iter().collect();
        if record.config.linux.security_context.namespace_options.network != NamespaceMode::Node {
            let detached = self.config.network.detach(&record.id, &entry.netns(), &record.config).await;
            result = result.and(detached.map_err(|error| {
                Error::Internal(format!("failed to destroy network for sandbox {:?}: {error}", record.id))
            }));
        }
        result?;
        match call(&entry.folder, &Request::Shutdown).await {
            // No shim: nothing of it can be left but what the groups show.
            Ok(_) | Err(Error::Unavailable(_)) => {}
            Err(error) => return Err(error),
        }
        self.clear_leftovers(entry).await?;
        entry.ready.send_replace(false);
        entry.update(|record| record.stopped = true)?;
        self.announce(&record.id, &record.id, ContainerEventType::Stopped);
        Ok(())
    }

    /// What a shim that died could not clean up.
    pub(super) async fn clear_leftovers(&self, entry: &Arc<SandboxEntry>) -> Result<()> {
        let record = entry.record.lock().clone();
        let (hierarchies, folder) = (self.hierarchies.clone(), entry.folder.clone());
        blocking(move || {
            let group = hierarchies.group(&format!("{}/{}", record.cgroup, record.id));
            group.kill();
            let _ = nix::mount::umount2(&folder.join(SHM_FOLDER), nix::mount::MntFlags::MNT_DETACH);
            Ok(())
        })
        .await
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let entry = match self.sandbox(id) {
            Ok(entry) => entry,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let _turn = entry.turn.lock().await;
        self.end_sandbox(&entry).await?;
        for container in self.containers_of(id) {
            let container = container.record.lock().id.clone();
            self.remove(&container).await?;
        }
        self.forget_sandbox(&entry).await;
        self.announce(id, id, ContainerEventType::Deleted);
        Ok(())
    }

    async fn forget_sandbox(&self, entry: &Arc<SandboxEntry>) {
        let record = entry.record.lock().clone();
        self.tables.write().sandboxes.remove(&record.id);
        let (hierarchies, folder) = (self.hierarchies.clone(), entry.folder.clone());
        let removed = blocking(move || {
            let group = hierarchies.group(&format!("{}/{}", record.cgroup, record.id));
            let removed = group.remove();
            hierarchies.group(&record.cgroup).remove_if_empty();
            std::fs::remove_dir_all(&folder)
                .and(removed)
                .map_err(|error| Error::io("remove the sandbox", error))
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "a sandbox left something behind");
        }
    }
}

/// `hostname`, `hosts` and `resolv.conf`, for containers that bring none of their own.
fn write_files(folder: &Path, config: &PodSandboxConfig) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("write the sandbox's files", error);
    let node = |path: &str| std::fs::read(path).unwrap_or_default();
    let resolv = match &config.dns_config {
        None => node("/etc/resolv.conf"),
        Some(dns) => {
            let mut text = String::new();
            if !dns.searches.is_empty() {
                text.push_str(&format!("search {}\n", dns.searches.join(" ")));
            }
            dns.servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
            if !dns.options.is_empty() {
                text.push_str(&format!("options {}\n", dns.options.join(" ")));
            }
            text.into_bytes()
        }
    };
    let hostname = match config.hostname.as_str() {
        "" => node("/etc/hostname"),
        name => format!("{name}\n").into_bytes(),
    };
    let files: [(&str, Vec<u8>); 3] =
        [("hostname", hostname), ("hosts", node("/etc/hosts")), ("resolv.conf", resolv)];
    for (name, content) in files {
        let path: PathBuf = folder.join(name);
        std::fs::write(&path, content).map_err(failed)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .map_err(failed)?;
    }
    Ok(())
}
