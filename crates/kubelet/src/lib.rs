//! The kubelet: makes the pods that the API assigns to a node run, and says how they are.
//!
//! One small state machine per pod ([`worker`]) is driven by events: a changed specification, the runtime,
//! a probe, a deadline, an image, a volume. What to do next is computed by pure functions ([`sync`],
//! [`status`]); nothing polls. The kubelet speaks to the API through `krate-client` and to containers
//! through the CRI traits of `krate-runtime`; it knows neither the store nor the API server.

mod admit;
mod configz;
mod context;
pub mod dns;
pub mod env;
mod events;
pub mod eviction;
#[cfg(test)]
mod fake;
pub use krate_runtime::file_watch;
pub mod generate;
mod hooks;
pub mod hosts;
mod housekeeping;
pub mod image;
mod kubelet;
pub mod logs;
mod mirror;
pub mod node;
pub mod observed;
mod orphans;
pub mod paths;
pub mod preempt;
pub mod probe;
mod publish;
pub mod references;
pub mod resize;
#[cfg(test)]
mod scenarios;
pub mod server;
pub mod spec;
mod statics;
pub mod status;
pub mod sync;
pub mod volumes;
mod worker;
mod workers;

pub use kubelet::{Config, Error, Kubelet};
