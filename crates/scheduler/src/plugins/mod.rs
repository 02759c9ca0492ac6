//! The plugins, one small file each, and the order and weights that they have by default.

mod balanced_allocation;
mod default_binder;
mod default_preemption;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod priority_sort;
pub mod resources_fit;
mod scheduling_gates;
mod taint_toleration;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

use crate::framework::Plugin;
use crate::storage::Storage;
use krate_client::Transport;
pub use pod_topology_spread::Defaulting;
pub use resources_fit::{Shape, Strategy};
pub use scheduling_gates::MESSAGE as GATED;
use std::sync::Arc;

/// The arguments of the plugins. The defaults are the original's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How `NodeResourcesFit` scores.
    pub strategy: Strategy,
    /// Resources that scores are made from, with their weights.
    pub scored: Vec<(String, i64)>,
    /// Resources that `NodeResourcesBalancedAllocation` balances.
    pub balanced: Vec<(String, i64)>,
    /// How `PodTopologySpread` spreads pods without constraints.
    pub spread: Defaulting,
    /// What a required term of a pod that is there counts to `InterPodAffinity`, 0 to 100.
    pub hard_pod_affinity_weight: i64,
    /// Whether `InterPodAffinity` scores only by what the pod itself prefers.
    pub ignore_preferred_terms_of_existing_pods: bool,
    /// Claims and volumes, kept by the scheduler.
    pub storage: Storage,
}

impl Default for Settings {
    fn default() -> Self {
        let both = || vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)];
        Self {
            strategy: Strategy::LeastAllocated,
            scored: both(),
            balanced: both(),
            spread: Defaulting::System,
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
            storage: Storage::default(),
        }
    }
}

/// Every plugin there is, in the order in which they are asked, with its default weight (0: does not
/// score).
#[must_use]
pub fn all(settings: &Settings) -> Vec<(Arc<dyn Plugin>, i64)> {
    vec![
        (Arc::new(scheduling_gates::SchedulingGates), 0),
        (Arc::new(priority_sort::PrioritySort), 0),
        (Arc::new(node_unschedulable::NodeUnschedulable), 0),
        (Arc::new(node_name::NodeName), 0),
        (Arc::new(taint_toleration::TaintToleration), 3),
        (Arc::new(node_affinity::NodeAffinity), 2),
        (Arc::new(node_ports::NodePorts), 0),
        (Arc::new(resources_fit::NodeResourcesFit::new(settings)), 1),
        (Arc::new(volume_restrictions::VolumeRestrictions::new(settings)), 0),
        (Arc::new(node_volume_limits::NodeVolumeLimits::new(settings)), 0),
        (Arc::new(volume_binding::VolumeBinding::new(settings)), 0),
        (Arc::new(volume_zone::VolumeZone::new(settings)), 0),
        (Arc::new(pod_topology_spread::PodTopologySpread::new(settings)), 2),
        (Arc::new(inter_pod_affinity::InterPodAffinity::new(settings)), 2),
        (Arc::new(default_preemption::DefaultPreemption), 0),
        (Arc::new(balanced_allocation::BalancedAllocation::new(settings)), 1),
        (Arc::new(image_locality::ImageLocality), 1),
    ]
}

/// The plugin that binds what no other plugin binds.
#[must_use]
pub fn binder(transport: Arc<dyn Transport>) -> Arc<dyn Plugin> {
    Arc::new(default_binder::DefaultBinder::new(transport))
}
