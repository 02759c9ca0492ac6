//! Images: a content-addressed store, the ways into it (archives, builds, registries), and the unpacked
//! layers that containers run on.
//!
//! One store belongs to one data folder and may be used by several processes and nodes at once: blobs and
//! snapshots are named by their content and appear by rename, references are small files replaced by
//! rename, and a file lock keeps the garbage collector away from whoever adds. Everything here blocks; the
//! embedded runtime calls it off the async threads. Nothing here knows a container.

mod archive;
mod blobs;
mod build;
mod config;
mod layer;
mod pull;
mod reference;
mod snapshot;
mod store;
pub mod watch;

pub use blobs::{BlobStore, BlobWriter, Digest};
pub use build::{BuildSpec, CopySpec};
pub use config::{ContainerDefaults, Descriptor, ImageConfig, Index, Manifest, Platform};
pub use pull::{PullOptions, pull};
pub use reference::{Reference, normalise};
pub use store::{ImageRecord, ImageStore, Rootfs};

pub(crate) use blobs::write_file;
