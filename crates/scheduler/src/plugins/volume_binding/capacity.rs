//! Whether a driver that says how much storage is left has enough of it for a claim, as seen from a node.

use crate::storage::Storage;
use krate_api::labels::{Labels, Selector};
use krate_api::quantity::Quantity;
use krate_api::types::core::v1::PersistentVolumeClaim;
use krate_api::types::storage::v1::{CSIStorageCapacity, StorageClass};
use krate_api::volumes::requested;

/// Only drivers that ask for it (`storageCapacity`) are held to what they say; one volume at a time, for
/// what several volumes take together only the driver knows.
pub fn suffices(
    storage: &Storage,
    class: &StorageClass,
    claim: &PersistentVolumeClaim,
    node: &Labels,
) -> bool {
    let driver = storage.driver(&class.provisioner);
    if driver.and_then(|driver| driver.spec.storage_capacity) != Some(true) {
        return true;
    }
    let (name, wanted) = (class.metadata.name.as_deref().unwrap_or_default(), requested(claim));
    storage.capacities(name).iter().any(|capacity| most(capacity) >= Some(wanted) && sees(capacity, node))
}

/// The largest volume that can be made.
fn most(capacity: &CSIStorageCapacity) -> Option<i64> {
    let text = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref())?;
    Some(Quantity::of(text).ok()?.value())
}

/// Without a topology it is reachable from nowhere.
fn sees(capacity: &CSIStorageCapacity, node: &Labels) -> bool {
    let topology = capacity.node_topology.as_ref();
    topology.is_some() && Selector::of(topology).is_ok_and(|selector| selector.matches(node))
}
