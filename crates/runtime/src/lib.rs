//! Containers and images behind the CRI's own types.
//!
//! `cri` is the boundary that the kubelet sees; everything else is the embedded runtime behind it.
//! This room knows no Pod and no API server.

pub mod cgroup;
pub mod cri;
mod embedded;
pub mod file_watch;
pub mod images;
mod init;
mod kernel;
pub mod shim;
pub mod streaming;
pub mod usage;

pub use embedded::{Config, EmbeddedRuntime};
pub use kernel::mount::{has_mount_setattr, open_filesystem};
pub use kernel::process::set_oom_score;
pub use shim::{reexec, shim_main};
