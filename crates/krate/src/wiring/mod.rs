//! Putting the rooms together: the one place that knows both the API server and those who work with it.

pub mod addons;
pub mod control;
pub mod encryption;
pub mod identity;
pub mod images;
pub mod join;
pub mod node;
pub mod pod_network;
pub mod storage;
