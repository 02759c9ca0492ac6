//! The shim's one loop: wait for descriptors, do what is due, never block on anybody.

use super::attachment::Attachment;
use super::connection::Connection;
use super::container::Container;
use super::launch::{self, Launch, Pod, Report};
use super::log::Stream;
use super::pause;
use super::protocol::{Answer, Failure, Request};
use super::spec::{
    CONTAINER_FILE, CONTAINERS, ContainerSpec, EXITED_FILE, Exited, PidNamespace, ProcessSpec, SANDBOX_FILE,
    SHM_FOLDER, SOCKET, STARTED_FILE, SandboxSpec, Started,
};
use crate::cgroup::Hierarchies;
use crate::images::write_file;
use crate::kernel::{mount, process};
use krate_base::Clock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
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

    fn request(&mut self, id: u64, request: Request, fds: Vec<OwnedFd>) {
        let result = match request {
            Request::Start { container } => self.start_container(id, &container).map(|()| None),
            Request::Exec { container, process, tty, stdin, stdout, stderr } => {
                self.exec(id, &container, &process, tty, [stdin, stdout, stderr], fds).map(|()| None)
            }
            Request::Attach { container, stdin, stdout, stderr } => {
                self.attach(id, &container, [stdin, stdout, stderr], fds).map(|()| None)
            }
            Request::Signal { container, signal, all } => self.signal(&container, signal, all).map(Some),
            Request::Resize { container, columns, rows } => self.resize(&container, columns, rows).map(Some),
            Request::ReopenLog { container } => self.running(&container).and_then(|container| {
                container
                    .reopen_log()
                    .map_err(|error| (Failure::Internal, format!("reopen the log: {error}")))?;
                Ok(Some(Answer::Done))
            }),
            Request::State => {
                let running = self.containers.iter().map(|(id, c)| (id.clone(), c.pid)).collect();
                Ok(Some(Answer::State { pause: self.pause, running }))
            }
            Request::Watch => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.watching = true;
                }
                Ok(Some(Answer::Done))
            }
            Request::Shutdown => {
                self.shutdown = Some(id);
                self.kill_all();
                Ok(None)
            }
        };
        match result {
            Ok(Some(answer)) => self.answer(id, &answer, Vec::new()),
            Ok(None) => {}
            Err((kind, message)) => self.answer(id, &Answer::Failed { kind, message }, Vec::new()),
        }
    }

    fn running(&mut self, id: &str) -> Result<&mut Container, (Failure, String)> {
        let not_running = || (Failure::NotRunning, format!("container {id:?} is not running"));
        self.containers.get_mut(id).ok_or_else(not_running)
    }

    fn start_container(&mut self, connection: u64, id: &str) -> Result<(), (Failure, String)> {
        let known = |p: &Pending| matches!(&p.purpose, Purpose::Container(spec) if spec.id == id);
        if self.shutdown.is_some() || self.containers.contains_key(id) || self.launches.iter().any(known) {
            return Err((Failure::Internal, format!("container {id:?} cannot be started now")));
        }
        let path = self.container_folder(id).join(CONTAINER_FILE);
        let spec: ContainerSpec = read_json(&path).map_err(|error| (Failure::Internal, error))?;
        let target = match spec.pid {
            PidNamespace::Own | PidNamespace::Node => None,
            PidNamespace::Pod => Some(self.pause),
            PidNamespace::Target => Some(self.running(&spec.pid_target)?.pid),
        };
        let pod = Pod {
            hierarchies: &self.hierarchies,
            pause: self.pause,
            host_network: self.spec.host_network,
            host_ipc: self.spec.host_ipc,
            shm: Some(if self.spec.host_ipc {
                PathBuf::from("/dev/shm")
            } else {
                self.folder.join(SHM_FOLDER)
            }),
        };
        match launch::container(&spec, &self.hierarchies.group(&spec.cgroup), &pod, target) {
            Ok(launch) => {
                self.launches.push(Pending {
                    launch,
                    purpose: Purpose::Container(Box::new(spec)),
                    connection,
                });
            }
            Err(error) => {
                self.never_ran(connection, id, format!("unable to start container process: {error}"))
            }
        }
        Ok(())
    }

    fn exec(
        &mut self,
        connection: u64,
        id: &str,
        process: &ProcessSpec,
        tty: bool,
        wanted: [bool; 3],
        fds: Vec<OwnedFd>,
    ) -> Result<(), (Failure, String)> {
        let (pid, group) = self.running(id).map(|container| (container.pid, container.group.clone()))?;
        let streams = if tty { None } else { Some(three(wanted, fds)?) };
        let launch = launch::exec(process, &group, pid, streams).map_err(|error| (Failure::Start, error))?;
        self.launches.push(Pending { launch, purpose: Purpose::Exec { tty }, connection });
        Ok(())
    }

    fn attach(
        &mut self,
        id: u64,
        name: &str,
        wanted: [bool; 3],
        fds: Vec<OwnedFd>,
    ) -> Result<(), (Failure, String)> {
        let mut fds = fds.into_iter();
        let [stdin, stdout, stderr] = wanted.map(|wanted| if wanted { fds.next() } else { None });
        let container = self.running(name)?;
        let stdin = stdin.filter(|_| container.spec.stdin);
        let attachment = Attachment::new(id, stdin, stdout, stderr)
            .map_err(|error| (Failure::Internal, format!("attach: {error}")))?;
        container.attachments.push(attachment);
        self.answer(id, &Answer::Done, Vec::new());
        Ok(())
    }

    fn signal(&mut self, id: &str, signal: i32, all: bool) -> Result<Answer, (Failure, String)> {
        let container = self.running(id)?;
        let signal =
            Signal::try_from(signal).map_err(|_| (Failure::Internal, format!("no signal {signal}")))?;
        if all && signal == Signal::SIGKILL {
            container.group.kill();
        }
        match kill(Pid::from_raw(container.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(Answer::Done),
            Err(error) => Err((Failure::Internal, format!("send {signal}: {error}"))),
        }
    }

    fn resize(&mut self, id: &str, columns: u16, rows: u16) -> Result<Answer, (Failure, String)> {
        if let Some(terminal) = &self.running(id)?.terminal {
            process::resize_terminal(terminal.as_fd(), columns, rows)
                .map_err(|error| (Failure::Internal, format!("resize the terminal: {error}")))?;
        }
        Ok(Answer::Done)
    }

    /// A launched child has spoken, or has become its program.
    fn hear(&mut self, pid: i32) {
        let Some(index) = self.launches.iter().position(|pending| pending.launch.pid == pid) else { return };
        let report = self.launches[index].launch.hear();
        if matches!(report, Report::Nothing) {
            return;
        }
        let Pending { launch, purpose, connection } = self.launches.swap_remove(index);
        if matches!(report, Report::Failed(_)) {
            // It is about to exit; once it is gone its control group can be removed at once.
            kill_session(pid);
            let _ = waitpid(Pid::from_raw(pid), None);
        }
        match (report, purpose) {
            (Report::Failed(message), Purpose::Container(spec)) => {
                let what = "unable to start container process: error during container init";
                self.never_ran(connection, &spec.id, format!("{what}: {message}"));
            }
            (Report::Failed(message), Purpose::Exec { .. }) => {
                let message = format!("unable to start container process: {message}");
                self.answer(connection, &Answer::Failed { kind: Failure::Start, message }, Vec::new());
            }
            (_, Purpose::Container(spec)) => self.container_runs(*spec, launch, connection),
            (_, Purpose::Exec { tty }) => {
                let terminal: Vec<OwnedFd> = launch.ends.terminal.into_iter().filter(|_| tty).collect();
                self.execs.insert(pid, connection);
                let started = Started { pid, at: self.now() };
                self.answer(connection, &Answer::Started(started), terminal);
                if !self.connections.contains_key(&connection) {
                    kill_session(pid);
                }
            }
        }
    }

    fn container_runs(&mut self, spec: ContainerSpec, launch: Launch, connection: u64) {
        let id = spec.id.clone();
        let started = Started { pid: launch.pid, at: self.now() };
        let group = self.hierarchies.group(&spec.cgroup);
        let container = match Container::new(spec, launch.pid, group, launch.ends) {
            Ok(container) => container,
            Err(error) => {
                kill_session(launch.pid);
                let message = format!("hold the container's streams: {error}");
                return self.answer(
                    connection,
                    &Answer::Failed { kind: Failure::Internal, message },
                    Vec::new(),
                );
            }
        };
        self.record(&id, STARTED_FILE, &started);
        self.containers.insert(id.clone(), container);
        self.tell_watchers(&Answer::Running { container: id, started });
        self.answer(connection, &Answer::Started(started), Vec::new());
    }

    /// Every child that has ended.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Err(Errno::EINTR) => continue,
                _ => return,
            };
            self.hear(pid);
            if pid == self.pause {
                // The pod's namespaces are gone; nothing of it can go on.
                self.kill_all();
                self.pause = 0;
            } else if let Some(connection) = self.execs.remove(&pid) {
                self.answer(connection, &Answer::Exit { code }, Vec::new());
            } else if let Some(id) =
                self.containers.iter().find(|(_, c)| c.pid == pid).map(|(id, _)| id.clone())
            {
                self.container_ended(&id, code);
            }
        }
    }

    fn container_ended(&mut self, id: &str, code: i32) {
        let now = self.now();
        let Some(mut container) = self.containers.remove(id) else { return };
        if container.spec.pid != PidNamespace::Own {
            container.group.kill();
        }
        container.finish(now);
        let oom_killed = code != 0 && container.group.oom_kills() > 0;
        let exited = Exited { code, oom_killed, at: now, ..Exited::default() };
        self.record(id, EXITED_FILE, &exited);
        for mut attachment in std::mem::take(&mut container.attachments) {
            attachment.ended = Some(code);
            self.leaving.push(attachment);
        }
        self.tell_watchers(&Answer::Event { container: id.to_owned(), exited });
        self.flush_clients("");
    }

    /// Recorded here too, because who asked may be gone.
    fn never_ran(&mut self, connection: u64, id: &str, message: String) {
        let exited = Exited::not_started(&message, self.now());
        self.record(id, EXITED_FILE, &exited);
        self.answer(connection, &Answer::Failed { kind: Failure::Start, message }, Vec::new());
        self.tell_watchers(&Answer::Event { container: id.to_owned(), exited });
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

    fn kill_all(&mut self) {
        for container in self.containers.values() {
            container.group.kill();
            let _ = kill(Pid::from_raw(container.pid), Signal::SIGKILL);
        }
        for pending in &self.launches {
            kill_session(pending.launch.pid);
        }
    }

    fn finish_shutdown(&mut self) {
        if !self.containers.is_empty() || !self.launches.is_empty() {
            return;
        }
        let Some(connection) = self.shutdown else {
            self.done = self.pause == 0;
            return;
        };
        if self.pause != 0 {
            let _ = kill(Pid::from_raw(self.pause), Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(self.pause), None);
            self.pause = 0;
        }
        self.answer(connection, &Answer::Done, Vec::new());
        self.done = true;
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

fn three(wanted: [bool; 3], fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3], (Failure, String)> {
    let mut fds = fds.into_iter();
    let mut next = |wanted: bool| -> io::Result<OwnedFd> {
        let given = if wanted { fds.next() } else { None };
        given.map_or_else(|| File::options().read(true).write(true).open("/dev/null").map(Into::into), Ok)
    };
    let [stdin, stdout, stderr] = wanted;
    let streams = (|| Ok([next(stdin)?, next(stdout)?, next(stderr)?]))();
    streams.map_err(|error: io::Error| (Failure::Internal, format!("open /dev/null: {error}")))
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
