//! Patches as pure functions over JSON values: RFC 6902, RFC 7386 and strategic merge.
//!
//! Each takes the object as it is and the patch as it came, and gives the object as it should be. What was
//! patched may be of the wrong shape for its kind: decoding finds that out. Nothing here knows a store, a
//! request or a typed object.

mod error;
mod json;
mod strategic;

pub use error::PatchError;
pub use json::{json_patch, merge_patch};
pub use strategic::strategic_merge_patch;
