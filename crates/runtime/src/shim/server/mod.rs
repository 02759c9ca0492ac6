//! The shim's one loop: wait for descriptors, do what is due, never block on anybody.

mod children;
mod requests;

use crate::cgroup::Hierarchies;
use crate::images::write_file;
use crate::kernel::{mount, process};
use crate::shim::attachment::Attachment;
use crate::shim::connection::Connection;
use crate::shim::container::Container;
use crate::shim::launch::Launch;
use crate::shim::log::Stream;
use crate::shim::pause;
use crate::shim::protocol::Answer;
use crate::shim::spec::{CONTAINERS, ContainerSpec, SANDBOX_FILE, SHM_FOLDER, SOCKET, SandboxSpec};
use krate_base::Clock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Connections at a time; a pod has a handful.
const MAX_CONNECTIONS: usize = 256;

/// Why a child is being launched.
enum Purpose {
    Container(Box<ContainerSpec>),
    Exec { tty: bool },
}

struct Pending {
    launch: Launch,
    purpose: Purpose,
    connection: u64,
}

/// What became ready.
#[derive(Clone, Debug)]
enum Token {
    Signals,
    Listener,
    Connection(u64),
    Launch(i32),
    Output(String, Stream),
    Input(String),
    ClientInput(String, u64),
    ClientOutput(String),
}

pub struct Server {
    folder: PathBuf,
    spec: SandboxSpec,
    hierarchies: Hierarchies,
    clock: Clock,
    listener: UnixListener,
    signals: SignalFd,
    pause: i32,
    containers: BTreeMap<String, Container>,
    launches: Vec<Pending>,
    /// Additional processes by pid, with the connection that waits for their code.
    execs: BTreeMap<i32, u64>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Attachments whose container has ended but whose output is not through.
    leaving: Vec<Attachment>,
    shutdown: Option<u64>,
    done: bool,
}

type Fallible<T> = std::result::Result<T, String>;

impl Server {
    pub fn start(folder: &Path) -> Fallible<Self> {
        let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        if process::threads().map_err(failed("count threads"))? != 1 {
            return Err("a shim must have one thread: it was not started first".into());
        }
        std::env::set_current_dir(folder).map_err(failed("enter the sandbox's folder"))?;
        let spec: SandboxSpec = read_json(Path::new(SANDBOX_FILE))?;
        let _ = nix::unistd::setsid();
        nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("become a reaper: {error}"))?;
        let signals = block_signals().map_err(|error| format!("listen for signals: {error}"))?;
        let hierarchies = Hierarchies::detect().map_err(failed("find the control groups"))?;
        let own = hierarchies.group(&spec.shim_cgroup);
        own.create().and_then(|()| own.join()).map_err(failed("enter the shim's control group"))?;
        if !spec.host_ipc {
            mount_shm().map_err(failed("mount the pod's shared memory"))?;
        }
        let pause = pause::start(&spec, &hierarchies)?;
        let _ = std::fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).map_err(failed("listen"))?;
        std::fs::set_permissions(SOCKET, PermissionsExt::from_mode(0o600))
            .map_err(failed("guard the socket"))?;
        listener.set_nonblocking(true).map_err(failed("listen"))?;
        let folder = std::env::current_dir().map_err(failed("find the sandbox's folder"))?;
        Ok(Self {
            folder,
            spec,
            hierarchies,
            clock: Clock::system(),
            listener,
            signals,
            pause,
            containers: BTreeMap::new(),
            launches: Vec::new(),
            execs: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            leaving: Vec::new(),
            shutdown: None,
            done: false,
        })
    }

    pub fn pause(&self) -> i32 {
        self.pause
    }

    pub fn run(&mut self) -> Fallible<()> {
        while !self.done {
            for (token, events) in self.wait()? {
                self.dispatch(&token, events);
            }
            self.finish_shutdown();
        }
        if !self.spec.host_ipc {
            let _ = nix::mount::umount2(SHM_FOLDER, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = std::fs::remove_file(SOCKET);
        Ok(())
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// Waits until something is ready. Launches come before signals: a child's last word is heard before
    /// its end is dealt with.
    fn wait(&self) -> Fallible<Vec<(Token, PollFlags)>> {
        let mut waits: Vec<(Token, PollFd<'_>)> = Vec::new();
        let mut on = |token: Token, fd, events| waits.push((token, PollFd::new(fd, events)));
        for pending in &self.launches {
            on(Token::Launch(pending.launch.pid), pending.launch.report.as_fd(), PollFlags::POLLIN);
        }
        on(Token::Signals, self.signals.as_fd(), PollFlags::POLLIN);
        if self.connections.len() < MAX_CONNECTIONS {
            on(Token::Listener, self.listener.as_fd(), PollFlags::POLLIN);
        }
        for (id, connection) in &self.connections {
            let write = if connection.wants_to_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
            on(Token::Connection(*id), connection.stream.as_fd(), PollFlags::POLLIN | write);
        }
        for (id, container) in &self.containers {
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(fd) = container.output(stream) {
                    on(Token::Output(id.clone(), stream), fd.as_fd(), PollFlags::POLLIN);
                }
            }
            if let Some(fd) = container.blocked_input() {
                on(Token::Input(id.clone()), fd.as_fd(), PollFlags::POLLOUT);
            }
            for attachment in &container.attachments {
                for fd in attachment.waiting() {
                    on(Token::ClientOutput(id.clone()), fd.as_fd(), PollFlags::POLLOUT);
                }
                if let Some(fd) = attachment.stdin.as_ref().filter(|_| container.takes_input()) {
                    on(Token::ClientInput(id.clone(), attachment.connection), fd.as_fd(), PollFlags::POLLIN);
                }
            }
        }
        for fd in self.leaving.iter().flat_map(Attachment::waiting) {
            on(Token::ClientOutput(String::new()), fd.as_fd(), PollFlags::POLLOUT);
        }
        let (tokens, mut fds): (Vec<Token>, Vec<PollFd<'_>>) = waits.into_iter().unzip();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("poll: {error}")),
        }
        let ready = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Ok(tokens.into_iter().zip(ready).filter(|(_, events)| !events.is_empty()).collect())
    }

    fn dispatch(&mut self, token: &Token, events: PollFlags) {
        match token {
            Token::Signals => self.reap(),
            Token::Listener => self.accept(),
            Token::Connection(id) => self.serve(*id, events),
            Token::Launch(pid) => self.hear(*pid),
            Token::Output(id, stream) => {
                let now = self.now();
                let gone =
                    self.containers.get_mut(id).map(|c| c.drain(*stream, now, false)).unwrap_or_default();
                gone.into_iter().for_each(|connection| self.drop_connection(connection));
            }
            Token::Input(id) => {
                if let Some(container) = self.containers.get_mut(id) {
                    container.write_input();
                }
            }
            Token::ClientInput(id, connection) => {
                if let Some(container) = self.containers.get_mut(id)
                    && let Some(index) =
                        container.attachments.iter().position(|a| a.connection == *connection)
                {
                    container.read_input(index);
                }
            }
            Token::ClientOutput(id) => self.flush_clients(id),
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let allowed = getsockopt(&stream, PeerCredentials)
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw());
        if let Some(connection) = allowed.then(|| Connection::new(stream).ok()).flatten() {
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    fn serve(&mut self, id: u64, events: PollFlags) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut result = Ok(());
        if events.contains(PollFlags::POLLOUT) {
            result = connection.write();
        }
        if events.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            match connection.read() {
                Ok(requests) => {
                    for request in requests {
                        let fds = self
                            .connections
                            .get_mut(&id)
                            .map(|c| std::mem::take(&mut c.fds))
                            .unwrap_or_default();
                        self.request(id, request, fds);
                    }
                }
                Err(error) => result = Err(error),
            }
        }
        if result.is_err() {
            self.drop_connection(id);
        }
    }

    /// The client is gone: its exec is killed, its attachment forgotten.
    fn drop_connection(&mut self, id: u64) {
        self.connections.remove(&id);
        for (pid, _) in self.execs.iter().filter(|(_, connection)| **connection == id) {
            kill_session(*pid);
        }
        for pending in
            self.launches.iter().filter(|p| p.connection == id && matches!(p.purpose, Purpose::Exec { .. }))
        {
            kill_session(pending.launch.pid);
        }
        self.leaving.retain(|attachment| attachment.connection != id);
        for container in self.containers.values_mut() {
            let before = container.attachments.len();
            let input = container.attachments.iter().any(|a| a.connection == id && a.stdin.is_some());
            container.attachments.retain(|attachment| attachment.connection != id);
            if input && container.attachments.len() < before {
                container.client_input_ended();
            }
        }
    }

    fn answer(&mut self, id: u64, answer: &Answer, fds: Vec<OwnedFd>) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.answer(answer, fds).is_err()
        {
            self.drop_connection(id);
        }
    }

    fn tell_watchers(&mut self, answer: &Answer) {
        let watching: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.watching).map(|(id, _)| *id).collect();
        watching.into_iter().for_each(|connection| self.answer(connection, answer, Vec::new()));
    }

    /// Sends what attached clients are behind with; those of an ended container get its code at the end.
    fn flush_clients(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id) {
            let mut gone = Vec::new();
            for attachment in &mut container.attachments {
                gone.extend(attachment.flush().is_err().then_some(attachment.connection));
            }
            gone.into_iter().for_each(|connection| self.drop_connection(connection));
        }
        let mut through = Vec::new();
        self.leaving.retain_mut(|attachment| {
            let stays = attachment.flush().is_ok() && attachment.waiting().next().is_some();
            if !stays {
                through.push((attachment.connection, attachment.ended.unwrap_or_default()));
            }
            stays
        });
        for (connection, code) in through {
            self.answer(connection, &Answer::Exit { code }, Vec::new());
        }
    }

    fn container_folder(&self, id: &str) -> PathBuf {
        // Ids are made by the runtime, but a name must never leave the folder.
        self.folder.join(CONTAINERS).join(id.replace('/', "_"))
    }

    fn record<T: serde::Serialize>(&self, id: &str, file: &str, value: &T) {
        let path = self.container_folder(id).join(file);
        let written = serde_json::to_vec(value)
            .map_err(io::Error::other)
            .and_then(|json| write_file(&path, &json, false));
        if let Err(error) = written {
            eprintln!("shim: write {}: {error}", path.display());
        }
    }
}

/// An exec's process leads a session and so a process group.
fn kill_session(pid: i32) {
    let _ = kill(Pid::from_raw(-pid), Signal::SIGKILL);
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

fn block_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block()?;
    // A terminal or a stopping init must not take the shim along: it ends when its pod does.
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
        let mut ignored = SigSet::empty();
        ignored.add(signal);
        ignored.thread_block()?;
    }
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn mount_shm() -> io::Result<()> {
    std::fs::create_dir_all(SHM_FOLDER)?;
    let attributes = mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;
    let shm = mount::new_mount("tmpfs", &[("mode", Some("1777")), ("size", Some("65536k"))], attributes)?;
    mount::attach(shm.as_fd(), File::open(SHM_FOLDER)?.as_fd())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Fallible<T> {
    let bytes = std::fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("read {}: {error}", path.display()))
}
