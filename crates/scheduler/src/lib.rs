//! The scheduler: finds a node for every pod that has none, with the original's framework of plugins.
//!
//! Informers feed a node table and a queue of waiting pods; one loop takes pod after pod and decides from
//! memory alone; what is decided counts at once (it is assumed) and is bound by tasks beside the loop, so
//! that a slow bind holds up nobody. It reaches the cluster only through `krate-client`.
//!
//! | where | what |
//! | --- | --- |
//! | [`view`] | slim pods and nodes |
//! | [`table`], [`cluster`] | what is where, and what is assumed to be |
//! | [`tally`] | how many pods of a description are in each domain of a topology |
//! | [`storage`] | claims and volumes, and what is assumed of them |
//! | [`framework`], [`plugins`], [`profile`] | who judges, and how much it counts |
//! | [`cycle`], [`memo`], [`diagnosis`] | one pod's search, and the words when it fails |
//! | [`queue`] | who is tried when |
//! | [`engine`] | all of that as one value without I/O |

pub mod budgets;
pub mod cluster;
pub mod cycle;
pub mod diagnosis;
pub mod engine;
pub mod framework;
mod inbox;
pub mod memo;
pub mod nominated;
pub mod plugins;
pub mod profile;
pub mod queue;
mod report;
mod run;
pub mod storage;
pub mod table;
pub mod tally;
#[cfg(test)]
mod testing;
pub mod view;

pub use plugins::Settings;
pub use profile::{ConfigError, DEFAULT_SCHEDULER, Profile, ProfileConfig};
pub use run::{Config, Error, Permits, Scheduler};
