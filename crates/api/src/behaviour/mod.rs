//! What a resource does beyond being stored: defaults, validation, and what create, update and a status
//! write may change. One small file per kind that has any; the rest are [`plain`].
//!
//! Everything here is pure: what needs the store or another object (addresses of services, admission) is
//! the API server's.

use crate::field::Errors;
use crate::object::{Kind, Object};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// The strategy of one resource. The object's kind is that of the row; implementations get there by
/// [`Typed`] and never see another.
pub trait Behaviour: Send + Sync {
    /// Fills in what the version's defaulting fills in. Idempotent. Runs on every decoded body and again
    /// after mutating admission.
    fn default(&self, object: &mut dyn Object);

    /// Before a create: drop what a user may not set (status), set generation 1 where the kind has one.
    fn prepare_create(&self, object: &mut dyn Object);

    /// Before an update of the main resource: keep the old status, raise the generation when the spec
    /// changed.
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object);

    /// Before an update of `subresource` (`status`, and for pods `resize`, `ephemeralcontainers`): keep
    /// everything that it may not change.
    fn prepare_subresource(&self, subresource: &str, new: &mut dyn Object, old: &dyn Object);

    /// The faults of a new object, other than those of its metadata.
    fn validate(&self, object: &dyn Object) -> Errors;

    /// The faults of a change, other than those of its metadata. `subresource` is empty for the main one.
    fn validate_update(&self, subresource: &str, new: &dyn Object, old: &dyn Object) -> Errors;

    /// Warnings for the client (`Warning:` headers), such as of deprecated fields.
    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;

    /// Values of the selectable fields besides `metadata.name` and `metadata.namespace`.
    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)>;

    /// Whether the name of a new object is valid: the faults of `metadata.name`, as messages.
    fn check_name(&self, name: &str, prefix: bool) -> Vec<String>;
}

/// A [`Behaviour`] made of functions over the typed kind. Fields left at their default do nothing.
pub struct Typed<K: Kind> {
    pub default: fn(&mut K),
    pub prepare_create: fn(&mut K),
    pub prepare_update: fn(&mut K, &K),
    pub prepare_subresource: fn(&str, &mut K, &K),
    pub validate: fn(&K) -> Errors,
    pub validate_update: fn(&str, &K, &K) -> Errors,
    pub warnings: fn(&K, Option<&K>) -> Vec<String>,
    pub fields: fn(&K) -> Vec<(&'static str, String)>,
    pub check_name: fn(&str, bool) -> Vec<String>,
    pub kind: PhantomData<K>,
}

impl<K: Kind> Default for Typed<K> {
    fn default() -> Self {
        Self {
            default: |_| {},
            prepare_create: |_| {},
            prepare_update: |_, _| {},
            prepare_subresource: |_, _, _| {},
            validate: |_| vec![],
            validate_update: |_, _, _| vec![],
            warnings: |_, _| vec![],
            fields: |_| vec![],
            check_name: |_, _| vec![],
            kind: PhantomData,
        }
    }
}

fn typed<K: Kind>(object: &dyn Object) -> &K {
    (object.as_any() as &dyn Any).downcast_ref().expect("the catalogue pairs a behaviour with its own kind")
}

fn typed_mut<K: Kind>(object: &mut dyn Object) -> &mut K {
    object.as_any_mut().downcast_mut().expect("the catalogue pairs a behaviour with its own kind")
}

impl<K: Kind> Behaviour for Typed<K> {
    fn default(&self, object: &mut dyn Object) {
        (self.default)(typed_mut(object));
    }
    fn prepare_create(&self, object: &mut dyn Object) {
        (self.prepare_create)(typed_mut(object));
    }
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object) {
        (self.prepare_update)(typed_mut(new), typed(old));
    }
    fn prepare_subresource(&self, subresource: &str, new: &mut dyn Object, old: &dyn Object) {
        (self.prepare_subresource)(subresource, typed_mut(new), typed(old));
    }
    fn validate(&self, object: &dyn Object) -> Errors {
        (self.validate)(typed(object))
    }
    fn validate_update(&self, subresource: &str, new: &dyn Object, old: &dyn Object) -> Errors {
        (self.validate_update)(subresource, typed(new), typed(old))
    }
    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        (self.warnings)(typed(object), old.map(|o| typed(o)))
    }
    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        (self.fields)(typed(object))
    }
    fn check_name(&self, name: &str, prefix: bool) -> Vec<String> {
        (self.check_name)(name, prefix)
    }
}

/// A behaviour that only stores.
struct Plain;

impl Behaviour for Plain {
    fn default(&self, _: &mut dyn Object) {}
    fn prepare_create(&self, _: &mut dyn Object) {}
    fn prepare_update(&self, _: &mut dyn Object, _: &dyn Object) {}
    fn prepare_subresource(&self, _: &str, _: &mut dyn Object, _: &dyn Object) {}
    fn validate(&self, _: &dyn Object) -> Errors {
        vec![]
    }
    fn validate_update(&self, _: &str, _: &dyn Object, _: &dyn Object) -> Errors {
        vec![]
    }
    fn warnings(&self, _: &dyn Object, _: Option<&dyn Object>) -> Vec<String> {
        vec![]
    }
    fn fields(&self, _: &dyn Object) -> Vec<(&'static str, String)> {
        vec![]
    }
    fn check_name(&self, _: &str, _: bool) -> Vec<String> {
        vec![]
    }
}

/// The behaviour of kinds that have none.
#[must_use]
pub fn plain() -> Arc<dyn Behaviour> {
    Arc::new(Plain)
}

/// The behaviour of a built-in resource, as the catalogue's rows ask for it.
#[must_use]
pub fn of(group: &str, plural: &str) -> Arc<dyn Behaviour> {
    let _ = (group, plural);
    plain()
}
