//! Forking a container's first process or an additional one, and hearing how that went.

use super::container::Ends;
use super::spec::{ContainerSpec, PidNamespace, ProcessSpec};
use crate::cgroup::{Group, Hierarchies};
use crate::init::{self, Child, FAILED, Stdio, TERMINAL};
use crate::kernel::{process, socket};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Longest message that a child can fail with.
const MAX_REPORT: usize = 16 << 10;

/// A child on its way from fork to exec.
pub struct Launch {
    pub pid: i32,
    pub report: OwnedFd,
    pub ends: Ends,
}

/// What a child has to say.
#[derive(Debug)]
pub enum Report {
    Nothing,
    /// The program runs (or its process has ended already).
    Runs,
    Failed(String),
}

impl Launch {
    /// Reads what is there, without waiting.
    pub fn hear(&mut self) -> Report {
        let mut buffer = vec![0; MAX_REPORT];
        loop {
            let mut fds = Vec::new();
            match socket::receive(self.report.as_fd(), &mut buffer, &mut fds) {
                Ok(0) => return Report::Runs,
                Ok(_) if buffer[0] == TERMINAL => self.ends.terminal = fds.pop(),
                Ok(n) if buffer[0] == FAILED => {
                    return Report::Failed(String::from_utf8_lossy(&buffer[1..n]).into_owned());
                }
                Ok(_) => return Report::Failed("the new process sent nonsense".into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Report::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Report::Failed(format!("hear the new process: {error}")),
            }
        }
    }
}

/// The pod around a container.
pub struct Pod<'a> {
    pub hierarchies: &'a Hierarchies,
    pub pause: i32,
    pub host_network: bool,
    pub host_ipc: bool,
    pub shm: Option<PathBuf>,
}

/// Forks a container. `target` is the process whose process namespace it joins, if it joins one.
pub fn container(
    spec: &ContainerSpec,
    group: &Group,
    pod: &Pod<'_>,
    target: Option<i32>,
) -> Result<Launch, String> {
    group.create().map_err(|error| format!("make the control group: {error}"))?;
    group.apply(&spec.resources).map_err(|error| format!("set the limits: {error}"))?;
    if let Err(error) = group.end_together() {
        tracing::debug!(%error, "the processes of the container are killed one by one");
    }
    let namespaces = namespaces(pod).map_err(|error| format!("open the pod's namespaces: {error}"))?;
    let (stdio, ends) = streams(spec).map_err(|error| format!("make the streams: {error}"))?;
    let (ours, theirs) = report_pair().map_err(|error| format!("make a socket pair: {error}"))?;
    let flags = if spec.pid == PidNamespace::Own { CloneFlags::CLONE_NEWPID } else { CloneFlags::empty() };
    let pid = clone_into(flags, target)?;
    if pid == 0 {
        drop(ours);
        let child = Child { group: group.clone(), stdio, report: theirs, process: &spec.process };
        init::run_container(child, spec, &namespaces, pod.hierarchies, pod.shm.clone());
    }
    Ok(Launch { pid, report: ours, ends })
}

/// Forks an additional process into the container of `target`. Without a terminal `streams` are its three.
pub fn exec(
    process: &ProcessSpec,
    group: &Group,
    target: i32,
    streams: Option<[OwnedFd; 3]>,
) -> Result<Launch, String> {
    let pidfd = process::pidfd(target).map_err(|error| format!("find the container's process: {error}"))?;
    let (ours, theirs) = report_pair().map_err(|error| format!("make a socket pair: {error}"))?;
    let pid = clone_into(CloneFlags::empty(), Some(target))?;
    if pid == 0 {
        drop(ours);
        let stdio = streams.map_or(Stdio::Terminal, Stdio::Pipes);
        init::run_exec(Child { group: group.clone(), stdio, report: theirs, process }, &pidfd);
    }
    Ok(Launch { pid, report: ours, ends: Ends::default() })
}

/// Clones, with the child in the process namespace of `target`. Entering one is for the next children only,
/// so we go there and come back.
fn clone_into(flags: CloneFlags, target: Option<i32>) -> Result<i32, String> {
    let Some(target) = target else {
        return process::clone_child(flags.bits()).map_err(|error| format!("fork: {error}"));
    };
    let open = |path: String| File::open(&path).map_err(|error| format!("open {path}: {error}"));
    let (theirs, ours) = (open(format!("/proc/{target}/ns/pid"))?, open("/proc/self/ns/pid".into())?);
    let enter = |namespace: &File| {
        setns(namespace, CloneFlags::CLONE_NEWPID)
            .map_err(|error| format!("enter the process namespace: {error}"))
    };
    enter(&theirs)?;
    let pid = process::clone_child(flags.bits()).map_err(|error| format!("fork: {error}"));
    if !matches!(pid, Ok(0)) {
        enter(&ours)?;
    }
    pid
}

fn namespaces(pod: &Pod<'_>) -> io::Result<Vec<(OwnedFd, CloneFlags)>> {
    let wanted = [
        (!pod.host_network, "net", CloneFlags::CLONE_NEWNET),
        (!pod.host_network, "uts", CloneFlags::CLONE_NEWUTS),
        (!pod.host_ipc, "ipc", CloneFlags::CLONE_NEWIPC),
    ];
    let wanted = wanted.into_iter().filter(|(wanted, ..)| *wanted);
    wanted
        .map(|(_, name, kind)| Ok((File::open(format!("/proc/{}/ns/{name}", pod.pause))?.into(), kind)))
        .collect()
}

/// The container's and the shim's ends of the streams.
fn streams(spec: &ContainerSpec) -> io::Result<(Stdio, Ends)> {
    if spec.tty {
        return Ok((Stdio::Terminal, Ends::default()));
    }
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
    let (stdin, input) = match spec.stdin {
        true => pipe().map(|(read, write)| (read, Some(write)))?,
        false => (File::open("/dev/null")?.into(), None),
    };
    let ((out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?);
    let ends = Ends { stdin: input, stdout: Some(out_read), stderr: Some(err_read), terminal: None };
    Ok((Stdio::Pipes([stdin, out_write, err_write]), ends))
}

/// Messages keep their borders, and our side never waits.
fn report_pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    super::attachment::nonblocking(&ours)?;
    Ok((ours, theirs))
}
