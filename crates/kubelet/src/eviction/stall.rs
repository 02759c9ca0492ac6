//! The kernel's word that processes wait for memory (pressure stall information), where it gives it: then
//! memory is looked at at once and not at the next housekeeping.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Some process waited for memory for 150 ms within one second.
const TRIGGER: &[u8] = b"some 150000 1000000\0";
const FILE: &str = "/proc/pressure/memory";

pub struct Stalls(AsyncFd<Fd>);

struct Fd(File);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Stalls {
    /// An error where the kernel (or the node's rights) does not allow it.
    pub fn watch() -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).open(FILE)?;
        file.write_all(TRIGGER)?;
        // SAFETY: the descriptor belongs to the value that is registered, which never closes or replaces it
        // before it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(Fd(file), Interest::PRIORITY) };
        fd.map(Self).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Waits for the next stall. Cancel-safe.
    pub async fn next(&mut self) {
        match self.0.ready(Interest::PRIORITY).await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}
