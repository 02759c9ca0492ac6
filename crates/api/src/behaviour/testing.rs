//! Tables of faults: a valid object, changes to it, and the errors that each change brings.

use super::{Behaviour, of};
use crate::Catalogue;
use crate::Object;
use serde_json::Value;

/// A valid object of a resource.
pub struct Sample {
    resource: std::sync::Arc<crate::Resource>,
    valid: Value,
}

/// Merges as RFC 7386 says; an object `{"+": [..]}` puts items behind those of a list.
pub fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Array(list), Value::Object(patch)) if patch.contains_key("+") => {
            list.extend(patch["+"].as_array().cloned().unwrap_or_default());
        }
        (Value::Array(list), Value::Object(patch)) if patch.keys().all(|k| k.parse::<usize>().is_ok()) => {
            for (key, value) in patch {
                merge(&mut list[key.parse::<usize>().expect("checked")], value);
            }
        }
        (target, Value::Object(patch)) => {
            if !target.is_object() {
                *target = Value::Object(Default::default());
            }
            let map = target.as_object_mut().expect("made one");
            for (key, value) in patch {
                if value.is_null() {
                    map.remove(key);
                } else {
                    merge(map.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (target, value) => *target = value.clone(),
    }
}

impl Sample {
    pub fn new(api_version: &str, kind: &str, valid: Value) -> Self {
        let catalogue = Catalogue::builtin();
        let resource = catalogue.by_kind(api_version, kind).expect("a row of the catalogue").clone();
        let mut whole = serde_json::json!({"apiVersion": api_version, "kind": kind});
        let mut metadata =
            serde_json::json!({"metadata": {"name": "web", "uid": "u-1", "resourceVersion": "1"}});
        if resource.namespaced {
            metadata["metadata"]["namespace"] = "default".into();
        }
        merge(&mut whole, &metadata);
        merge(&mut whole, &valid);
        Self { resource, valid: whole }
    }

    pub fn behaviour(&self) -> std::sync::Arc<dyn Behaviour> {
        of(&self.resource.group, &self.resource.plural)
    }

    /// The object with a change, defaulted.
    pub fn with(&self, patch: &Value) -> Box<dyn Object> {
        let mut value = self.valid.clone();
        merge(&mut value, patch);
        let bytes = serde_json::to_vec(&value).expect("JSON");
        let mut object = (self.resource.codec.decode)(&bytes).expect("an object of the kind");
        self.behaviour().default(&mut *object);
        object
    }

    /// The object as the server would store it.
    pub fn stored(&self, patch: &Value) -> Box<dyn Object> {
        let mut object = self.with(patch);
        self.behaviour().prepare_create(&mut *object);
        object
    }

    /// Every fault of a new object with a change, those of the metadata among them.
    pub fn create_errors(&self, patch: &Value) -> Vec<String> {
        let object = self.stored(patch);
        let behaviour = self.behaviour();
        let mut errors = super::meta::validate_create(object.meta(), self.resource.namespaced, &*behaviour);
        errors.extend(behaviour.validate(&*object));
        errors.iter().map(ToString::to_string).collect()
    }

    /// Every fault of an update from the valid object.
    pub fn update_errors(&self, subresource: &str, patch: &Value) -> Vec<String> {
        self.change_errors(subresource, &Value::Object(Default::default()), patch)
    }

    /// Every fault of an update from the object with one change to the object with another.
    pub fn change_errors(&self, subresource: &str, from: &Value, patch: &Value) -> Vec<String> {
        let behaviour = self.behaviour();
        let old = self.stored(from);
        let mut both = from.clone();
        merge(&mut both, patch);
        let mut new = if subresource.is_empty() { self.with(&both) } else { self.stored(from) };
        if !subresource.is_empty() {
            let mut value: Value = serde_json::from_slice(&new.encode()).expect("JSON");
            merge(&mut value, patch);
            new =
                (self.resource.codec.decode)(&serde_json::to_vec(&value).expect("JSON")).expect("an object");
        }
        super::meta::before_update(new.meta_mut(), old.meta());
        if subresource.is_empty() {
            behaviour.prepare_update(&mut *new, &*old);
        } else {
            behaviour.prepare_subresource(subresource, &mut *new, &*old);
        }
        let mut errors = super::meta::validate_update(new.meta(), old.meta());
        errors.extend(behaviour.validate_update(subresource, &*new, &*old));
        errors.iter().map(ToString::to_string).collect()
    }

    /// The valid object has no fault, and each change has its own.
    #[track_caller]
    pub fn creates(&self, cases: &[(Value, &[&str])]) {
        let none = Value::Object(Default::default());
        assert_eq!(self.create_errors(&none), Vec::<String>::new(), "the valid object");
        for (patch, want) in cases {
            assert_eq!(self.create_errors(patch), *want, "{patch}");
        }
    }

    /// As [`Sample::creates`], for updates.
    #[track_caller]
    pub fn updates(&self, cases: &[(Value, &[&str])]) {
        let none = Value::Object(Default::default());
        assert_eq!(self.update_errors("", &none), Vec::<String>::new(), "an update that changes nothing");
        for (patch, want) in cases {
            assert_eq!(self.update_errors("", patch), *want, "{patch}");
        }
    }
}
