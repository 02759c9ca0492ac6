//! The rows of the built-in resources.

use super::{Codec, Resource, Subresource, Verb};
use crate::behaviour::{self, Behaviour};
use crate::object::Kind;
use crate::types;
use std::sync::Arc;

const ALL: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// A row of kind `K` with every verb and no subresource.
fn row<K: Kind>(singular: &str, behaviour: Arc<dyn Behaviour>) -> Resource {
    Resource {
        group: K::GROUP.to_owned(),
        version: K::VERSION.to_owned(),
        plural: K::PLURAL.to_owned(),
        singular: singular.to_owned(),
        kind: K::KIND.to_owned(),
        short_names: vec![],
        categories: vec![],
        namespaced: K::NAMESPACED,
        verbs: ALL.to_vec(),
        subresources: vec![],
        storage_hash: String::new(),
        space: crate::status::qualified(K::GROUP, K::PLURAL),
        codec: Codec {
            decode: Arc::new(|bytes| Ok(Box::new(K::decode(bytes)?))),
            empty: Arc::new(|| Box::new(K::default())),
        },
        behaviour,
    }
}

impl Resource {
    fn short(mut self, names: &[&str]) -> Self {
        self.short_names = names.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    fn with_status(mut self) -> Self {
        self.subresources.push(Subresource {
            name: "status".to_owned(),
            group: self.group.clone(),
            version: self.version.clone(),
            kind: self.kind.clone(),
            verbs: vec![Verb::Get, Verb::Patch, Verb::Update],
        });
        self
    }
}

pub(super) fn builtin() -> Vec<Resource> {
    vec![
        row::<types::core::v1::ConfigMap>("configmap", behaviour::plain()).short(&["cm"]),
        row::<types::core::v1::Pod>("pod", behaviour::plain()).short(&["po"]).with_status(),
    ]
}
