//! Containers and images behind the CRI's own types.
//!
//! `cri` is the boundary that the kubelet sees; everything else is the embedded runtime behind it.
//! This room knows no Pod and no API server.

pub mod cri;
pub mod streaming;
