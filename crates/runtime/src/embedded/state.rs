//! What the embedded runtime knows, in memory, and the files that it can be known from again.
//!
//! `sandboxes/<id>/sandbox.json` and `sandboxes/<id>/containers/<id>/container.json` are ours; a shim's
//! `started.json` and `exited.json` lie beside the latter. Files are replaced by rename.

use crate::cri::{
    Container, ContainerConfig, ContainerState, ContainerStatus, Error, LinuxContainerUser, PodSandbox,
    PodSandboxConfig, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus, Result,
};
use crate::images::write_file;
use crate::shim::spec::{EXITED_FILE, Exited, STARTED_FILE, Started};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::watch;

pub const SANDBOX_RECORD: &str = "sandbox.json";
pub const CONTAINER_RECORD: &str = "container.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: String,
    pub config: PodSandboxConfig,
    pub runtime_handler: String,
    pub created_at: i64,
    pub addresses: Vec<IpAddr>,
    /// The pause process, 0 before it runs.
    pub pause: i32,
    pub cgroup: String,
    /// The network has been given back and the shim ended.
    pub stopped: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: String,
    pub sandbox: String,
    pub config: ContainerConfig,
    pub image_id: String,
    pub image_ref: String,
    pub created_at: i64,
    pub cgroup: String,
    pub log_path: String,
    pub user: LinuxContainerUser,
    pub stop_signal: String,
}

/// Where a container stands. Ends are final.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    pub started: Option<Started>,
    pub exited: Option<Exited>,
}

impl Phase {
    #[must_use]
    pub fn state(&self) -> ContainerState {
        match (&self.started, &self.exited) {
            (_, Some(_)) => ContainerState::Exited,
            (Some(_), None) => ContainerState::Running,
            (None, None) => ContainerState::Created,
        }
    }
}

pub struct SandboxEntry {
    pub folder: PathBuf,
    pub record: Mutex<SandboxRecord>,
    /// The shim answers.
    pub ready: watch::Sender<bool>,
    /// One at a time: stop and remove.
    pub turn: tokio::sync::Mutex<()>,
}

pub struct ContainerEntry {
    pub folder: PathBuf,
    pub record: Mutex<ContainerRecord>,
    pub phase: watch::Sender<Phase>,
    /// One at a time: start and remove.
    pub turn: tokio::sync::Mutex<()>,
    /// It was sent its stop signal. A second one would run a program's handler twice.
    pub asked: AtomicBool,
}

#[derive(Default)]
pub struct Tables {
    pub sandboxes: BTreeMap<String, Arc<SandboxEntry>>,
    pub containers: BTreeMap<String, Arc<ContainerEntry>>,
}

impl SandboxEntry {
    pub fn new(folder: PathBuf, record: SandboxRecord, ready: bool) -> Self {
        Self {
            folder,
            record: Mutex::new(record),
            ready: watch::Sender::new(ready),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Changes the record, in memory and on the disk.
    pub fn update(&self, change: impl FnOnce(&mut SandboxRecord)) -> Result<()> {
        let mut record = self.record.lock();
        change(&mut record);
        save(&self.folder.join(SANDBOX_RECORD), &*record)
    }

    pub fn state(&self) -> PodSandboxState {
        if *self.ready.borrow() { PodSandboxState::Ready } else { PodSandboxState::NotReady }
    }

    pub fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.record.lock().pause)
    }

    pub fn summary(&self) -> PodSandbox {
        let record = self.record.lock();
        PodSandbox {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: self.state(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }

    pub fn status(&self) -> PodSandboxStatus {
        let record = self.record.lock();
        let mut addresses = record.addresses.iter().map(ToString::to_string);
        PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: self.state(),
            created_at: record.created_at,
            network: PodSandboxNetworkStatus {
                ip: addresses.next().unwrap_or_default(),
                additional_ips: addresses.collect(),
            },
            namespaces: record.config.linux.security_context.namespace_options.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }
}

impl ContainerEntry {
    pub fn new(folder: PathBuf, record: ContainerRecord, phase: Phase) -> Self {
        Self {
            folder,
            record: Mutex::new(record),
            phase: watch::Sender::new(phase),
            turn: tokio::sync::Mutex::new(()),
            asked: AtomicBool::new(false),
        }
    }

    pub fn update(&self, change: impl FnOnce(&mut ContainerRecord)) -> Result<()> {
        let mut record = self.record.lock();
        change(&mut record);
        save(&self.folder.join(CONTAINER_RECORD), &*record)
    }

    pub fn state(&self) -> ContainerState {
        self.phase.borrow().state()
    }

    pub fn sandbox(&self) -> String {
        self.record.lock().sandbox.clone()
    }

    /// Its own id and its sandbox's.
    pub fn ids(&self) -> (String, String) {
        let record = self.record.lock();
        (record.id.clone(), record.sandbox.clone())
    }

    /// Takes note of a start; `true` when it is news.
    pub fn note_started(&self, started: Started) -> bool {
        self.phase.send_if_modified(|phase| {
            let news = phase.started.is_none();
            phase.started = phase.started.or(Some(started));
            news
        })
    }

    /// Takes note of an end; `true` when it is news. Ends that no shim has recorded are recorded.
    pub fn note_exited(&self, exited: Exited) -> bool {
        let path = self.folder.join(EXITED_FILE);
        if !path.exists()
            && let Err(error) = save(&path, &exited)
        {
            tracing::warn!(%error, "the end of a container is not recorded");
        }
        self.phase.send_if_modified(|phase| {
            let news = phase.exited.is_none();
            phase.exited.get_or_insert(exited);
            news
        })
    }

    pub fn summary(&self) -> Container {
        let record = self.record.lock();
        Container {
            id: record.id.clone(),
            pod_sandbox_id: record.sandbox.clone(),
            metadata: record.config.metadata.clone(),
            image: record.config.image.clone(),
            image_ref: record.image_ref.clone(),
            image_id: record.image_id.clone(),
            state: self.state(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }
    }

    pub fn status(&self) -> ContainerStatus {
        let record = self.record.lock();
        let phase = self.phase.borrow().clone();
        let exited = phase.exited.clone().unwrap_or_default();
        ContainerStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: phase.state(),
            created_at: record.created_at,
            started_at: phase.started.map_or(0, |started| started.at),
            finished_at: exited.at,
            exit_code: exited.code,
            image: record.config.image.clone(),
            image_ref: record.image_ref.clone(),
            image_id: record.image_id.clone(),
            reason: phase.exited.as_ref().map(reason).unwrap_or_default(),
            message: exited.message,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            mounts: record.config.mounts.clone(),
            log_path: record.log_path.clone(),
            resources: record.config.linux.resources.clone(),
            user: Some(record.user.clone()),
            stop_signal: record.stop_signal.clone(),
            pid: phase.started.filter(|_| phase.exited.is_none()).map_or(0, |started| started.pid),
        }
    }
}

fn reason(exited: &Exited) -> String {
    let reason = match (exited.reason.as_str(), exited.oom_killed, exited.code) {
        ("", true, _) => "OOMKilled",
        ("", false, 0) => "Completed",
        ("", false, _) => "Error",
        (reason, ..) => reason,
    };
    reason.to_owned()
}

/// The phase that the shim's files tell.
pub fn read_phase(folder: &Path) -> Phase {
    Phase { started: load(&folder.join(STARTED_FILE)), exited: load(&folder.join(EXITED_FILE)) }
}

pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let json = serde_json::to_vec(value).map_err(|error| Error::io("encode a record", error))?;
    write_file(path, &json, false).map_err(|error| Error::io(format!("write {}", path.display()), error))
}

/// `None` when the file is not there or was never finished.
pub fn load<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
