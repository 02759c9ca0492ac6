//! Volumes, claims, classes and drivers.

use super::network::default_name;
use super::text::{NONE, UNSET, age, name, or_none, quantity, text, text_or};
use super::{AGE, Column, NAME, Printer, column, integer, print, string};
use crate::meta::ObjectMeta;
use crate::types::core::v1::{PersistentVolume, PersistentVolumeClaim};
use crate::types::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use jiff::Timestamp;
use serde_json::{Value, json};

const DEFAULT_CLASS: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

const CAPACITY: Column = string("Capacity", "Size of the volume.");
const ACCESS_MODES: Column = string("Access Modes", "How it may be mounted.");
const CLASS: Column = string("StorageClass", "Class of storage.");
const ATTRIBUTES: Column = string("VolumeAttributesClass", "Class of attributes.");
const MODE: Column = string("VolumeMode", "Whether it is a file system or a block device.").wide();

const fn boolean(name: &'static str, description: &'static str) -> Column {
    column(name, "boolean", description)
}

pub(super) const PRINTERS: &[Printer] = &[
    print!(
        PersistentVolume,
        &[
            NAME,
            CAPACITY,
            ACCESS_MODES,
            string("Reclaim Policy", "What becomes of it when its claim goes."),
            string("Status", "Whether it is bound."),
            string("Claim", "Claim that it is bound to."),
            CLASS,
            ATTRIBUTES,
            string("Reason", "Why it is in its state."),
            AGE,
            MODE,
        ],
        volume
    ),
    print!(
        PersistentVolumeClaim,
        &[
            NAME,
            string("Status", "Whether it is bound."),
            string("Volume", "Volume that it is bound to."),
            CAPACITY,
            ACCESS_MODES,
            CLASS,
            ATTRIBUTES,
            AGE,
            MODE,
        ],
        claim
    ),
    print!(
        StorageClass,
        &[
            NAME,
            string("Provisioner", "What makes its volumes."),
            string("ReclaimPolicy", "What becomes of a volume when its claim goes."),
            string("VolumeBindingMode", "When volumes are made and bound."),
            string("AllowVolumeExpansion", "Whether volumes may grow."),
            AGE,
        ],
        |o, now| vec![
            default_name(&o.metadata, DEFAULT_CLASS),
            json!(o.provisioner),
            json!(text_or(o.reclaim_policy.as_ref(), "Delete")),
            json!(text_or(o.volume_binding_mode.as_ref(), "Immediate")),
            json!(o.allow_volume_expansion.unwrap_or(false)),
            age(&o.metadata, now),
        ]
    ),
    print!(
        VolumeAttributesClass,
        &[NAME, string("DriverName", "Driver that the attributes are for."), AGE],
        |o, now| vec![name(&o.metadata), json!(o.driver_name), age(&o.metadata, now)]
    ),
    print!(
        VolumeAttachment,
        &[
            NAME,
            Column { format: "name", ..string("Attacher", "Driver that attaches it.") },
            string("PV", "Volume that is attached."),
            string("Node", "Node that it is attached to."),
            boolean("Attached", "Whether it is attached."),
            AGE,
        ],
        |o, now| vec![
            name(&o.metadata),
            json!(o.spec.attacher),
            json!(text(o.spec.source.persistent_volume_name.as_ref())),
            json!(o.spec.node_name),
            json!(o.status.as_ref().is_some_and(|s| s.attached)),
            age(&o.metadata, now),
        ]
    ),
    print!(CSINode, &[NAME, integer("Drivers", "Drivers on the node."), AGE], |o, now| vec![
        name(&o.metadata),
        json!(o.spec.drivers.len()),
        age(&o.metadata, now)
    ]),
    print!(CSIDriver, CSI_DRIVER, csi_driver),
    print!(
        CSIStorageCapacity,
        &[NAME, string("StorageClassName", "Class of storage."), string("Capacity", "What is left of it.")],
        |o, _| {
            let capacity = o.capacity.as_ref().map_or(UNSET, |q| &q.0);
            vec![name(&o.metadata), json!(o.storage_class_name), json!(capacity)]
        }
    ),
];

/// Short names of access modes, in their fixed order.
fn access_modes(modes: Option<&Vec<String>>) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| modes.into_iter().flatten().any(|m| m == mode);
    known.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn class<'a>(meta: &'a ObjectMeta, class: Option<&'a String>) -> &'a str {
    let annotation = meta.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    text(annotation.or(class))
}

fn phase<'a>(meta: &ObjectMeta, phase: Option<&'a String>) -> &'a str {
    if meta.deletion_timestamp.is_some() { "Terminating" } else { text(phase) }
}

fn volume(volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (volume.spec.clone().unwrap_or_default(), volume.status.clone().unwrap_or_default());
    let claim = spec
        .claim_ref
        .map_or_else(String::new, |c| format!("{}/{}", text(c.namespace.as_ref()), text(c.name.as_ref())));
    vec![
        name(&volume.metadata),
        json!(quantity(spec.capacity.as_ref(), "storage")),
        json!(access_modes(spec.access_modes.as_ref())),
        json!(text(spec.persistent_volume_reclaim_policy.as_ref())),
        json!(phase(&volume.metadata, status.phase.as_ref())),
        json!(claim),
        json!(class(&volume.metadata, spec.storage_class_name.as_ref())),
        json!(text_or(spec.volume_attributes_class_name.as_ref(), UNSET)),
        json!(text(status.reason.as_ref())),
        age(&volume.metadata, now),
        json!(text_or(spec.volume_mode.as_ref(), UNSET)),
    ]
}

fn claim(claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (claim.spec.clone().unwrap_or_default(), claim.status.clone().unwrap_or_default());
    let bound = text(spec.volume_name.as_ref());
    let (capacity, modes) = match bound {
        "" => (String::new(), String::new()),
        _ => (quantity(status.capacity.as_ref(), "storage"), access_modes(status.access_modes.as_ref())),
    };
    vec![
        name(&claim.metadata),
        json!(phase(&claim.metadata, status.phase.as_ref())),
        json!(bound),
        json!(capacity),
        json!(modes),
        json!(class(&claim.metadata, spec.storage_class_name.as_ref())),
        json!(text_or(spec.volume_attributes_class_name.as_ref(), UNSET)),
        age(&claim.metadata, now),
        json!(text_or(spec.volume_mode.as_ref(), UNSET)),
    ]
}

const CSI_DRIVER: &[Column] = &[
    NAME,
    boolean("AttachRequired", "Whether volumes are attached before they are mounted."),
    boolean("PodInfoOnMount", "Whether the driver is told of the pod."),
    boolean("StorageCapacity", "Whether the driver says how much is left."),
    string("TokenRequests", "Audiences of the tokens that the driver is given."),
    boolean("RequiresRepublish", "Whether the driver wants to be called again and again."),
    string("Modes", "Kinds of volumes."),
    AGE,
];

fn csi_driver(driver: &CSIDriver, now: Timestamp) -> Vec<Value> {
    let spec = &driver.spec;
    let tokens = spec.token_requests.as_ref().map_or_else(
        || UNSET.to_owned(),
        |t| t.iter().map(|t| t.audience.as_str()).collect::<Vec<_>>().join(","),
    );
    let modes =
        spec.volume_lifecycle_modes.as_ref().map_or_else(|| NONE.to_owned(), |m| or_none(m.join(",")));
    vec![
        name(&driver.metadata),
        json!(spec.attach_required.unwrap_or(true)),
        json!(spec.pod_info_on_mount.unwrap_or(false)),
        json!(spec.storage_capacity.unwrap_or(false)),
        json!(tokens),
        json!(spec.requires_republish.unwrap_or(false)),
        json!(modes),
        age(&driver.metadata, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn volumes_and_claims() {
        let object = PersistentVolume::from_value(
            json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": "d", "name": "c"}, "storageClassName": "s", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound"}}),
        )
        .unwrap();
        assert_eq!(
            json!(volume(&object, Timestamp::UNIX_EPOCH)),
            json!([
                "v",
                "1Gi",
                "RWO,RWX",
                "Retain",
                "Bound",
                "d/c",
                "s",
                "<unset>",
                "",
                "<unknown>",
                "Filesystem"
            ])
        );
        let pending = PersistentVolumeClaim::from_value(
            json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "s"},
            "status": {"phase": "Pending", "capacity": {"storage": "1Gi"}}}),
        )
        .unwrap();
        assert_eq!(
            json!(claim(&pending, Timestamp::UNIX_EPOCH)),
            json!(["c", "Pending", "", "", "", "s", "<unset>", "<unknown>", "<unset>"])
        );
    }

    #[test]
    fn a_default_class_says_so() {
        let object = StorageClass::from_value(
            json!({"metadata": {"name": "s", "annotations": {DEFAULT_CLASS[0]: "true"}},
            "provisioner": "p"}),
        )
        .unwrap();
        let row = super::super::row_of("storage.k8s.io", "StorageClass", &object, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["s (default)", "p", "Delete", "Immediate", false, "<unknown>"]));
    }
}
