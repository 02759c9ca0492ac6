//! Writes the schema table.

use super::Error;
use super::facts::{Facts, GoField};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Kinds of so many groups are kinds of none: DeleteOptions, WatchEvent.
const MAX_KINDS: usize = 3;

pub fn table(facts: &Facts) -> Result<String, Error> {
    let mut packages: BTreeMap<&str, Vec<(&str, &Value)>> = BTreeMap::new();
    for (definition, schema) in &facts.definitions {
        let (package, name) = definition.rsplit_once('.').ok_or("a definition without a package")?;
        packages.entry(package).or_default().push((name, schema));
    }
    let index: BTreeMap<&str, usize> = packages.keys().enumerate().map(|(i, p)| (*p, i)).collect();
    let mut out =
        String::from("# Made by `cargo xtask gen`; the format is described in src/schema/read.rs.\n");
    for package in packages.keys() {
        writeln!(out, "%{package}")?;
    }
    for (package, types) in &packages {
        writeln!(out, "&{}", index[package])?;
        for (name, schema) in types {
            Writer { facts, index: &index, package, name, out: &mut out }.definition(schema)?;
        }
    }
    Ok(out)
}

/// Shapes that are not what their OpenAPI type says.
fn special(definition: &str) -> Option<&'static str> {
    let name = definition.rsplit('.').next()?;
    Some(match name {
        "Quantity" => "q",
        "IntOrString" => "n",
        "Time" if definition.starts_with(META) => "t",
        "MicroTime" if definition.starts_with(META) => "u",
        "RawExtension"
        | "FieldsV1"
        | "JSON"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrStringArray"
        | "Patch" => "a",
        _ => return None,
    })
}

/// The package column of the Go table for an OpenAPI package.
fn go_package(package: &str) -> String {
    let mut parts = package.rsplit('.');
    let version = parts.next().unwrap_or_default();
    format!("{}/{version}", parts.next().unwrap_or_default())
}

struct Writer<'a> {
    facts: &'a Facts,
    index: &'a BTreeMap<&'a str, usize>,
    package: &'a str,
    name: &'a str,
    out: &'a mut String,
}

impl Writer<'_> {
    fn definition(&mut self, schema: &Value) -> Result<(), Error> {
        let definition = format!("{}.{}", self.package, self.name);
        write!(self.out, "@{}", self.name)?;
        if let Some(shape) = special(&definition) {
            write!(self.out, " ={shape}")?;
        }
        if schema["x-kubernetes-map-type"] == "atomic" {
            write!(self.out, " ma")?;
        }
        let kinds = schema["x-kubernetes-group-version-kind"].as_array().map_or(&[][..], Vec::as_slice);
        for kind in kinds.iter().filter(|_| kinds.len() <= MAX_KINDS) {
            let text = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
            write!(self.out, " k={}/{}/{}", text("group"), text("version"), text("kind"))?;
        }
        self.out.push('\n');
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let required = required.iter().any(|r| r == field);
            self.field(&definition, field, property, required)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        definition: &str,
        field: &str,
        property: &Value,
        required: bool,
    ) -> Result<(), Error> {
        let go = self.facts.go.get(&(go_package(self.package), self.name.to_owned(), field.to_owned()));
        let go_type = go.map_or("", |g| g.go_type.as_str());
        let shape = self.shape(property, go_type);
        let number = go.map_or("", |g| g.number.as_str());
        write!(self.out, "{field} {shape} {}", if number.is_empty() { "0" } else { number })?;
        self.presence(definition, field, go, required);
        self.lists(property)?;
        let key = (definition.to_owned(), field.to_owned());
        if let Some(default) = self.facts.defaults.get(&key) {
            write!(self.out, " d={default}")?;
        }
        let items = (definition.to_owned(), format!("{field}[]"));
        if let Some(values) = self.facts.enums.get(&key).or_else(|| self.facts.enums.get(&items)) {
            write!(self.out, " e={}", values.join(",").replace(' ', "~"))?;
        }
        self.out.push('\n');
        Ok(())
    }

    /// Whether Go always writes the field, and whether it tells absent from zero. Versions that are not in
    /// the Go table (none of those that are served by default) are guessed from what is required.
    fn presence(&mut self, definition: &str, field: &str, go: Option<&GoField>, required: bool) {
        if required {
            self.out.push_str(" r");
        }
        if !go.map_or(!required, |g| g.omitempty) {
            self.out.push_str(" !");
        }
        if go.is_some_and(|g| g.go_type.starts_with('*')) {
            self.out.push_str(" p");
        }
        // The one field of these types that Go leaves out when it is the zero time.
        if definition == format!("{META}.ObjectMeta") && field == "creationTimestamp" {
            self.out.push_str(" z");
        }
    }

    fn lists(&mut self, property: &Value) -> Result<(), Error> {
        let text = |key: &str| property[key].as_str().map(str::to_owned);
        if let Some(strategy) = text("x-kubernetes-patch-strategy") {
            write!(self.out, " ps={strategy}")?;
        }
        if let Some(key) = text("x-kubernetes-patch-merge-key") {
            write!(self.out, " pk={key}")?;
        }
        if let Some(kind) = text("x-kubernetes-list-type") {
            let keys = property["x-kubernetes-list-map-keys"].as_array().cloned().unwrap_or_default();
            let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
            match kind.as_str() {
                "map" => write!(self.out, " lm={}", keys.join(","))?,
                "set" => self.out.push_str(" ls"),
                _ => self.out.push_str(" la"),
            }
        }
        if text("x-kubernetes-map-type").as_deref() == Some("atomic") {
            self.out.push_str(" ma");
        }
        Ok(())
    }

    /// The type of a value in the table's spelling; a named Go type of a scalar after `=`.
    fn shape(&self, schema: &Value, go_type: &str) -> String {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.reference(reference.trim_start_matches("#/definitions/"));
        }
        let go_type = go_type.trim_start_matches('*');
        if schema["items"].is_object() {
            return format!("[]{}", self.shape(&schema["items"], go_type.strip_prefix("[]").unwrap_or("")));
        }
        if schema["additionalProperties"].is_object() {
            let value = go_type.strip_prefix("map[").and_then(|t| t.split_once(']')).map_or("", |t| t.1);
            return format!("{{}}{}", self.shape(&schema["additionalProperties"], value));
        }
        let scalar = match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), Some("byte")) => "y",
            (Some("string"), _) => "s",
            (Some("boolean"), _) => "b",
            (Some("integer"), Some("int64")) => "l",
            (Some("integer"), _) => "i",
            (Some("number"), _) => "d",
            _ => "a",
        };
        let builtin = ["string", "bool", "int32", "int64", "int", "float64", "", "[]byte"];
        if builtin.contains(&go_type) || matches!(scalar, "y" | "a") {
            return scalar.to_owned();
        }
        format!("{scalar}={}", self.go_name(go_type))
    }

    fn reference(&self, definition: &str) -> String {
        if let Some(shape) = special(definition) {
            return shape.to_owned();
        }
        let (package, name) = definition.rsplit_once('.').unwrap_or(("", definition));
        if package == self.package { name.to_owned() } else { format!("{}.{name}", self.index[package]) }
    }

    /// As Go's reflection names the type: by the last part of its package.
    fn go_name(&self, go_type: &str) -> String {
        let version = self.package.rsplit('.').next().unwrap_or_default();
        match go_type.split_once('.') {
            None => format!("{version}.{go_type}"),
            Some(("types", name)) => format!("types.{name}"),
            Some((_, name)) => format!("v1.{name}"),
        }
    }
}
