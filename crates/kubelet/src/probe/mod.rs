//! Probes: what they found out about running containers, and the tasks that ask.

pub mod ask;
pub mod grpc;
pub mod http;
pub mod results;
pub mod task;

pub use results::{Kind, Results};
