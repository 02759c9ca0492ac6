//! The v2 document in protobuf, in the messages of gnostic's `OpenAPIv2.proto`: the only form in which Go
//! clients ask for it.
//!
//! A translation of the JSON document, field by field; what our documents never contain is not known here.

use serde_json::{Map, Value};

/// The document of [`super::v2`] in protobuf.
#[must_use]
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |m| {
        m.text(1, &document["info"]["title"]);
        m.text(2, &document["info"]["version"]);
    });
    out.message(8, |m| {
        for (path, item) in entries(&document["paths"]) {
            m.named(2, path, |m| path_item(m, item));
        }
    });
    out.message(9, |m| {
        for (name, definition) in entries(&document["definitions"]) {
            m.named(1, name, |m| schema(m, definition));
        }
    });
    for requirement in items(&document["security"]) {
        out.message(12, |m| {
            for (name, scopes) in entries(requirement) {
                m.named(1, name, |m| m.texts(1, scopes));
            }
        });
    }
    out.message(13, |m| {
        for (name, scheme) in entries(&document["securityDefinitions"]) {
            m.named(1, name, |m| {
                m.message(2, |m| {
                    m.text(1, &scheme["type"]);
                    m.text(2, &scheme["name"]);
                    m.text(3, &scheme["in"]);
                    m.text(4, &scheme["description"]);
                });
            });
        }
    });
    out.0
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A protobuf message as it is written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn string(&mut self, number: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn text(&mut self, number: u64, value: &Value) {
        self.string(number, value.as_str().unwrap_or_default());
    }

    fn texts(&mut self, number: u64, list: &Value) {
        for item in items(list) {
            self.bytes(number, item.as_str().unwrap_or_default().as_bytes());
        }
    }

    fn boolean(&mut self, number: u64, value: &Value) {
        if value == true {
            self.varint(number << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, number: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(number, &inner.0);
    }

    /// An entry of a map: a name and a value.
    fn named(&mut self, number: u64, name: &str, fill: impl FnOnce(&mut Message)) {
        self.message(number, |m| {
            m.string(1, name);
            m.message(2, fill);
        });
    }

    /// `Any` carries YAML, and JSON is YAML.
    fn any(&mut self, number: u64, value: &Value) {
        self.message(number, |m| m.string(2, &format!("{value}\n")));
    }

    fn extensions(&mut self, number: u64, of: &Map<String, Value>) {
        for (name, value) in of.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.named(number, name, |m| m.string(2, &format!("{value}\n")));
        }
    }
}

fn path_item(m: &mut Message, item: &Value) {
    let methods =
        [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    for (method, number) in methods {
        if let Some(found) = item.get(method).and_then(Value::as_object) {
            m.message(number, |m| operation(m, found));
        }
    }
    for found in items(&item["parameters"]) {
        m.message(9, |m| m.message(1, |m| parameter(m, found)));
    }
}

fn operation(m: &mut Message, operation: &Map<String, Value>) {
    let get = |name: &str| operation.get(name).unwrap_or(&Value::Null);
    m.texts(1, get("tags"));
    m.text(3, get("description"));
    m.text(5, get("operationId"));
    m.texts(6, get("produces"));
    m.texts(7, get("consumes"));
    for found in items(get("parameters")) {
        m.message(8, |m| m.message(1, |m| parameter(m, found)));
    }
    m.message(9, |m| {
        for (code, response) in entries(get("responses")) {
            m.named(1, code, |m| {
                m.message(1, |m| {
                    m.text(1, &response["description"]);
                    if let Some(found) = response.get("schema") {
                        m.message(2, |m| m.message(1, |m| schema(m, found)));
                    }
                });
            });
        }
    });
    m.texts(10, get("schemes"));
    m.extensions(13, operation);
}

fn parameter(m: &mut Message, parameter: &Value) {
    match parameter["in"].as_str() {
        Some("body") => m.message(1, |m| {
            m.text(1, &parameter["description"]);
            m.text(2, &parameter["name"]);
            m.text(3, &parameter["in"]);
            m.boolean(4, &parameter["required"]);
            m.message(5, |m| schema(m, &parameter["schema"]));
        }),
        // The same fields but for one number in the middle that paths do not have.
        Some("path") => m.message(2, |m| m.message(4, |m| plain(m, parameter, 5, 19))),
        _ => m.message(2, |m| m.message(3, |m| plain(m, parameter, 6, 20))),
    }
}

fn plain(m: &mut Message, parameter: &Value, kind: u64, unique: u64) {
    m.boolean(1, &parameter["required"]);
    m.text(2, &parameter["in"]);
    m.text(3, &parameter["description"]);
    m.text(4, &parameter["name"]);
    m.text(kind, &parameter["type"]);
    m.boolean(unique, &parameter["uniqueItems"]);
}

fn schema(m: &mut Message, schema_: &Value) {
    m.text(1, &schema_["$ref"]);
    m.text(2, &schema_["format"]);
    m.text(4, &schema_["description"]);
    if let Some(default) = schema_.get("default") {
        m.any(5, default);
    }
    m.texts(19, &schema_["required"]);
    for value in items(&schema_["enum"]) {
        m.any(20, value);
    }
    if let Some(found) = schema_.get("additionalProperties") {
        m.message(21, |m| m.message(1, |m| schema(m, found)));
    }
    if let Some(kind) = schema_["type"].as_str() {
        m.message(22, |m| m.string(1, kind));
    }
    if let Some(found) = schema_.get("items") {
        m.message(23, |m| m.message(1, |m| schema(m, found)));
    }
    if let Some(properties) = schema_.get("properties") {
        m.message(25, |m| {
            for (name, property) in entries(properties) {
                m.named(1, name, |m| schema(m, property));
            }
        });
    }
    if let Some(map) = schema_.as_object() {
        m.extensions(31, map);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_small_document_byte_by_byte() {
        let document = json!({"swagger": "2.0", "info": {"title": "K", "version": "v"},
            "definitions": {"A": {"type": "object", "x-k": [1]}}});
        let want: &[u8] = &[
            0x0a, 3, b'2', b'.', b'0', // swagger
            0x12, 6, 0x0a, 1, b'K', 0x12, 1, b'v', // info
            0x42, 0, // paths
            0x4a, 33, 0x0a, 31, 0x0a, 1, b'A', 0x12, 26, // definitions, one, its name, its schema
            0xb2, 1, 8, 0x0a, 6, b'o', b'b', b'j', b'e', b'c', b't', // type
            0xfa, 1, 12, 0x0a, 3, b'x', b'-', b'k', 0x12, 5, 0x12, 3, b'[', b'1', b']', // extension
        ];
        // The extension's YAML ends with a line feed, which makes every length around it one more.
        let mut want = want.to_vec();
        let end = want.len();
        want.push(b'\n');
        for place in [16, 18, 23, end - 13, end - 6, end - 4] {
            want[place] += 1;
        }
        want.extend([0x6a, 0]); // security definitions
        let got = encode(&document);
        assert_eq!(got.len(), want.len());
        assert_eq!(got, want);
    }

    #[test]
    fn every_message_of_the_whole_document_can_be_read() {
        fn walk(bytes: &[u8]) -> Option<usize> {
            let (mut at, mut fields) = (0, 0);
            let varint = |at: &mut usize| {
                let (mut value, mut shift) = (0_u64, 0);
                loop {
                    let byte = *bytes.get(*at)?;
                    *at += 1;
                    value |= u64::from(byte & 0x7f) << shift;
                    shift += 7;
                    if byte < 0x80 {
                        return Some(value);
                    }
                }
            };
            while at < bytes.len() {
                let tag = varint(&mut at)?;
                let length = varint(&mut at)?;
                if tag & 7 == 2 {
                    at += length as usize;
                }
                fields += 1;
            }
            (at == bytes.len()).then_some(fields)
        }
        let document = super::super::v2(&crate::Catalogue::builtin());
        assert_eq!(walk(&encode(&document)), Some(6));
    }
}
