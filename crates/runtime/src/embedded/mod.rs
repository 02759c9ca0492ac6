//! The embedded runtime: the CRI's calls, carried out by shims, an image store and a pod network.
//!
//! It keeps no process and no mount of its own. Everything it knows is in its folder or in the shims, so a
//! restarted program opens it again and finds every pod as it is. What happens to containers comes from the
//! shims as events; nothing is polled.

mod capabilities;
mod client;
mod container;
mod images;
mod plan;
mod recover;
mod sandbox;
mod seccomp;
mod service;
mod state;
mod stats;
mod streams;
mod user;

use crate::cgroup::Hierarchies;
use crate::cri::{ContainerEvent, ContainerEventType, EVENT_QUEUE, Error, Result, SandboxNetwork};
use crate::images::{ImageStore, PullOptions};
use crate::shim::SHIM_COMMAND;
use krate_base::{Clock, Rng};
use parking_lot::RwLock;
use state::{ContainerEntry, SandboxEntry, Tables};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use tokio::sync::{broadcast, watch};

/// What the runtime is told at its start.
#[derive(Clone)]
pub struct Config {
    /// Sandboxes, containers and their writable layers. On a file system that overlayfs can write to.
    pub root: PathBuf,
    /// The image store; several runtimes of one machine may share it.
    pub image_root: PathBuf,
    /// Path of the node's control group below the hierarchies' roots, such as `krate/dev/node-1`. Everything
    /// is made below it, and pods' groups must lie below it too.
    pub cgroup_parent: String,
    pub network: Arc<dyn SandboxNetwork>,
    pub clock: Clock,
    pub rng: Rng,
    /// What starts a shim; the sandbox's folder is appended. See [`Config::own_shim`].
    pub shim_command: Vec<OsString>,
    pub pull: PullOptions,
}

impl Config {
    /// The shim in this very program, which must call [`crate::reexec`] first.
    #[must_use]
    pub fn own_shim() -> Vec<OsString> {
        vec!["/proc/self/exe".into(), SHIM_COMMAND.into()]
    }
}

pub struct EmbeddedRuntime {
    /// For tasks that must not keep it alive.
    this: Weak<Self>,
    config: Config,
    hierarchies: Hierarchies,
    images: Arc<ImageStore>,
    image_changes: watch::Receiver<u64>,
    tables: RwLock<Tables>,
    events: broadcast::Sender<Arc<ContainerEvent>>,
}

impl EmbeddedRuntime {
    /// Opens the runtime in its folder and takes up what runs there. Call it inside a tokio runtime.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        std::fs::create_dir_all(config.root.join("sandboxes"))
            .map_err(|e| Error::io("make the runtime's folder", e))?;
        // Shims and containers see paths from elsewhere.
        let mut config = config;
        config.root = absolute(&config.root)?;
        std::fs::create_dir_all(&config.image_root).map_err(|e| Error::io("make the image folder", e))?;
        config.image_root = absolute(&config.image_root)?;
        let hierarchies =
            Hierarchies::detect().map_err(|error| Error::io("find the control groups", error))?;
        can_hold_layers(&config.root)?;
        let images = Arc::new(ImageStore::open(&config.image_root)?);
        let this = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            hierarchies,
            image_changes: crate::images::watch::changes(&config.image_root),
            images,
            tables: RwLock::default(),
            events: broadcast::Sender::new(EVENT_QUEUE),
            config,
        });
        this.recover().await;
        Ok(this)
    }

    /// The image store behind [`crate::cri::Images`], for imports and builds.
    #[must_use]
    pub fn image_store(&self) -> Arc<ImageStore> {
        self.images.clone()
    }

    fn now(&self) -> i64 {
        i64::try_from(self.config.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// 64 hexadecimal digits, as users of other runtimes expect.
    fn new_id(&self) -> String {
        (0..4).map(|_| format!("{:016x}", self.config.rng.next_u64())).collect()
    }

    fn sandbox(&self, id: &str) -> Result<Arc<SandboxEntry>> {
        let found = self.tables.read().sandboxes.get(id).cloned();
        found.ok_or_else(|| {
            Error::NotFound(format!("an error occurred when try to find sandbox: sandbox {id:?}: not found"))
        })
    }

    fn container(&self, id: &str) -> Result<Arc<ContainerEntry>> {
        let found = self.tables.read().containers.get(id).cloned();
        found.ok_or_else(|| {
            Error::NotFound(format!("an error occurred when try to find container {id:?}: not found"))
        })
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<ContainerEntry>> {
        let tables = self.tables.read();
        tables
            .containers
            .values()
            .filter(|container| container.record.lock().sandbox == sandbox)
            .cloned()
            .collect()
    }

    fn announce(&self, id: &str, sandbox: &str, kind: ContainerEventType) {
        let event = ContainerEvent {
            container_id: id.to_owned(),
            container_event_type: kind,
            created_at: self.now(),
            pod_sandbox_status: self.sandbox(sandbox).ok().map(|sandbox| sandbox.status()),
            containers_statuses: self
                .containers_of(sandbox)
                .iter()
                .map(|container| container.status())
                .collect(),
        };
        // Nobody listening is no error.
        let _ = self.events.send(Arc::new(event));
    }

    /// A group of ours; anything outside the node's own is refused.
    fn group_path(&self, wanted: &str) -> Result<String> {
        let (own, wanted) = (self.config.cgroup_parent.trim_matches('/'), wanted.trim_matches('/'));
        let inside = wanted.strip_prefix(own).is_some_and(|rest| rest.starts_with('/'));
        if inside && !wanted.split('/').any(|part| part == "..") {
            Ok(wanted.to_owned())
        } else {
            Err(Error::InvalidArgument(format!("cgroup parent {wanted:?} is not below {own:?}")))
        }
    }
}

fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|error| Error::io(format!("find {}", path.display()), error))
}

/// Refuses a folder whose file system the writable layer of a container cannot be on, as the root of a container:
/// otherwise each container would fail by itself.
fn can_hold_layers(root: &std::path::Path) -> Result<()> {
    let probe = root.join("layers");
    let names = ["lower", "upper", "work"].map(|name| probe.join(name));
    for name in &names {
        std::fs::create_dir_all(name).map_err(|e| Error::io("make a folder for layers", e))?;
    }
    let [lower, upper, work] = names.map(|name| name.display().to_string());
    let options = [("lowerdir", lower), ("upperdir", upper), ("workdir", work)];
    let options: Vec<_> = options.iter().map(|(key, value)| (*key, Some(value.as_str()))).collect();
    // The kernel takes no longer text here; longer paths are mounted in another way.
    let tried = match options.iter().all(|(_, value)| value.is_some_and(|value| value.len() < 256)) {
        true => crate::kernel::mount::new_mount("overlay", &options, 0).map(drop),
        false => Ok(()),
    };
    let _ = std::fs::remove_dir_all(&probe);
    tried.map_err(|error| {
        Error::Internal(format!(
            "the file system of {} cannot hold the layers of containers ({error}); put the folder on ext4, xfs, \
             btrfs or a tmpfs, in a container on a volume",
            root.display()
        ))
    })
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::io("background work", error))?
}

#[cfg(test)]
mod tests {
    use super::can_hold_layers;
    use crate::kernel::mount::new_mount;
    use std::os::fd::AsRawFd;

    #[test]
    fn layers_on_layers_are_refused_at_the_start() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        assert!(can_hold_layers(folder.path()).is_ok());
        let parts = ["lower", "upper", "work"].map(|name| folder.path().join(name));
        parts.iter().for_each(|part| std::fs::create_dir(part).expect("a folder"));
        let [lower, upper, work] = parts.map(|part| part.display().to_string());
        let options = [("lowerdir", Some(&*lower)), ("upperdir", Some(&*upper)), ("workdir", Some(&*work))];
        let root = new_mount("overlay", &options, 0).expect("the root of a container");
        let inside = std::path::PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        let error = can_hold_layers(&inside).expect_err("layers on layers");
        assert!(error.to_string().contains("cannot hold the layers"), "{error}");
    }
}
