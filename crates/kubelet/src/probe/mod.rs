//! Probes: what they found out about running containers, and the tasks that ask.

pub mod results;

pub use results::Results;
