//! Exec, attach and port-forward: byte streams between a caller and a container.
//!
//! An exec's streams are pipes (or a terminal) straight from the caller to the process; no byte of it goes
//! through the shim. An attached caller gets a copy of what the shim logs.

use super::EmbeddedRuntime;
use super::client::{Call, call};
use super::state::{ContainerEntry, SandboxEntry};
use crate::cri::{
    ContainerState, Duplex, Error, ExecSyncResponse, PodSandboxState, Result, Session, StreamFlags, Streams,
};
use crate::kernel::process;
use crate::shim::protocol::{Answer, Request};
use crate::shim::spec::{CONTAINER_FILE, ContainerSpec, ProcessSpec};
use async_trait::async_trait;
use nix::fcntl::OFlag;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Most that is kept of each output of an `exec_sync`.
const MAX_OUTPUT: usize = 16 << 20;
/// Terminal sizes that may wait; only the last counts.
const RESIZE_QUEUE: usize = 8;
const PIPE_BUFFER: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[async_trait]
impl Streams for EmbeddedRuntime {
    async fn exec(&self, container: &str, cmd: &[String], flags: StreamFlags) -> Result<Session> {
        let (call, ends) = self.begin_exec(container, cmd, flags).await?;
        Ok(session(call, ends))
    }

    async fn attach(&self, container: &str, flags: StreamFlags) -> Result<Session> {
        let entry = self.running(container)?;
        let sandbox = self.sandbox(&entry.sandbox())?;
        let config = entry.record.lock().config.clone();
        let flags = StreamFlags {
            stdin: flags.stdin && config.stdin,
            stderr: flags.stderr && !config.tty,
            tty: config.tty,
            ..flags
        };
        let (ends, theirs) = pipes(flags)?;
        let mut call = Call::connect(&sandbox.folder).await?;
        let StreamFlags { stdin, stdout, stderr, .. } = flags;
        let borrowed: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        call.send(&Request::Attach { container: container.to_owned(), stdin, stdout, stderr }, &borrowed)
            .await?;
        drop(theirs);
        call.receive().await?;
        let mut session = session(call, ends);
        if config.tty {
            session.resize = Some(forward_sizes(sandbox.folder.clone(), container.to_owned()));
        }
        Ok(session)
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let entry = self.sandbox(sandbox)?;
        if entry.state() != PodSandboxState::Ready {
            return Err(Error::FailedPrecondition(format!("sandbox container {sandbox:?} is not running")));
        }
        let stream = connect_inside(&entry, port).await?;
        let failed = |error: io::Error| Error::io("hold the connection", error);
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Box::new(tokio::net::TcpStream::from_std(stream).map_err(failed)?))
    }
}

/// Our ends of the streams.
#[derive(Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl EmbeddedRuntime {
    fn running(&self, id: &str) -> Result<Arc<ContainerEntry>> {
        let entry = self.container(id)?;
        match entry.state() {
            ContainerState::Running => Ok(entry),
            state => Err(Error::FailedPrecondition(format!("container is in {} state", spelled(state)))),
        }
    }

    /// Starts a command in a container. The call ends with its exit code.
    async fn begin_exec(&self, id: &str, cmd: &[String], flags: StreamFlags) -> Result<(Call, Ends)> {
        let entry = self.running(id)?;
        let sandbox = self.sandbox(&entry.sandbox())?;
        let process = Box::new(process_of(&entry, cmd, flags.tty)?);
        let (mut ends, theirs) = if flags.tty { Default::default() } else { pipes(flags)? };
        let StreamFlags { stdin, stdout, stderr, tty } = flags;
        let request = Request::Exec { container: id.to_owned(), process, tty, stdin, stdout, stderr };
        let mut call = Call::connect(&sandbox.folder).await?;
        let borrowed: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        call.send(&request, &borrowed).await?;
        drop(theirs);
        let answer = call.receive().await.map_err(|error| match error {
            Error::StartFailed(message) => {
                Error::StartFailed(format!("failed to exec in container: failed to start exec: {message}"))
            }
            error => error,
        })?;
        if !matches!(answer, Answer::Started(_)) {
            return Err(Error::Internal(format!("the shim answered {answer:?}")));
        }
        ends.terminal = call.fds.pop();
        Ok((call, ends))
    }

    pub(super) async fn run_and_collect(
        &self,
        id: &str,
        cmd: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        let flags = StreamFlags { stdin: false, stdout: true, stderr: true, tty: false };
        let run = async {
            let (call, ends) = self.begin_exec(id, cmd, flags).await?;
            collect(call, ends).await
        };
        if timeout.is_zero() {
            return run.await;
        }
        // Dropping the call makes the shim kill the process.
        tokio::time::timeout(timeout, run).await.unwrap_or_else(|_| {
            let text = format!(
                "failed to exec in container: timeout {timeout:?} exceeded: context deadline exceeded"
            );
            Err(Error::DeadlineExceeded(text))
        })
    }
}

/// What the container's process is, but with another command.
fn process_of(entry: &ContainerEntry, cmd: &[String], tty: bool) -> Result<ProcessSpec> {
    if cmd.is_empty() {
        return Err(Error::InvalidArgument("no command specified".into()));
    }
    let spec: ContainerSpec = super::state::load(&entry.folder.join(CONTAINER_FILE))
        .ok_or_else(|| Error::Internal("the container's description is gone".into()))?;
    let mut process = ProcessSpec { args: cmd.to_vec(), ..spec.process };
    if tty && !process.env.iter().any(|variable| variable.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    Ok(process)
}

/// Reads both outputs until the process ends, and then what is still in the pipes. A child that it left
/// behind may hold them open for ever.
async fn collect(call: Call, ends: Ends) -> Result<ExecSyncResponse> {
    let failed = |error: io::Error| Error::io("read the command's output", error);
    let reader = |fd: Option<OwnedFd>| fd.map(pipe::Receiver::from_owned_fd).transpose().map_err(failed);
    let (stdout, stderr) = (reader(ends.stdout)?, reader(ends.stderr)?);
    let (mut out, mut err) = (Output::new(stdout), Output::new(stderr));
    let exit = call.exit_code();
    tokio::pin!(exit);
    let code = loop {
        tokio::select! {
            code = &mut exit => break code?,
            () = out.more() => {}
            () = err.more() => {}
        }
    };
    out.last();
    err.last();
    Ok(ExecSyncResponse { stdout: out.bytes, stderr: err.bytes, exit_code: code })
}

struct Output {
    pipe: Option<pipe::Receiver>,
    bytes: Vec<u8>,
}

impl Output {
    fn new(pipe: Option<pipe::Receiver>) -> Self {
        Self { pipe, bytes: Vec::new() }
    }

    /// Waits for output and takes it; for ever after the end.
    async fn more(&mut self) {
        if let Some(pipe) = &self.pipe
            && pipe.readable().await.is_ok()
        {
            self.rest();
            return;
        }
        std::future::pending().await
    }

    /// Takes what is known to be there.
    fn rest(&mut self) {
        let mut buffer = vec![0; PIPE_BUFFER];
        while let Some(pipe) = &self.pipe {
            match pipe.try_read(&mut buffer) {
                Ok(n) if n > 0 => self.keep(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.pipe = None,
            }
        }
    }

    /// After the exit: asks the kernel itself, because the async runtime may not have heard yet.
    fn last(&mut self) {
        let mut buffer = vec![0; PIPE_BUFFER];
        while let Some(pipe) = &self.pipe {
            match nix::unistd::read(pipe, &mut buffer) {
                Ok(n) if n > 0 => self.keep(&buffer[..n]),
                Err(nix::errno::Errno::EINTR) => {}
                _ => return,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Pipes for the wanted streams: our ends, and theirs in the order in which they are sent.
fn pipes(flags: StreamFlags) -> Result<(Ends, Vec<OwnedFd>)> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| Error::io("make a pipe", error));
    let (mut ends, mut theirs) = (Ends::default(), Vec::new());
    if flags.stdin {
        let (read, write) = pipe()?;
        ends.stdin = Some(write);
        theirs.push(read);
    }
    if flags.stdout {
        let (read, write) = pipe()?;
        ends.stdout = Some(read);
        theirs.push(write);
    }
    if flags.stderr {
        let (read, write) = pipe()?;
        ends.stderr = Some(read);
        theirs.push(write);
    }
    Ok((ends, theirs))
}

fn session(call: Call, ends: Ends) -> Session {
    let mut session = Session {
        stdin: ends.stdin.and_then(|fd| Some(Box::new(pipe::Sender::from_owned_fd(fd).ok()?) as Box<_>)),
        stdout: ends.stdout.and_then(|fd| Some(Box::new(pipe::Receiver::from_owned_fd(fd).ok()?) as Box<_>)),
        stderr: ends.stderr.and_then(|fd| Some(Box::new(pipe::Receiver::from_owned_fd(fd).ok()?) as Box<_>)),
        resize: None,
        exit: Box::pin(call.exit_code()),
    };
    if let Some(terminal) = ends.terminal.and_then(|fd| Terminal::new(fd).ok()) {
        let terminal = Arc::new(terminal);
        session.stdin = Some(Box::new(TerminalEnd(terminal.clone())));
        session.stdout = Some(Box::new(TerminalEnd(terminal.clone())));
        session.resize = Some(follow_sizes(terminal));
    }
    session
}

/// Applies terminal sizes as they come.
fn follow_sizes(terminal: Arc<Terminal>) -> mpsc::Sender<(u16, u16)> {
    let (sender, mut sizes) = mpsc::channel(RESIZE_QUEUE);
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            let _ = process::resize_terminal(terminal.0.get_ref().as_fd(), columns, rows);
        }
    });
    sender
}

fn forward_sizes(folder: PathBuf, container: String) -> mpsc::Sender<(u16, u16)> {
    let (sender, mut sizes) = mpsc::channel(RESIZE_QUEUE);
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            let _ = call(&folder, &Request::Resize { container: container.clone(), columns, rows }).await;
        }
    });
    sender
}

/// The master side of a terminal.
struct Terminal(AsyncFd<OwnedFd>);

/// One direction of it.
struct TerminalEnd(Arc<Terminal>);

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        use nix::fcntl::{FcntlArg, fcntl};
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(process::watch(fd)?))
    }
}

impl AsyncRead for TerminalEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.0.poll_read_ready(context))?;
            let mut bytes = vec![0; buffer.remaining().min(PIPE_BUFFER)];
            match guard.try_io(|fd| Ok(nix::unistd::read(fd, &mut bytes)?)) {
                Ok(Ok(n)) => {
                    buffer.put_slice(&bytes[..n]);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other side open any more: the end.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for TerminalEnd {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.0.poll_write_ready(context))?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd, bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Connects from inside the sandbox's network, on a thread of its own: a socket belongs to the namespace of
/// the thread that makes it, and a thread that has been there is not used for anything else.
async fn connect_inside(entry: &Arc<SandboxEntry>, port: u16) -> Result<TcpStream> {
    let netns = entry.netns();
    let (sender, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("port-forward".into()).spawn(move || {
        let connect = || -> io::Result<TcpStream> {
            nix::sched::setns(File::open(&netns)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
            TcpStream::connect_timeout(&v4, CONNECT_TIMEOUT)
                .or_else(|first| TcpStream::connect_timeout(&v6, CONNECT_TIMEOUT).map_err(|_| first))
        };
        let _ = sender.send(connect());
    });
    thread.map_err(|error| Error::io("start a thread", error))?;
    let connected = result.await.map_err(|error| Error::io("connect", error))?;
    connected.map_err(|error| {
        let why = if error.kind() == io::ErrorKind::ConnectionRefused {
            "connection refused".to_owned()
        } else {
            error.to_string()
        };
        let inside =
            format!("failed to connect to localhost:{port} inside namespace {:?}", entry.record.lock().id);
        Error::Unavailable(format!("{inside}, IPv4: dial tcp4 127.0.0.1:{port}: connect: {why}"))
    })
}

fn spelled(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "CONTAINER_CREATED",
        ContainerState::Running => "CONTAINER_RUNNING",
        ContainerState::Exited => "CONTAINER_EXITED",
        ContainerState::Unknown => "CONTAINER_UNKNOWN",
    }
}
