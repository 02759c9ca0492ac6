//! What to do next for one pod: pure functions from what is wanted and what runs to a few actions.

pub mod backoff;
pub mod plan;
pub mod restart;
