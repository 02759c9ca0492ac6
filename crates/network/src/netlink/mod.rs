//! A netlink socket and the messages that go over it: the one way in which this crate speaks to the kernel.
//!
//! The kernel answers a netlink request while it is being sent, so nothing here ever waits: after a send
//! every answer is already in the socket's buffer. A socket belongs to the network namespace of the thread
//! that opened it. Messages are built with [`Message`] and read with [`attrs`]; lengths are checked, bytes
//! from the kernel are never trusted to be well-formed.

mod message;

pub use message::{Message, attrs, find, get_u32};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// Ask for an answer even on success.
pub const ACK: u16 = 0x4;
pub const REQUEST: u16 = 0x1;
pub const DUMP: u16 = 0x300;
pub const REPLACE: u16 = 0x100;
pub const EXCL: u16 = 0x200;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;

const MSG_ERROR: u16 = 2;
const MSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// What one read can take; the kernel fits its dumps into what it is given, up to 32 KiB.
const READ_BUFFER: usize = 64 * 1024;
/// Room for the answers to one batch, in bytes: one for every message in the worst case.
const ANSWER_BUFFER: usize = 8 << 20;

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket itself failed.
    #[error("netlink: {0}")]
    Socket(#[from] Errno),
    /// The kernel refused the request with this sequence number.
    #[error("the kernel refused request {seq}: {errno}")]
    Refused { seq: u32, errno: Errno },
    /// The kernel's answer could not be read.
    #[error("netlink: malformed answer")]
    Malformed,
    /// The kernel did not answer: this must not happen, its answers come with the send.
    #[error("netlink: no answer")]
    NoAnswer,
}

impl Error {
    /// The kernel's error number, if it refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Socket(errno) | Self::Refused { errno, .. } => Some(*errno),
            Self::Malformed | Self::NoAnswer => None,
        }
    }
}

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// An open socket.
pub struct Socket {
    fd: OwnedFd,
}

/// One message from the kernel.
#[derive(Debug, Clone)]
pub struct Answer {
    pub kind: u16,
    pub seq: u32,
    /// What follows the netlink header.
    pub payload: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open(family: Family) -> Result<Self, Error> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // Best effort: an unprivileged process keeps the default, which is enough for small requests.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &ANSWER_BUFFER);
        Ok(Self { fd })
    }

    /// Sends finished messages and returns every answer to them: `Ok` for acknowledgements of sequence
    /// numbers, errors included as they are.
    pub fn exchange(&self, bytes: &[u8]) -> Result<Vec<Answer>, Error> {
        let mut answers = Vec::new();
        self.converse(bytes, |answer| answers.push(answer))?;
        Ok(answers)
    }

    fn converse(&self, bytes: &[u8], mut each: impl FnMut(Answer)) -> Result<(), Error> {
        if bytes.len() > READ_BUFFER {
            let _ = setsockopt(&self.fd, sockopt::SndBufForce, &(bytes.len() + READ_BUFFER));
        }
        sendto(self.fd.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = vec![0u8; READ_BUFFER];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(n) => split(&buffer[..n], &mut each)?,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// One request whose success is an acknowledgement.
    pub fn request(&self, message: Message) -> Result<(), Error> {
        let answers = self.exchange(&message.finish(1))?;
        answers.iter().find_map(|a| a.error().transpose()).unwrap_or(Err(Error::NoAnswer))
    }

    /// One request that is answered by messages: a dump or a single object.
    pub fn query(&self, message: Message) -> Result<Vec<Vec<u8>>, Error> {
        let mut found = Vec::new();
        self.each(message, |payload| found.push(payload.to_vec()))?;
        Ok(found)
    }

    /// Like [`query`](Self::query), one message at a time.
    pub fn each(&self, message: Message, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut failed = None;
        self.converse(&message.finish(1), |answer| match answer.kind {
            MSG_ERROR => failed = failed.take().or(answer.error().err()),
            MSG_DONE => {}
            _ => each(&answer.payload),
        })?;
        failed.map_or(Ok(()), Err)
    }
}

impl Answer {
    /// `Ok(Some(()))` for an acknowledgement, `Ok(None)` for what is no error message at all.
    pub fn error(&self) -> Result<Option<()>, Error> {
        if self.kind != MSG_ERROR {
            return Ok(None);
        }
        let code = self.payload.first_chunk().ok_or(Error::Malformed)?;
        match i32::from_ne_bytes(*code) {
            0 => Ok(Some(())),
            n => Err(Error::Refused { seq: self.seq, errno: Errno::from_raw(-n) }),
        }
    }
}

fn split(mut bytes: &[u8], each: &mut impl FnMut(Answer)) -> Result<(), Error> {
    while bytes.len() >= HEADER {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let len = word(0) as usize;
        if len < HEADER || len > bytes.len() {
            return Err(Error::Malformed);
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        each(Answer { kind, seq: word(8), payload: bytes[HEADER..len].to_vec() });
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_from_the_kernel_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut answers = Vec::new();
            let _ = split(&bytes, &mut |answer| answers.push(answer));
            for answer in answers {
                let _ = answer.error();
                let _ = attrs(&answer.payload).count();
            }
        }
    }
}
