//! The pod specification, as pods and every kind with a pod template hold it.

pub mod defaults;
