//! A node for tests: an embedded runtime in a folder, a mount namespace and a control group of its own, all
//! of which are gone when it is dropped, after a panic too.
#![allow(dead_code, reason = "each test file uses its part")]

use async_trait::async_trait;
use krate_base::{Clock, Rng};
use krate_runtime::cgroup::Hierarchies;
use krate_runtime::cri::*;
use krate_runtime::images::{BuildSpec, CopySpec, PullOptions};
use krate_runtime::{Config, EmbeddedRuntime};
use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub const IMAGE: &str = "probe:1";
/// Longest that anything in these tests may take; only a failure ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Gives out addresses and remembers who has one.
#[derive(Default)]
pub struct TestNetwork {
    pub attached: Mutex<Vec<String>>,
}

#[async_trait]
impl SandboxNetwork for TestNetwork {
    async fn attach(&self, sandbox: &str, netns: &str, _: &PodSandboxConfig) -> Result<Vec<IpAddr>> {
        std::fs::metadata(netns).map_err(|error| Error::io("find the namespace", error))?;
        self.attached.lock().push(sandbox.to_owned());
        Ok(vec![Ipv4Addr::new(10, 9, 8, 7).into()])
    }

    async fn detach(&self, sandbox: &str, _: &str, _: &PodSandboxConfig) -> Result<()> {
        self.attached.lock().retain(|known| known != sandbox);
        Ok(())
    }
}

pub struct Node {
    pub folder: tempfile::TempDir,
    pub cgroup: String,
    pub network: Arc<TestNetwork>,
}

impl Node {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        let cgroup = format!("krate/test-{}-{serial}", std::process::id());
        Self { folder, cgroup, network: Arc::default() }
    }

    pub async fn open(&self) -> Arc<EmbeddedRuntime> {
        let config = Config {
            root: self.folder.path().join("runtime"),
            image_root: self.folder.path().join("images"),
            cgroup_parent: self.cgroup.clone(),
            network: self.network.clone(),
            clock: Clock::system(),
            rng: Rng::from_entropy(),
            shim_command: vec![env!("CARGO_BIN_EXE_krate-runtime-shim").into(), "shim".into()],
            pull: PullOptions::default(),
        };
        let runtime = EmbeddedRuntime::open(config).await.expect("the runtime opens");
        if runtime.image_status(IMAGE).await.expect("images").is_none() {
            let program = PathBuf::from(env!("CARGO_BIN_EXE_krate-runtime-probe"));
            let spec = BuildSpec {
                tag: IMAGE.into(),
                copies: vec![
                    CopySpec::Path { source: program, target: "/bin/probe".into() },
                    CopySpec::Bytes {
                        content: b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n"
                            .as_slice()
                            .into(),
                        target: "/etc/passwd".into(),
                        mode: 0o644,
                    },
                ],
                entrypoint: vec!["/bin/probe".into()],
                ..BuildSpec::default()
            };
            runtime.image_store().build(&spec).expect("the image builds");
        }
        runtime
    }

    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            },
            hostname: name.into(),
            log_directory: self.folder.path().join("logs").join(name).display().to_string(),
            dns_config: Some(DnsConfig { servers: vec!["10.0.0.10".into()], ..DnsConfig::default() }),
            linux: LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/pod{name}", self.cgroup),
                security_context: LinuxSandboxSecurityContext {
                    namespace_options: NamespaceOption {
                        pid: NamespaceMode::Container,
                        ..NamespaceOption::default()
                    },
                    ..LinuxSandboxSecurityContext::default()
                },
                ..LinuxPodSandboxConfig::default()
            },
            ..PodSandboxConfig::default()
        }
    }

    pub fn log(&self, pod: &str, container: &str) -> String {
        let path = self.folder.path().join("logs").join(pod).join(format!("{container}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// The text of the log's lines, without times and tags.
    pub fn printed(&self, pod: &str, container: &str) -> String {
        let lines = self.log(pod, container);
        lines.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n").collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let hierarchies = Hierarchies::detect().expect("the control groups");
        let group = hierarchies.group(&self.cgroup);
        group.kill();
        match group.remove() {
            Ok(()) => hierarchies.group("krate").remove_if_empty(),
            Err(error) => eprintln!("left behind: {error}"),
        }
    }
}

/// Runs a test on a node of its own.
pub fn on_node<F, Fut>(test: F)
where
    F: FnOnce(Arc<Node>) -> Fut,
    Fut: Future<Output = ()>,
{
    // Of this thread and of those that the runtime below starts.
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own (the tests run as root)");
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    let node = Arc::new(Node::new());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test(node.clone())).await.expect("in time") });
    runtime.shutdown_background();
}

/// A container that runs the probe with these arguments.
pub fn container(name: &str, args: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: name.into(), attempt: 0 },
        image: ImageSpec { image: IMAGE.into(), ..ImageSpec::default() },
        args: texts(args),
        log_path: format!("{name}.log"),
        linux: LinuxContainerConfig {
            security_context: LinuxContainerSecurityContext {
                namespace_options: NamespaceOption {
                    pid: NamespaceMode::Container,
                    ..NamespaceOption::default()
                },
                ..LinuxContainerSecurityContext::default()
            },
            ..LinuxContainerConfig::default()
        },
        ..ContainerConfig::default()
    }
}

pub fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Creates and starts.
pub async fn start(
    runtime: &EmbeddedRuntime,
    sandbox: &str,
    pod: &PodSandboxConfig,
    config: &ContainerConfig,
) -> String {
    let id = runtime.create_container(sandbox, config, pod).await.expect("create");
    runtime.start_container(&id).await.expect("start");
    id
}

/// Waits for the end of a container that may have ended already.
pub async fn ended(runtime: &EmbeddedRuntime, id: &str) -> ContainerStatus {
    let mut events = runtime.get_container_events();
    loop {
        let status = runtime.container_status(id).await.expect("status");
        if status.state == ContainerState::Exited {
            return status;
        }
        events.recv().await.expect("an event");
    }
}

/// Runs a command in a container and returns what it printed.
pub async fn exec(runtime: &EmbeddedRuntime, id: &str, args: &[&str]) -> String {
    let cmd: Vec<String> = [&["/bin/probe"], args].concat().iter().map(|arg| (*arg).to_owned()).collect();
    let response = runtime.exec_sync(id, &cmd, PATIENCE).await.expect("exec");
    assert_eq!(response.exit_code, 0, "{}", String::from_utf8_lossy(&response.stderr));
    String::from_utf8(response.stdout).expect("text")
}
