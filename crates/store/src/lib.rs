//! A multi-version key-value store with etcd's promises: one revision for the whole store, transactions
//! with compare-and-set, reads and lists at a revision, watches from a revision, compaction, expiry.
//!
//! It knows bytes and keys. It never parses a value, and nobody but the API server uses it.
//!
//! * [`Store`] is the border; [`Embedded`] is the engine that ships (memory for reads, disk before
//!   acknowledgement), and it also runs without a disk for tests.
//! * A [`Seal`] may change what is kept on the disk in a value's place; memory and readers have it plain.
//! * A value may ask for its commit's revision to be written into it ([`Value::stamp_at`]), so that an
//!   object is encoded once and still says its own `resourceVersion`.

pub mod embedded;
mod seal;
mod types;

pub use embedded::{Embedded, Options};
pub use seal::Seal;
pub use types::*;
