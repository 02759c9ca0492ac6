//! Somebody who watches a container's streams, and may write to its input.

use super::log::Stream;
use nix::errno::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// Output that an attached client may be behind with. One that is slower is let go: a container is never
/// held up by who looks at it.
const MAX_BEHIND: usize = 4 << 20;

/// One output stream of an attachment.
struct Sink {
    fd: OwnedFd,
    pending: Vec<u8>,
}

pub struct Attachment {
    pub connection: u64,
    pub stdin: Option<OwnedFd>,
    stdout: Option<Sink>,
    stderr: Option<Sink>,
    /// The container's exit code, to be told when all output is through.
    pub ended: Option<i32>,
}

impl Attachment {
    pub fn new(
        connection: u64,
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> nix::Result<Self> {
        let sink = |fd: OwnedFd| -> nix::Result<Sink> {
            nonblocking(&fd)?;
            Ok(Sink { fd, pending: Vec::new() })
        };
        if let Some(stdin) = &stdin {
            nonblocking(stdin)?;
        }
        let (stdout, stderr) = (stdout.map(sink).transpose()?, stderr.map(sink).transpose()?);
        Ok(Self { connection, stdin, stdout, stderr, ended: None })
    }

    /// Passes output on. `false` when the client is gone or too slow.
    pub fn push(&mut self, bytes: &[u8], stream: Stream) -> bool {
        let sink = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(sink) = sink else { return true };
        sink.pending.extend_from_slice(bytes);
        sink.flush().is_ok() && sink.pending.len() <= MAX_BEHIND
    }

    /// Streams that have something left to write, as descriptors to wait for.
    pub fn waiting(&self) -> impl Iterator<Item = &OwnedFd> {
        let sinks = self.stdout.iter().chain(&self.stderr);
        sinks.filter(|sink| !sink.pending.is_empty()).map(|sink| &sink.fd)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.stdout.iter_mut().chain(&mut self.stderr).try_for_each(Sink::flush)
    }
}

impl Sink {
    fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match nix::unistd::write(&self.fd, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

pub fn nonblocking(fd: &OwnedFd) -> nix::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}
