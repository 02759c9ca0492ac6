//! The identity of a pod template: whether two are the same, and the hash in names of what is made of it.
//!
//! Two encodings of one template compare and hash equal: keys are sorted, and what is empty counts as
//! absent, as everywhere in the API.

use krate_api::Kind;
use krate_api::types::core::v1::{PodTemplate, PodTemplateSpec};
use serde_json::Value;
use std::fmt::Write as _;

/// The label by which a ReplicaSet of a Deployment and its pods are told from the others.
pub const HASH_LABEL: &str = "pod-template-hash";

/// The characters of encoded hashes: no vowels, nothing that reads like another.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The template in its one form, without the hash label.
#[must_use]
pub fn canonical(template: &PodTemplateSpec) -> String {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    canonical_value(&to_value(template))
}

/// JSON in its one form.
#[must_use]
pub fn canonical_value(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// A template as the API writes it.
#[must_use]
pub fn to_value(template: PodTemplateSpec) -> Value {
    let carrier = PodTemplate { template: Some(template), ..PodTemplate::default() };
    carrier.to_value()["template"].take()
}

/// The template that [`to_value`] wrote.
#[must_use]
pub fn from_value(template: Value) -> Option<PodTemplateSpec> {
    PodTemplate::from_value(serde_json::json!({ "template": template })).ok()?.template
}

/// The hash of a template, in the alphabet of generated names. `collisions` makes another of the same
/// template, after two templates were found to have one hash.
#[must_use]
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    of_text(&canonical(template), collisions)
}

/// The hash of what is in its one form already.
#[must_use]
pub fn of_text(text: &str, collisions: Option<i32>) -> String {
    let mut hash = fnv1a(0x811c_9dc5, text.as_bytes());
    if let Some(collisions) = collisions {
        hash = fnv1a(hash, &collisions.to_le_bytes());
    }
    encode(hash)
}

fn fnv1a(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn encode(hash: u32) -> String {
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// Writes JSON with sorted keys and without what is empty. Whether anything was written.
fn write(value: &Value, out: &mut String) -> bool {
    let start = out.len();
    match value {
        Value::Null => return false,
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (key, value) in fields {
                let before = out.len();
                let _ = write!(out, "{}:", Value::from(key.as_str()));
                if write_field(value, out) { out.push(',') } else { out.truncate(before) }
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                if !write(item, out) {
                    out.push_str("null");
                }
                out.push(',');
            }
            out.push(']');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
    out.len() > start
}

/// A field of an object: an empty list or string is no field. An empty map may say something
/// (`emptyDir: {}`) and is kept.
fn write_field(value: &Value, out: &mut String) -> bool {
    match value {
        Value::Array(items) if items.is_empty() => false,
        Value::String(text) if text.is_empty() => false,
        _ => write(value, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::template;

    #[test]
    fn the_hash_label_and_empty_lists_do_not_count() {
        let plain = template("web", "nginx:1");
        let mut labelled = plain.clone();
        let labels = labelled.metadata.as_mut().unwrap().labels.as_mut().unwrap();
        labels.insert(HASH_LABEL.to_owned(), "abc".to_owned());
        labelled.spec.as_mut().unwrap().volumes = Some(vec![]);
        assert_eq!(canonical(&plain), canonical(&labelled));
        assert_ne!(hash(&plain, None), hash(&template("web", "nginx:2"), None));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
    }

    #[test]
    fn the_encoding_is_that_of_generated_names() {
        // '0' is character 48, and 48 mod 27 is 21.
        assert_eq!(encode(0), char::from(ALPHABET[21]).to_string());
        assert!(hash(&template("a", "b"), None).bytes().all(|b| ALPHABET.contains(&b)));
    }
}
