//! Being woken by changes of files and folders (inotify): logs that are followed, manifests, images.
#![allow(unsafe_code)]

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Tells of changes of the paths that were added.
pub struct FileWatch(AsyncFd<Fd>);

struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FileWatch {
    /// Watches nothing yet. Call it inside a runtime.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the descriptor belongs to the value that is registered, which never closes or replaces it
        // before it is dropped.
        let fd = unsafe { AsyncFd::register(Fd(inotify)) };
        fd.map(Self).map_err(|error| io::Error::other(error.to_string()))
    }

    pub fn add(&mut self, path: &Path, flags: AddWatchFlags) -> io::Result<()> {
        self.0.get_ref().0.add_watch(path, flags)?;
        Ok(())
    }

    /// Waits for changes; at least one. Cancel-safe.
    pub async fn changed(&mut self) -> io::Result<Vec<InotifyEvent>> {
        loop {
            let mut guard = self.0.readable().await?;
            let read = guard.try_io(|fd| fd.get_ref().0.read_events().map_err(io::Error::from));
            if let Ok(events) = read {
                return events;
            }
        }
    }
}
