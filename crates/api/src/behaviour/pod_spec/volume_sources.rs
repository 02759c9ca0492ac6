//! The faults of single volume sources, shared by pods and persistent volumes.

use crate::behaviour::check::Check;
use crate::behaviour::fill::{is_empty, items, str_of};
use crate::behaviour::names;
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, FCVolumeSource, FlockerVolumeSource,
    GCEPersistentDiskVolumeSource, HostPathVolumeSource, NFSVolumeSource, QuobyteVolumeSource,
};
use std::collections::BTreeMap;

/// Length of a volume's name and of its iSCSI portal together, in bytes.
const ISCSI_NAME: usize = 64;
pub const ISCSI_LENGTH: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
     iscsi.initiatorName is specified.";
/// What is told of a name that is of none of the three kinds.
pub const ISCSI_PREFIX: &str = "must be valid format starting with iqn, eui, or naa";
const ISCSI_FORMAT: &str = "must be valid format";

/// Length of the name of a storage driver, in bytes.
const DRIVER_NAME: usize = 63;

/// Calls a check on a source; it lets a table of checks be written without the types of all sources.
pub fn with<T>(errors: &mut Errors, path: &Path, source: &T, check: impl FnOnce(&mut Errors, &Path, &T)) {
    check(errors, path, source);
}

/// The name that the original has for a source when it is not the first: two are written otherwise there.
#[must_use]
pub fn second_of(field: &str) -> &str {
    match field {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        other => other,
    }
}

/// Whether a volume's name and its portal are too long to be a device's name.
#[must_use]
pub fn too_long_for_iscsi(name: &str, portal: &str) -> bool {
    name.len() + 1 + portal.len() > ISCSI_NAME
}

#[must_use]
pub fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// A path that does not lead up.
pub fn no_backsteps(errors: &mut Errors, path: &Path, target: &str) {
    if has_backsteps(target) {
        errors.invalid(path, target, "must not contain '..'");
    }
}

/// A path that stays below where it begins.
pub fn local_path(errors: &mut Errors, path: &Path, target: &str) {
    if target.starts_with('/') {
        errors.invalid(path, target, "must be a relative path");
    }
    no_backsteps(errors, path, target);
}

/// A local path that does not clash with the links of projected files.
pub fn reserved_path(errors: &mut Errors, path: &Path, target: &str) {
    local_path(errors, path, target);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.invalid(path, target, "must not start with '..'");
    }
}

pub fn host_path(errors: &mut Errors, path: &Path, source: &HostPathVolumeSource) {
    if !errors.required(&path.child("path"), &source.path) {
        return;
    }
    no_backsteps(errors, &path.child("path"), &source.path);
    if let Some(kind) = &source.type_ {
        let kinds = [
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ];
        errors.one_of(&path.child("type"), kind, &kinds);
    }
}

pub fn nfs(errors: &mut Errors, path: &Path, source: &NFSVolumeSource) {
    errors.required(&path.child("server"), &source.server);
    errors.required(&path.child("path"), &source.path);
    if !source.path.starts_with('/') {
        errors.invalid(&path.child("path"), &source.path, "must be an absolute path");
    }
}

fn partition(errors: &mut Errors, path: &Path, partition: Option<i32>) {
    let number = partition.unwrap_or(0);
    if !(0..=255).contains(&number) {
        errors.invalid(&path.child("partition"), &number, "must be between 1 and 255, inclusive");
    }
}

/// The original tells the faults of this one under another name.
fn renamed(path: &Path, from: &str, to: &str) -> Path {
    let text = path.to_string();
    Path::new(&text.strip_suffix(from).map_or(text.clone(), |head| format!("{head}{to}")))
}

pub fn gce_disk(errors: &mut Errors, path: &Path, source: &GCEPersistentDiskVolumeSource) {
    let path = renamed(path, "gcePersistentDisk", "persistentDisk");
    errors.required(&path.child("pdName"), &source.pd_name);
    partition(errors, &path, source.partition);
}

pub fn aws_disk(errors: &mut Errors, path: &Path, source: &AWSElasticBlockStoreVolumeSource) {
    errors.required(&path.child("volumeID"), &source.volume_id);
    partition(errors, path, source.partition);
}

pub fn azure_disk(errors: &mut Errors, path: &Path, source: &AzureDiskVolumeSource) {
    errors.required(&path.child("diskName"), &source.disk_name);
    errors.required(&path.child("diskURI"), &source.disk_uri);
    if let Some(mode) = &source.caching_mode {
        errors.one_of(&path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = &source.kind else { return };
    errors.one_of(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let uri = &source.disk_uri;
    let (prefix, form) = if kind == "Managed" {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !uri.starts_with(prefix) {
        errors.push(Error::not_supported(&path.child("diskURI"), uri, &[form]));
    }
}

pub fn fc(errors: &mut Errors, path: &Path, source: &FCVolumeSource) {
    let (targets, ids) = (items(&source.target_wwns), items(&source.wwids));
    let at = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        errors.push(Error::required(&at, "must specify either targetWWNs or wwids, but not both"));
    }
    if targets.is_empty() {
        return;
    }
    if !ids.is_empty() {
        errors.invalid(&at, targets, "targetWWNs and wwids can not be specified simultaneously");
    }
    match source.lun {
        None => {
            errors.push(Error::required(&path.child("lun"), "lun is required if targetWWNs is specified"));
        }
        Some(lun) => lun_number(errors, &path.child("lun"), lun),
    }
}

fn lun_number(errors: &mut Errors, path: &Path, lun: i32) {
    for fault in names::in_range(i64::from(lun), 0, 255) {
        errors.invalid(path, &lun, &fault);
    }
}

/// What all forms of iSCSI volumes have. `unknown` as of [`iscsi_name`].
pub fn iscsi(errors: &mut Errors, path: &Path, iqn: &str, lun: i32, secret_missing: bool, unknown: &str) {
    if errors.required(&path.child("iqn"), iqn) {
        iscsi_name(errors, &path.child("iqn"), iqn, unknown);
    }
    lun_number(errors, &path.child("lun"), lun);
    if secret_missing {
        errors.push(Error::required(&path.child("secretRef"), ""));
    }
}

/// The iSCSI volumes of the cluster have one text for every fault of a name.
pub fn iscsi_of_cluster(errors: &mut Errors, path: &Path, iqn: &str, lun: i32, secret_missing: bool) {
    iscsi(errors, path, iqn, lun, secret_missing, ISCSI_FORMAT);
}

/// As [`iscsi_of_cluster`], for the initiator's name.
pub fn iscsi_initiator_of_cluster(errors: &mut Errors, path: &Path, name: &str) {
    iscsi_name(errors, &path.child("initiatorname"), name, ISCSI_FORMAT);
}

/// The qualified name of a target or initiator. `unknown` is told of a name of no known kind.
pub fn iscsi_name(errors: &mut Errors, path: &Path, name: &str, unknown: &str) {
    let alphanumeric =
        |text: &str, len: usize| text.len() == len && text.bytes().all(|c| c.is_ascii_alphanumeric());
    let good = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => name.get(4..).is_some_and(|rest| alphanumeric(rest, 16)),
        Some("naa") => name.get(4..).is_some_and(|rest| alphanumeric(rest, 32)),
        _ => {
            errors.invalid(path, name, unknown);
            return;
        }
    };
    if !good {
        errors.invalid(path, name, ISCSI_FORMAT);
    }
}

/// `iqn.YYYY-MM.authority:name`.
fn is_iqn(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let bytes = rest.as_bytes();
    let date = bytes.len() > 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5..7].iter().all(u8::is_ascii_digit)
        && bytes[7] == b'.';
    let Some((authority, unique)) = rest.get(8..).and_then(|r| r.split_once(':')) else { return false };
    date && !authority.is_empty()
        && authority.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
        && !unique.is_empty()
        && !unique.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n'])
}

pub fn flocker(errors: &mut Errors, path: &Path, source: &FlockerVolumeSource) {
    let name = str_of(&source.dataset_name);
    match (name.is_empty(), is_empty(&source.dataset_uuid)) {
        (true, true) => {
            errors.push(Error::required(path, "one of datasetName and datasetUUID is required"));
        }
        (false, false) => {
            let text = "datasetName and datasetUUID can not be specified simultaneously";
            errors.invalid(path, "resource", text);
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

pub fn rbd(errors: &mut Errors, path: &Path, monitors: &[String], image: &str) {
    if monitors.is_empty() {
        errors.push(Error::required(&path.child("monitors"), ""));
    }
    errors.required(&path.child("image"), image);
}

pub fn quobyte(errors: &mut Errors, path: &Path, source: &QuobyteVolumeSource) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = path.child("registry");
    if source.registry.is_empty() {
        errors.push(Error::required(&registry, PAIRS));
    } else if str_of(&source.tenant).len() >= 65 {
        let text = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(Error::required(&path.child("tenant"), text));
    } else {
        for _ in source.registry.split(',').filter(|pair| !is_host_and_port(pair)) {
            errors.invalid(&registry, &source.registry, PAIRS);
        }
    }
    errors.required(&path.child("volume"), &source.volume);
}

/// A host, which is in brackets when it has colons of its own, and a port.
fn is_host_and_port(pair: &str) -> bool {
    let Some((host, _)) = pair.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    !bare.unwrap_or(host).contains(['[', ']']) && (bare.is_some() || !host.contains(':'))
}

pub fn storageos(errors: &mut Errors, path: &Path, name: &str, namespace: &str) {
    if errors.required(&path.child("volumeName"), name) {
        errors.faults(&path.child("volumeName"), name, names::dns1123_label(name));
    }
    if !namespace.is_empty() {
        errors.faults(&path.child("volumeNamespace"), namespace, names::dns1123_label(namespace));
    }
}

/// Options of a flex driver may not pretend to be Kubernetes' own.
pub fn flex_options(errors: &mut Errors, path: &Path, options: Option<&BTreeMap<String, String>>) {
    for key in options.into_iter().flatten().map(|(key, _)| key) {
        let domain = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let text = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&path.key(key), key, text);
        }
    }
}

/// The name of a storage driver.
pub fn csi_driver(errors: &mut Errors, path: &Path, name: &str) {
    errors.required(path, name);
    if name.len() > DRIVER_NAME {
        errors.push(Error::too_long(path, DRIVER_NAME));
    }
    // The original goes on with an empty name.
    errors.faults(path, name, names::dns1123_subdomain(&name.to_lowercase()));
}
