//! Schemas of types, in both dialects.

use super::Dialect;
use crate::schema::{self, Descriptions, Field, ListType, Shape, Type};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

const API_VERSION: &str = "Group and version of the API that this object is written in. The server may \
    convert what it knows and refuses what it does not. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "What this object is, in CamelCase. It follows from where a request is sent and cannot be \
    updated. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The definitions that a document refers to, collected as it is made.
pub(super) struct Definitions<'a> {
    pub dialect: Dialect,
    docs: &'a Descriptions,
    groups: Vec<(&'a str, &'a str)>,
    done: BTreeMap<String, Value>,
    waiting: Vec<&'static Type>,
}

impl<'a> Definitions<'a> {
    pub fn new(dialect: Dialect, docs: &'a Descriptions, groups: Vec<(&'a str, &'a str)>) -> Self {
        Self { dialect, docs, groups, done: BTreeMap::new(), waiting: vec![] }
    }

    /// A reference to a definition, which will be there.
    pub fn reference(&mut self, definition: &str) -> Value {
        if !self.done.contains_key(definition)
            && let Some(ty) = schema::type_named(definition)
        {
            self.done.insert(definition.to_owned(), Value::Null);
            self.waiting.push(ty);
        }
        self.dialect.reference(definition)
    }

    /// A reference to the type of a kind; an object that says nothing of itself if it has none.
    pub fn kind(&mut self, group: &str, version: &str, kind: &str) -> Value {
        match schema::of_kind(group, version, kind) {
            Some(ty) => self.reference(&ty.definition()),
            None => json!({"type": "object"}),
        }
    }

    /// Every definition that was referred to, and those that they refer to.
    pub fn finish(mut self) -> Map<String, Value> {
        while let Some(ty) = self.waiting.pop() {
            let schema = self.schema(ty);
            self.done.insert(ty.definition(), schema);
        }
        self.done.into_iter().collect()
    }

    fn schema(&mut self, ty: &'static Type) -> Value {
        let definition = ty.definition();
        let mut schema = Map::new();
        match &ty.scalar {
            Some(shape) => schema = scalar_definition(shape, self.dialect),
            None => drop(schema.insert("type".into(), json!("object"))),
        }
        describe(&mut schema, self.docs.get(&definition, ""));
        let required: Vec<&str> = ty.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        if !ty.fields.is_empty() {
            let properties = ty.fields.iter().map(|f| (f.name.to_owned(), self.property(&definition, ty, f)));
            let properties: Map<String, Value> = properties.collect();
            schema.insert("properties".into(), properties.into());
        }
        let kinds = self.kinds(ty);
        if !kinds.is_empty() {
            schema.insert("x-kubernetes-group-version-kind".into(), kinds.into());
        }
        if ty.map_atomic {
            schema.insert("x-kubernetes-map-type".into(), json!("atomic"));
        }
        schema.into()
    }

    /// Options and watch events are kinds of every group.
    fn kinds(&self, ty: &Type) -> Vec<Value> {
        if ty.package == META && matches!(ty.name, "DeleteOptions" | "WatchEvent") {
            let mut groups = self.groups.clone();
            groups.push(("", "v1"));
            groups.sort_unstable();
            groups.dedup();
            return groups.iter().map(|(g, v)| json!({"group": g, "version": v, "kind": ty.name})).collect();
        }
        ty.kinds.iter().map(|k| json!({"group": k.group, "version": k.version, "kind": k.kind})).collect()
    }

    fn property(&mut self, definition: &str, ty: &Type, field: &'static Field) -> Value {
        let mut schema = match self.value(&field.shape, field) {
            Value::Object(schema) => schema,
            _ => Map::new(),
        };
        // In v3 nothing may stand beside a reference.
        if self.dialect == Dialect::V3 && schema.contains_key("$ref") {
            schema = Map::from_iter([("allOf".to_owned(), json!([schema]))]);
        }
        let mut text = self.docs.get(definition, field.name);
        if text.is_empty() && ty.field("kind").is_some() {
            text = match field.name {
                "apiVersion" => API_VERSION.to_owned(),
                "kind" => KIND.to_owned(),
                _ => text,
            };
        }
        describe(&mut schema, text);
        if self.dialect == Dialect::V3
            && let Some(default) = default(field)
        {
            schema.insert("default".into(), default);
        }
        extensions(&mut schema, field);
        schema.into()
    }

    fn value(&mut self, shape: &'static Shape, field: &'static Field) -> Value {
        match shape {
            Shape::Object(_) => shape.object().map_or_else(|| json!({}), |t| self.reference(&t.definition())),
            Shape::Quantity => self.reference(QUANTITY),
            Shape::IntOrString => self.reference(INT_OR_STRING),
            Shape::Time => self.reference(&format!("{META}.Time")),
            Shape::MicroTime => self.reference(&format!("{META}.MicroTime")),
            Shape::List(inner) => json!({"type": "array", "items": self.value(inner, field)}),
            Shape::Map(inner) => json!({"type": "object", "additionalProperties": self.value(inner, field)}),
            Shape::String => {
                let allowed: Vec<String> = field.allowed().collect();
                if allowed.is_empty() {
                    json!({"type": "string"})
                } else {
                    json!({"type": "string", "enum": allowed})
                }
            }
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Any => json!({"type": "object"}),
        }
    }
}

fn describe(schema: &mut Map<String, Value>, text: String) {
    if !text.is_empty() {
        schema.insert("description".into(), json!(text));
    }
}

/// The definition of a type that is not an object in JSON.
fn scalar_definition(shape: &Shape, dialect: Dialect) -> Map<String, Value> {
    let value = match (shape, dialect) {
        (Shape::Quantity, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (Shape::IntOrString, Dialect::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Shape::IntOrString, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Shape::Time | Shape::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Shape::Any, _) => json!({"type": "object"}),
        _ => json!({"type": "string"}),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The declared default, or the zero value where Go cannot tell it from absence.
fn default(field: &Field) -> Option<Value> {
    if !field.default.is_empty() {
        return serde_json::from_str(field.default).ok();
    }
    if field.pointer {
        return None;
    }
    match &field.shape {
        Shape::Object(_) => Some(json!({})),
        Shape::String if field.always => Some(json!("")),
        Shape::Bool if field.always => Some(json!(false)),
        Shape::Int32 | Shape::Int64 | Shape::Double if field.always => Some(json!(0)),
        _ => None,
    }
}

fn extensions(schema: &mut Map<String, Value>, field: &Field) {
    let mut set = |name: &str, value: Value| schema.insert(format!("x-kubernetes-{name}"), value);
    match field.list_type {
        Some(ListType::Atomic) => drop(set("list-type", json!("atomic"))),
        Some(ListType::Set) => drop(set("list-type", json!("set"))),
        Some(ListType::Map) => {
            set("list-type", json!("map"));
            set("list-map-keys", json!(field.keys().collect::<Vec<_>>()));
        }
        None => {}
    }
    if field.map_atomic {
        set("map-type", json!("atomic"));
    }
    match (field.patch_merge, field.patch_retain_keys) {
        (true, true) => drop(set("patch-strategy", json!("merge,retainKeys"))),
        (true, false) => drop(set("patch-strategy", json!("merge"))),
        (false, true) => drop(set("patch-strategy", json!("retainKeys"))),
        (false, false) => {}
    }
    if !field.patch_key.is_empty() {
        set("patch-merge-key", json!(field.patch_key));
    }
}
