//! What an object is: types, the catalogue of resources, the schema table, selectors, quantities,
//! defaults, validation, printing.
//!
//! Pure: no I/O, no clock, no randomness. A built-in resource is one row in [`catalogue`] and, where it
//! has behaviour, one small file in [`behaviour`]. Each kind's serde code is instantiated here, once,
//! behind [`Object`] and [`Kind`]; other crates never call serde on a whole Kubernetes object.

mod absent;
pub mod behaviour;
pub mod catalogue;
pub mod cron;
pub mod encode;
pub mod field;
pub mod fields;
pub mod labels;
pub mod object;
pub mod openapi;
pub mod placement;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod status;
pub mod strict;
pub mod table;
pub mod volumes;

pub use catalogue::{Catalogue, Resource, Verb};
pub use object::{Kind, Object, Shared, View};
pub use status::{Reason, Status};

pub use k8s_openapi;
pub use k8s_openapi::api as types;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

/// The version of Kubernetes that is served, as `/version` and nodes say it.
pub const KUBERNETES_VERSION: &str = "v1.36.3+krate";
