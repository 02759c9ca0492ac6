//! PersistentVolumeClaims.

use super::check::{self, Check};
use super::fill::{self, items, str_of, text, value};
use super::pod_spec::warnings::fractional;
use super::{Behaviour, Typed, diff, names, selector};
use crate::field::{Error, Errors, Path};
use crate::quantity::Quantity;
use crate::types::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedObjectReference,
};
use std::sync::Arc;

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Where the class of a claim was written once.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PersistentVolumeClaim> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        validate,
        validate_update,
        warnings: |claim, _| warnings(claim),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

pub(super) fn default(claim: &mut PersistentVolumeClaim) {
    text(&mut claim.status.get_or_insert_default().phase, "Pending");
    let spec = claim.spec.get_or_insert_default();
    value(&mut spec.volume_mode, "Filesystem".to_owned());
    let resources = spec.resources.get_or_insert_default();
    fill::resources(&mut resources.requests);
    fill::resources(&mut resources.limits);
    if let Some(status) = &mut claim.status {
        fill::resources(&mut status.capacity);
        fill::resources(&mut status.allocated_resources);
    }
}

fn prepare_create(claim: &mut PersistentVolumeClaim) {
    claim.status =
        Some(PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..Default::default() });
    if let Some(spec) = &mut claim.spec {
        drop_sources(spec, None);
        pair_sources(spec);
    }
}

/// Sources that are not to be had are dropped: those of another namespace, which is a feature that is off, and in
/// the old field what is neither a claim nor a snapshot.
fn drop_sources(spec: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    let elsewhere = |r: &TypedObjectReference| !str_of(&r.namespace).is_empty();
    if old.is_none_or(|old| old.data_source_ref.is_none()) {
        spec.data_source_ref.take_if(|reference| elsewhere(reference));
    }
    let had = old.is_some_and(|old| old.data_source.is_some() || old.data_source_ref.is_some());
    if !had && spec.data_source_ref.is_none() {
        let known = [("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")];
        spec.data_source.take_if(|s| !known.contains(&(str_of(&s.api_group), s.kind.as_str())));
    }
}

/// `dataSource` and `dataSourceRef` say the same where they can.
fn pair_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if source.namespace.as_deref().unwrap_or("").is_empty() => {
            spec.data_source = Some(crate::types::core::v1::TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

fn prepare_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    new.status.clone_from(&old.status);
    if let Some(spec) = &mut new.spec {
        drop_sources(spec, old.spec.as_ref());
        pair_sources(spec);
    }
}

fn prepare_subresource(_: &str, new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    new.spec.clone_from(&old.spec);
}

fn validate(claim: &PersistentVolumeClaim) -> Errors {
    let mut errors = Errors::new();
    let default = PersistentVolumeClaimSpec::default();
    validate_spec(&mut errors, &Path::new("spec"), claim.spec.as_ref().unwrap_or(&default));
    errors
}

fn warnings(claim: &PersistentVolumeClaim) -> Vec<String> {
    let mut list = vec![];
    if claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OLD_CLASS)) {
        let path = Path::new("metadata").child("annotations").key(OLD_CLASS);
        list.push(format!("{path}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
    if let Some(spec) = &claim.spec {
        list.extend(spec_warnings(&Path::new("spec"), spec));
    }
    list
}

/// Warnings about a specification, also in templates.
#[must_use]
pub fn spec_warnings(path: &Path, spec: &PersistentVolumeClaimSpec) -> Vec<String> {
    let mut list = vec![];
    if let Some(given) = &spec.resources {
        let path = path.child("resources");
        fractional(&mut list, &path.child("requests"), given.requests.as_ref(), &["storage"]);
        fractional(&mut list, &path.child("limits"), given.limits.as_ref(), &["storage"]);
    }
    list
}

/// The modes of claims and of volumes.
pub fn access_modes(errors: &mut Errors, path: &Path, modes: &[String]) {
    for mode in modes {
        errors.one_of(path, mode, &ACCESS_MODES);
    }
    let alone = modes.iter().any(|m| m == "ReadWriteOncePod");
    let others = modes.iter().any(|m| m != "ReadWriteOncePod" && ACCESS_MODES.contains(&m.as_str()));
    if alone && others {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// The faults of a claim's specification, also in templates.
pub fn validate_spec(errors: &mut Errors, path: &Path, spec: &PersistentVolumeClaimSpec) {
    let modes = path.child("accessModes");
    if items(&spec.access_modes).is_empty() {
        errors.push(Error::required(&modes, "at least 1 access mode is required"));
    }
    selector::validate_opt(errors, &path.child("selector"), &spec.selector);
    access_modes(errors, &modes, items(&spec.access_modes));
    let size = path.child("resources").key("storage");
    match storage(spec) {
        None => errors.push(Error::required(&size, "")),
        Some(amount) => {
            check::positive(errors, &size, amount);
        }
    }
    let class = |errors: &mut Errors, field: &str, name: &Option<String>| {
        if !fill::is_empty(name) {
            errors.faults(&path.child(field), str_of(name), names::dns1123_subdomain(str_of(name)));
        }
    };
    class(errors, "storageClassName", &spec.storage_class_name);
    if let Some(mode) = &spec.volume_mode {
        errors.one_of(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    sources(errors, path, spec);
    class(errors, "volumeAttributesClassName", &spec.volume_attributes_class_name);
}

fn storage(
    spec: &PersistentVolumeClaimSpec,
) -> Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> {
    spec.resources.as_ref()?.requests.as_ref()?.get("storage")
}

fn sources(errors: &mut Errors, path: &Path, spec: &PersistentVolumeClaimSpec) {
    let mut one = |field: &str, group: &Option<String>, kind: &str, name: &str| {
        let path = path.child(field);
        errors.required(&path.child("name"), name);
        errors.required(&path.child("kind"), kind);
        if str_of(group).is_empty() {
            if kind != "PersistentVolumeClaim" {
                let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
                errors.invalid(&path, kind, text);
            }
        } else {
            errors.faults(&path.child("apiGroup"), str_of(group), names::dns1123_subdomain(str_of(group)));
        }
    };
    if let Some(s) = &spec.data_source {
        one("dataSource", &s.api_group, &s.kind, &s.name);
    }
    let Some(reference) = &spec.data_source_ref else { return };
    one("dataSourceRef", &reference.api_group, &reference.kind, &reference.name);
    let namespace = str_of(&reference.namespace);
    if !namespace.is_empty() {
        let at = path.child("dataSourceRef").child("namespace");
        errors.faults(&at, namespace, names::dns1123_label(namespace));
    }
    let Some(source) = &spec.data_source else { return };
    let fault = if !namespace.is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if source.api_group != reference.api_group
        || source.kind != reference.kind
        || source.name != reference.name
    {
        "must match dataSourceRef"
    } else {
        return;
    };
    // The original gives the path of the field for its value, which shows as an empty structure.
    errors.push(Error::invalid(path, "", fault).showing("{}"));
}

fn validate_update(subresource: &str, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Errors {
    if subresource == "status" {
        return status(new);
    }
    let mut errors = validate(new);
    let (Some(wanted), Some(was)) = (&new.spec, &old.spec) else { return errors };
    let (mut rest, mut before) = (wanted.clone(), was.clone());
    if str_of(&was.volume_name).is_empty() {
        before.volume_name.clone_from(&rest.volume_name);
    }
    let class = |claim: &PersistentVolumeClaim| {
        claim.metadata.annotations.as_ref().and_then(|a| a.get(OLD_CLASS)).cloned()
    };
    let (old_class, new_class) = (class(old), class(new));
    let set_once = was.storage_class_name.is_none()
        && wanted.storage_class_name.is_some()
        && old_class.as_ref().is_none_or(|c| Some(c) == wanted.storage_class_name.as_ref());
    let moved =
        set_once && old_class.is_some() && new_class.as_ref().is_none_or(|c| Some(c) == old_class.as_ref());
    if set_once {
        rest.storage_class_name = None;
    }
    if !moved && new_class != old_class {
        let path = Path::new("metadata").child("annotations").child(OLD_CLASS);
        errors.invalid(&path, &new_class.unwrap_or_default(), check::IMMUTABLE);
    }
    let phase = new.status.as_ref().map_or("", |s| str_of(&s.phase));
    if phase == "Bound" {
        let size = storage(was).cloned();
        if let (Some(requests), Some(size)) =
            (rest.resources.as_mut().and_then(|r| r.requests.as_mut()), size)
        {
            requests.insert("storage".to_owned(), size);
        }
        if rest.volume_attributes_class_name.is_some() {
            rest.volume_attributes_class_name.clone_from(&before.volume_attributes_class_name);
        }
    }
    if !fill::same(&rest, &before) {
        let text = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
             claims\n{}",
            diff::unified(&before, &rest)
        );
        errors.forbidden(&Path::new("spec"), &text);
    }
    shrinks(&mut errors, wanted, was, old.status.as_ref());
    errors.unchanged(&Path::new("volumeMode"), &wanted.volume_mode, &was.volume_mode);
    attributes_class(&mut errors, wanted, was, old.status.as_ref());
    errors
}

/// A claim can shrink only back to what it has.
fn shrinks(
    errors: &mut Errors,
    new: &PersistentVolumeClaimSpec,
    old: &PersistentVolumeClaimSpec,
    status: Option<&PersistentVolumeClaimStatus>,
) {
    let amount = |spec| storage(spec).and_then(|q| Quantity::of(q).ok()).unwrap_or_default();
    let has = status.and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage"));
    let has = has.and_then(|q| Quantity::of(q).ok()).unwrap_or_default();
    if amount(new) < amount(old) && amount(new) <= has {
        let path = Path::new("spec").child("resources").child("requests").child("storage");
        errors.forbidden(&path, "field can not be less than status.capacity");
    }
}

fn attributes_class(
    errors: &mut Errors,
    new: &PersistentVolumeClaimSpec,
    old: &PersistentVolumeClaimSpec,
    status: Option<&PersistentVolumeClaimStatus>,
) {
    let applied = status.is_some_and(|s| s.current_volume_attributes_class_name.is_some());
    if new.volume_attributes_class_name == old.volume_attributes_class_name || !applied {
        return;
    }
    let path = Path::new("spec").child("volumeAttributesClassName");
    let rest = "is forbidden when status.currentVolumeAttributesClassName is not nil";
    match new.volume_attributes_class_name.as_deref() {
        None => errors.forbidden(&path, &format!("update to nil {rest}")),
        Some("") => errors.forbidden(&path, &format!("update to empty string {rest}")),
        Some(_) => {}
    }
}

fn status(new: &PersistentVolumeClaim) -> Errors {
    let mut errors = Errors::new();
    if new.spec.as_ref().is_none_or(|s| items(&s.access_modes).is_empty()) {
        errors.push(Error::required(&Path::new("Spec").child("accessModes"), ""));
    }
    let Some(status) = &new.status else { return errors };
    for (field, list) in [("capacity", &status.capacity), ("allocatedResources", &status.allocated_resources)]
    {
        for (name, amount) in check::entries(list.as_ref()) {
            let path = Path::new("status").child(field).key(name);
            if let Some(amount) = check::quantity(&mut errors, &path, amount).filter(Quantity::is_negative) {
                errors.invalid(&path, &amount.value(), "must be a valid resource quantity");
            }
        }
    }
    errors
}
