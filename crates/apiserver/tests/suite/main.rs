//! The API server as its clients see it, over a store in memory: in process and over TLS on loopback.

mod admission;
mod common;
mod encryption;
mod lifecycles;
mod odd_input;
mod proxying;
mod reading;
mod streams;
mod subresources;
mod wire;
mod writing;
