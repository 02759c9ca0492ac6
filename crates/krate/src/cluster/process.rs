//! The processes of a cluster: started in the background, found again by pid and start time, ended by pid.

use super::{Cluster, cgroup};
use crate::ui::{Explain, Failure, Outcome, say};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// The line by which a process says on its standard output that it is ready.
pub const READY: &str = "ready";

/// A process that was started, as recorded in the cluster's folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// When the kernel started it, in clock ticks since boot: tells it from a later process of the same pid.
    pub start_time: u64,
}

impl Process {
    /// The recorded process of that name, if it is alive.
    pub fn find(cluster: &Cluster, name: &str) -> Option<Self> {
        let text = std::fs::read(cluster.record_file(name)).ok()?;
        let process: Self = serde_json::from_slice(&text).ok()?;
        process.alive().then_some(process)
    }

    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// Sends a signal to it; a process that is gone is no error.
    pub fn signal(&self, signal: Signal) {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// The start time in field 22 of `/proc/PID/stat`; `None` for what does not exist or is a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    stat(pid).filter(|(is_dead, _)| !is_dead).map(|(_, start)| start)
}

/// Whether a process is dead, and its start time.
fn stat(pid: i32) -> Option<(bool, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    Some((is_dead, fields.nth(18)?.parse().ok()?))
}

/// Waits until the process that was recorded before has given back all that it held. One that was killed is dead as
/// soon as its first thread is, and its listeners are closed with the last.
fn bury(cluster: &Cluster, name: &str) {
    const PATIENCE_MS: u16 = 10_000;
    let Ok(text) = std::fs::read(cluster.record_file(name)) else { return };
    let Ok(old) = serde_json::from_slice::<Process>(&text) else { return };
    if stat(old.pid) == Some((true, old.start_time)) {
        cgroup::wait_for(old.pid, PATIENCE_MS);
    }
}

/// A process that was just started and has not said that it is ready.
pub struct Starting {
    name: String,
    child: std::process::Child,
    cluster: Cluster,
}

/// Starts this program again as `args`, in the background, with its log in the cluster's folder.
pub fn start(cluster: &Cluster, name: &str, group: &str, args: &[String]) -> Outcome<Starting> {
    let next = "Check the rights and the free space of the data folder.";
    bury(cluster, name);
    for file in [cluster.log_file(name), cluster.record_file(name)] {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).explain("the data folder cannot be written", next)?;
        }
    }
    let log = std::fs::File::options().create(true).append(true).open(cluster.log_file(name));
    let log = log.explain("the log file cannot be opened", next)?;
    let exe = std::fs::read_link("/proc/self/exe")
        .explain("this program cannot find itself", "Is /proc mounted?")?;
    let child = Command::new(exe)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .explain(
            &format!("the process {name} cannot be started"),
            "Is the machine out of memory or of processes?",
        )?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    cgroup::join(group, pid)
        .explain("control groups cannot be made", "Are they mounted writable below /sys/fs/cgroup?")?;
    let record = Process { pid, start_time: start_time(pid).unwrap_or(0) };
    let text = serde_json::to_vec(&record).explain("internal error", "")?;
    std::fs::write(cluster.record_file(name), text).explain("the data folder cannot be written", next)?;
    Ok(Starting { name: name.to_owned(), child, cluster: cluster.clone() })
}

impl Starting {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Waits until the process says that it is ready; its failure is shown with the end of its log.
    pub fn ready(mut self) -> Outcome<()> {
        let mut line = String::new();
        if let Some(out) = self.child.stdout.take() {
            let _ = BufReader::new(out).read_line(&mut line);
        }
        if line.trim() == READY {
            return Ok(());
        }
        let _ = self.child.wait();
        let log = std::fs::read_to_string(self.cluster.log_file(&self.name)).unwrap_or_default();
        let (what, next) = last_words(&log);
        Err(Failure::new(
            format!("the process {} ended while it started: {what}", self.name),
            format!("{next} Its log is {}.", self.cluster.log_file(&self.name).display())
                .trim_start()
                .to_owned(),
        ))
    }
}

/// Why a process ended, as the end of its log tells, and the next step if it named one (see [`Failure`]).
fn last_words(log: &str) -> (&str, &str) {
    let mut lines = log.lines().rev().filter(|line| !line.trim().is_empty());
    let last = lines.next().unwrap_or("it wrote nothing");
    match lines.next().and_then(|line| line.strip_prefix("krate: ")) {
        Some(what) if last.starts_with("  ") => (what, last.trim()),
        _ => (last.trim(), ""),
    }
}

/// Called by a started process: leaves the terminal's session behind.
pub fn detach() {
    let _ = nix::unistd::setsid();
}

/// Called by a started process when it serves.
pub fn notify_ready() {
    say!("{READY}");
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn a_process_is_heard_to_its_last_words() {
        assert_eq!(last_words("INFO a\nkrate: no room\n  Make room.\n"), ("no room", "Make room."));
        assert_eq!(last_words("INFO a\nthread panicked\n\n"), ("thread panicked", ""));
        assert_eq!(last_words(""), ("it wrote nothing", ""));
    }
}
