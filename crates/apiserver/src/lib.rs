//! The API server: HTTP, authentication, authorization, admission, resources, watch.
//!
//! One pipeline, each stage a small module with one job: [`http`] (listener, upgrades, negotiation) →
//! [`path`] (what is asked) → [`authn`] (who asks) → [`authz`] (may they) → [`admission`] →
//! defaults and validation → [`rest`] (one generic handler per verb) → the store. In-process callers
//! ([`local`]) enter after the listener with an identity of their own; nothing is skipped but the wire.
//!
//! It never knows a controller, and nobody above it sees the store.

pub mod authn;
pub mod authz;
pub mod encryption;
pub mod pki;
pub mod user;
mod yaml;

mod admission;
mod bootstrap;
mod call;
mod codec;
mod discovery;
mod error;
mod http;
mod local;
mod openapi;
mod options;
mod path;
mod pipeline;
mod query;
mod rest;
mod server;
mod strict;
mod sub;

pub use http::{Dial, Direct, Stream};
pub use pki::Authority;
pub use server::{ApiServer, Config, ServiceRanges, StartError};
pub use user::UserInfo;
