//! Words that defaulting is written in: fill a field that is unset.
//!
//! For fields that are plain values in the original, the zero value counts as unset; the functions for
//! those say so.

use crate::meta::ObjectMeta;
use crate::quantity::{self, Quantity};
use crate::types::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A plain string: empty counts as unset.
pub fn text(field: &mut Option<String>, default: &str) {
    if is_empty(field) {
        *field = Some(default.to_owned());
    }
}

/// A pointer: only absence counts as unset.
pub fn value<T>(field: &mut Option<T>, default: T) {
    if field.is_none() {
        *field = Some(default);
    }
}

/// A plain number: zero counts as unset.
pub fn number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(default);
    }
}

#[must_use]
pub fn is_empty(field: &Option<String>) -> bool {
    field.as_deref().unwrap_or("").is_empty()
}

/// A string field's value, with absence as the empty string.
#[must_use]
pub fn str_of(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or("")
}

/// The items of a list that may be absent.
#[must_use]
pub fn items<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or(&[])
}

/// The items of a list that may be absent, to change them.
pub fn items_mut<T>(list: &mut Option<Vec<T>>) -> &mut [T] {
    list.as_deref_mut().unwrap_or(&mut [])
}

/// Whether two values are equal as the original compares them: an empty list is an absent one.
#[must_use]
pub fn same<T: PartialEq + Serialize>(a: &T, b: &T) -> bool {
    a == b || stripped(a) == stripped(b)
}

fn stripped<T: Serialize>(value: &T) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    strip(&mut value);
    value
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip);
            map.retain(|_, v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()));
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Sets the generation of an update: one more than the old when what it counts has changed.
pub fn generation(new: &mut ObjectMeta, old: &ObjectMeta, changed: bool) {
    let was = old.generation.unwrap_or(0);
    new.generation = if changed { Some(was + 1) } else { old.generation };
}

/// Puts the old metadata back into what may change the status only. The version that the write was made from stays,
/// and who wrote which field.
pub fn restore_metadata(new: &mut ObjectMeta, old: &ObjectMeta) {
    let version = new.resource_version.take();
    let managed = new.managed_fields.take();
    *new = ObjectMeta { resource_version: version, managed_fields: managed, ..old.clone() };
}

/// Amounts of resources, as a list of them is held in the API.
pub type Resources = BTreeMap<String, QuantityText>;

/// Writes an amount as the original gives it back. What is not an amount stays, for validation to tell.
pub fn quantity(text: &mut QuantityText) {
    if let Ok(Cow::Owned(canonical)) = quantity::canonical(&text.0) {
        text.0 = canonical;
    }
}

/// Writes the amounts of a list as the original gives them back: rounded up to thousandths.
pub fn resources(list: &mut Option<Resources>) {
    for text in list.iter_mut().flat_map(|l| l.values_mut()) {
        let Ok(exact) = Quantity::of(text) else { continue };
        let rounded = Quantity::from_millis(exact.millis(), exact.format());
        if rounded == exact || exact.millis() == i64::MAX {
            quantity(text);
        } else {
            *text = rounded.text();
        }
    }
}

/// Requests and limits of a container or pod.
pub fn requirements(requirements: &mut Option<ResourceRequirements>) {
    if let Some(r) = requirements {
        resources(&mut r.limits);
        resources(&mut r.requests);
    }
}

/// A field and a list that say the same: the first of the list is the one, and the one wins.
pub fn agree<T>(
    one: &mut Option<String>,
    list: &mut Option<Vec<T>>,
    text: impl Fn(&T) -> String,
    make: impl Fn(String) -> T,
) {
    let first = items(list).first().map(text);
    match one.clone().filter(|one| !one.is_empty()) {
        Some(one) if first.as_ref() != Some(&one) => *list = Some(vec![make(one)]),
        Some(_) => {}
        None => *one = first,
    }
}
