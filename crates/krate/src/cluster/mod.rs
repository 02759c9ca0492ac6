//! A cluster of `krate up`: what is kept about it on disk, and the processes that it is made of.
//!
//! One process holds the network between the nodes ([`fabric`]), one per node holds its namespaces
//! ([`holder`]), the first node's process is the server, the others are agents. None of them is the parent of
//! another: each is found again by its recorded pid and start time.

pub mod cgroup;
pub mod fabric;
pub mod gateway;
pub mod health;
pub mod holder;
pub mod process;
pub mod state;

pub use process::Process;
pub use state::{Cluster, Spec};
