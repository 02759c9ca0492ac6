//! What a shim is told to make, as files in the sandbox's folder: `sandbox-spec.json` and, per container,
//! `containers/<id>/spec.json`. Everything is decided before it is written; a shim only carries it out.

use crate::cri::{LinuxContainerResources, MountPropagation};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub const SANDBOX_FILE: &str = "sandbox-spec.json";
pub const SOCKET: &str = "shim.sock";
pub const CONTAINERS: &str = "containers";
pub const CONTAINER_FILE: &str = "spec.json";
/// A [`Started`], written by the shim when the program runs.
pub const STARTED_FILE: &str = "started.json";
/// An [`Exited`], written by the shim before it tells anybody.
pub const EXITED_FILE: &str = "exited.json";
/// The pod's `/dev/shm`.
pub const SHM_FOLDER: &str = "shm";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub id: String,
    /// Empty keeps the node's.
    pub hostname: String,
    pub host_network: bool,
    pub host_ipc: bool,
    /// One process namespace for the pod, with the pause process as its init.
    pub shared_pid: bool,
    pub sysctls: Vec<(String, String)>,
    /// The pause process's own group.
    pub cgroup: String,
    /// The group of the shim itself.
    pub shim_cgroup: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    #[default]
    Own,
    Pod,
    Node,
    /// Of the container with the id in `ContainerSpec::pid_target`.
    Target,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: String,
    pub rootfs: RootfsSpec,
    pub mounts: Vec<MountSpec>,
    pub devices: Vec<DeviceSpec>,
    pub pid: PidNamespace,
    pub pid_target: String,
    pub privileged: bool,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub cgroup: String,
    pub resources: LinuxContainerResources,
    pub process: ProcessSpec,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub log_path: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootfsSpec {
    pub layers_folder: PathBuf,
    /// Lowest first.
    pub layers: Vec<String>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty folder to mount on, seen only inside the container's mount namespace.
    pub target: PathBuf,
    pub readonly: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MountKind {
    Bind {
        source: PathBuf,
    },
    /// An image's layers, lowest first, read-only.
    Layers {
        folder: PathBuf,
        layers: Vec<String>,
        sub_path: String,
    },
    Tmpfs {
        options: Vec<(String, Option<String>)>,
    },
    Proc,
    Sysfs,
    Devpts,
    Mqueue,
    Cgroup,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountSpec {
    pub target: String,
    pub kind: MountKind,
    pub readonly: bool,
    pub recursive_readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub propagation: MountPropagation,
}

impl MountSpec {
    #[must_use]
    pub fn new(target: &str, kind: MountKind) -> Self {
        Self {
            target: target.to_owned(),
            kind,
            readonly: false,
            recursive_readonly: false,
            nosuid: false,
            nodev: false,
            noexec: false,
            propagation: MountPropagation::Private,
        }
    }
}

/// A device node of the node, shown in the container under a name of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub source: PathBuf,
    pub target: String,
    pub readonly: bool,
    /// Missing on the node is an error.
    pub required: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    /// A filter compiled to the kernel's instructions; empty is unconfined.
    pub seccomp: Vec<Instruction>,
}

/// Sets of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// One instruction of a classic packet filter: code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub pid: i32,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// The process's own code, or 128 and the signal that killed it.
    pub code: i32,
    pub oom_killed: bool,
    /// Nanoseconds since the epoch.
    pub at: i64,
    /// Why it never ran, or why its end was not seen; empty for an ordinary end.
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
}

impl Exited {
    /// A container whose program could not be started.
    #[must_use]
    pub fn not_started(message: &str, at: i64) -> Self {
        Self { code: 128, oom_killed: false, at, reason: "StartError".into(), message: message.into() }
    }

    /// A container that ended while nobody was there to see how.
    #[must_use]
    pub fn unseen(at: i64) -> Self {
        Self { code: 255, oom_killed: false, at, reason: "Unknown".into(), message: String::new() }
    }
}
