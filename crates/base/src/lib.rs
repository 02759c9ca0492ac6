//! What every room may use: the clock, chance, identifiers, shutdown and task supervision, telemetry.
//!
//! Nothing here knows Kubernetes objects, files or sockets. Time and chance enter the program here and
//! nowhere else, so that a whole cluster can live in virtual time from one seed.

pub mod clock;
pub mod metrics;
pub mod rng;
pub mod task;
pub mod telemetry;

pub use clock::{Clock, Timestamp};
pub use rng::Rng;
pub use task::{Health, Shutdown, Supervisor};
