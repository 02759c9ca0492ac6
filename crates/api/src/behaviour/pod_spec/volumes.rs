//! The faults of a pod's volumes.

use super::env::{FILE_FIELDS, field_selector, resource_selector};
use super::volume_sources::{
    self as sources, aws_disk, azure_disk, csi_driver, fc, flex_options, gce_disk, host_path, nfs,
    reserved_path,
};
use crate::behaviour::check::Check;
use crate::behaviour::fill::{is_empty, items, str_of};
use crate::behaviour::{meta, names, persistent_volume_claim, selector};
use crate::field::{Error, Errors, Path};
use crate::meta::ObjectMeta;
use crate::types::core::v1::{
    CSIVolumeSource, ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath,
    PersistentVolumeClaimTemplate, PodCertificateProjection, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use std::collections::{BTreeMap, BTreeSet};

const ONE_TYPE: &str = "may not specify more than 1 volume type";
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// Shortest life of a projected token, in seconds.
const MIN_TOKEN: i64 = 600;
/// Longest life of a projected token, in seconds.
const MAX_TOKEN: i64 = 1 << 32;

/// The volumes that mounts can name: those without a fault.
pub type Usable<'a> = BTreeMap<&'a str, &'a Volume>;

pub fn validate<'a>(
    errors: &mut Errors,
    path: &Path,
    volumes: &'a [Volume],
    pod: Option<&ObjectMeta>,
) -> Usable<'a> {
    let pod_name = pod.map_or("", |p| str_of(&p.name));
    let mut usable = Usable::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let before = errors.len();
        source(errors, &path, volume, pod_name);
        let name = path.child("name");
        if errors.required(&name, &volume.name) {
            errors.faults(&name, &volume.name, names::dns1123_label(&volume.name));
        }
        if usable.contains_key(volume.name.as_str()) {
            errors.push(Error::duplicate(&name, &volume.name));
        }
        if errors.len() == before {
            usable.insert(&volume.name, volume);
        }
        let made = |claim: &str| {
            !pod_name.is_empty()
                && volumes.iter().any(|v| v.ephemeral.is_some() && format!("{pod_name}-{}", v.name) == claim)
        };
        if let Some(claim) = volume.persistent_volume_claim.as_ref().filter(|c| made(&c.claim_name)) {
            let path = path.child("persistentVolumeClaim").child("claimName");
            let text = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&path, &claim.claim_name, text);
        }
    }
    usable
}

/// Checks that a volume has one source, and that one.
fn source(errors: &mut Errors, path: &Path, v: &Volume, pod_name: &str) {
    let mut count = 0;
    let mut first = |errors: &mut Errors, field: &str| {
        count += 1;
        if count > 1 {
            errors.forbidden(&path.child(sources::second_of(field)), ONE_TYPE);
        }
        count == 1
    };
    macro_rules! each {
        ($($field:ident, $name:literal, $check:expr;)*) => {$(
            if let Some(source) = &v.$field && first(errors, $name) {
                sources::with(errors, &path.child($name), source, $check);
            }
        )*};
    }
    each! {
        empty_dir, "emptyDir", |errors, path, s| size_limit(errors, path, s.size_limit.as_ref());
        host_path, "hostPath", host_path;
        git_repo, "gitRepo", |errors, path, s| {
            errors.required(&path.child("repository"), &s.repository);
            sources::local_path(errors, &path.child("directory"), str_of(&s.directory));
        };
        gce_persistent_disk, "gcePersistentDisk", gce_disk;
        aws_elastic_block_store, "awsElasticBlockStore", aws_disk;
        secret, "secret", |errors, path, s| {
            errors.required(&path.child("secretName"), str_of(&s.secret_name));
            mode(errors, &path.child("defaultMode"), s.default_mode);
            keys(errors, &path.child("items"), items(&s.items));
        };
        nfs, "nfs", nfs;
        iscsi, "iscsi", |errors, path, s| {
            errors.required(&path.child("targetPortal"), &s.target_portal);
            let wants_secret = s.chap_auth_discovery == Some(true) || s.chap_auth_session == Some(true);
            let secret_missing = wants_secret && s.secret_ref.is_none();
            sources::iscsi(errors, path, &s.iqn, s.lun, secret_missing, sources::ISCSI_PREFIX);
            if let Some(name) = &s.initiator_name {
                sources::iscsi_name(errors, &path.child("initiatorname"), name, sources::ISCSI_PREFIX);
            }
        };
        glusterfs, "glusterfs", |errors, path, s| {
            errors.required(&path.child("endpoints"), &s.endpoints);
            errors.required(&path.child("path"), &s.path);
        };
        flocker, "flocker", sources::flocker;
        persistent_volume_claim, "persistentVolumeClaim", |errors, path, s| {
            errors.required(&path.child("claimName"), &s.claim_name);
        };
        rbd, "rbd", |errors, path, s| sources::rbd(errors, path, &s.monitors, &s.image);
        cinder, "cinder", |errors, path, s| {
            errors.required(&path.child("volumeID"), &s.volume_id);
            if let Some(secret) = &s.secret_ref {
                errors.required(&path.child("secretRef").child("name"), &secret.name);
            }
        };
        cephfs, "cephfs", |errors, path, s| {
            if s.monitors.is_empty() {
                errors.push(Error::required(&path.child("monitors"), ""));
            }
        };
        quobyte, "quobyte", sources::quobyte;
        downward_api, "downwardAPI", |errors, path, s| {
            mode(errors, &path.child("defaultMode"), s.default_mode);
            for file in items(&s.items) {
                downward_file(errors, path, file);
            }
        };
        fc, "fc", fc;
        flex_volume, "flexVolume", |errors, path, s| {
            errors.required(&path.child("driver"), &s.driver);
            flex_options(errors, &path.child("options"), s.options.as_ref());
        };
        config_map, "configMap", |errors, path, s| {
            errors.required(&path.child("name"), &s.name);
            mode(errors, &path.child("defaultMode"), s.default_mode);
            keys(errors, &path.child("items"), items(&s.items));
        };
        azure_file, "azureFile", |errors, path, s| {
            errors.required(&path.child("secretName"), &s.secret_name);
            errors.required(&path.child("shareName"), &s.share_name);
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
        azure_disk, "azureDisk", azure_disk;
        storageos, "storageos", |errors, path, s| {
            sources::storageos(errors, path, str_of(&s.volume_name), str_of(&s.volume_namespace));
            if let Some(secret) = &s.secret_ref {
                errors.required(&path.child("secretRef").child("name"), &secret.name);
            }
        };
        projected, "projected", projected;
        scale_io, "scaleIO", |errors, path, s| {
            errors.required(&path.child("gateway"), &s.gateway);
            errors.required(&path.child("system"), &s.system);
            errors.required(&path.child("volumeName"), str_of(&s.volume_name));
        };
        csi, "csi", csi;
        ephemeral, "ephemeral", |errors, path, s| {
            let path = path.child("volumeClaimTemplate");
            match &s.volume_claim_template {
                None => errors.push(Error::required(&path, "")),
                Some(template) => claim_template(errors, &path, template),
            }
        };
        image, "image", |errors, path, s| {
            errors.required(&path.child("reference"), str_of(&s.reference));
            errors.required_one_of(
                &path.child("pullPolicy"),
                str_of(&s.pull_policy),
                &["Always", "IfNotPresent", "Never"],
            );
        };
    }
    if count == 0 {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    claim_name(errors, path, v, pod_name);
    if let Some(iscsi) = v.iscsi.as_ref().filter(|s| s.initiator_name.is_some())
        && sources::too_long_for_iscsi(&v.name, &iscsi.target_portal)
    {
        errors.invalid(&path.child("name"), &v.name, sources::ISCSI_LENGTH);
    }
}

/// The claim of an ephemeral volume is named after the pod and the volume.
fn claim_name(errors: &mut Errors, path: &Path, v: &Volume, pod_name: &str) {
    if v.ephemeral.is_none() || pod_name.is_empty() || v.name.is_empty() {
        return;
    }
    let claim = format!("{pod_name}-{}", v.name);
    for fault in names::dns1123_subdomain(&claim) {
        errors.invalid(&path.child("name"), &v.name, &format!("PVC name {claim:?}: {fault}"));
    }
}

fn size_limit(errors: &mut Errors, path: &Path, limit: Option<&QuantityText>) {
    let bad = |q: &QuantityText| crate::quantity::Quantity::of(q).map_or(true, |q| q.is_negative());
    if limit.is_some_and(bad) {
        errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn mode(errors: &mut Errors, path: &Path, mode: Option<i32>) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(path, &mode, MODE);
    }
}

fn keys(errors: &mut Errors, path: &Path, keys: &[KeyToPath]) {
    for (i, item) in keys.iter().enumerate() {
        let path = path.index(i);
        errors.required(&path.child("key"), &item.key);
        errors.required(&path.child("path"), &item.path);
        reserved_path(errors, &path.child("path"), &item.path);
        mode(errors, &path.child("mode"), item.mode);
    }
}

fn downward_file(errors: &mut Errors, path: &Path, file: &DownwardAPIVolumeFile) {
    errors.required(&path.child("path"), &file.path);
    reserved_path(errors, &path.child("path"), &file.path);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            field_selector(errors, &path.child("fieldRef"), field, &FILE_FIELDS);
            if other.is_some() {
                let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", text);
            }
        }
        (None, Some(resource)) => {
            resource_selector(errors, &path.child("resourceFieldRef"), resource, true);
        }
        (None, None) => {
            errors.push(Error::required(path, "one of fieldRef and resourceFieldRef is required"));
        }
    }
    mode(errors, &path.child("mode"), file.mode);
}

fn projected(errors: &mut Errors, path: &Path, volume: &ProjectedVolumeSource) {
    mode(errors, &path.child("defaultMode"), volume.default_mode);
    let mut taken = BTreeSet::new();
    for (i, source) in items(&volume.sources).iter().enumerate() {
        projection(errors, path, &path.child("sources").index(i), source, &mut taken);
    }
}

/// One source of a projected volume. `volume` is the path of the volume, where clashes are told.
fn projection<'a>(
    errors: &mut Errors,
    volume: &Path,
    path: &Path,
    source: &'a VolumeProjection,
    taken: &mut BTreeSet<&'a str>,
) {
    let mut claim = |errors: &mut Errors, file: &'a str, told: &str| {
        if !file.is_empty() && !taken.insert(file) {
            errors.invalid(volume, told, "conflicting duplicate paths");
        }
    };
    let named = [
        ("secret", source.secret.as_ref().map(|s| (&s.name, items(&s.items)))),
        ("configMap", source.config_map.as_ref().map(|s| (&s.name, items(&s.items)))),
    ];
    for (field, named) in named {
        let Some((name, files)) = named else { continue };
        let path = path.child(field);
        errors.required(&path.child("name"), name);
        keys(errors, &path.child("items"), files);
        for file in files {
            claim(errors, &file.path, name);
        }
    }
    if let Some(downward) = &source.downward_api {
        for file in items(&downward.items) {
            downward_file(errors, &path.child("downwardAPI"), file);
            claim(errors, &file.path, &file.path);
        }
    }
    if let Some(token) = &source.service_account_token {
        token_projection(errors, volume, &path.child("serviceAccountToken"), token);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        trust_bundle(errors, &path.child("clusterTrustBundle"), bundle);
        claim(errors, &bundle.path, &bundle.path);
    }
    if let Some(certificate) = &source.pod_certificate {
        pod_certificate(errors, &path.child("podCertificate"), certificate);
        for file in
            [&certificate.credential_bundle_path, &certificate.key_path, &certificate.certificate_chain_path]
        {
            claim(errors, str_of(file), str_of(file));
        }
    }
    let count = usize::from(source.secret.is_some())
        + usize::from(source.config_map.is_some())
        + usize::from(source.downward_api.is_some())
        + usize::from(source.service_account_token.is_some())
        + usize::from(source.cluster_trust_bundle.is_some())
        + usize::from(source.pod_certificate.is_some());
    if count > 1 {
        errors.forbidden(path, "may not specify more than 1 volume type per source");
    }
}

fn token_projection(errors: &mut Errors, volume: &Path, path: &Path, token: &ServiceAccountTokenProjection) {
    let seconds = token.expiration_seconds.unwrap_or(0);
    let at = path.child("expirationSeconds");
    if seconds < MIN_TOKEN {
        errors.invalid(&at, &seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > MAX_TOKEN {
        errors.invalid(&at, &seconds, "may not specify a duration larger than 2^32 seconds");
    }
    // The original tells this at the volume.
    if errors.required(&volume.child("path"), &token.path) {
        reserved_path(errors, &volume.child("path"), &token.path);
    }
}

fn trust_bundle(errors: &mut Errors, path: &Path, bundle: &ClusterTrustBundleProjection) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => errors.invalid(path, bundle, "only one of name and signerName may be used"),
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(Error::required(&path.child("name"), "must be a valid object name"));
            }
            if bundle.label_selector.is_some() {
                let text = "labelSelector must be unset if name is specified";
                errors.invalid(&path.child("labelSelector"), &bundle.label_selector, text);
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(Error::required(&path.child("signerName"), "must be a valid signer name"));
            }
            selector::validate_opt(errors, &path.child("labelSelector"), &bundle.label_selector);
        }
        (None, None) => {
            errors.push(Error::required(path, "either name or signerName must be specified"));
        }
    }
    errors.required(&path.child("path"), &bundle.path);
    reserved_path(errors, &path.child("path"), &bundle.path);
}

fn pod_certificate(errors: &mut Errors, path: &Path, certificate: &PodCertificateProjection) {
    errors.one_of(
        &path.child("keyType"),
        &certificate.key_type,
        &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"],
    );
    if let Some(seconds) = certificate.max_expiration_seconds.filter(|s| *s < 3600) {
        let path = path.child("maxExpirationSeconds");
        errors.invalid(&path, &seconds, "if provided, maxExpirationSeconds must be >= 3600");
    }
    let mut any = false;
    for (field, file) in [
        ("credentialBundlePath", &certificate.credential_bundle_path),
        ("keyPath", &certificate.key_path),
        ("certificateChainPath", &certificate.certificate_chain_path),
    ] {
        if !is_empty(file) {
            any = true;
            reserved_path(errors, &path.child(field), str_of(file));
        }
    }
    if !any {
        let text = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(Error::required(path, text));
    }
}

fn csi(errors: &mut Errors, path: &Path, source: &CSIVolumeSource) {
    csi_driver(errors, &path.child("driver"), &source.driver);
    if let Some(secret) = &source.node_publish_secret_ref
        && errors.required(&path.child("nodePublishSecretRef").child("name"), &secret.name)
    {
        errors.faults(&path.child("name"), &secret.name, names::dns1123_subdomain(&secret.name));
    }
}

fn claim_template(errors: &mut Errors, path: &Path, template: &PersistentVolumeClaimTemplate) {
    let empty = BTreeMap::new();
    let default = ObjectMeta::default();
    let metadata = template.metadata.as_ref().unwrap_or(&default);
    let at = path.child("metadata");
    errors
        .extend(meta::annotations(metadata.annotations.as_ref().unwrap_or(&empty), &at.child("annotations")));
    errors.extend(meta::labels(metadata.labels.as_ref().unwrap_or(&empty), &at.child("labels")));
    for (field, set) in [
        ("name", !is_empty(&metadata.name)),
        ("generateName", !is_empty(&metadata.generate_name)),
        ("namespace", !is_empty(&metadata.namespace)),
        ("selfLink", !is_empty(&metadata.self_link)),
        ("uID", !is_empty(&metadata.uid)),
        ("resourceVersion", !is_empty(&metadata.resource_version)),
        ("generation", metadata.generation.unwrap_or(0) != 0),
        ("creationTimestamp", metadata.creation_timestamp.is_some()),
        ("deletionTimestamp", metadata.deletion_timestamp.is_some()),
        ("deletionGracePeriodSeconds", metadata.deletion_grace_period_seconds.is_some()),
        ("ownerReferences", !items(&metadata.owner_references).is_empty()),
        ("finalizers", !items(&metadata.finalizers).is_empty()),
        ("managedFields", !items(&metadata.managed_fields).is_empty()),
    ] {
        if set {
            errors.forbidden(&at.child(field), "cannot be set");
        }
    }
    persistent_volume_claim::validate_spec(errors, &path.child("spec"), &template.spec);
}
