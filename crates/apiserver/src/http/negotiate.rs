//! Which form of an answer a client wants, from its `Accept` header; which form a body has.

use crate::query::Query;
use crate::yaml;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use krate_api::status::Reason;
use krate_api::{Status, protobuf, strict};

/// The encoding on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// What is shown of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    /// `as=Table`, of `meta.k8s.io/v1` or `v1beta1`.
    Table {
        beta: bool,
    },
    /// `as=PartialObjectMetadata` and `as=PartialObjectMetadataList`.
    Metadata {
        beta: bool,
    },
}

/// The negotiated form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub format: Format,
    pub shape: Shape,
    pub pretty: bool,
    pub gzip: bool,
}

impl Form {
    pub fn content_type(self) -> &'static str {
        match self.format {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
        }
    }

    /// JSON without anything.
    pub fn plain() -> Self {
        Self { format: Format::Json, shape: Shape::Whole, pretty: false, gzip: false }
    }
}

/// The media types of a header, with their parameters, in order of preference.
pub(crate) fn media_types(accept: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut types: Vec<(f32, String, Vec<(String, String)>)> = accept
        .split(',')
        .filter_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().filter(|n| !n.is_empty())?.to_ascii_lowercase();
            let params: Vec<(String, String)> = parts
                .filter_map(|p| p.split_once('='))
                .map(|(k, v)| (k.trim().to_owned(), v.trim().trim_matches('"').to_owned()))
                .collect();
            let q = params.iter().find(|(k, _)| k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
            Some((q, name, params))
        })
        .collect();
    types.sort_by(|a, b| b.0.total_cmp(&a.0));
    types.into_iter().map(|(_, name, params)| (name, params)).collect()
}

/// The first form that the client takes and we have. `collection` tells lists from single objects.
pub(crate) fn form(headers: &HeaderMap, query: &Query, shapes: bool) -> Result<Form, Status> {
    let text = |name| headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).unwrap_or("");
    let gzip =
        text(ACCEPT_ENCODING).split(',').any(|e| e.split(';').next().is_some_and(|e| e.trim() == "gzip"));
    let pretty = if query.has("pretty") {
        query.flag("pretty")
    } else {
        let agent = text(USER_AGENT);
        agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla/5.0")
    };
    let mut accept = text(ACCEPT);
    if accept.trim().is_empty() {
        accept = "*/*";
    }
    for (name, params) in media_types(accept) {
        let format = match name.as_str() {
            "application/json" | "*/*" | "application/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            _ => continue,
        };
        let param = |key: &str| params.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str());
        let beta = param("v") == "v1beta1";
        let known = matches!(param("g"), "" | "meta.k8s.io") && matches!(param("v"), "" | "v1" | "v1beta1");
        let shape = match param("as") {
            "" => Shape::Whole,
            "Table" if known && shapes => Shape::Table { beta },
            "PartialObjectMetadata" | "PartialObjectMetadataList" if known && shapes => {
                Shape::Metadata { beta }
            }
            _ => continue,
        };
        return Ok(Form { format, shape, pretty, gzip });
    }
    Err(Status::failure(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml",
    ))
}

/// What kind of body was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Json,
    Yaml,
    Protobuf,
}

impl Sent {
    /// The body of a `kind` as JSON, with what the JSON does not tell.
    pub fn json(self, bytes: Bytes, kind: &str) -> Result<(Bytes, Vec<String>), Status> {
        match self {
            Self::Json => Ok((bytes, Vec::new())),
            Self::Yaml => yaml::to_json(&bytes).map_err(|e| strict::unrecognized(kind, &e, &bytes)),
            Self::Protobuf => {
                let decoded = protobuf::decode(&bytes).map_err(|e| Status::bad_request(e.to_string()))?;
                let json = serde_json::to_vec(&decoded.value).map_err(Status::internal)?;
                Ok((Bytes::from(json), Vec::new()))
            }
        }
    }
}

/// The form of a body that is an object.
pub(crate) fn sent(headers: &HeaderMap) -> Result<Sent, Status> {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match value.split(';').next().unwrap_or("").trim() {
        "" | "application/json" | "application/octet-stream" => Ok(Sent::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Sent::Yaml),
        protobuf::CONTENT_TYPE => Ok(Sent::Protobuf),
        _ => Err(Status::failure(
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &str) -> Option<(Format, Shape)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        form(&headers, &Query::default(), true).ok().map(|f| (f.format, f.shape))
    }

    #[test]
    fn takes_the_first_form_it_has() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(negotiated(table), Some((Format::Json, Shape::Table { beta: false })));
        let proto = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(negotiated(proto), Some((Format::Json, Shape::Whole)));
        assert_eq!(negotiated("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(negotiated("text/html, */*;q=0.1"), Some((Format::Json, Shape::Whole)));
        assert_eq!(negotiated("application/yaml"), Some((Format::Yaml, Shape::Whole)));
    }
}
