//! The OpenAPI documents, as `krate-api` makes them from the catalogue and the schema table.
//!
//! A document is made off the event loop when it is asked for. Its hash is its ETag and, in version 3, part of
//! its address, so that clients keep it for as long as it is the same.

use crate::http::negotiate::{Form, Format, Shape, media_types};
use crate::http::respond::{self, Body};
use crate::query::Query;
use crate::server::Inner;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, EXPIRES, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use krate_api::{Catalogue, openapi};
use std::sync::Arc;

/// The older spelling of [`openapi::GNOSTIC`].
const GNOSTIC_OLD: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2`, `/openapi/v3` and `/openapi/v3/<group version>`; `rest` is what follows `/openapi/`.
pub(crate) async fn answer(
    server: &Inner,
    rest: &str,
    headers: &HeaderMap,
    query: &Query,
    form: Form,
) -> Option<Response<Body>> {
    let catalogue = server.catalogue();
    let form = Form { format: Format::Json, shape: Shape::Whole, pretty: false, ..form };
    match rest.trim_end_matches('/') {
        "v2" => v2(catalogue, headers, form).await,
        "v3" => Some(index(&catalogue, headers, form)),
        rest => {
            let path = rest.strip_prefix("v3/")?;
            let parts: Vec<&str> = path.split('/').collect();
            let (group, version) = match parts.as_slice() {
                ["api", version] => ("", *version),
                ["apis", group, version] => (*group, *version),
                _ => return None,
            };
            v3(server, group, version, headers, query, form).await
        }
    }
}

/// Marks an answer with the tag of its document.
fn tag(response: &mut Response<Body>, tag: &str) {
    respond::tag(response, tag);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
}

/// `304` when the client has the document of a tag.
fn unchanged(headers: &HeaderMap, etag: &str) -> Option<Response<Body>> {
    let mut response = respond::unchanged(headers, etag)?;
    tag(&mut response, etag);
    Some(response)
}

/// The addresses of the documents of version 3.
fn index(catalogue: &Catalogue, headers: &HeaderMap, form: Form) -> Response<Body> {
    let text = openapi::v3_index(catalogue).to_string();
    let etag = respond::tag_of(text.as_bytes());
    unchanged(headers, &etag).unwrap_or_else(|| {
        let mut response = respond::encoded(200, form, Bytes::from(text));
        tag(&mut response, &etag);
        response
    })
}

async fn v2(catalogue: Arc<Catalogue>, headers: &HeaderMap, form: Form) -> Option<Response<Body>> {
    let etag = format!("\"{}\"", openapi::v2_hash(&catalogue));
    if let Some(response) = unchanged(headers, &etag) {
        return Some(response);
    }
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    let first = media_types(accept).into_iter().map(|(name, _)| name).find(|name| {
        matches!(name.as_str(), "application/json" | "*/*" | "application/*")
            || name == openapi::GNOSTIC
            || name == GNOSTIC_OLD
    });
    let protobuf = match first.as_deref() {
        None => return Some(respond::raw(406, "text/plain", "406 Not Acceptable")),
        Some(name) => name.ends_with("protobuf"),
    };
    let make = move || {
        let document = openapi::v2(&catalogue);
        if protobuf { openapi::gnostic(&document) } else { document.to_string().into_bytes() }
    };
    let bytes = tokio::task::spawn_blocking(make).await.ok()?;
    let mut response = respond::encoded(200, form, Bytes::from(bytes));
    if protobuf {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GNOSTIC_OLD));
    }
    tag(&mut response, &etag);
    Some(response)
}

/// For how long a document of an address with its hash may be kept.
const YEAR: jiff::SignedDuration = jiff::SignedDuration::from_hours(365 * 24);

/// Lets a client keep a document for ever, which the address with its hash allows.
fn keep(server: &Inner, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    let until = (server.clock.now() + YEAR).strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
    if let Ok(until) = HeaderValue::from_str(&until) {
        headers.insert(EXPIRES, until);
    }
}

async fn v3(
    server: &Inner,
    group: &str,
    version: &str,
    headers: &HeaderMap,
    query: &Query,
    form: Form,
) -> Option<Response<Body>> {
    let catalogue = server.catalogue();
    let hash = openapi::v3_hash(&catalogue, group, version);
    let etag = format!("\"{hash}\"");
    let asked = query.get("hash");
    if !asked.is_empty() && asked != hash {
        // The document has moved on: the client is sent to its address of now.
        let mut response = respond::raw(301, "text/plain", Bytes::new());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let place = format!("/openapi/v3/{}?hash={hash}", openapi::path_of(group, version));
        response.headers_mut().insert(LOCATION, HeaderValue::from_str(&place).ok()?);
        return Some(response);
    }
    if let Some(mut response) = unchanged(headers, &etag) {
        if !asked.is_empty() {
            keep(server, &mut response);
        }
        return Some(response);
    }
    let (group, version) = (group.to_owned(), version.to_owned());
    let make = move || openapi::v3(&catalogue, &group, &version).map(|document| document.to_string());
    let text = tokio::task::spawn_blocking(make).await.ok()??;
    let mut response = respond::encoded(200, form, Bytes::from(text));
    if !asked.is_empty() {
        keep(server, &mut response);
    }
    tag(&mut response, &etag);
    Some(response)
}
