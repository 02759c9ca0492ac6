//! The runtime boundary: the calls of the CRI's RuntimeService and ImageService as traits.
//!
//! The embedded runtime implements them in process; an adapter over a CRI socket can implement them too.
//! Two things are ours: streaming calls give byte streams instead of a URL, and events are a broadcast.
//! Nothing here knows a Pod or an API server.

mod error;
mod types;

pub use error::{Error, Result};
pub use types::*;

use async_trait::async_trait;
use futures::future::BoxFuture;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, watch};

/// Events that a slow receiver may lag behind before it is told `Lagged` and must list.
pub const EVENT_QUEUE: usize = 1024;

/// The RuntimeService.
///
/// Stops and removals are idempotent: what does not exist (any more) is success for `stop_*` and `remove_*`,
/// and `NotFound` for everything else.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn version(&self) -> Result<VersionResponse>;
    async fn status(&self) -> Result<RuntimeStatus>;

    /// Makes the namespaces, the network and the control group of a pod and returns the sandbox's id.
    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String>;
    /// Kills every container of the sandbox and gives its network back. Status stays readable (not ready).
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Removes a sandbox and its containers, stopping them by force first.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus>;
    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>>;

    /// Prepares a container (file system, configuration) and returns its id; nothing runs yet.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String>;
    /// Starts a created container. On `StartFailed` the container is `Exited` with code 128 and
    /// reason `StartError`.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Sends the stop signal, waits up to `timeout`, then SIGKILL. Returns when the process is gone.
    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()>;
    /// Removes a container and its writable layer, killing it first if it runs. The log stays.
    async fn remove_container(&self, id: &str) -> Result<()>;
    async fn container_status(&self, id: &str) -> Result<ContainerStatus>;
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>>;
    async fn update_container_resources(&self, id: &str, resources: &LinuxContainerResources) -> Result<()>;
    /// Changes what the pod's own control group is held to; zero leaves a value as it is.
    async fn update_pod_sandbox_resources(&self, id: &str, resources: &LinuxContainerResources)
    -> Result<()>;
    /// Tells the log writer that the log file was renamed.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;
    /// Runs a command in a container and collects its output (bounded to 16 MiB, then cut).
    /// `timeout` zero waits for ever; past it the command is killed and the error is `DeadlineExceeded`.
    async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecSyncResponse>;

    async fn container_stats(&self, id: &str) -> Result<ContainerStats>;
    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>>;
    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats>;

    /// Events from now on. A receiver that is told `Lagged` lists to catch up.
    fn get_container_events(&self) -> broadcast::Receiver<Arc<ContainerEvent>>;
}

/// The ImageService.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// All images, or those that `filter` (a reference or an id) names.
    async fn list_images(&self, filter: Option<&str>) -> Result<Vec<Image>>;
    /// `None` when the image is not there.
    async fn image_status(&self, image: &str) -> Result<Option<Image>>;
    /// Pulls and returns the image's id.
    async fn pull_image(&self, image: &ImageSpec, auth: Option<&AuthConfig>) -> Result<String>;
    /// Removes an image by reference (that name only) or by id (all its names); absent is success.
    async fn remove_image(&self, image: &str) -> Result<()>;
    async fn image_fs_info(&self) -> Result<ImageFsInfo>;
    /// Counts changes: a new number says that there are other images than before. Ours, not the CRI's.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Which of the three streams a caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFlags {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// With a terminal there is one output stream, `stdout`.
    pub tty: bool,
}

/// A running exec or attach. Dropping `stdin` closes the process's input. Dropping the session leaves an
/// attached container alone and kills an exec'ed process that still runs.
pub struct Session {
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Terminal sizes as (columns, rows); only with a terminal.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The exit code. For attach: of the container, when it ends while attached.
    pub exit: BoxFuture<'static, Result<i32>>,
}

/// A connection into a sandbox.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What exec, attach and port-forward are made of.
#[async_trait]
pub trait Streams: Send + Sync + 'static {
    async fn exec(&self, container: &str, cmd: &[String], flags: StreamFlags) -> Result<Session>;
    async fn attach(&self, container: &str, flags: StreamFlags) -> Result<Session>;
    /// Connects to a TCP port on the sandbox's own loopback.
    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>>;
}

/// A pod's network, implemented by whoever owns the node's network. Sandboxes in the node's network
/// never get here.
#[async_trait]
pub trait SandboxNetwork: Send + Sync + 'static {
    /// Gives the network namespace at `netns` its interfaces (loopback is up already) and returns its
    /// addresses, the primary one first. Called again with the same id it returns the same addresses.
    async fn attach(&self, sandbox_id: &str, netns: &str, config: &PodSandboxConfig) -> Result<Vec<IpAddr>>;
    /// Gives addresses and interfaces back. Idempotent; the namespace may be gone already.
    async fn detach(&self, sandbox_id: &str, netns: &str, config: &PodSandboxConfig) -> Result<()>;
}
