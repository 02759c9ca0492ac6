//! The one place where a failure of the store becomes a `Status`.

use krate_api::status::{Reason, Status};
use krate_store as store;

/// A read that failed.
pub(crate) fn from_store(error: store::Error) -> Status {
    match error {
        store::Error::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        store::Error::Future { asked, current } => too_large(asked, current),
        store::Error::Failed { .. } => Status::internal("a transaction failed outside of a retry"),
        store::Error::Io(e) => Status::internal(e),
        store::Error::Closed => Status::failure(Reason::ServiceUnavailable, "the server is shutting down"),
    }
}

/// A revision that the server has not reached.
pub(crate) fn too_large(asked: u64, current: u64) -> Status {
    let mut status = Status::failure(
        Reason::Timeout,
        format!("Timeout: Too large resource version: {asked}, current: {current}"),
    );
    let details = status.0.details.get_or_insert_default();
    details.retry_after_seconds = Some(1);
    details.causes = Some(vec![krate_api::meta::StatusCause {
        reason: Some("ResourceVersionTooLarge".to_owned()),
        message: Some("Too large resource version".to_owned()),
        field: None,
    }]);
    status
}

/// `the server could not find the requested resource`: no such resource or subresource.
pub(crate) fn no_such_resource() -> Status {
    Status::failure(Reason::NotFound, "the server could not find the requested resource").about("", "", "")
}
