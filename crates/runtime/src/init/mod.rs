//! What runs between fork and exec: a child of the shim becomes a container's process.
//!
//! The child has a copy of the shim's memory and one thread. It reports over a socket that closes by itself
//! when the program is executed: silence means success, otherwise one message says what failed. It never
//! returns. Nothing outside its own namespaces is changed, and it is not dumpable from its first
//! instruction on, so that nobody in a namespace that it enters can reach through it to this program.

mod credentials;
mod exec;
mod mounts;
mod target;

use crate::cgroup::{Group, Hierarchies};
use crate::kernel::{process, socket};
use crate::shim::spec::{ContainerSpec, ProcessSpec};
use nix::sched::{CloneFlags, setns, unshare};
use std::convert::Infallible;
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// First byte of the message that carries a terminal.
pub const TERMINAL: u8 = b'T';
/// First byte of the message that says what failed.
pub const FAILED: u8 = b'E';

/// Where the process's streams come from.
pub enum Stdio {
    Pipes([OwnedFd; 3]),
    /// A terminal of the container's own, sent back over the report socket.
    Terminal,
}

/// What both kinds of children need.
pub struct Child<'a> {
    pub group: Group,
    pub stdio: Stdio,
    pub report: OwnedFd,
    pub process: &'a ProcessSpec,
}

/// A sentence for the user, from the innermost cause outwards.
pub type Result<T> = std::result::Result<T, String>;

/// Adds what was being done to an error.
pub trait Doing<T> {
    fn doing(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// Becomes a container's first process. `namespaces` are those of the pod to enter (never a process
/// namespace: the shim has cloned into the right one).
pub fn run_container(
    child: Child<'_>,
    spec: &ContainerSpec,
    namespaces: &[(OwnedFd, CloneFlags)],
    hierarchies: &Hierarchies,
    shm: Option<PathBuf>,
) -> ! {
    fail(child.report.as_fd(), container(&child, spec, namespaces, hierarchies, shm))
}

/// Becomes an additional process of the container whose first process is `target`.
pub fn run_exec(child: Child<'_>, target: &OwnedFd) -> ! {
    fail(child.report.as_fd(), additional(&child, target))
}

fn fail(report: BorrowedFd<'_>, result: Result<Infallible>) -> ! {
    let Err(message) = result;
    let mut bytes = vec![FAILED];
    bytes.extend_from_slice(message.as_bytes());
    let _ = socket::send(report, &bytes, &[]);
    process::exit_now(1)
}

fn container(
    child: &Child<'_>,
    spec: &ContainerSpec,
    namespaces: &[(OwnedFd, CloneFlags)],
    hierarchies: &Hierarchies,
    shm: Option<PathBuf>,
) -> Result<Infallible> {
    begin(child)?;
    for (namespace, kind) in namespaces {
        setns(namespace, *kind).doing("enter the pod's namespaces")?;
    }
    let cgroup = if spec.privileged { CloneFlags::empty() } else { CloneFlags::CLONE_NEWCGROUP };
    unshare(CloneFlags::CLONE_NEWNS | cgroup).doing("make the container's namespaces")?;
    let root = mounts::Root::prepare(spec, hierarchies, shm)?;
    root.enter(spec)?;
    streams(child, true)?;
    root.seal(spec)?;
    credentials::assume(child.process)?;
    exec::run(child.process)
}

fn additional(child: &Child<'_>, target: &OwnedFd) -> Result<Infallible> {
    begin(child)?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    setns(target, all).doing("enter the container's namespaces")?;
    streams(child, false)?;
    let cwd = child.process.cwd.as_str();
    nix::unistd::chdir(cwd).doing(format_args!("chdir to cwd ({cwd:?}) set in config.json failed"))?;
    credentials::assume(child.process)?;
    exec::run(child.process)
}

fn begin(child: &Child<'_>) -> Result<()> {
    nix::sys::prctl::set_dumpable(false).doing("protect the new process")?;
    process::default_signals();
    nix::unistd::setsid().doing("make a session")?;
    if let Some(score) = child.process.oom_score_adj {
        process::set_oom_score(score);
    }
    child.group.join().doing("enter the control group")
}

/// Connects descriptors 0 to 2.
fn streams(child: &Child<'_>, console: bool) -> Result<()> {
    let terminal = match &child.stdio {
        Stdio::Pipes([stdin, stdout, stderr]) => {
            return process::set_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
                .doing("connect the streams");
        }
        Stdio::Terminal => open_terminal(child.report.as_fd())?,
    };
    if console {
        mounts::bind_console(&terminal)?;
    }
    process::take_terminal(terminal.as_fd()).doing("take the terminal")?;
    process::set_stdio([terminal.as_fd(), terminal.as_fd(), terminal.as_fd()]).doing("connect the terminal")
}

fn open_terminal(report: BorrowedFd<'_>) -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, nix::sys::stat::Mode::empty()).doing("open a terminal")?;
    let terminal = process::terminal_slave(master.as_fd()).doing("open a terminal")?;
    socket::send(report, &[TERMINAL], &[master.as_fd()]).doing("hand the terminal out")?;
    Ok(terminal)
}
