//! Work inside a network namespace, on a thread that lives only for it.
//!
//! A thread that has entered a namespace is never used for anything else. A new thread starts in the
//! namespace of the thread that makes it: the node's own.

use super::Error;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use tokio::sync::oneshot;

/// Runs blocking work on a fresh thread in the caller's own namespace.
pub async fn here<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            // The caller may have gone away: then nobody wants the result.
            let _ = done.send(work());
        })
        .map_err(|e| Error::Thread(e.to_string()))?;
    result.await.map_err(|_| Error::Thread("it panicked".into()))?
}

/// Moves the calling thread, which must be one of [`here`]'s, into another namespace for the rest of its
/// short life.
pub fn enter(namespace: &File) -> Result<(), Error> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Kernel {
        what: "enter the pod's network namespace".into(),
        source: errno.into(),
    })
}
