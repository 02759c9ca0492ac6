//! Containers: created as files, started by their pod's shim, stopped with patience, removed without trace.

use super::client::call;
use super::plan::{self, Input, signal_number};
use super::state::{CONTAINER_RECORD, ContainerEntry, ContainerRecord, Phase, SandboxEntry, save};
use super::{EmbeddedRuntime, blocking};
use crate::cri::{
    ContainerConfig, ContainerEventType, ContainerState, Error, LinuxContainerResources, LinuxContainerUser,
    PodSandboxState, Result,
};
use crate::images::{ImageRecord, Rootfs};
use crate::shim::protocol::{Answer, Request};
use crate::shim::spec::{CONTAINER_FILE, CONTAINERS, ContainerSpec, Exited};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a killed process may take to disappear: longer means that the kernel cannot end it.
const KILL_PATIENCE: Duration = Duration::from_secs(60);

impl EmbeddedRuntime {
    pub(super) async fn create(&self, sandbox: &str, config: &ContainerConfig) -> Result<String> {
        let entry = self.sandbox(sandbox)?;
        if entry.state() != PodSandboxState::Ready {
            return Err(Error::FailedPrecondition(format!("sandbox container {sandbox:?} is not running")));
        }
        let same = |known: &Arc<ContainerEntry>| known.record.lock().config.metadata == config.metadata;
        if let Some(taken) = self.containers_of(sandbox).into_iter().find(same) {
            let (name, by) = (&config.metadata.name, taken.record.lock().id.clone());
            return Err(Error::AlreadyExists(format!(
                "failed to reserve container name {name:?}: it is reserved for {by:?}"
            )));
        }
        let id = self.new_id();
        let folder = entry.folder.join(CONTAINERS).join(&id);
        let prepared = self.prepare(&entry, &id, &folder, config).await;
        let record = match prepared {
            Ok(record) => record,
            Err(error) => {
                let (images, id) = (self.images.clone(), id.clone());
                let _ = blocking(move || {
                    let _ = std::fs::remove_dir_all(&folder);
                    images.release(&id)
                })
                .await;
                return Err(error);
            }
        };
        let container = Arc::new(ContainerEntry::new(folder, record, Phase::default()));
        self.tables.write().containers.insert(id.clone(), container);
        self.announce(&id, sandbox, ContainerEventType::Created);
        Ok(id)
    }

    /// Everything about a container that can be done and can fail before it starts.
    async fn prepare(
        &self,
        sandbox: &SandboxEntry,
        id: &str,
        folder: &Path,
        config: &ContainerConfig,
    ) -> Result<ContainerRecord> {
        let (images, wanted, owner) = (self.images.clone(), config.clone(), id.to_owned());
        let (image, rootfs, volumes) = blocking(move || {
            let image = find(&images, &wanted.image.image)?;
            let rootfs = images.lease(&owner, &image)?;
            let mut volumes: Vec<Rootfs> = Vec::new();
            for (index, mount) in
                wanted.mounts.iter().filter(|mount| !mount.image.image.is_empty()).enumerate()
            {
                let volume = find(&images, &mount.image.image)?;
                volumes.push(images.lease(&format!("{owner}.{index}"), &volume)?);
            }
            Ok((image, rootfs, volumes))
        })
        .await?;
        let pod = sandbox.record.lock().clone();
        let privileged = config.linux.security_context.privileged;
        let spec = plan::container(&Input {
            id,
            sandbox: &pod.config,
            config,
            image: &image.config.config,
            rootfs: &rootfs,
            volumes,
            sandbox_folder: &sandbox.folder,
            container_folder: folder,
            cgroup: format!("{}/{id}", pod.cgroup),
            node_devices: if privileged { node_devices(Path::new("/dev")) } else { Vec::new() },
        })?;
        let stop_signal =
            [&config.stop_signal, &image.config.config.stop_signal].into_iter().find(|name| !name.is_empty());
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox: pod.id.clone(),
            config: config.clone(),
            image_id: image.id.to_string(),
            image_ref: image.reference(),
            created_at: self.now(),
            cgroup: spec.cgroup.clone(),
            log_path: spec.log_path.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
            user: LinuxContainerUser {
                uid: i64::from(spec.process.uid),
                gid: i64::from(spec.process.gid),
                supplemental_groups: spec.process.groups.iter().map(|gid| i64::from(*gid)).collect(),
            },
            stop_signal: stop_signal.map_or_else(|| "SIGTERM".to_owned(), Clone::clone),
        };
        write_files(folder, &spec, &record)?;
        Ok(record)
    }

    pub(super) async fn start(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _turn = container.turn.lock().await;
        match container.state() {
            ContainerState::Created => {}
            state => {
                return Err(Error::FailedPrecondition(format!("container is in {} state", spelled(state))));
            }
        }
        let sandbox = self.sandbox(&container.sandbox())?;
        let started = call(&sandbox.folder, &Request::Start { container: id.to_owned() }).await;
        match started {
            Ok(Answer::Started(started)) => {
                self.started(&container, started);
                Ok(())
            }
            Ok(other) => Err(Error::Internal(format!("the shim answered {other:?}"))),
            Err(error) => {
                let message = format!("failed to create container task: {error}");
                self.exited(&container, Exited::not_started(&message, self.now()));
                Err(match error {
                    Error::StartFailed(_) => Error::StartFailed(message),
                    _ => Error::Internal(message),
                })
            }
        }
    }

    pub(super) fn started(&self, container: &ContainerEntry, started: crate::shim::spec::Started) {
        if container.note_started(started) {
            let (id, sandbox) = container.ids();
            self.announce(&id, &sandbox, ContainerEventType::Started);
        }
    }

    pub(super) fn exited(&self, container: &ContainerEntry, exited: Exited) {
        if container.note_exited(exited) {
            let (id, sandbox) = container.ids();
            self.announce(&id, &sandbox, ContainerEventType::Stopped);
        }
    }

    /// Asks, waits, then kills. What does not run is stopped already.
    pub(super) async fn stop(&self, container: &ContainerEntry, timeout: Duration) -> Result<()> {
        if container.state() != ContainerState::Running {
            return Ok(());
        }
        let (id, signal) = {
            let record = container.record.lock();
            (record.id.clone(), signal_number(&record.stop_signal).unwrap_or(libc::SIGTERM))
        };
        let sandbox = self.sandbox(&container.sandbox())?;
        if !timeout.is_zero()
            && ask_to_end(container, &sandbox.folder, signal).await?
            && ended(container, timeout).await
        {
            return Ok(());
        }
        let killed = Request::Signal { container: id.clone(), signal: libc::SIGKILL, all: true };
        tell(&sandbox.folder, &killed).await?;
        if ended(container, KILL_PATIENCE).await {
            return Ok(());
        }
        Err(Error::DeadlineExceeded(format!(
            "an error occurs during waiting for container {id:?} to be killed"
        )))
    }

    pub(super) async fn stop_by_id(&self, id: &str, timeout: Duration) -> Result<()> {
        match self.container(id) {
            Ok(container) => self.stop(&container, timeout).await,
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let container = match self.container(id) {
            Ok(container) => container,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let _turn = container.turn.lock().await;
        self.stop(&container, Duration::ZERO).await?;
        let record = container.record.lock().clone();
        let (images, group) = (self.images.clone(), self.hierarchies.group(&record.cgroup));
        let folder = container.folder.clone();
        blocking(move || {
            let failed =
                |error: std::io::Error| Error::io(format!("remove container {:?}", record.id), error);
            group.remove().map_err(failed)?;
            remove_tree(&folder).map_err(failed)?;
            images.release(&record.id)?;
            let volumes = record.config.mounts.iter().filter(|mount| !mount.image.image.is_empty());
            volumes.enumerate().try_for_each(|(index, _)| images.release(&format!("{}.{index}", record.id)))
        })
        .await?;
        let sandbox = container.sandbox();
        self.tables.write().containers.remove(id);
        self.announce(id, &sandbox, ContainerEventType::Deleted);
        Ok(())
    }

    pub(super) async fn update_resources(&self, id: &str, wanted: &LinuxContainerResources) -> Result<()> {
        let container = self.container(id)?;
        if container.state() == ContainerState::Exited {
            return Err(Error::FailedPrecondition(format!("container {id:?} has exited")));
        }
        let _turn = container.turn.lock().await;
        let merged =
            merge(container.record.lock().config.linux.resources.clone().unwrap_or_default(), wanted);
        if container.state() == ContainerState::Running {
            let (group, wanted) = (self.hierarchies.group(&container.record.lock().cgroup), wanted.clone());
            blocking(move || {
                group.apply(&wanted).map_err(|error| Error::io("failed to update resources", error))
            })
            .await?;
        }
        let path = container.folder.join(CONTAINER_FILE);
        if let Some(mut spec) = super::state::load::<ContainerSpec>(&path) {
            spec.resources = merged.clone();
            save(&path, &spec)?;
        }
        container.update(|record| record.config.linux.resources = Some(merged))
    }
}

/// Sends the stop signal, once in a container's life; `false` when it does not run any more.
async fn ask_to_end(container: &ContainerEntry, folder: &Path, signal: i32) -> Result<bool> {
    if container.asked.swap(true, Ordering::Relaxed) {
        return Ok(true);
    }
    let id = container.record.lock().id.clone();
    let told = tell(folder, &Request::Signal { container: id, signal, all: false }).await;
    if !matches!(told, Ok(true)) {
        container.asked.store(false, Ordering::Relaxed);
    }
    told
}

/// Sends a request about a running container; `false` when it does not run any more.
async fn tell(folder: &Path, request: &Request) -> Result<bool> {
    match call(folder, request).await {
        Ok(_) => Ok(true),
        Err(Error::FailedPrecondition(_) | Error::Unavailable(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the container ends in time.
async fn ended(container: &ContainerEntry, patience: Duration) -> bool {
    let mut phase = container.phase.subscribe();
    tokio::time::timeout(patience, phase.wait_for(|phase| phase.exited.is_some())).await.is_ok()
}

fn find(images: &crate::images::ImageStore, name: &str) -> Result<ImageRecord> {
    images.find(name)?.ok_or_else(|| Error::NotFound(format!("failed to resolve image {name:?}: not found")))
}

fn write_files(folder: &Path, spec: &ContainerSpec, record: &ContainerRecord) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("make the container's folder", error);
    for part in [&spec.rootfs.upper, &spec.rootfs.work, &spec.rootfs.target] {
        std::fs::create_dir_all(part).map_err(failed)?;
        std::fs::set_permissions(part, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(failed)?;
    }
    if let Some(logs) = spec.log_path.as_deref().and_then(Path::parent) {
        std::fs::create_dir_all(logs).map_err(|error| Error::io("make the log folder", error))?;
    }
    save(&folder.join(CONTAINER_FILE), spec)?;
    save(&folder.join(CONTAINER_RECORD), record)
}

/// Zero and empty mean "as it is".
pub(super) fn merge(
    mut now: LinuxContainerResources,
    wanted: &LinuxContainerResources,
) -> LinuxContainerResources {
    let numbers = [
        (&mut now.cpu_period, wanted.cpu_period),
        (&mut now.cpu_quota, wanted.cpu_quota),
        (&mut now.cpu_shares, wanted.cpu_shares),
        (&mut now.memory_limit_in_bytes, wanted.memory_limit_in_bytes),
        (&mut now.memory_swap_limit_in_bytes, wanted.memory_swap_limit_in_bytes),
        (&mut now.oom_score_adj, wanted.oom_score_adj),
    ];
    numbers.into_iter().filter(|(_, wanted)| *wanted != 0).for_each(|(now, wanted)| *now = wanted);
    for (now, wanted) in
        [(&mut now.cpuset_cpus, &wanted.cpuset_cpus), (&mut now.cpuset_mems, &wanted.cpuset_mems)]
    {
        if !wanted.is_empty() {
            now.clone_from(wanted);
        }
    }
    if !wanted.hugepage_limits.is_empty() {
        now.hugepage_limits.clone_from(&wanted.hugepage_limits);
    }
    now.unified.extend(wanted.unified.clone());
    now
}

/// The node's device nodes, without what every container has of its own.
fn node_devices(folder: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", "console", "ptmx"];
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten().filter(|entry| !OWN.iter().any(|own| entry.file_name() == *own)) {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(node_devices(&entry.path()));
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(entry.path());
        }
    }
    found
}

fn spelled(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "CONTAINER_CREATED",
        ContainerState::Running => "CONTAINER_RUNNING",
        ContainerState::Exited => "CONTAINER_EXITED",
        ContainerState::Unknown => "CONTAINER_UNKNOWN",
    }
}

/// Passes over a folder that is being removed before giving up.
const REMOVE_PASSES: usize = 8;

/// Removes a folder and what is in it. The shim may just be writing down how the container ended: what it adds
/// meanwhile goes with the next pass, and once the folder is gone it can add nothing.
fn remove_tree(folder: &std::path::Path) -> std::io::Result<()> {
    use std::io::ErrorKind;
    let mut pass = 1;
    loop {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && pass < REMOVE_PASSES => pass += 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::remove_tree;

    #[test]
    fn a_folder_goes_while_somebody_still_writes_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("container");
        std::fs::create_dir(&folder).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                // Bounded, and over as soon as the folder is gone.
                (0..100_000).all(|n| std::fs::write(folder.join(format!("state-{}", n % 7)), b"x").is_ok())
            });
            while !folder.join("state-0").exists() {
                std::thread::yield_now();
            }
            while remove_tree(&folder).is_err() {}
            assert!(!writer.join().unwrap(), "the writer found the folder gone");
        });
        assert!(!folder.exists());
    }
}
