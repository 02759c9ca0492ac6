//! A cluster for one test: started with the program under test, driven with kubectl, removed at the end.

use crate::tools;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that the test waits for.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Cluster {
    pub name: String,
    pub dir: PathBuf,
    pub published: SocketAddr,
    _temp: tempfile::TempDir,
}

/// What a command printed.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Self { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// The program under test.
pub fn krate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_krate"))
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The control groups below `krate/` of that name, in every hierarchy.
pub fn groups(name: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    let roots = hierarchies.chain([Path::new("/sys/fs/cgroup").to_owned()]);
    roots.map(|root| root.join("krate").join(name)).filter(|group| group.is_dir()).collect()
}

impl Cluster {
    /// A running cluster of so many nodes with the images `nginx:1`, `nginx:2` and `busybox:1`, and NodePort
    /// 30080 published.
    pub fn start(name: &str, nodes: u8) -> Self {
        Self::start_with(name, nodes, &[])
    }

    /// As [`Cluster::start`], with further arguments for the first `krate up`.
    pub fn start_with(name: &str, nodes: u8, args: &[&str]) -> Self {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let temp = tempfile::Builder::new().prefix("e2e-").tempdir_in(base).unwrap();
        let cluster = Self {
            name: format!("{name}-{}", std::process::id()),
            dir: temp.path().join("cluster"),
            published: free_address(),
            _temp: temp,
        };
        let said = cluster.up_with(nodes, args);
        assert!(said.ok, "krate up failed:\n{}\n{}", said.err, cluster.logs());
        cluster.make_images();
        cluster
    }

    pub fn up(&self, nodes: u8) -> Said {
        self.up_with(nodes, &[])
    }

    fn up_with(&self, nodes: u8, args: &[&str]) -> Said {
        Said::of(&self.up_command(nodes, args).output().unwrap())
    }

    /// [`Cluster::up`] for a reader that has gone (`krate up | head -1`); whether it succeeded.
    pub fn up_unheard(&self, nodes: u8) -> bool {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = self.up_command(nodes, &[]);
        command.stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap().success()
    }

    fn up_command(&self, nodes: u8, args: &[&str]) -> Command {
        let publish = format!("{}:30080", self.published);
        let mut command = krate();
        command.args(["up", "--nodes", &nodes.to_string(), "--publish", &publish]).args(args);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(self.flags());
        command
    }

    /// `--name` and `--data-dir` of this cluster.
    pub fn flags(&self) -> [String; 4] {
        ["--name".into(), self.name.clone(), "--data-dir".into(), self.dir.display().to_string()]
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.with_file_name("kubeconfig")
    }

    /// A folder that all nodes see and that goes with the cluster.
    pub fn shared_folder(&self) -> PathBuf {
        let folder = self.dir.with_file_name("shared");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn make_images(&self) {
        let nginx = tools::nginx_root();
        for version in ["1", "2"] {
            let page = self.dir.with_file_name(format!("page-{version}.html"));
            std::fs::write(&page, format!("welcome to nginx:{version}\n")).unwrap();
            self.krate_ok(&[
                "image",
                "build",
                "-t",
                &format!("nginx:{version}"),
                "--copy",
                &format!("{}:/", nginx.display()),
                "--copy",
                &format!("{}:/usr/share/nginx/html/index.html", page.display()),
                "--entrypoint",
                "/usr/sbin/nginx",
                "--entrypoint",
                "-g",
                "--entrypoint",
                "daemon off;",
            ]);
        }
        let busybox = tools::busybox_root();
        self.krate_ok(&[
            "image",
            "build",
            "-t",
            "busybox:1",
            "--copy",
            &format!("{}:/", busybox.display()),
            "--cmd",
            "/bin/sh",
        ]);
    }

    /// Runs `krate COMMAND SUB ... --name .. --data-dir ..`.
    pub fn krate(&self, args: &[&str]) -> Said {
        let mut command = krate();
        command.arg(args[0]).args(self.flags()).args(&args[1..]);
        Said::of(&command.output().unwrap())
    }

    pub fn krate_ok(&self, args: &[&str]) -> String {
        let said = self.krate(args);
        assert!(said.ok, "krate {args:?} failed:\n{}{}", said.out, said.err);
        said.out
    }

    fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tools::kubectl());
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args);
        // Caches of discovery go with the test.
        command.env("KUBECACHEDIR", self.dir.with_file_name("kubecache"));
        command
    }

    pub fn try_kubectl(&self, args: &[&str]) -> Said {
        Said::of(&self.kubectl_command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// What kubectl prints; the test fails when kubectl does.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let said = self.try_kubectl(args);
        assert!(said.ok, "kubectl {args:?} failed:\n{}{}\n{}", said.out, said.err, self.describe());
        said.out
    }

    /// What kubectl prints on standard error when it must fail.
    pub fn kubectl_fails(&self, args: &[&str]) -> String {
        let said = self.try_kubectl(args);
        assert!(!said.ok, "kubectl {args:?} should have failed, but printed:\n{}", said.out);
        said.err
    }

    pub fn kubectl_in(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.kubectl_command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Said::of(&child.wait_with_output().unwrap())
    }

    pub fn apply(&self, manifest: &str) {
        let said = self.kubectl_in(&["apply", "-f", "-"], manifest);
        assert!(said.ok, "kubectl apply failed:\n{}{}\n{manifest}", said.out, said.err);
    }

    /// Starts kubectl and leaves it running; it is ended with the value.
    pub fn kubectl_background(&self, args: &[&str]) -> Running {
        let mut command = self.kubectl_command(args);
        Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Runs kubectl until what it prints satisfies `enough`.
    pub fn until(&self, args: &[&str], what: &str, enough: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.try_kubectl(args);
            if said.ok && enough(&said.out) {
                return said.out;
            }
            assert!(
                Instant::now() < deadline,
                "waiting for {what}: kubectl {args:?} still prints:\n{}{}\n{}",
                said.out,
                said.err,
                self.describe()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The body of a page fetched from the published port.
    pub fn fetch(&self) -> std::io::Result<String> {
        get(self.published)
    }

    /// Fetches until the page contains `text`.
    pub fn fetch_until(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.fetch();
            if page.as_ref().is_ok_and(|p| p.contains(text)) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the page never said {text:?}; last: {page:?}\n{}",
                self.describe()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The processes of a node (its own, its shims, its containers), by the node's control group.
    pub fn node_pids(&self, node: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        let mut folders = groups(&format!("{}/{node}", self.name));
        assert!(!folders.is_empty(), "the node has a control group");
        while let Some(folder) = folders.pop() {
            let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
            folders.extend(
                std::fs::read_dir(&folder)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.path())
                    .filter(|p| p.is_dir()),
            );
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills every process of a node: its own, its shims, its containers.
    pub fn kill_node(&self, node: &str) {
        for pid in self.node_pids(node) {
            // It may have gone with another one.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Kills a node's own process, and waits until the kernel has taken it away.
    pub fn kill(&self, name: &str) {
        let pid = self.process(name);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let deadline = Instant::now() + PATIENCE;
        // A process that nobody has asked after yet is a zombie; its memory, files and locks are gone.
        let is_there = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        };
        while is_there() {
            assert!(Instant::now() < deadline, "{name} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The pid of a node's own process (server or agent).
    pub fn process(&self, name: &str) -> i32 {
        let text = std::fs::read_to_string(self.dir.join("processes").join(format!("{name}.json"))).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["pid"].as_i64().unwrap() as i32
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for args in [
            &["get", "nodes,deploy,rs,pods,svc,endpointslices", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"][..],
        ] {
            let said = self.try_kubectl(args);
            text.push_str(&said.out);
            text.push_str(&said.err);
        }
        text.push_str(&self.logs());
        text
    }

    fn logs(&self) -> String {
        let said = self.krate(&["logs", "--tail", "60"]);
        format!("--- logs\n{}{}", said.out, said.err)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut command = krate();
        command.arg("down").arg("--kubeconfig").arg(self.kubeconfig()).args(self.flags());
        match command.output() {
            Ok(output) if output.status.success() => {}
            other => eprintln!("krate down: {other:?}"),
        }
    }
}

/// A kubectl that runs beside the test.
pub struct Running(pub Child);

impl Running {
    /// Reads standard output until it contains `text`; the rest stays unread.
    pub fn read_until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let out = self.0.stdout.as_mut().unwrap();
        let mut byte = [0u8; 1];
        while !String::from_utf8_lossy(&seen).contains(text) {
            match out.read(&mut byte) {
                Ok(1) => seen.push(byte[0]),
                _ => panic!("the output ended before {text:?}: {}", String::from_utf8_lossy(&seen)),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// GET / of an address; the body.
pub fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other(text.clone()))?;
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.to_owned())
    } else {
        Err(std::io::Error::other(head.to_owned()))
    }
}
