//! The server that is measured: one of our own started for it, or any other by its kubeconfig.

use crate::ui::{Explain, Failure, Outcome};
use krate_client::kubeconfig::remote_config;
use krate_client::remote::Remote;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// Clock ticks a second of `/proc/PID/stat`; fixed in Linux's user interface.
const TICKS: u64 = 100;

/// Where the load goes, and whose CPU time counts.
pub struct Target {
    pub remote: Remote,
    pub pids: Vec<i32>,
}

impl Target {
    /// The server of a kubeconfig; `pids` are its processes if they are on this machine.
    pub fn of(kubeconfig: &Path, pids: Vec<i32>) -> Outcome<Self> {
        let text = std::fs::read_to_string(kubeconfig)
            .explain(&format!("cannot read {}", kubeconfig.display()), "Give --kubeconfig PATH.")?;
        let mut config =
            remote_config(&text, None).explain("the kubeconfig cannot be used", "Give another.")?;
        config.user_agent = "krate-bench".to_owned();
        let remote = Remote::new(&config).explain("the kubeconfig cannot be used", "Give another.")?;
        Ok(Self { remote, pids })
    }

    /// CPU time that the server's processes have spent so far; `None` when they are not known.
    pub fn cpu(&self) -> Option<Duration> {
        if self.pids.is_empty() {
            return None;
        }
        let ticks: u64 = self.pids.iter().filter_map(|pid| ticks(*pid)).sum();
        Some(Duration::from_millis(ticks * 1000 / TICKS))
    }

    /// Resident memory of the server's processes, in bytes.
    pub fn resident(&self) -> u64 {
        let of = |pid: &i32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = text.lines().find(|l| l.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        self.pids.iter().filter_map(of).sum::<u64>() * 1024
    }
}

/// User and system time, fields 14 and 15 of `/proc/PID/stat`.
fn ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// A control plane of ours in a temporary folder, on loopback, ended with the value.
pub struct Server {
    child: Child,
    dir: PathBuf,
    /// From start to the line by which it says that it is ready.
    pub boot: Duration,
}

impl Server {
    /// Starts one. `dir` is made and, at the end, removed.
    pub fn start(dir: &Path, options: &[&str]) -> Outcome<Self> {
        let exe = std::fs::read_link("/proc/self/exe")
            .explain("this program cannot find itself", "Is /proc mounted?")?;
        let started = Instant::now();
        let mut child = Command::new(exe)
            .args(["server", "--disable-agent", "--notify", "--log", "error", "--listen", "127.0.0.1:0"])
            .args(["--node-ip", "127.0.0.1", "--data-dir"])
            .arg(dir)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .explain("the server cannot be started", "")?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            let _ = BufReader::new(out).read_line(&mut line);
        }
        let server = Self { child, dir: dir.to_owned(), boot: started.elapsed() };
        if line.trim() == crate::cluster::process::READY {
            Ok(server)
        } else {
            Err(Failure::new("the server ended while it started", "Its error is above."))
        }
    }

    /// Ends it and starts it again on what it has stored.
    pub fn restart(&mut self, options: &[&str]) -> Outcome<()> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut next = Self::start(&self.dir, options)?;
        std::mem::swap(&mut self.child, &mut next.child);
        // what is dropped now is the ended one, without its folder
        next.dir = PathBuf::new();
        Ok(())
    }

    pub fn target(&self) -> Outcome<Target> {
        let pid = i32::try_from(self.child.id()).unwrap_or(0);
        Target::of(&self.dir.join("admin.kubeconfig"), vec![pid])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
