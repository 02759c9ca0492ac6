//! Namespaces.

use super::check::Check;
use super::fill::{items, str_of, text};
use super::{Behaviour, Typed, names};
use crate::field::{Errors, Path};
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
        validate: |namespace| finalizers(namespace, false),
        validate_update,
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

/// `spec.finalizers`; the original names the item at fault only when they are all that is written.
fn finalizers(namespace: &Namespace, by_item: bool) -> Errors {
    let mut errors = Errors::new();
    let list = namespace.spec.as_ref().map_or(&[][..], |s| items(&s.finalizers));
    let path = Path::new("spec").child("finalizers");
    for (i, finalizer) in list.iter().enumerate() {
        let path = if by_item { path.index(i) } else { path.clone() };
        errors.faults(&path, finalizer, names::qualified_name(finalizer));
        if !finalizer.contains('/')
            && !matches!(finalizer.as_str(), FINALIZER | "orphan" | "foregroundDeletion")
        {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path, finalizer, text);
        }
    }
    errors
}

fn validate_update(subresource: &str, new: &Namespace, _: &Namespace) -> Errors {
    match subresource {
        "finalize" => finalizers(new, true),
        "status" => {
            let mut errors = Errors::new();
            let phase = new.status.as_ref().map_or("", |s| str_of(&s.phase));
            let (wanted, state) = match new.metadata.deletion_timestamp {
                None => ("Active", "empty"),
                Some(_) => ("Terminating", "not empty"),
            };
            if phase != wanted {
                let text = format!("may only be '{wanted}' if `deletionTimestamp` is {state}");
                errors.invalid(&Path::new("status").child("Phase"), phase, &text);
            }
            errors
        }
        _ => vec![],
    }
}
