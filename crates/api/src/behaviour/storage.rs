//! The kinds of `storage.k8s.io`: classes, drivers, nodes, capacities and attachments.

use super::fill::{items, value};
use super::{Behaviour, Typed, names};
use crate::types::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use std::sync::Arc;

pub fn storage_class() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<StorageClass> {
        default: |class| {
            value(&mut class.reclaim_policy, "Delete".to_owned());
            value(&mut class.volume_binding_mode, "Immediate".to_owned());
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

pub fn csi_driver() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<CSIDriver> {
        default: default_driver,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default_driver(driver: &mut CSIDriver) {
    let spec = &mut driver.spec;
    value(&mut spec.attach_required, true);
    value(&mut spec.pod_info_on_mount, false);
    value(&mut spec.storage_capacity, false);
    value(&mut spec.requires_republish, false);
    value(&mut spec.se_linux_mount, false);
    value(&mut spec.fs_group_policy, "ReadWriteOnceWithFSType".to_owned());
    if items(&spec.volume_lifecycle_modes).is_empty() {
        spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
    }
}

pub fn csi_node() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<CSINode> { check_name: names::subdomain_name, ..Default::default() })
}

pub fn csi_storage_capacity() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<CSIStorageCapacity> { check_name: names::subdomain_name, ..Default::default() })
}

pub fn volume_attachment() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<VolumeAttachment> {
        default: |attachment| {
            attachment.status.get_or_insert_default();
        },
        prepare_create: |attachment| attachment.status = Some(Default::default()),
        prepare_update: |new, old| new.status.clone_from(&old.status),
        prepare_subresource: |_, new, old| {
            new.spec = old.spec.clone();
            let version = new.metadata.resource_version.take();
            let managed = new.metadata.managed_fields.take();
            new.metadata = old.metadata.clone();
            new.metadata.resource_version = version;
            new.metadata.managed_fields = managed;
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

pub fn volume_attributes_class() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<VolumeAttributesClass> { check_name: names::subdomain_name, ..Default::default() })
}
