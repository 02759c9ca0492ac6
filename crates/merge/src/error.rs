//! Why a patch does not apply, and what the server answers then.

use krate_api::{Reason, Status};

/// A patch that cannot be applied. All but [`PatchError::Internal`] are the client's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch cannot be read.
    #[error("{0}")]
    BadRequest(String),
    /// The patch has too many operations.
    #[error("{0}")]
    TooLarge(String),
    /// The patch can be read but not applied to this object: a failed test, a missing path.
    #[error("{0}")]
    Unprocessable(String),
    /// The original answers 500 to these, though it is the patch that is wrong.
    #[error("{0}")]
    Internal(String),
}

impl PatchError {
    /// The original's answer. It does not say why a JSON patch does not apply; the error's own text does.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::BadRequest(text) => Status::bad_request(text.clone()),
            Self::TooLarge(text) => Status::failure(Reason::RequestEntityTooLarge, text.clone()),
            Self::Unprocessable(_) => Status::failure(
                Reason::Invalid,
                "the server rejected our request due to an error in our request",
            )
            .about("", "", ""),
            Self::Internal(text) => Status::internal(text),
        }
    }
}

pub(crate) fn bad<T>(text: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::BadRequest(text.into()))
}
