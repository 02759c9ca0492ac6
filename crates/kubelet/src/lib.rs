//! The kubelet: makes the pods that the API assigns to a node run, and says how they are.
//!
//! One small state machine per pod ([`worker`]) is driven by events: a changed specification, the runtime,
//! a probe, a deadline, an image, a volume. What to do next is computed by pure functions ([`sync`],
//! [`status`]); nothing polls. The kubelet speaks to the API through `krate-client` and to containers
//! through the CRI traits of `krate-runtime`; it knows neither the store nor the API server.

pub mod dns;
pub mod env;
pub mod file_watch;
pub mod hosts;
pub mod image;
pub mod logs;
pub mod node;
pub mod observed;
pub mod paths;
pub mod probe;
pub mod references;
pub mod server;
pub mod spec;
pub mod status;
pub mod sync;
pub mod volumes;
