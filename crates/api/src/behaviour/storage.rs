//! The kinds of `storage.k8s.io`: classes, drivers, nodes, capacities and attachments.

use super::check::{self, Check};
use super::fill::{self, items, restore_metadata, str_of, value};
use super::pod_spec::{sources, topology_key_requirement};
use super::{Behaviour, Typed, internal, names, persistent_volume, selector};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::TopologySelectorTerm;
use crate::types::storage::v1::{
    CSIDriver, CSINode, CSINodeDriver, CSIStorageCapacity, StorageClass, VolumeAttachment,
    VolumeAttachmentStatus, VolumeAttributesClass,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub fn storage_class() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<StorageClass> {
        default: |class| {
            value(&mut class.reclaim_policy, "Delete".to_owned());
            value(&mut class.volume_binding_mode, "Immediate".to_owned());
        },
        validate: validate_class,
        validate_update: validate_class_update,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

pub fn csi_driver() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<CSIDriver> {
        default: default_driver,
        // What can be changed of a driver counts.
        prepare_update: |new, old| {
            let changed = !fill::same(&new.spec, &old.spec);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        validate: validate_driver,
        validate_update: |_, new, old| {
            let mut errors = validate_driver(new);
            let path = Path::new("spec");
            let (now, was) = (&new.spec, &old.spec);
            // The original calls the first field by another name.
            errors.unchanged(&path.child("attachedRequired"), &now.attach_required, &was.attach_required);
            let (now, was) = (&now.volume_lifecycle_modes, &was.volume_lifecycle_modes);
            errors.unchanged(&path.child("volumeLifecycleModes"), now, was);
            errors
        },
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
    Arc::new(Typed::<CSINode> {
        validate: validate_node,
        validate_update: validate_node_update,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

pub fn csi_storage_capacity() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<CSIStorageCapacity> {
        validate: validate_capacity,
        validate_update: |_, new, old| {
            let mut errors = validate_capacity(new);
            errors.unchanged(&Path::new("nodeTopology"), &new.node_topology, &old.node_topology);
            errors.unchanged(
                &Path::new("storageClassName"),
                &new.storage_class_name,
                &old.storage_class_name,
            );
            errors
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
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
            restore_metadata(&mut new.metadata, &old.metadata);
        },
        validate: |attachment| {
            let mut errors = validate_attachment(attachment);
            validate_new_attachment(&mut errors, attachment);
            errors
        },
        validate_update: |_, new, old| {
            let mut errors = validate_attachment(new);
            check::kept(&mut errors, &Path::new("spec"), &new.spec, &old.spec, internal::ATTACHMENT);
            errors
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

pub fn volume_attributes_class() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<VolumeAttributesClass> {
        validate: validate_attributes,
        validate_update: |_, new, old| {
            let mut errors = Errors::new();
            if new.driver_name != old.driver_name {
                errors.forbidden(&Path::new("driverName"), "updates to driverName are forbidden.");
            }
            if !fill::same(&new.parameters, &old.parameters) {
                errors.forbidden(&Path::new("parameters"), "updates to parameters are forbidden.");
            }
            errors.extend(validate_attributes(new));
            errors
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

/// Parameters of one class.
const PARAMETERS: usize = 512;
/// Size of all parameters of a class together, in bytes.
const PARAMETERS_SIZE: usize = 256 << 10;
/// Length of what a driver calls a node, in bytes.
const NODE_ID: usize = 256;

fn provisioner(errors: &mut Errors, path: &Path, name: &str) {
    if errors.required(path, name) {
        errors.faults(path, name, names::qualified_name(&name.to_lowercase()));
    }
}

fn parameters(errors: &mut Errors, path: &Path, parameters: Option<&BTreeMap<String, String>>) {
    let Some(parameters) = parameters else { return };
    if parameters.len() > PARAMETERS {
        errors.push(Error::too_long(path, PARAMETERS));
        return;
    }
    if parameters.contains_key("") {
        errors.invalid(path, "", "field can not be empty.");
    }
    if parameters.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > PARAMETERS_SIZE {
        errors.push(Error::too_long(path, PARAMETERS_SIZE));
    }
}

fn validate_class(class: &StorageClass) -> Errors {
    let mut errors = Errors::new();
    provisioner(&mut errors, &Path::new("provisioner"), &class.provisioner);
    parameters(&mut errors, &Path::new("parameters"), class.parameters.as_ref());
    if let Some(policy) = class.reclaim_policy.as_ref().filter(|p| !p.is_empty()) {
        errors.one_of(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let modes = ["Immediate", "WaitForFirstConsumer"];
    errors.one_of(&Path::new("volumeBindingMode"), str_of(&class.volume_binding_mode), &modes);
    topologies(&mut errors, class);
    errors
}

/// A term that says nothing is its own duplicate.
fn topologies(errors: &mut Errors, class: &StorageClass) {
    let said = |term: &TopologySelectorTerm| {
        let mut keys = BTreeMap::new();
        for requirement in items(&term.match_label_expressions) {
            let values: BTreeSet<String> = requirement.values.iter().cloned().collect();
            keys.entry(requirement.key.clone()).or_insert(values);
        }
        keys
    };
    let terms = items(&class.allowed_topologies);
    for (i, term) in terms.iter().enumerate() {
        let path = Path::new("allowedTopologies").index(i).child("matchLabelExpressions");
        let expressions = items(&term.match_label_expressions);
        for (j, requirement) in expressions.iter().enumerate() {
            let path = path.index(j);
            topology_key_requirement(errors, &path, &requirement.key, &requirement.values);
            if expressions[..j].iter().any(|r| r.key == requirement.key) {
                errors.push(Error::duplicate(&path.child("key"), &requirement.key));
            }
        }
        let says = said(term);
        if says.is_empty() || terms[..i].iter().any(|other| said(other) == says) {
            errors.push(Error::duplicate(&path, ""));
        }
    }
}

fn validate_class_update(_: &str, new: &StorageClass, old: &StorageClass) -> Errors {
    let mut errors = Errors::new();
    for (field, changed) in [
        ("parameters", !fill::same(&new.parameters, &old.parameters)),
        ("provisioner", new.provisioner != old.provisioner),
        ("reclaimPolicy", new.reclaim_policy != old.reclaim_policy),
    ] {
        if changed {
            errors.forbidden(&Path::new(field), &format!("updates to {field} are forbidden."));
        }
    }
    errors.unchanged(&Path::new("volumeBindingMode"), &new.volume_binding_mode, &old.volume_binding_mode);
    errors
}

fn validate_attributes(class: &VolumeAttributesClass) -> Errors {
    let mut errors = Errors::new();
    provisioner(&mut errors, &Path::new("driverName"), &class.driver_name);
    let path = Path::new("parameters");
    if class.parameters.as_ref().is_none_or(BTreeMap::is_empty) {
        errors.push(Error::required(&path, "must contain at least one key/value pair"));
    }
    parameters(&mut errors, &path, class.parameters.as_ref());
    errors
}

fn validate_driver(driver: &CSIDriver) -> Errors {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), &driver.spec);
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    errors.one_of(&path.child("fsGroupPolicy"), str_of(&spec.fs_group_policy), &policies);
    let mut seen = BTreeSet::new();
    for (i, request) in items(&spec.token_requests).iter().enumerate() {
        let path = path.child("tokenRequests").index(i);
        if !seen.insert(&request.audience) {
            errors.push(Error::duplicate(&path.child("audience"), &request.audience));
            continue;
        }
        let at = path.child("expirationSeconds");
        match request.expiration_seconds {
            Some(s) if s < 600 => {
                errors.invalid(&at, &s, "may not specify a duration less than 10 minutes");
            }
            Some(s) if s > 1 << 32 => {
                errors.invalid(&at, &s, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
    for mode in items(&spec.volume_lifecycle_modes) {
        errors.one_of(&path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    if let Some(period) = spec.node_allocatable_update_period_seconds.filter(|s| *s < 10) {
        let path = path.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(&path, &period, "must be greater than or equal to 10 seconds");
    }
    errors
}

fn validate_node(node: &CSINode) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (i, driver) in node.spec.drivers.iter().enumerate() {
        let path = Path::new("spec").child("drivers").index(i);
        sources::csi_driver(&mut errors, &path.child("name"), &driver.name);
        if errors.required(&path.child("nodeID"), &driver.node_id) && driver.node_id.len() > NODE_ID {
            let text = format!("must be {NODE_ID} characters or less");
            errors.invalid(&path.child("nodeID"), &driver.node_id, &text);
        }
        if !seen.insert(&driver.name) {
            errors.push(Error::duplicate(&path.child("name"), &driver.name));
        }
        let count = driver.allocatable.as_ref().and_then(|a| a.count);
        errors.not_negative(&path.child("allocatable").child("count"), count.map(i64::from));
        validate_topology_keys(&mut errors, &path, driver);
    }
    errors
}

fn validate_topology_keys(errors: &mut Errors, path: &Path, driver: &CSINodeDriver) {
    let mut seen = BTreeSet::new();
    for key in items(&driver.topology_keys) {
        errors.required(path, key);
        if !seen.insert(key) {
            errors.push(Error::duplicate(path, key));
        }
        errors.faults(path, key, names::qualified_name(key));
    }
}

/// What a driver said of a node stays, but for how many volumes it takes.
fn validate_node_update(_: &str, new: &CSINode, old: &CSINode) -> Errors {
    let mut errors = validate_node(new);
    for was in &old.spec.drivers {
        let but_count = |d: &CSINodeDriver| CSINodeDriver { allocatable: None, ..d.clone() };
        for now in new.spec.drivers.iter().filter(|d| d.name == was.name) {
            let path = Path::new("spec").child("drivers");
            let (now, was) = (but_count(now), but_count(was));
            check::kept(&mut errors, &path, &now, &was, internal::CSI_NODE_DRIVER);
        }
    }
    errors
}

fn validate_capacity(capacity: &CSIStorageCapacity) -> Errors {
    let mut errors = Errors::new();
    selector::validate_opt(&mut errors, &Path::new("nodeTopology"), &capacity.node_topology);
    let class = &capacity.storage_class_name;
    errors.faults(&Path::new("storageClassName"), class, names::dns1123_subdomain(class));
    if let Some(amount) = &capacity.capacity {
        check::amount(&mut errors, &Path::new("capacity"), "", amount);
    }
    errors
}

fn validate_attachment(attachment: &VolumeAttachment) -> Errors {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), &attachment.spec);
    errors.required(&path.child("attacher"), &spec.attacher);
    let at = path.child("source");
    match (&spec.source.inline_volume_spec, &spec.source.persistent_volume_name) {
        (None, None) => errors.push(Error::required(&at, ONE)),
        (Some(_), Some(_)) => errors.forbidden(&at, ONE),
        (None, Some(name)) if name.is_empty() => {
            let text = "must specify non empty persistentVolumeName";
            errors.push(Error::required(&at.child("persistentVolumeName"), text));
        }
        (None, Some(_)) => {}
        (Some(inline), None) => {
            persistent_volume::validate_inline(&mut errors, &at.child("inlineVolumeSpec"), inline, "");
        }
    }
    errors.faults(&path.child("nodeName"), &spec.node_name, names::dns1123_subdomain(&spec.node_name));
    let path = Path::new("status");
    let default = VolumeAttachmentStatus::default();
    let status = attachment.status.as_ref().unwrap_or(&default);
    let metadata = status.attachment_metadata.iter().flatten();
    if metadata.map(|(key, value)| key.len() + value.len()).sum::<usize>() > METADATA_SIZE {
        errors.push(Error::too_long(&path.child("attachmentMetadata"), METADATA_SIZE));
    }
    for (field, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        let (Some(error), path) = (error, path.child(field)) else { continue };
        if str_of(&error.message).len() > MESSAGE {
            // The original tells the other limit.
            errors.push(Error::too_long(&path.child("message"), METADATA_SIZE));
        }
        if let Some(code) = error.error_code.filter(|code| *code < 0) {
            errors.invalid(&path.child("errorCode"), &code, &names::between(0, i64::from(i32::MAX)));
        }
    }
    errors
}

/// Size of what a driver says of an attached volume, in bytes.
const METADATA_SIZE: usize = 256 << 10;
/// Length of the message of an error, in bytes.
const MESSAGE: usize = 1024;

/// What the first versions of the kind did not ask for.
fn validate_new_attachment(errors: &mut Errors, attachment: &VolumeAttachment) {
    let (path, spec) = (Path::new("spec"), &attachment.spec);
    sources::csi_driver(errors, &path.child("attacher"), &spec.attacher);
    if let Some(name) = &spec.source.persistent_volume_name {
        let path = path.child("source").child("persistentVolumeName");
        errors.faults(&path, name, names::dns1123_subdomain(name));
    }
}
