//! One connection to the shim's socket: frames in, frames out, never waiting for the other side.

use super::protocol::{Answer, Request, encode, take_frame};
use crate::kernel::socket;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

const READ_BUFFER: usize = 64 << 10;
/// Answers that a connection may be behind with; far more than a client that lives can leave unread.
const MAX_UNSENT: usize = 1024;

pub struct Connection {
    pub stream: UnixStream,
    input: Vec<u8>,
    /// Descriptors that came with the request being read.
    pub fds: Vec<OwnedFd>,
    output: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// It wants to hear of exits.
    pub watching: bool,
}

impl Connection {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), fds: Vec::new(), output: VecDeque::new(), watching: false })
    }

    /// Reads what is there. An error or an end means that the other side is gone.
    pub fn read(&mut self) -> io::Result<Vec<Request>> {
        let mut buffer = vec![0; READ_BUFFER];
        match socket::receive(self.stream.as_fd(), &mut buffer, &mut self.fds) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.input.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let mut requests = Vec::new();
        while let Some(body) = take_frame(&mut self.input).map_err(io::Error::other)? {
            requests.push(serde_json::from_slice(&body).map_err(io::Error::other)?);
        }
        Ok(requests)
    }

    /// Queues an answer, with descriptors that go along, and sends what can be sent.
    pub fn answer(&mut self, answer: &Answer, fds: Vec<OwnedFd>) -> io::Result<()> {
        if self.output.len() >= MAX_UNSENT {
            return Err(Errno::ENOBUFS.into());
        }
        self.output.push_back((encode(answer).map_err(io::Error::other)?, fds));
        self.write()
    }

    pub fn wants_to_write(&self) -> bool {
        !self.output.is_empty()
    }

    pub fn write(&mut self) -> io::Result<()> {
        while let Some((bytes, fds)) = self.output.front_mut() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match socket::send(self.stream.as_fd(), bytes, &borrowed) {
                Ok(sent) => {
                    fds.clear();
                    bytes.drain(..sent);
                    if bytes.is_empty() {
                        self.output.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
