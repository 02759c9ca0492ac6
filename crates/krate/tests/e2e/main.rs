//! What a user does, done by an unmodified kubectl on a real cluster with real containers.
//!
//! Every test starts its own cluster from the program that cargo built, and removes it, also when it fails.
//! Needs root on Linux. The tools that a machine may lack (kubectl, nginx, busybox) are fetched once into the
//! target folder from the package registries.

#![allow(clippy::disallowed_methods)] // a test drives real processes in real time

mod app;
mod bad_input;
mod batch;
mod cluster;
mod command_line;
mod config;
mod contents;
mod daemons_and_sets;
mod egress;
mod join;
mod kubectl;
mod measure;
mod node_loss;
mod pods;
mod resize;
mod services;
mod stateful_software;
mod storage;
mod tools;
mod world;
