//! The path and query of a [`Request`], as the API spells them.

use crate::request::{Options, Request};
use std::fmt::Write as _;

/// `/api/v1/namespaces/default/pods/web?fieldManager=x`.
#[must_use]
pub fn path_and_query(request: &Request, watch: bool) -> String {
    let mut out = if request.group.is_empty() {
        format!("/api/{}", request.version)
    } else {
        format!("/apis/{}/{}", request.group, request.version)
    };
    if !request.namespace.is_empty() {
        let _ = write!(out, "/namespaces/{}", encode(&request.namespace));
    }
    let _ = write!(out, "/{}", request.plural);
    for part in [&request.name, &request.subresource] {
        if !part.is_empty() {
            let _ = write!(out, "/{}", encode(part));
        }
    }
    let query = query(&request.options, watch);
    if !query.is_empty() {
        let _ = write!(out, "?{query}");
    }
    out
}

fn query(o: &Options, watch: bool) -> String {
    let number = |n: usize| if n == 0 { String::new() } else { n.to_string() };
    let flag = |b: bool| if b { "true".to_owned() } else { String::new() };
    let pairs = [
        ("labelSelector", o.label_selector.clone()),
        ("fieldSelector", o.field_selector.clone()),
        ("resourceVersion", o.resource_version.clone()),
        ("resourceVersionMatch", o.resource_version_match.clone()),
        ("limit", number(o.limit)),
        ("continue", o.continue_token.clone()),
        ("timeoutSeconds", o.timeout_seconds.map(|t| t.to_string()).unwrap_or_default()),
        ("allowWatchBookmarks", flag(o.allow_watch_bookmarks)),
        ("sendInitialEvents", o.send_initial_events.map(|b| b.to_string()).unwrap_or_default()),
        ("dryRun", if o.dry_run { "All".to_owned() } else { String::new() }),
        ("fieldManager", o.field_manager.clone()),
        ("fieldValidation", o.field_validation.clone()),
        ("force", flag(o.force)),
        ("watch", flag(watch)),
    ];
    let pairs: Vec<String> =
        pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={}", encode(v))).collect();
    pairs.join("&")
}

/// Percent-encodes what is not unreserved (RFC 3986).
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Verb;
    use krate_api::types::apps::v1::Deployment;

    #[test]
    fn paths_name_group_namespace_and_subresource() {
        let mut request = Request::of::<Deployment>(Verb::Get, "default", "web");
        request.subresource = "scale".into();
        assert_eq!(path_and_query(&request, false), "/apis/apps/v1/namespaces/default/deployments/web/scale");
    }

    #[test]
    fn selectors_are_percent_encoded() {
        let mut request = Request::of::<Deployment>(Verb::List, "", "");
        request.options.label_selector = "app in (a,b)".into();
        assert_eq!(
            path_and_query(&request, true),
            "/apis/apps/v1/deployments?labelSelector=app%20in%20%28a%2Cb%29&watch=true"
        );
    }
}
