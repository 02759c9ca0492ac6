//! The faults of environment variables and of the fields and resources that they can be taken from.

use super::volume_sources::no_backsteps;
use crate::behaviour::check::Check;
use crate::behaviour::fill::{is_empty, str_of};
use crate::behaviour::names;
use crate::field::{Error, Errors, Path};
use crate::quantity::Quantity;
use crate::types::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};

/// Fields of the pod that a variable can have.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of the pod that a file can have.
pub const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Every field that the downward API knows.
const KNOWN_FIELDS: [&str; 13] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub fn variables(errors: &mut Errors, path: &Path, vars: &[EnvVar]) {
    for (i, var) in vars.iter().enumerate() {
        let path = path.index(i);
        if errors.required(&path.child("name"), &var.name) {
            errors.faults(&path.child("name"), &var.name, names::env_name(&var.name));
        }
        if let Some(from) = &var.value_from {
            value_from(errors, &path.child("valueFrom"), from, !is_empty(&var.value));
        }
    }
}

fn value_from(errors: &mut Errors, path: &Path, from: &EnvVarSource, has_value: bool) {
    let mut sources = 0;
    if let Some(field) = &from.field_ref {
        sources += 1;
        field_selector(errors, &path.child("fieldRef"), field, &ENV_FIELDS);
    }
    if let Some(resource) = &from.resource_field_ref {
        sources += 1;
        resource_selector(errors, &path.child("resourceFieldRef"), resource, false);
    }
    if let Some(key) = &from.config_map_key_ref {
        sources += 1;
        key_selector(errors, &path.child("configMapKeyRef"), &key.name, &key.key);
    }
    if let Some(key) = &from.secret_key_ref {
        sources += 1;
        key_selector(errors, &path.child("secretKeyRef"), &key.name, &key.key);
    }
    if let Some(file) = &from.file_key_ref {
        sources += 1;
        let path = path.child("fileKeyRef");
        if errors.required(&path.child("key"), &file.key) {
            errors.faults(&path.child("key"), &file.key, names::env_name(&file.key));
        }
        if errors.required(&path.child("volumeName"), &file.volume_name) {
            errors.faults(
                &path.child("volumeName"),
                &file.volume_name,
                names::dns1123_label(&file.volume_name),
            );
        }
        if errors.required(&path.child("path"), &file.path) {
            no_backsteps(errors, &path.child("path"), &file.path);
        }
    }
    let text = match (sources, has_value) {
        (0, _) => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        (_, true) => "may not be specified when `value` is not empty",
        (2.., false) => "may not have more than one field specified at a time",
        (1, false) => return,
        _ => return,
    };
    errors.invalid(path, "", text);
}

fn key_selector(errors: &mut Errors, path: &Path, name: &str, key: &str) {
    errors.faults(&path.child("name"), name, names::dns1123_subdomain(name));
    if errors.required(&path.child("key"), key) {
        errors.faults(&path.child("key"), key, names::config_key(key));
    }
}

/// A field of the pod. `allowed` is sorted by name.
pub fn field_selector(errors: &mut Errors, path: &Path, field: &ObjectFieldSelector, allowed: &[&str]) {
    if !errors.required(&path.child("apiVersion"), str_of(&field.api_version))
        || !errors.required(&path.child("fieldPath"), &field.field_path)
    {
        return;
    }
    // An old name, which older clients send.
    let text = match field.field_path.as_str() {
        "spec.host" => "spec.nodeName",
        other => other,
    };
    let subscripted = text.strip_suffix("']").and_then(|t| t.split_once("['"));
    let known = |name: &str| KNOWN_FIELDS.contains(&name);
    if str_of(&field.api_version) != "v1" {
        let version = str_of(&field.api_version);
        let text = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.invalid(&path.child("fieldPath"), &field.field_path, &text);
        return;
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            errors.faults(path, &key.to_lowercase(), names::qualified_name(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => errors.faults(path, key, names::qualified_name(key)),
        Some((name, _)) if !name.is_empty() => {
            let text = format!("error converting fieldPath: field label does not support subscript: {text}");
            errors.invalid(&path.child("fieldPath"), &field.field_path, &text);
        }
        None if known(text) => errors.one_of(&path.child("fieldPath"), text, allowed),
        _ => {
            let text = format!("error converting fieldPath: field label not supported: {text}");
            errors.invalid(&path.child("fieldPath"), &field.field_path, &text);
        }
    }
}

/// A resource of a container.
pub fn resource_selector(errors: &mut Errors, path: &Path, field: &ResourceFieldSelector, in_volume: bool) {
    let resource = field.resource.as_str();
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && is_empty(&field.container_name) {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !huge {
        errors.one_of(&path.child("resource"), resource, &RESOURCES);
    }
    let Some(divisor) = field.divisor.as_ref().and_then(|d| Quantity::of(d).ok()) else { return };
    if divisor.is_zero() {
        return;
    }
    let text = divisor.to_string();
    let bytes = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported";
    let (good, fault) = match resource {
        "limits.cpu" | "requests.cpu" => (
            matches!(text.as_str(), "1m" | "1"),
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned(),
        ),
        "limits.memory" | "requests.memory" => {
            (BYTES.contains(&text.as_str()), format!("{bytes} with the memory resource"))
        }
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (BYTES.contains(&text.as_str()), format!("{bytes} with the local ephemeral storage resource"))
        }
        _ if huge => (BYTES.contains(&text.as_str()), format!("{bytes} with the hugepages resource")),
        _ => return,
    };
    if !good {
        errors.invalid(&path.child("divisor"), resource, &fault);
    }
}

pub fn sources(errors: &mut Errors, path: &Path, sources: &[EnvFromSource]) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = str_of(&source.prefix);
        if !prefix.is_empty() {
            errors.faults(&at.child("prefix"), prefix, names::env_name(prefix));
        }
        let given = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| &r.name)),
            ("secretRef", source.secret_ref.as_ref().map(|r| &r.name)),
        ];
        for (field, name) in given {
            let Some(name) = name else { continue };
            let at = at.child(field).child("name");
            if errors.required(&at, name) {
                errors.faults(&at, name, names::subdomain_name(name, true));
            }
        }
        match given.iter().filter(|(_, name)| name.is_some()).count() {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}
