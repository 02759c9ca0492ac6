//! Paths that are not resources: discovery, version, health, metrics, the token issuer's keys.

use super::negotiate::{self, Form};
use super::respond::{self, Body};
use crate::discovery;
use crate::query::Query;
use crate::server::Inner;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Response};
use serde_json::{Value, json};

/// The version that this server says it is.
pub(crate) use krate_api::KUBERNETES_VERSION as GIT_VERSION;

/// The checks behind `/livez`, `/readyz` and `/healthz`, in their order.
const CHECKS: &[&str] = &[
    "ping",
    "log",
    "etcd",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/start-system-namespaces-controller",
];

/// The answer of such a path; `None` when there is nothing there.
pub(crate) fn answer(
    server: &Inner,
    path: &str,
    headers: &HeaderMap,
    query: &Query,
    form: Form,
) -> Option<Response<Body>> {
    let catalogue = server.catalogue();
    let trimmed = path.trim_end_matches('/');
    let parts: Vec<&str> = trimmed.split('/').filter(|s| !s.is_empty()).collect();
    let value = |value: Value| Some(respond::encoded(200, form, Bytes::from(value.to_string())));
    match parts.as_slice() {
        [] => value(json!({"paths": paths(server)})),
        ["api"] => aggregated(server, headers, form, true)
            .or_else(|| value(discovery::api_versions(&server.advertise, server.port))),
        ["apis"] => {
            aggregated(server, headers, form, false).or_else(|| value(discovery::group_list(&catalogue)))
        }
        ["api", version] => value(discovery::resource_list(&catalogue, "", version)?),
        ["apis", group] => value(discovery::group(&catalogue, group)?),
        ["apis", group, version] => value(discovery::resource_list(&catalogue, group, version)?),
        ["version"] => value(version()),
        ["healthz" | "livez" | "readyz", ..] => health(server, &parts, query),
        ["metrics"] => Some(respond::raw(
            200,
            "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            server.metrics.render(),
        )),
        [".well-known", "openid-configuration"] => value(issuer(server)),
        ["openid", "v1", "jwks"] => {
            let keys = server.authn.tokens.jwks().to_string();
            Some(respond::raw(200, "application/jwk-set+json", keys))
        }
        _ => None,
    }
}

fn paths(server: &Inner) -> Vec<String> {
    let mut paths: Vec<String> = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis"]
        .iter()
        .map(|s| (*s).to_owned())
        .collect();
    if let Some(groups) = discovery::group_list(&server.catalogue())["groups"].as_array() {
        for group in groups {
            paths.push(format!("/apis/{}", group["name"].as_str().unwrap_or_default()));
            for version in group["versions"].as_array().into_iter().flatten() {
                paths.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap_or_default()));
            }
        }
    }
    for name in ["healthz", "livez", "readyz"] {
        paths.push(format!("/{name}"));
        paths.extend(CHECKS.iter().map(|c| format!("/{name}/{c}")));
    }
    paths
        .extend(["/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/version"].map(str::to_owned));
    paths.sort();
    paths
}

/// The aggregated form of discovery, when the client prefers one that we have.
fn aggregated(server: &Inner, headers: &HeaderMap, form: Form, core: bool) -> Option<Response<Body>> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    for (name, params) in negotiate::media_types(accept) {
        if name != "application/json" {
            continue;
        }
        let param = |key: &str| params.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str());
        match (param("as"), param("v")) {
            ("APIGroupDiscoveryList", version @ ("v2" | "v2beta1")) => {
                let text = discovery::aggregated(&server.catalogue(), core, version).to_string();
                let tag = respond::tag_of(text.as_bytes());
                let mut response = match respond::unchanged(headers, &tag) {
                    Some(response) => response,
                    None => respond::encoded(200, form, Bytes::from(text)),
                };
                respond::tag(&mut response, &tag);
                let text =
                    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                if let Ok(value) = HeaderValue::from_str(&text) {
                    response.headers_mut().insert(http::header::CONTENT_TYPE, value);
                }
                response.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
                response
                    .headers_mut()
                    .insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public"));
                return Some(response);
            }
            ("", _) => return None,
            _ => {}
        }
    }
    None
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "gitVersion": GIT_VERSION,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

fn issuer(server: &Inner) -> Value {
    let issuer = &server.authn.tokens.issuer;
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// `/healthz`, `/livez`, `/readyz`, each with its single checks, `?verbose` and `?exclude=`.
fn health(server: &Inner, parts: &[&str], query: &Query) -> Option<Response<Body>> {
    let text = |code: u16, text: String| {
        let mut response = respond::raw(code, "text/plain; charset=utf-8", text);
        response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        Some(response)
    };
    let name = parts[0];
    let ready = server.background.started.load(std::sync::atomic::Ordering::SeqCst);
    let passes = |check: &str| ready || !check.starts_with("poststarthook");
    let mut checks: Vec<&str> = CHECKS.to_vec();
    if name == "readyz" {
        checks.push("shutdown");
    }
    if parts.len() > 1 {
        let wanted = parts[1..].join("/");
        let check = checks.iter().find(|c| **c == wanted)?;
        return if passes(check) {
            text(200, "ok".to_owned())
        } else {
            text(500, format!("internal server error: {check} not finished\n"))
        };
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut unknown: Vec<String> =
        excluded.iter().filter(|e| !checks.contains(e)).map(|e| format!("{e:?}")).collect();
    unknown.sort();
    unknown.dedup();
    let mut lines = String::new();
    let mut healthy = true;
    for check in checks {
        if excluded.contains(&check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if passes(check) {
            lines.push_str(&format!("[+]{check} ok\n"));
        } else {
            healthy = false;
            lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    if !unknown.is_empty() {
        let names = unknown.join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    match (healthy, query.has("verbose")) {
        (true, true) => text(200, format!("{lines}{name} check passed\n")),
        (true, false) => text(200, "ok".to_owned()),
        (false, _) => text(500, format!("{lines}{name} check failed\n")),
    }
}
