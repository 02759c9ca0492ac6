//! The messages of the CRI's `runtime.v1`, as plain Rust types with the CRI's own field names.
//!
//! Wrapper messages that hold one value (`Int64Value`, `...StateValue`) are `Option`s here, Windows' fields
//! are left out, and a message whose absence means the same as its default is not optional. Times are
//! nanoseconds since the epoch; 0 is "not yet". Everything can be written as JSON, because the embedded
//! runtime keeps the configurations of what it runs on disk. No behaviour lives here.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub type Map = BTreeMap<String, String>;

macro_rules! message {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
    )*};
}

macro_rules! choice {
    ($($(#[$meta:meta])* $name:ident { $first:ident, $($rest:ident),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { #[default] $first, $($rest),* }
    )*};
}

choice! {
    Protocol { Tcp, Udp, Sctp }
    MountPropagation { Private, HostToContainer, Bidirectional }
    /// Whose namespace a container lives in: the pod's, its own, the node's, or another container's.
    NamespaceMode { Pod, Container, Node, Target }
    SupplementalGroupsPolicy { Merge, Strict }
    ProfileType { RuntimeDefault, Unconfined, Localhost }
    PodSandboxState { Ready, NotReady }
    ContainerState { Created, Running, Exited, Unknown }
    ContainerEventType { Created, Started, Stopped, Deleted }
}

message! {
    VersionResponse { version: String, runtime_name: String, runtime_version: String, runtime_api_version: String }
    RuntimeCondition { r#type: String, status: bool, reason: String, message: String }
    RuntimeStatus { conditions: Vec<RuntimeCondition>, handlers: Vec<RuntimeHandler>, features: RuntimeFeatures }
    RuntimeHandler { name: String, recursive_read_only_mounts: bool, user_namespaces: bool }
    RuntimeFeatures { supplemental_groups_policy: bool }

    DnsConfig { servers: Vec<String>, searches: Vec<String>, options: Vec<String> }
    PortMapping { protocol: Protocol, container_port: i32, host_port: i32, host_ip: String }
    IdMapping { host_id: u32, container_id: u32, length: u32 }
    Mount {
        container_path: String,
        host_path: String,
        readonly: bool,
        selinux_relabel: bool,
        propagation: MountPropagation,
        recursive_read_only: bool,
        /// With a non-empty image the image's file system is mounted read-only and `host_path` is empty.
        image: ImageSpec,
        image_sub_path: String,
    }
    NamespaceOption { network: NamespaceMode, pid: NamespaceMode, ipc: NamespaceMode, target_id: String }
    SecurityProfile { profile_type: ProfileType, localhost_ref: String }
    SeLinuxOption { user: String, role: String, r#type: String, level: String }
    Capability { add_capabilities: Vec<String>, drop_capabilities: Vec<String>, add_ambient_capabilities: Vec<String> }
    Device { container_path: String, host_path: String, permissions: String }
    HugepageLimit { page_size: String, limit: u64 }
    KeyValue { key: String, value: Vec<u8> }

    LinuxSandboxSecurityContext {
        namespace_options: NamespaceOption,
        selinux_options: Option<SeLinuxOption>,
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        readonly_rootfs: bool,
        supplemental_groups: Vec<i64>,
        supplemental_groups_policy: SupplementalGroupsPolicy,
        privileged: bool,
        seccomp: Option<SecurityProfile>,
        apparmor: Option<SecurityProfile>,
    }
    LinuxPodSandboxConfig {
        /// Path of the pod's control group below each hierarchy's root, such as `/krate/dev/node-1/pod<uid>`.
        cgroup_parent: String,
        security_context: LinuxSandboxSecurityContext,
        sysctls: Map,
        overhead: Option<LinuxContainerResources>,
        resources: Option<LinuxContainerResources>,
    }
    PodSandboxMetadata { name: String, uid: String, namespace: String, attempt: u32 }
    PodSandboxConfig {
        metadata: PodSandboxMetadata,
        hostname: String,
        /// The folder that containers' `log_path`s are relative to.
        log_directory: String,
        /// `None` takes the node's own `/etc/resolv.conf`.
        dns_config: Option<DnsConfig>,
        port_mappings: Vec<PortMapping>,
        labels: Map,
        annotations: Map,
        linux: LinuxPodSandboxConfig,
    }
    PodSandboxFilter { id: Option<String>, state: Option<PodSandboxState>, label_selector: Map }
    PodSandbox {
        id: String,
        metadata: PodSandboxMetadata,
        state: PodSandboxState,
        created_at: i64,
        labels: Map,
        annotations: Map,
        runtime_handler: String,
    }
    /// `ip` is empty for a sandbox in the node's network.
    PodSandboxNetworkStatus { ip: String, additional_ips: Vec<String> }
    PodSandboxStatus {
        id: String,
        metadata: PodSandboxMetadata,
        state: PodSandboxState,
        created_at: i64,
        network: PodSandboxNetworkStatus,
        namespaces: NamespaceOption,
        labels: Map,
        annotations: Map,
        runtime_handler: String,
    }

    ImageSpec {
        /// A reference or an image id.
        image: String,
        annotations: Map,
        /// What the user wrote; for messages.
        user_specified_image: String,
        runtime_handler: String,
    }
    LinuxContainerResources {
        cpu_period: i64,
        cpu_quota: i64,
        cpu_shares: i64,
        memory_limit_in_bytes: i64,
        oom_score_adj: i64,
        cpuset_cpus: String,
        cpuset_mems: String,
        hugepage_limits: Vec<HugepageLimit>,
        /// Keys and values of control-group version 2 files.
        unified: Map,
        memory_swap_limit_in_bytes: i64,
    }
    LinuxContainerSecurityContext {
        capabilities: Option<Capability>,
        privileged: bool,
        namespace_options: NamespaceOption,
        selinux_options: Option<SeLinuxOption>,
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_username: String,
        readonly_rootfs: bool,
        supplemental_groups: Vec<i64>,
        supplemental_groups_policy: SupplementalGroupsPolicy,
        no_new_privs: bool,
        masked_paths: Vec<String>,
        readonly_paths: Vec<String>,
        seccomp: Option<SecurityProfile>,
        apparmor: Option<SecurityProfile>,
    }
    LinuxContainerConfig { resources: Option<LinuxContainerResources>, security_context: LinuxContainerSecurityContext }
    LinuxContainerUser { uid: i64, gid: i64, supplemental_groups: Vec<i64> }
    ContainerMetadata { name: String, attempt: u32 }
    ContainerConfig {
        metadata: ContainerMetadata,
        image: ImageSpec,
        /// Replaces the image's entry point when not empty (and then the image's command is ignored).
        command: Vec<String>,
        /// Replaces the image's command when not empty.
        args: Vec<String>,
        working_dir: String,
        envs: Vec<KeyValue>,
        mounts: Vec<Mount>,
        devices: Vec<Device>,
        labels: Map,
        annotations: Map,
        /// Relative to the sandbox's `log_directory`; empty keeps no log.
        log_path: String,
        stdin: bool,
        stdin_once: bool,
        tty: bool,
        linux: LinuxContainerConfig,
        /// A signal's name such as `SIGQUIT`; empty takes the image's, else SIGTERM.
        stop_signal: String,
    }
    ContainerFilter {
        id: Option<String>,
        state: Option<ContainerState>,
        pod_sandbox_id: Option<String>,
        label_selector: Map,
    }
    Container {
        id: String,
        pod_sandbox_id: String,
        metadata: ContainerMetadata,
        image: ImageSpec,
        image_ref: String,
        image_id: String,
        state: ContainerState,
        created_at: i64,
        labels: Map,
        annotations: Map,
    }
    ContainerStatus {
        id: String,
        metadata: ContainerMetadata,
        state: ContainerState,
        created_at: i64,
        started_at: i64,
        finished_at: i64,
        exit_code: i32,
        image: ImageSpec,
        image_ref: String,
        image_id: String,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerCannotRun`, `Unknown`.
        reason: String,
        message: String,
        labels: Map,
        annotations: Map,
        mounts: Vec<Mount>,
        /// Absolute.
        log_path: String,
        resources: Option<LinuxContainerResources>,
        user: Option<LinuxContainerUser>,
        stop_signal: String,
        /// The process's pid in the node, 0 when it does not run (CRI gives it in the verbose `info`).
        pid: i32,
    }
    ContainerEvent {
        container_id: String,
        container_event_type: ContainerEventType,
        created_at: i64,
        /// `None` when the sandbox is gone already.
        pod_sandbox_status: Option<PodSandboxStatus>,
        /// All containers of the sandbox, as they were at the event.
        containers_statuses: Vec<ContainerStatus>,
    }

    ExecSyncResponse { stdout: Vec<u8>, stderr: Vec<u8>, exit_code: i32 }

    CpuUsage { timestamp: i64, usage_core_nano_seconds: u64 }
    MemoryUsage {
        timestamp: i64,
        working_set_bytes: u64,
        /// Limit less working set; `None` without a limit.
        available_bytes: Option<u64>,
        usage_bytes: u64,
        rss_bytes: u64,
        page_faults: u64,
        major_page_faults: u64,
    }
    FilesystemUsage { timestamp: i64, mountpoint: String, used_bytes: u64, inodes_used: u64 }
    ProcessUsage { timestamp: i64, process_count: u64 }
    NetworkInterfaceUsage { name: String, rx_bytes: u64, rx_errors: u64, tx_bytes: u64, tx_errors: u64 }
    NetworkUsage { timestamp: i64, interfaces: Vec<NetworkInterfaceUsage> }
    ContainerStats {
        id: String,
        metadata: ContainerMetadata,
        pod_sandbox_id: String,
        labels: Map,
        annotations: Map,
        cpu: CpuUsage,
        memory: MemoryUsage,
        writable_layer: FilesystemUsage,
        process: ProcessUsage,
    }
    PodSandboxStats {
        id: String,
        metadata: PodSandboxMetadata,
        labels: Map,
        annotations: Map,
        cpu: CpuUsage,
        memory: MemoryUsage,
        network: NetworkUsage,
        process: ProcessUsage,
        containers: Vec<ContainerStats>,
    }
    ContainerStatsFilter { id: Option<String>, pod_sandbox_id: Option<String>, label_selector: Map }

    Image {
        /// `sha256:...`, the digest of the image's configuration.
        id: String,
        repo_tags: Vec<String>,
        repo_digests: Vec<String>,
        /// Bytes.
        size: u64,
        /// The user of the image when it is a number.
        uid: Option<i64>,
        /// The user of the image when it is a name.
        username: String,
        pinned: bool,
    }
    ImageFsInfo { image_filesystems: Vec<FilesystemUsage>, container_filesystems: Vec<FilesystemUsage> }
    AuthConfig {
        username: String,
        password: String,
        /// base64 of `username:password`, as Docker's configuration has it.
        auth: String,
        server_address: String,
        identity_token: String,
        registry_token: String,
    }
}
