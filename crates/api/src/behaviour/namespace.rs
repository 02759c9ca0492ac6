//! Namespaces.

use super::fill::{str_of, text};
use super::{Behaviour, Typed, names};
use crate::types::core::v1::Namespace;
use std::sync::Arc;

/// The label that carries the name, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that holds a namespace until its content is gone.
pub const FINALIZER: &str = "kubernetes";

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Namespace> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        fields,
        check_name: names::label_name,
        ..Default::default()
    })
}

fn default(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.clone().filter(|n| !n.is_empty()) {
        namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
    }
    namespace.spec.get_or_insert_default();
    text(&mut namespace.status.get_or_insert_default().phase, "Active");
}

fn prepare_create(namespace: &mut Namespace) {
    namespace.status = Some(crate::types::core::v1::NamespaceStatus {
        phase: Some("Active".to_owned()),
        ..Default::default()
    });
    let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
}

fn prepare_update(new: &mut Namespace, old: &Namespace) {
    new.spec.clone_from(&old.spec);
    new.status.clone_from(&old.status);
}

fn prepare_subresource(subresource: &str, new: &mut Namespace, old: &Namespace) {
    if subresource == "finalize" {
        new.status.clone_from(&old.status);
    } else {
        new.spec.clone_from(&old.spec);
    }
}

fn fields(namespace: &Namespace) -> Vec<(&'static str, String)> {
    let phase = namespace.status.as_ref().map_or("", |s| str_of(&s.phase));
    vec![("status.phase", phase.to_owned())]
}
