//! Kubernetes' protobuf form of objects, read into JSON: the body that typed Go clients send.
//!
//! The envelope is four magic bytes and `runtime.Unknown` (type meta 1, raw 2, encoding 3, content type 4);
//! inside, messages whose numbers are in the schema table. Every length is checked; what is malformed is an
//! error, what is unknown is skipped, as protobuf asks.

use crate::schema::{self, Field, Shape, Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The content type of the form.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting of messages that is read.
const MAX_DEPTH: usize = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Prefix,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: nested too deeply")]
    Depth,
    #[error("proto: a string is not valid UTF-8")]
    Utf8,
    #[error("the embedded JSON is malformed")]
    Json,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    Kind { api_version: String, kind: String },
}

/// An object that was read.
#[derive(Debug)]
pub struct Decoded {
    pub api_version: String,
    pub kind: String,
    /// With `apiVersion` and `kind`.
    pub value: Value,
}

/// Reads an object with its envelope.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for item in Items(bytes.strip_prefix(MAGIC).ok_or(Error::Prefix)?) {
        match item? {
            (1, Wire::Bytes(meta)) => {
                for item in Items(meta) {
                    match item? {
                        (1, Wire::Bytes(text)) => api_version = string(text)?,
                        (2, Wire::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let of_kind = schema::of_kind(group, version, &kind);
    let meta_kind = || schema::type_named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"));
    let Some(shape) = of_kind.or_else(meta_kind) else { return Err(Error::Kind { api_version, kind }) };
    let mut value = message(shape, raw, 0)?;
    value.insert("apiVersion".to_owned(), Value::from(api_version.clone()));
    value.insert("kind".to_owned(), Value::from(kind.clone()));
    Ok(Decoded { api_version, kind, value: Value::Object(value) })
}

/// A value as the wire carries it.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order written.
struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Error::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Truncated)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Error> {
        let count = usize::try_from(count).map_err(|_| Error::Truncated)?;
        let (head, rest) = self.0.split_at_checked(count).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn item(&mut self) -> Result<(u64, Wire<'a>), Error> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Error::Truncated)?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(Error::WireType(other as u8)),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<(u64, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.0 = &[];
        }
        Some(item)
    }
}

fn string(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Utf8)
}

/// Reads a message of a type.
fn message(of: &Type, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Error> {
    let mut out = Map::new();
    into(of, "", bytes, depth, &mut out)?;
    Ok(out)
}

/// Reads fields into `out`. `prefix` is the number of the embedded struct that the message is (`2.`), or empty.
fn into(
    of: &Type,
    prefix: &str,
    bytes: &[u8],
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    for item in Items(bytes) {
        let (number, wire) = item?;
        let number = format!("{prefix}{number}");
        if let Some(field) = of.fields.iter().find(|f| f.number == number) {
            put(field, wire, depth, out)?;
            continue;
        }
        let embedded = format!("{number}.");
        if let Wire::Bytes(inner) = wire
            && of.fields.iter().any(|f| f.number.starts_with(&embedded))
        {
            into(of, &embedded, inner, depth + 1, out)?;
        }
    }
    Ok(())
}

/// Sets a field, or adds to it when it is a list or a map.
fn put(field: &Field, wire: Wire<'_>, depth: usize, out: &mut Map<String, Value>) -> Result<(), Error> {
    match (&field.shape, wire) {
        (Shape::List(inner), Wire::Bytes(bytes)) if packable(inner) => {
            let list = out.entry(field.name).or_insert_with(|| Value::Array(vec![]));
            let mut items = Items(bytes);
            while !items.0.is_empty() {
                let number = items.varint()?;
                push(list, scalar(inner, &Wire::Varint(number))?);
            }
        }
        (Shape::List(inner), wire) => {
            let value = single(inner, wire, depth)?;
            push(out.entry(field.name).or_insert_with(|| Value::Array(vec![])), value);
        }
        (Shape::Map(inner), Wire::Bytes(bytes)) => {
            let (key, value) = entry(inner, bytes, depth)?;
            let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        }
        (shape, wire) => {
            let value = single(shape, wire, depth)?;
            // Go writes the zero of every field that is no pointer; JSON leaves it out.
            if field.pointer && !value.is_null() || !is_zero(&value) {
                out.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn push(list: &mut Value, value: Value) {
    if let Value::Array(list) = list {
        list.push(value);
    }
}

fn packable(shape: &Shape) -> bool {
    matches!(shape, Shape::Bool | Shape::Int32 | Shape::Int64)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// An entry of a map: key 1, value 2.
fn entry(inner: &Shape, bytes: &[u8], depth: usize) -> Result<(String, Value), Error> {
    let (mut key, mut value) = (String::new(), None);
    for item in Items(bytes) {
        match item? {
            (1, Wire::Bytes(text)) => key = string(text)?,
            (2, wire) => value = Some(single(inner, wire, depth)?),
            _ => {}
        }
    }
    // An absent value is the zero value of its type.
    Ok((
        key,
        value.unwrap_or_else(|| {
            if matches!(inner, Shape::String | Shape::Bytes) { Value::from("") } else { Value::Null }
        }),
    ))
}

/// One value that is neither repeated nor a map.
fn single(shape: &Shape, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
    let Wire::Bytes(bytes) = wire else { return scalar(shape, &wire) };
    Ok(match shape {
        Shape::String => Value::from(string(bytes)?),
        Shape::Bytes => Value::from(STANDARD.encode(bytes)),
        Shape::Quantity => Value::from(first_string(bytes)?.unwrap_or_default()),
        Shape::IntOrString => int_or_string(bytes)?,
        Shape::Time => time(bytes, 0)?,
        Shape::MicroTime => time(bytes, 6)?,
        Shape::Any => match first_bytes(bytes)? {
            Some(json) if !json.is_empty() => serde_json::from_slice(json).map_err(|_| Error::Json)?,
            _ => Value::Null,
        },
        // A list as a message of its own (`ExtraValue`): its items are number 1.
        Shape::List(inner) => {
            let mut list = Vec::new();
            for item in Items(bytes) {
                if let (1, wire) = item? {
                    list.push(single(inner, wire, depth + 1)?);
                }
            }
            Value::Array(list)
        }
        Shape::Object(_) => match shape.object() {
            Some(of) => Value::Object(message(of, bytes, depth + 1)?),
            None => Value::Null,
        },
        _ => return Err(Error::WireType(2)),
    })
}

fn scalar(shape: &Shape, wire: &Wire<'_>) -> Result<Value, Error> {
    Ok(match (shape, wire) {
        (Shape::Bool, Wire::Varint(n)) => Value::from(*n != 0),
        (Shape::Int32, Wire::Varint(n)) => Value::from(*n as i32),
        (Shape::Int64, Wire::Varint(n)) => Value::from(*n as i64),
        (Shape::Double, Wire::Fixed64(bits)) => Value::from(f64::from_bits(*bits)),
        (_, Wire::Varint(_)) => return Err(Error::WireType(0)),
        (_, Wire::Fixed64(_)) => return Err(Error::WireType(1)),
        (_, Wire::Fixed32) => return Err(Error::WireType(5)),
        (_, Wire::Bytes(_)) => return Err(Error::WireType(2)),
    })
}

fn first_bytes(bytes: &[u8]) -> Result<Option<&[u8]>, Error> {
    for item in Items(bytes) {
        if let (1, Wire::Bytes(inner)) = item? {
            return Ok(Some(inner));
        }
    }
    Ok(None)
}

fn first_string(bytes: &[u8]) -> Result<Option<String>, Error> {
    first_bytes(bytes)?.map(string).transpose()
}

/// `IntOrString`: type 1 (0 is the number), number 2, string 3.
fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut kind, mut number, mut text) = (0, 0i32, String::new());
    for item in Items(bytes) {
        match item? {
            (1, Wire::Varint(n)) => kind = n,
            (2, Wire::Varint(n)) => number = n as i32,
            (3, Wire::Bytes(bytes)) => text = string(bytes)?,
            _ => {}
        }
    }
    Ok(if kind == 0 { Value::from(number) } else { Value::from(text) })
}

/// Seconds 1 and nanoseconds 2 as RFC 3339 with so many decimals; an empty message is no time at all.
fn time(bytes: &[u8], decimals: usize) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for item in Items(bytes) {
        match item? {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as i32,
            _ => {}
        }
    }
    let at =
        jiff::Timestamp::new(seconds, if decimals == 0 { 0 } else { nanos }).map_err(|_| Error::Truncated)?;
    Ok(Value::from(if decimals == 0 { format!("{at:.0}") } else { format!("{at:.6}") }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind as _;
    use proptest::prelude::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_pod_is_read_with_its_embedded_volume_source() {
        // The creation time of an object that was never stored is an empty message; the host path is number 1
        // of the embedded VolumeSource, which is number 2 of a Volume.
        let meta = [field(1, b"web"), field(8, b"")].concat();
        let volume = [field(1, b"data"), field(2, &field(1, &field(1, b"/srv")))].concat();
        let spec = [field(1, &volume), vec![4 << 3, 30]].concat();
        let decoded = decode(&envelope("v1", "Pod", &[field(1, &meta), field(2, &spec)].concat())).unwrap();
        assert_eq!(
            decoded.value,
            serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
                "spec": {"volumes": [{"name": "data", "hostPath": {"path": "/srv"}}], "terminationGracePeriodSeconds": 30}})
        );
    }

    #[test]
    fn maps_quantities_and_zero_values() {
        let label = field(11, &[field(1, b"app"), field(2, b"")].concat());
        let requests = field(2, &[field(1, b"cpu"), field(2, &field(1, b"100m"))].concat());
        let container = [field(1, b"main"), field(5, b""), field(8, &requests)].concat();
        let raw = [field(1, &label), field(2, &field(2, &container))].concat();
        let decoded = decode(&envelope("v1", "Pod", &raw)).unwrap();
        assert_eq!(decoded.value["metadata"], serde_json::json!({"labels": {"app": ""}}));
        assert_eq!(
            decoded.value["spec"]["containers"][0],
            serde_json::json!({"name": "main", "resources": {"requests": {"cpu": "100m"}}})
        );
    }

    #[test]
    fn a_condition_without_its_time_is_one() {
        let condition = [field(1, b"Ready"), field(2, b"True"), field(4, b""), field(5, b"E2E")].concat();
        let raw = field(3, &field(2, &condition));
        let decoded = decode(&envelope("v1", "Service", &raw)).unwrap();
        let service = crate::types::core::v1::Service::from_value(decoded.value).unwrap().to_value();
        let want = serde_json::json!([{"type": "Ready", "status": "True", "reason": "E2E", "message": "", "lastTransitionTime": null}]);
        assert_eq!(service["status"]["conditions"], want);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        assert_eq!(decode(b"{}").unwrap_err(), Error::Prefix);
        assert!(matches!(decode(&envelope("v1", "Nothing", b"")), Err(Error::Kind { .. })));
        let mut cut = envelope("v1", "Pod", &field(1, b"web"));
        cut.pop();
        assert_eq!(decode(&cut).unwrap_err(), Error::Truncated);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[MAGIC, &bytes].concat());
            let _ = decode(&envelope("v1", "Pod", &bytes[..bytes.len().min(100)]));
        }
    }
}
