//! Secrets.

use super::fill::{str_of, text};
use super::{Behaviour, Typed, names};
use crate::types::core::v1::Secret;
use k8s_openapi::ByteString;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Secret> { default, fields, check_name: names::subdomain_name, ..Default::default() })
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
