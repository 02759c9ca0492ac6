//! Answers on the wire: headers, encodings, lists as concatenations of stored bytes, compression.

use super::negotiate::{Form, Format, Shape};
use super::table::{Page, Style, table};
use crate::call::{Listed, Outcome};
use crate::codec::Rows;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use krate_api::status::Reason;
use krate_api::{Shared, Status, Verb};
use serde_json::value::RawValue;
use std::io::Write as _;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Answers larger than this are compressed when the client asks, bytes.
const COMPRESS_OVER: usize = 128 * 1024;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn with_type(code: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    response
}

/// Bytes as they are.
pub(crate) fn raw(code: u16, content_type: &str, bytes: impl Into<Bytes>) -> Response<Body> {
    with_type(code, content_type, full(bytes))
}

/// JSON bytes in the negotiated form.
pub(crate) fn encoded(code: u16, form: Form, json: Bytes) -> Response<Body> {
    let bytes = match form.format {
        Format::Yaml => to_yaml(&json).map_or(json, Bytes::from),
        Format::Json if form.pretty => Bytes::from(prettify(&json)),
        Format::Json => json,
    };
    let packed = (form.gzip && bytes.len() > COMPRESS_OVER).then(|| compress(&bytes)).flatten();
    let Some(packed) = packed else { return with_type(code, form.content_type(), full(bytes)) };
    let mut response = with_type(code, form.content_type(), full(packed));
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// JSON as YAML, with every line of a text in one line.
pub(crate) fn to_yaml(json: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(&value, options).ok()
}

/// Valid JSON over several lines, as it was ordered: two spaces a level, and a line at the end.
fn prettify(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for &byte in json {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => continue,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                // What is empty stays together.
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
            }
            _ if matches!(out.last(), Some(b'{' | b'[')) => line(&mut out, depth),
            _ => {}
        }
        out.push(byte);
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b',' => line(&mut out, depth),
            b':' => out.push(b' '),
            _ => {}
        }
    }
    out.push(b'\n');
    out
}

/// The tag of a document: the digest of its bytes, in quotes.
pub(crate) fn tag_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("\"{}\"", sha2::Sha512::digest(bytes).iter().map(|b| format!("{b:02X}")).collect::<String>())
}

/// `304` when the client has the document of a tag.
pub(crate) fn unchanged(headers: &HeaderMap, tag: &str) -> Option<Response<Body>> {
    let known = headers.get(IF_NONE_MATCH)?.to_str().ok()?;
    let is_known = |t: &str| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag;
    if !known.split(',').any(|t| is_known(t.trim())) {
        return None;
    }
    let mut response = with_type(304, "application/json", full(Bytes::new()));
    response.headers_mut().remove(CONTENT_TYPE);
    Some(response)
}

/// Says which document an answer is.
pub(crate) fn tag(response: &mut Response<Body>, tag: &str) {
    if let Ok(value) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, value);
    }
}

/// A failure.
pub(crate) fn failure(status: &Status, form: Form) -> Response<Body> {
    let mut response = encoded(status.code(), form, Bytes::from(status.encode()));
    let retry = status.0.details.as_ref().and_then(|d| d.retry_after_seconds).filter(|s| *s > 0);
    if let Some(seconds) = retry {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds the texts as `Warning` headers.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for text in warnings {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// The answer of a handler in the negotiated form.
pub(crate) fn outcome(
    outcome: &Outcome,
    form: Form,
    rows: &Rows,
    style: &Style,
) -> Result<Response<Body>, Status> {
    Ok(match outcome {
        Outcome::Object { object, created } => {
            let code = if *created { 201 } else { 200 };
            encoded(code, form, one(object, form.shape, rows, style)?)
        }
        Outcome::List(listed) => encoded(200, form, many(listed, form.shape, rows, style)?),
        Outcome::Encoded { code, bytes } => encoded(*code, form, bytes.clone()),
    })
}

/// One object in a shape.
fn one(object: &Shared, shape: Shape, rows: &Rows, style: &Style) -> Result<Bytes, Status> {
    match shape {
        Shape::Whole => Ok(object.bytes.clone()),
        Shape::Metadata { beta } => metadata_of(&object.bytes, beta).map(Bytes::from),
        Shape::Table { .. } if !rows.shown.verbs.contains(&Verb::Get) && !style.scale => {
            let text = format!(
                "the resource {} does not support being converted to a Table",
                rows.shown.qualified()
            );
            Err(Status::failure(Reason::NotAcceptable, text))
        }
        Shape::Table { beta } => {
            let page = Page { revision: &object.revision.to_string(), ..Page::default() };
            table(rows, std::slice::from_ref(object), &page, &Style { beta, ..style.clone() })
        }
    }
}

/// A list: an envelope around the stored bytes.
fn many(listed: &Listed, shape: Shape, rows: &Rows, style: &Style) -> Result<Bytes, Status> {
    // What is not stored has no revision.
    let revision = if listed.revision == 0 { String::new() } else { listed.revision.to_string() };
    if let Shape::Table { beta } = shape {
        let page =
            Page { revision: &revision, continue_token: &listed.continue_token, remaining: listed.remaining };
        return table(rows, &listed.items, &page, &Style { beta, ..style.clone() });
    }
    let (kind, version) = match shape {
        Shape::Metadata { beta } => ("PartialObjectMetadataList".to_owned(), meta_version(beta).to_owned()),
        _ => (rows.shown.list_kind(), rows.shown.api_version()),
    };
    let size: usize = listed.items.iter().map(|i| i.bytes.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{{");
    out.extend_from_slice(head.as_bytes());
    if !revision.is_empty() {
        out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
    }
    if !listed.continue_token.is_empty() {
        out.extend_from_slice(format!(",\"continue\":\"{}\"", listed.continue_token).as_bytes());
    }
    if let Some(remaining) = listed.remaining {
        out.extend_from_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
    }
    out.extend_from_slice(b"},\"items\":[");
    for (i, item) in listed.items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match shape {
            Shape::Metadata { beta } => out.extend_from_slice(&metadata_of(&item.bytes, beta)?),
            _ => out.extend_from_slice(&item.bytes),
        }
    }
    out.extend_from_slice(b"]}");
    Ok(Bytes::from(out))
}

pub(crate) fn meta_version(beta: bool) -> &'static str {
    if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

/// An object's metadata alone, as `PartialObjectMetadata`; the metadata's bytes are taken as they are.
pub(crate) fn metadata_of(object: &[u8], beta: bool) -> Result<Vec<u8>, Status> {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let head: Head<'_> = serde_json::from_slice(object).map_err(Status::internal)?;
    let version = meta_version(beta);
    Ok(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{version}\",\"metadata\":{}}}",
        head.metadata.get()
    )
    .into_bytes())
}

#[cfg(test)]
mod tests {
    use super::prettify;
    use proptest::prelude::*;

    #[test]
    fn json_is_spread_over_lines_in_its_order() {
        let json =
            br#"{"kind":"Status","a":{},"list":[1,{"x":"y, {z}: \\\"[q]\\\""}],"none":[],"last":null}"#;
        let expected = "{\n  \"kind\": \"Status\",\n  \"a\": {},\n  \"list\": [\n    1,\n    {\n      \
                        \"x\": \"y, {z}: \\\\\\\"[q]\\\\\\\"\"\n    }\n  ],\n  \"none\": [],\n  \"last\": null\n}\n";
        assert_eq!(String::from_utf8(prettify(json)).unwrap(), expected);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::<serde_json::Value>::into)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn as_the_library_does_it(value in any_json()) {
            let mut expected = serde_json::to_vec_pretty(&value).unwrap();
            expected.push(b'\n');
            prop_assert_eq!(prettify(value.to_string().as_bytes()), expected);
        }
    }
}
