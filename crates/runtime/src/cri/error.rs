//! What a runtime call fails with: the codes of the CRI's gRPC that callers decide by, each with a sentence.

use thiserror::Error;

pub type Result<T> = std::result::Result<T, Error>;

/// The message alone is what users see (in events and container states), so the code is not part of it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The sandbox, container or image does not exist. A caller that removes takes it as done.
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    /// The request can never work as it is.
    #[error("{0}")]
    InvalidArgument(String),
    /// The thing is in a state that does not allow the call (exec in an exited container).
    #[error("{0}")]
    FailedPrecondition(String),
    /// The time given for the call was over.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The other side (a registry, a shim) cannot be reached now; try again later.
    #[error("{0}")]
    Unavailable(String),
    /// A registry wants other credentials.
    #[error("{0}")]
    PermissionDenied(String),
    /// The container's process could not be started: no such program, a bad mount...
    #[error("{0}")]
    StartFailed(String),
    #[error("{0}")]
    Unimplemented(String),
    /// The kernel, the disk, or our own bug.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// An error of the kernel or the disk, with what was being done.
    pub fn io(doing: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Internal(format!("{doing}: {error}"))
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}
