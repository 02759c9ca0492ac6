//! ConfigMaps.

use super::check::Check;
use super::{Behaviour, Typed, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::ConfigMap;
use std::sync::Arc;

/// Size of all values of a config map or secret together, in bytes.
pub const DATA: usize = 1 << 20;
/// What may not change of data that was declared immutable.
pub const SEALED: &str = "field is immutable when `immutable` is set";

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ConfigMap> {
        validate,
        validate_update,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(map: &ConfigMap) -> Errors {
    let mut errors = Errors::new();
    let mut size = 0;
    for (key, value) in map.data.iter().flatten() {
        let path = Path::new("data").key(key);
        errors.faults(&path, key, names::config_key(key));
        if map.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
            errors.invalid(&path, key, "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    for (key, value) in map.binary_data.iter().flatten() {
        errors.faults(&Path::new("binaryData").key(key), key, names::config_key(key));
        size += value.0.len();
    }
    if size > DATA {
        errors.push(Error::too_long(&Path::new(""), DATA));
    }
    errors
}

fn validate_update(_: &str, new: &ConfigMap, old: &ConfigMap) -> Errors {
    let mut errors = Errors::new();
    if old.immutable == Some(true) {
        let data = |m: &ConfigMap| m.data.clone().unwrap_or_default();
        let binary = |m: &ConfigMap| m.binary_data.clone().unwrap_or_default();
        for (field, changed) in [
            ("immutable", new.immutable != Some(true)),
            ("data", data(new) != data(old)),
            ("binaryData", binary(new) != binary(old)),
        ] {
            if changed {
                errors.forbidden(&Path::new(field), SEALED);
            }
        }
    }
    errors.extend(validate(new));
    errors
}
