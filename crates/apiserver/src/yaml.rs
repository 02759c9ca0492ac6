//! YAML bodies into JSON, read as Go's YAML reader does.
//!
//! The last of duplicate keys wins; each of the others is told, with its line. Tags, anchors and merges are resolved.

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};
use std::collections::HashSet;
use std::fmt;

/// What begins the text of duplicate keys.
pub(crate) const UNMARSHAL_ERRORS: &str = "yaml: unmarshal errors:\n";

/// A document as JSON, and what a strict reader has against it.
pub(crate) fn to_json(bytes: &[u8]) -> Result<(Bytes, Vec<String>), String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let read: Result<serde_json::Value, _> = serde_saphyr::from_slice_with_options(bytes, options);
    let (value, found) = match read {
        Ok(value) => (value, Vec::new()),
        Err(_) => {
            let lenient = serde_saphyr::options! {
                legacy_octal_numbers: true,
                duplicate_keys: DuplicateKeyPolicy::PassThrough,
            };
            let value = serde_saphyr::from_slice_with_options(bytes, lenient)
                .map_err(|e: serde_saphyr::Error| shown(&format!("{e}")))?;
            (value, duplicates(bytes))
        }
    };
    serde_json::to_vec(&value).map(|json| (Bytes::from(json), found)).map_err(|e| e.to_string())
}

/// `yaml: line 3: <what>`, of a message of the reader's.
fn shown(error: &str) -> String {
    let first = error.lines().next().unwrap_or(error);
    let first = first.strip_prefix("error: ").unwrap_or(first);
    match first.strip_prefix("line ").and_then(|rest| rest.split_once(" column ")) {
        Some((line, rest)) => {
            let what = rest.split_once(": ").map_or(rest, |(_, what)| what);
            format!("yaml: line {line}: {what}")
        }
        None => format!("yaml: {first}"),
    }
}

fn duplicates(bytes: &[u8]) -> Vec<String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
    };
    let Ok(tree) = serde_saphyr::from_slice_with_options::<Tree>(bytes, options) else { return Vec::new() };
    let mut lines = Vec::new();
    tree.collect(&mut lines);
    if lines.is_empty() { lines } else { vec![format!("{UNMARSHAL_ERRORS}  {}", lines.join("\n  "))] }
}

/// A document with all its keys and the lines of their values.
enum Tree {
    Leaf,
    List(Vec<Tree>),
    Map(Vec<(String, Spanned<Tree>)>),
}

impl Tree {
    fn collect(&self, lines: &mut Vec<String>) {
        match self {
            Self::Leaf => {}
            Self::List(items) => items.iter().for_each(|item| item.collect(lines)),
            Self::Map(entries) => {
                let mut seen = HashSet::new();
                for (key, value) in entries {
                    value.value.collect(lines);
                    if !seen.insert(key) {
                        let line = value.referenced.line();
                        lines.push(format!("line {line}: key {key} already set in map"));
                    }
                }
            }
        }
    }
}

/// A key as Go prints it.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(key.as_str().map_or_else(|| key.to_string(), |text| format!("{text:?}"))))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(Key(key)) = access.next_key()? {
            entries.push((key, access.next_value()?));
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> (String, Vec<String>) {
        let (json, found) = to_json(yaml.as_bytes()).unwrap();
        (String::from_utf8(json.to_vec()).unwrap(), found)
    }

    #[test]
    fn yaml_is_read_as_go_reads_it() {
        for (yaml, json) in [
            ("a: yes", r#"{"a":true}"#),
            ("a: \"yes\"", r#"{"a":"yes"}"#),
            ("a: 'true'", r#"{"a":"true"}"#),
            ("a: '12'", r#"{"a":"12"}"#),
            ("a: 0644", r#"{"a":420}"#),
            ("a: 1.5\nb: null\nc: ~", r#"{"a":1.5,"b":null,"c":null}"#),
            ("a: |\n  x\n  y\n", "{\"a\":\"x\\ny\\n\"}"),
            ("a: 2026-01-01", r#"{"a":"2026-01-01"}"#),
        ] {
            assert_eq!(read(yaml), (json.to_owned(), vec![]), "{yaml}");
        }
    }

    #[test]
    fn duplicate_keys_are_told_with_their_lines() {
        let yaml = concat!(
            "kind: ConfigMap\nmetadata:\n  name: a\n  name: b\n  labels: {x: 1, x: 2}\n",
            "data:\n  k: v\nlist:\n- a: 1\n  a:\n    b: 2\n    b: 3\ndata:\n  k: w\n",
        );
        let (json, found) = read(yaml);
        assert_eq!(
            json,
            r#"{"data":{"k":"w"},"kind":"ConfigMap","list":[{"a":{"b":3}}],"metadata":{"labels":{"x":2},"name":"b"}}"#
        );
        assert_eq!(
            found,
            [concat!(
                "yaml: unmarshal errors:\n",
                "  line 4: key \"name\" already set in map\n",
                "  line 5: key \"x\" already set in map\n",
                "  line 12: key \"b\" already set in map\n",
                "  line 11: key \"a\" already set in map\n",
                "  line 14: key \"data\" already set in map",
            )]
        );
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        assert!(to_json(b"a: [").unwrap_err().starts_with("yaml: line 1: "));
    }
}
