//! The pod specification, as pods and every kind with a pod template hold it.

mod affinity;
mod containers;
pub mod defaults;
mod disabled;
mod env;
mod mounts;
mod probes;
mod profiles;
pub mod requirements;
mod scheduling;
mod security;
mod validate;
pub mod volume_sources;
mod volumes;
pub mod warnings;
mod windows;

pub use affinity::node_selector;
pub use containers::image_has_no_margins;
pub use disabled::drop_disabled;
pub use profiles::{APPARMOR, agreement};
pub use requirements::{limits_of_containers, requests_of_containers};
pub use scheduling::{
    only_added_tolerations, only_removed_gates, taint_effect, tolerations, topology_key_requirement,
};
pub use validate::{annotations, pod_spec, template};
pub use volume_sources as sources;
