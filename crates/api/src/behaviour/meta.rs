//! `metadata`: what the server sets before a write, and the faults of it.
//!
//! The API server calls [`before_create`] and [`before_update`] before a behaviour's own preparation, and
//! [`validate_create`] and [`validate_update`] together with its validation.

use super::{Behaviour, fill, names};
use crate::field::{Error, Errors, Path};
use crate::meta::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use std::collections::{BTreeMap, BTreeSet};

/// Size of all annotations of one object together, in bytes.
const ANNOTATIONS: usize = 256 << 10;
/// Length of a field manager's name, in bytes.
const MANAGER: usize = 128;
/// Length of a subresource's name in `managedFields`, in bytes.
const SUBRESOURCE: usize = 256;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const IMMUTABLE: &str = "field is immutable";

/// Finalizers without a domain that are known.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", ORPHAN, FOREGROUND];

/// Drops what a creator may not set.
pub fn before_create(meta: &mut ObjectMeta) {
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    meta.generation = None;
}

/// Keeps what an update may leave out or may not change. Run before `prepare_update`.
pub fn before_update(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.self_link = None;
    if fill::is_empty(&new.uid) {
        new.uid.clone_from(&old.uid);
    }
    if old.creation_timestamp.is_some() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
}

/// The faults of a new object's metadata. Names have been generated.
#[must_use]
pub fn validate_create(meta: &ObjectMeta, namespaced: bool, behaviour: &dyn Behaviour) -> Errors {
    let path = Path::new("metadata");
    let mut errors = Errors::new();
    let generate = fill::str_of(&meta.generate_name);
    if !generate.is_empty() {
        for fault in behaviour.check_name(generate, true) {
            errors.push(Error::invalid(&path.child("generateName"), generate, fault));
        }
    }
    let name = fill::str_of(&meta.name);
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        for fault in behaviour.check_name(name, false) {
            errors.push(Error::invalid(&path.child("name"), name, fault));
        }
    }
    errors.extend(namespace(meta, namespaced, &path));
    if meta.generation.unwrap_or(0) < 0 {
        errors.push(Error::invalid(
            &path.child("generation"),
            &meta.generation,
            "must be greater than or equal to 0",
        ));
    }
    errors.extend(common(meta, &path));
    errors.extend(finalizers(fill::items(&meta.finalizers), &path.child("finalizers")));
    errors.extend(managed(fill::items(&meta.managed_fields), &path.child("managedFields")));
    errors
}

/// The faults of an update's metadata. Finalizers are looked at by the kinds only.
#[must_use]
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> Errors {
    let path = Path::new("metadata");
    let mut errors = Errors::new();
    if old.deletion_timestamp.is_some() {
        errors.extend(no_new_finalizers(new, old, &path));
    }
    if fill::is_empty(&new.resource_version) {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    if new.generation.unwrap_or(0) < old.generation.unwrap_or(0) {
        errors.push(Error::invalid(
            &path.child("generation"),
            &new.generation.unwrap_or(0),
            "must not be decremented",
        ));
    }
    for (field, new, old) in [
        ("name", &new.name, &old.name),
        ("namespace", &new.namespace, &old.namespace),
        ("uid", &new.uid, &old.uid),
    ] {
        let (new, old) = (fill::str_of(new), fill::str_of(old));
        if new != old {
            errors.push(Error::invalid(&path.child(field), new, IMMUTABLE));
        }
    }
    for (field, new, old) in [
        ("creationTimestamp", &new.creation_timestamp, &old.creation_timestamp),
        ("deletionTimestamp", &new.deletion_timestamp, &old.deletion_timestamp),
    ] {
        if new != old {
            errors.push(Error::invalid(&path.child(field), new, IMMUTABLE));
        }
    }
    if new.deletion_grace_period_seconds != old.deletion_grace_period_seconds {
        errors.push(Error::invalid(
            &path.child("deletionGracePeriodSeconds"),
            &new.deletion_grace_period_seconds,
            IMMUTABLE,
        ));
    }
    errors.extend(common(new, &path));
    errors.extend(managed(fill::items(&new.managed_fields), &path.child("managedFields")));
    errors
}

fn namespace(meta: &ObjectMeta, namespaced: bool, path: &Path) -> Errors {
    let path = path.child("namespace");
    let value = fill::str_of(&meta.namespace);
    match (namespaced, value.is_empty()) {
        (true, true) => vec![Error::required(&path, "")],
        (true, false) => invalid(&path, value, names::label_name(value, false)),
        (false, false) => vec![Error::forbidden(&path, "not allowed on this type")],
        (false, true) => vec![],
    }
}

fn common(meta: &ObjectMeta, path: &Path) -> Errors {
    let empty = BTreeMap::new();
    let mut errors = labels(meta.labels.as_ref().unwrap_or(&empty), &path.child("labels"));
    errors.extend(annotations(meta.annotations.as_ref().unwrap_or(&empty), &path.child("annotations")));
    errors.extend(owners(fill::items(&meta.owner_references), &path.child("ownerReferences")));
    errors
}

/// One error per fault of a value.
#[must_use]
pub fn invalid(path: &Path, value: &str, faults: Vec<String>) -> Errors {
    faults.into_iter().map(|fault| Error::invalid(path, value, fault)).collect()
}

/// The faults of labels (and of node selectors, which have the same form).
#[must_use]
pub fn labels(labels: &BTreeMap<String, String>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (key, value) in labels {
        errors.extend(invalid(path, key, names::qualified_name(key)));
        errors.extend(invalid(path, value, names::label_value(value)));
    }
    errors
}

#[must_use]
pub fn annotations(annotations: &BTreeMap<String, String>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut size = 0;
    for (key, value) in annotations {
        // Case does not matter in the keys of annotations.
        errors.extend(invalid(path, key, names::qualified_name(&key.to_lowercase())));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS {
        errors.push(Error::too_long(path, ANNOTATIONS));
    }
    errors
}

fn owners(owners: &[OwnerReference], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut controller: Option<String> = None;
    for owner in owners {
        errors.extend(owner_faults(owner, path));
        if owner.controller == Some(true) {
            let name = format!("{}/{}", owner.kind, owner.name);
            if let Some(first) = &controller {
                errors.push(Error::invalid(
                    path,
                    owners,
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for \
                         {first} and {name}"
                    ),
                ));
            } else {
                controller = Some(name);
            }
        }
    }
    errors
}

fn owner_faults(owner: &OwnerReference, path: &Path) -> Errors {
    let version = owner.api_version.rsplit('/').next().unwrap_or("");
    let mut errors = Errors::new();
    if version.is_empty() {
        errors.push(Error::invalid(
            &path.child("apiVersion"),
            &owner.api_version,
            "version must not be empty",
        ));
    }
    for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
        if value.is_empty() {
            errors.push(Error::invalid(&path.child(field), value, "must not be empty"));
        }
    }
    if owner.api_version == "v1" && owner.kind == "Event" {
        errors.push(Error::invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"));
    }
    errors
}

fn finalizers(finalizers: &[String], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for finalizer in finalizers {
        errors.extend(invalid(path, finalizer, names::qualified_name(finalizer)));
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has(ORPHAN) && has(FOREGROUND) {
        errors.push(Error::invalid(
            path,
            finalizers,
            format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        ));
    }
    errors
}

/// The faults of finalizers of built-in kinds: a name without a domain must be a known one. Custom resources
/// are free.
#[must_use]
pub(super) fn standard_finalizers(meta: &ObjectMeta) -> Errors {
    let path = Path::new("metadata").child("finalizers");
    let unknown = |f: &&String| !f.contains('/') && !STANDARD_FINALIZERS.contains(&f.as_str());
    fill::items(&meta.finalizers)
        .iter()
        .enumerate()
        .filter(|(_, f)| unknown(f))
        .map(|(i, f)| {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            Error::invalid(&path.index(i), f, text)
        })
        .collect()
}

fn no_new_finalizers(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> Errors {
    let old: BTreeSet<&String> = fill::items(&old.finalizers).iter().collect();
    let extra: BTreeSet<&String> = fill::items(&new.finalizers).iter().filter(|f| !old.contains(f)).collect();
    if extra.is_empty() {
        return vec![];
    }
    let list: Vec<String> = extra.into_iter().map(|f| format!("{f:?}")).collect();
    let text = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        list.join(", ")
    );
    vec![Error::forbidden(&path.child("finalizers"), text)]
}

fn managed(entries: &[ManagedFieldsEntry], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        let operation = fill::str_of(&entry.operation);
        if operation != "Apply" && operation != "Update" {
            errors.push(Error::invalid(&path.child("operation"), operation, "must be `Apply` or `Update`"));
        }
        let form = fill::str_of(&entry.fields_type);
        if !form.is_empty() && form != "FieldsV1" {
            errors.push(Error::invalid(&path.child("fieldsType"), form, "must be `FieldsV1`"));
        }
        errors.extend(field_manager(fill::str_of(&entry.manager), &path.child("manager")));
        if fill::str_of(&entry.subresource).len() > SUBRESOURCE {
            errors.push(Error::too_long(&path.child("subresource"), SUBRESOURCE));
        }
    }
    errors
}

/// The faults of a field manager's name, in `managedFields` and in the options of a write.
#[must_use]
pub fn field_manager(manager: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if manager.len() > MANAGER {
        errors.push(Error::too_long(path, MANAGER));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let text = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(Error::invalid(path, manager, text));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::of;

    fn texts(errors: &[Error]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn meta() -> ObjectMeta {
        ObjectMeta {
            name: Some("web".into()),
            namespace: Some("default".into()),
            resource_version: Some("1".into()),
            ..Default::default()
        }
    }

    #[test]
    fn good_metadata_has_no_fault() {
        let pods = of("", "pods");
        assert_eq!(validate_create(&meta(), true, &*pods), vec![]);
        assert_eq!(validate_update(&meta(), &meta()), vec![]);
    }

    #[test]
    fn faults_are_told_at_their_path() {
        let pods = of("", "pods");
        let mut bad = meta();
        bad.name = None;
        bad.namespace = None;
        bad.labels = Some([("a b".to_owned(), String::new())].into());
        let texts = texts(&validate_create(&bad, true, &*pods));
        assert_eq!(texts[0], "metadata.name: Required value: name or generateName is required");
        assert_eq!(texts[1], "metadata.namespace: Required value");
        assert!(texts[2].starts_with("metadata.labels: Invalid value: \"a b\": name part must consist of"));
    }

    #[test]
    fn what_identifies_an_object_cannot_change() {
        let mut new = meta();
        new.name = Some("other".into());
        new.uid = Some("u".into());
        new.resource_version = None;
        assert_eq!(
            texts(&validate_update(&new, &meta())),
            [
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.name: Invalid value: \"other\": field is immutable",
                "metadata.uid: Invalid value: \"u\": field is immutable",
            ]
        );
    }

    #[test]
    fn a_dying_object_gets_no_new_finalizers() {
        let mut old = meta();
        old.deletion_timestamp = Some(crate::meta::Time(Default::default()));
        let mut new = old.clone();
        new.finalizers = Some(vec!["example.com/a".into()]);
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
              new finalizers []string{\"example.com/a\"}"
            ]
        );
    }
}
