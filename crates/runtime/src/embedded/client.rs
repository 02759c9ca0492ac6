//! The runtime's side of the talk with shims.

use crate::cri::{Error, Result};
use crate::kernel::socket;
use crate::shim::protocol::{Answer, Failure, Request, encode, take_frame};
use crate::shim::spec::SOCKET;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::net::UnixStream;

const READ_BUFFER: usize = 64 << 10;

/// One call, and what may follow it.
pub struct Call {
    stream: UnixStream,
    input: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Call {
    /// Connects to the shim of the sandbox in `folder`; `Unavailable` when none listens.
    pub async fn connect(folder: &Path) -> Result<Self> {
        let gone =
            |error: io::Error| Error::Unavailable(format!("the sandbox's shim does not answer: {error}"));
        // A socket's path is short by law; this one goes through the open folder.
        let held = File::open(folder).map_err(gone)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd());
        let stream = UnixStream::connect(path).await.map_err(gone)?;
        Ok(Self { stream, input: Vec::new(), fds: Vec::new() })
    }

    pub async fn send(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let frame = encode(request).map_err(|error| Error::io("encode a request", error))?;
        let (mut sent, mut fds) = (0, fds);
        while sent < frame.len() {
            let write = || socket::send(self.stream.as_fd(), &frame[sent..], fds);
            sent += self.stream.async_io(Interest::WRITABLE, write).await.map_err(lost)?;
            fds = &[];
        }
        Ok(())
    }

    /// The next answer. A failure that the shim tells is an error here.
    pub async fn receive(&mut self) -> Result<Answer> {
        loop {
            let frame = take_frame(&mut self.input).map_err(|error| Error::io("hear the shim", error))?;
            if let Some(body) = frame {
                let answer =
                    serde_json::from_slice(&body).map_err(|error| Error::io("hear the shim", error))?;
                return match answer {
                    Answer::Failed { kind, message } => Err(failure(kind, message)),
                    answer => Ok(answer),
                };
            }
            let mut buffer = vec![0; READ_BUFFER];
            let mut received = Vec::new();
            let read = || socket::receive(self.stream.as_fd(), &mut buffer, &mut received);
            let n = self.stream.async_io(Interest::READABLE, read).await.map_err(lost)?;
            self.fds.extend(received);
            if n == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
            self.input.extend_from_slice(&buffer[..n]);
        }
    }

    /// Until the exit code comes.
    pub async fn exit_code(mut self) -> Result<i32> {
        loop {
            if let Answer::Exit { code } = self.receive().await? {
                return Ok(code);
            }
        }
    }
}

/// A call with one answer.
pub async fn call(folder: &Path, request: &Request) -> Result<Answer> {
    let mut call = Call::connect(folder).await?;
    call.send(request, &[]).await?;
    call.receive().await
}

fn lost(error: io::Error) -> Error {
    Error::Unavailable(format!("the sandbox's shim is gone: {error}"))
}

fn failure(kind: Failure, message: String) -> Error {
    match kind {
        Failure::NotFound => Error::NotFound(message),
        Failure::NotRunning => Error::FailedPrecondition(message),
        Failure::Start => Error::StartFailed(message),
        Failure::Internal => Error::Internal(message),
    }
}
