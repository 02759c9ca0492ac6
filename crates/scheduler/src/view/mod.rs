//! Slim views of the objects that the scheduler reads, made once per change and shared by everyone.
//!
//! They hold numbers and compiled selectors, never typed Kubernetes values.

pub mod affinity;
pub mod node;
pub mod pod;
pub mod resources;

pub use affinity::{PodAffinity, PodTerm, Spread};
pub use krate_api::placement::{Effect, NodeChoice, Taint, Term, Toleration, repelled, tolerated};
pub use node::NodeView;
pub use pod::{ClaimUse, HostPort, PodView, Scheduled};
pub use resources::Resources;
