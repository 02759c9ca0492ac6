//! The faults of persistent volumes.

use crate::behaviour::check::{self, Check, entries};
use crate::behaviour::fill::{self, is_empty, items, str_of};
use crate::behaviour::persistent_volume_claim::access_modes;
use crate::behaviour::pod_spec::warnings::OLD_NODE_LABELS;
use crate::behaviour::pod_spec::{node_selector, sources};
use crate::behaviour::{diff, internal, names};
use crate::field::{Error, Errors, Path};
use crate::quantity::Quantity;
use crate::types::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeSpec, SecretReference,
};

const ONE_TYPE: &str = "may not specify more than 1 volume type";
const INLINE: &str = "may not be specified in the context of inline volumes";

pub fn create(volume: &PersistentVolume) -> Errors {
    let mut errors = Errors::new();
    let default = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    common(&mut errors, &path, spec);
    capacity(&mut errors, &path.child("capacity"), spec);
    let policy = str_of(&spec.persistent_volume_reclaim_policy);
    let at = path.child("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        errors.one_of(&at, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = &spec.node_affinity {
        let path = path.child("nodeAffinity");
        match &affinity.required {
            Some(required) => node_selector(&mut errors, &path.child("required"), required),
            None => {
                let text = "must specify required node constraints";
                errors.push(Error::required(&path.child("required"), text));
            }
        }
    }
    source(&mut errors, &path, spec, str_of(&volume.metadata.name));
    if spec.host_path.as_ref().is_some_and(|s| s.path.trim_matches('/').is_empty()) && policy == "Recycle" {
        errors.forbidden(&at, "may not be 'recycle' for a hostPath mount of '/'");
    }
    if !is_empty(&spec.storage_class_name) {
        let class = str_of(&spec.storage_class_name);
        errors.faults(&path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    if let Some(mode) = &spec.volume_mode {
        errors.one_of(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    attributes_class(&mut errors, &path, spec);
    errors
}

/// A volume written into an attachment, whose name is `name`.
pub fn inline(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec, name: &str) {
    let not_inline = |errors: &mut Errors, field: &str, set: bool| {
        if set {
            errors.forbidden(&path.child(field), INLINE);
        }
    };
    not_inline(errors, "claimRef", spec.claim_ref.is_some());
    not_inline(errors, "capacity", spec.capacity.as_ref().is_some_and(|c| !c.is_empty()));
    if spec.csi.is_none() {
        let text = "has to be specified in the context of inline volumes";
        errors.push(Error::required(&path.child("csi"), text));
    }
    common(errors, path, spec);
    if !matches!(str_of(&spec.persistent_volume_reclaim_policy), "" | "Retain") {
        let path = path.child("persistentVolumeReclaimPolicy");
        errors.forbidden(&path, "may only be Retain in the context of inline volumes");
    }
    not_inline(errors, "nodeAffinity", spec.node_affinity.is_some());
    source(errors, path, spec, name);
    not_inline(errors, "storageClassName", !is_empty(&spec.storage_class_name));
    if spec.volume_mode.as_deref().is_some_and(|mode| mode != "Filesystem") {
        let text = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.forbidden(&path.child("volumeMode"), text);
    }
    attributes_class(errors, path, spec);
}

fn common(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec) {
    let modes = path.child("accessModes");
    if items(&spec.access_modes).is_empty() {
        errors.push(Error::required(&modes, ""));
    }
    access_modes(errors, &modes, items(&spec.access_modes));
}

fn attributes_class(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec) {
    if let Some(class) = &spec.volume_attributes_class_name {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(Error::required(&at, "an empty string is disallowed"));
        } else {
            errors.faults(&at, class, names::dns1123_subdomain(class));
        }
        if spec.csi.is_none() {
            let text = "has to be specified when using volumeAttributesClassName";
            errors.push(Error::required(&path.child("csi"), text));
        }
    }
}

fn capacity(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec) {
    let list = spec.capacity.clone().unwrap_or_default();
    if list.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if !list.contains_key("storage") || list.len() > 1 {
        errors.push(Error::not_supported(path, &spec.capacity, &["storage"]));
    }
    for (name, text) in entries(spec.capacity.as_ref()) {
        let path = path.key(name);
        if let Ok(amount) = Quantity::of(text)
            && amount.value() < 0
        {
            errors.invalid(&path, &amount.value(), "must be a valid resource quantity");
        }
        check::positive(errors, &path, text);
    }
}

/// Checks that a volume has one source, and that one.
fn source(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec, name: &str) {
    let (mut count, of_spec) = (0, path);
    let mut first = |errors: &mut Errors, field: &str| {
        count += 1;
        if count > 1 && field != "flexVolume" {
            errors.forbidden(&path.child(sources::second_of(field)), ONE_TYPE);
        }
        count == 1 || field == "flexVolume"
    };
    macro_rules! each {
        ($($field:ident, $name:literal, $check:expr;)*) => {$(
            if let Some(source) = &spec.$field && first(errors, $name) {
                sources::with(errors, &path.child($name), source, $check);
            }
        )*};
    }
    each! {
        host_path, "hostPath", sources::host_path;
        gce_persistent_disk, "gcePersistentDisk", sources::gce_disk;
        aws_elastic_block_store, "awsElasticBlockStore", sources::aws_disk;
        glusterfs, "glusterfs", |errors, path, s| {
            errors.required(&path.child("endpoints"), &s.endpoints);
            errors.required(&path.child("path"), &s.path);
            if let Some(namespace) = &s.endpoints_namespace {
                let path = path.child("endpointsNamespace");
                if namespace.is_empty() {
                    let text = "if the endpointnamespace is set, it must be a valid namespace name";
                    errors.invalid(&path, namespace, text);
                } else {
                    errors.faults(&path, namespace, names::dns1123_label(namespace));
                }
            }
        };
        flocker, "flocker", sources::flocker;
        nfs, "nfs", sources::nfs;
        rbd, "rbd", |errors, path, s| sources::rbd(errors, path, &s.monitors, &s.image);
        quobyte, "quobyte", sources::quobyte;
        cephfs, "cephfs", |errors, path, s| {
            if s.monitors.is_empty() {
                errors.push(Error::required(&path.child("monitors"), ""));
            }
        };
        iscsi, "iscsi", |errors, path, s| {
            errors.required(&path.child("targetPortal"), &s.target_portal);
            if s.initiator_name.is_some() && sources::too_long_for_iscsi(name, &s.target_portal) {
                errors.invalid(&path.child("targetportal"), &s.target_portal, sources::ISCSI_LENGTH);
            }
            let wants_secret = s.chap_auth_discovery == Some(true) || s.chap_auth_session == Some(true);
            sources::iscsi_of_cluster(errors, path, &s.iqn, s.lun, wants_secret && s.secret_ref.is_none());
            if let Some(secret) = &s.secret_ref {
                errors.required(&path.child("secretRef").child("name"), str_of(&secret.name));
            }
            if let Some(name) = &s.initiator_name {
                sources::iscsi_initiator_of_cluster(errors, path, name);
            }
        };
        cinder, "cinder", |errors, path, s| {
            errors.required(&path.child("volumeID"), &s.volume_id);
            if let Some(secret) = &s.secret_ref {
                errors.required(&path.child("secretRef").child("name"), str_of(&secret.name));
                errors.required(&path.child("secretRef").child("namespace"), str_of(&secret.namespace));
            }
        };
        fc, "fc", sources::fc;
        flex_volume, "flexVolume", |errors, path, s| {
            errors.required(&path.child("driver"), &s.driver);
            sources::flex_options(errors, &path.child("options"), s.options.as_ref());
        };
        azure_file, "azureFile", |errors, path, s| {
            errors.required(&path.child("secretName"), &s.secret_name);
            errors.required(&path.child("shareName"), &s.share_name);
            if let Some(namespace) = &s.secret_namespace {
                errors.required(&path.child("secretNamespace"), namespace);
            }
        };
        vsphere_volume, "vsphereVolume", |errors, path, s| {
            errors.required(&path.child("volumePath"), &s.volume_path);
        };
        photon_persistent_disk, "photonPersistentDisk", |errors, path, s| {
            errors.required(&path.child("pdID"), &s.pd_id);
        };
        portworx_volume, "portworxVolume", |errors, path, s| {
            errors.required(&path.child("volumeID"), &s.volume_id);
        };
        azure_disk, "azureDisk", sources::azure_disk;
        scale_io, "scaleIO", |errors, path, s| {
            errors.required(&path.child("gateway"), &s.gateway);
            errors.required(&path.child("system"), &s.system);
            errors.required(&path.child("volumeName"), str_of(&s.volume_name));
        };
        local, "local", |errors, path, s| {
            if errors.required(&path.child("path"), &s.path) {
                sources::no_backsteps(errors, &path.child("path"), &s.path);
            }
            if spec.node_affinity.is_none() {
                let text = "Local volume requires node affinity";
                errors.push(Error::required(&of_spec.child("nodeAffinity"), text));
            }
        };
        storageos, "storageos", |errors, path, s| {
            sources::storageos(errors, path, str_of(&s.volume_name), str_of(&s.volume_namespace));
            if let Some(secret) = &s.secret_ref {
                errors.required(&path.child("secretRef").child("name"), str_of(&secret.name));
                errors.required(&path.child("secretRef").child("namespace"), str_of(&secret.namespace));
            }
        };
        csi, "csi", csi;
    }
    if count == 0 {
        errors.push(Error::required(path, "must specify a volume type"));
    }
}

fn csi(errors: &mut Errors, path: &Path, source: &CSIPersistentVolumeSource) {
    sources::csi_driver(errors, &path.child("driver"), &source.driver);
    errors.required(&path.child("volumeHandle"), &source.volume_handle);
    for (field, secret) in [
        ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ] {
        if let Some(secret) = secret {
            secret_reference(errors, &path.child(field), secret);
        }
    }
}

fn secret_reference(errors: &mut Errors, path: &Path, secret: &SecretReference) {
    let (name, namespace) = (str_of(&secret.name), str_of(&secret.namespace));
    if errors.required(&path.child("name"), name) {
        errors.faults(&path.child("name"), name, names::dns1123_subdomain(name));
    }
    if errors.required(&path.child("namespace"), namespace) {
        errors.faults(&path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
}

/// The part of a specification that says where the volume is.
fn where_it_is(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

/// Whether the nodes are the same, but for old labels that may have got their stable names.
fn moved_to_stable_labels(new: &PersistentVolumeSpec, old: &PersistentVolumeSpec) -> bool {
    let terms = |spec: &PersistentVolumeSpec| {
        let required = spec.node_affinity.as_ref().and_then(|a| a.required.clone());
        required.map(|r| r.node_selector_terms).unwrap_or_default()
    };
    let (now, mut was) = (terms(new), terms(old));
    for (now, was) in now.iter().zip(&mut was) {
        let pairs = [
            (&now.match_expressions, &mut was.match_expressions),
            (&now.match_fields, &mut was.match_fields),
        ];
        for (now, was) in pairs.into_iter().flat_map(|(n, w)| items(n).iter().zip(fill::items_mut(w))) {
            if OLD_NODE_LABELS.contains(&(was.key.as_str(), now.key.as_str())) {
                was.key.clone_from(&now.key);
            }
        }
    }
    new.node_affinity.is_some() == old.node_affinity.is_some() && fill::same(&now, &was)
}

pub fn update(subresource: &str, new: &PersistentVolume, old: &PersistentVolume) -> Errors {
    if subresource == "status" {
        return vec![];
    }
    let mut errors = create(new);
    let (Some(wanted), Some(was)) = (&new.spec, &old.spec) else { return errors };
    let (mut now, before) = (where_it_is(wanted), where_it_is(was));
    if let (Some(csi), Some(old)) = (&mut now.csi, &before.csi)
        && old.controller_expand_secret_ref.is_none()
    {
        csi.controller_expand_secret_ref = None;
    }
    if !fill::same(&now, &before) {
        let text = format!(
            "spec.persistentvolumesource is immutable after creation\n{}",
            diff::unified(&before, &now)
        );
        errors.forbidden(&Path::new("spec").child("persistentvolumesource"), &text);
    }
    errors.unchanged(&Path::new("volumeMode"), &wanted.volume_mode, &was.volume_mode);
    if was.node_affinity.is_some() && !moved_to_stable_labels(wanted, was) {
        let text = "field is immutable, except for updating from beta label to GA";
        let shown = internal::show(&wanted.node_affinity, internal::VOLUME_AFFINITY);
        errors.push(Error::invalid(&Path::new("nodeAffinity"), "", text).showing(shown));
    }
    if was.volume_attributes_class_name.is_some() && wanted.volume_attributes_class_name.is_none() {
        let path = Path::new("spec").child("volumeAttributesClassName");
        errors.forbidden(&path, "update from non-nil value to nil is forbidden");
    }
    errors
}
