//! One way to work with the API for every component: requests, typed clients, informers, work queues,
//! leader election, event recording, over one [`Transport`].
//!
//! Two transports exist: in process (made by `apiserver`, with an identity, nothing skipped but the wire)
//! and HTTPS ([`remote`]). An informer has the same semantics on both. This crate never knows the store or
//! the server.

pub mod api;
pub mod controller;
pub mod election;
pub mod expectations;
pub mod informer;
pub mod kubeconfig;
pub mod pinned;
pub mod queue;
pub mod recorder;
pub mod remote;
pub mod request;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
pub mod url;

pub use api::{Api, DynamicApi, List};
pub use controller::Outcome;
pub use election::Elector;
pub use expectations::Expectations;
pub use informer::{Index, Informer, Informers, Raw, Source, View};
pub use queue::Queue;
pub use recorder::{Recorder, Reference};
pub use request::{Body, Options, PatchKind, Reply, Request, Transport, Verb, WatchEvent, WatchStream};
