//! Secrets.

use super::check::Check;
use super::config_map::{DATA, SEALED};
use super::fill::{str_of, text};
use super::{Behaviour, Typed, go_json, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::Secret;
use k8s_openapi::ByteString;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Secret> {
        default,
        fields,
        validate,
        validate_update,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(secret: &mut Secret) {
    text(&mut secret.type_, "Opaque");
    // What is written as text is kept as data only.
    for (key, value) in secret.string_data.take().into_iter().flatten() {
        secret.data.get_or_insert_default().insert(key, ByteString(value.into_bytes()));
    }
}

fn fields(secret: &Secret) -> Vec<(&'static str, String)> {
    vec![("type", str_of(&secret.type_).to_owned())]
}

fn validate(secret: &Secret) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("data");
    let mut size = 0;
    for (key, value) in secret.data.iter().flatten() {
        errors.faults(&path.key(key), key, names::config_key(key));
        size += value.0.len();
    }
    if size > DATA {
        errors.push(Error::too_long(&path, DATA));
    }
    validate_type(&mut errors, &path, secret);
    errors
}

/// The keys that a type promises.
fn validate_type(errors: &mut Errors, path: &Path, secret: &Secret) {
    let get = |key: &str| secret.data.as_ref().and_then(|d| d.get(key));
    let mut need = |keys: &[&str]| {
        for key in keys.iter().filter(|key| get(key).is_none()) {
            errors.push(Error::required(&path.key(key), ""));
        }
    };
    match str_of(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            let annotations = secret.metadata.annotations.as_ref();
            if annotations.and_then(|a| a.get(NAME)).is_none_or(|name| name.is_empty()) {
                let path = Path::new("metadata").child("annotations").key(NAME);
                errors.push(Error::required(&path, ""));
            }
        }
        "kubernetes.io/dockercfg" => json(errors, path, secret, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json(errors, path, secret, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if get("username").is_none() && get("password").is_none() => {
            need(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if get("ssh-privatekey").is_none_or(|key| key.0.is_empty()) => {
            errors.push(Error::required(&path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => need(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

/// A key that holds a JSON object.
fn json(errors: &mut Errors, path: &Path, secret: &Secret, key: &str) {
    let path = path.key(key);
    match secret.data.as_ref().and_then(|d| d.get(key)) {
        None => errors.push(Error::required(&path, "")),
        Some(bytes) => {
            if let Some(fault) = go_json::object_fault(&bytes.0) {
                errors.invalid(&path, "<secret contents redacted>", &fault);
            }
        }
    }
}

fn validate_update(_: &str, new: &Secret, old: &Secret) -> Errors {
    let mut errors = Errors::new();
    errors.unchanged(&Path::new("type"), &str_of(&new.type_), &str_of(&old.type_));
    if old.immutable == Some(true) {
        let data = |s: &Secret| s.data.clone().unwrap_or_default();
        for (field, changed) in [("immutable", new.immutable != Some(true)), ("data", data(new) != data(old))]
        {
            if changed {
                errors.forbidden(&Path::new(field), SEALED);
            }
        }
    }
    errors.extend(validate(new));
    errors
}
