//! What a request is about, read from its method, path and query: the request info of the original.
//!
//! Pure. Knows the grammar of API paths (`/api/v1/namespaces/ns/pods/name/sub`, `/apis/..`, the old
//! `/watch/` prefix) and no resource.

use crate::query::{Query, segment};

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// False for paths such as `/healthz` and `/apis`.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths
    /// the method in lower case.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource (`proxy/a/b`).
    pub rest: String,
    /// The decoded path.
    pub path: String,
}

/// The verb of a method on a resource path, before watch and collections are told apart.
fn verb_of(method: &str) -> &'static str {
    match method {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Reads method, raw path and query.
pub(crate) fn parse(method: &str, raw_path: &str, query: &Query) -> Info {
    let mut info = Info { verb: method.to_lowercase(), path: segment(raw_path), ..Info::default() };
    let parts: Vec<String> = raw_path.split('/').filter(|s| !s.is_empty()).map(segment).collect();
    let mut rest: &[String] = match parts.first().map(String::as_str) {
        Some("api") if parts.len() >= 3 => {
            info.version.clone_from(&parts[1]);
            &parts[2..]
        }
        Some("apis") if parts.len() >= 4 => {
            info.group.clone_from(&parts[1]);
            info.version.clone_from(&parts[2]);
            &parts[3..]
        }
        _ => return info,
    };
    info.is_resource = true;
    info.verb = verb_of(method).to_owned();
    let mut watching = false;
    if rest[0] == "watch" && rest.len() > 1 {
        watching = true;
        rest = &rest[1..];
    }
    read_resource(&mut info, rest);
    settle_verb(&mut info, watching, query);
    info
}

/// Namespace, resource, name, subresource.
fn read_resource(info: &mut Info, parts: &[String]) {
    let mut parts = parts;
    if parts[0] == "namespaces" && parts.len() > 1 {
        info.namespace.clone_from(&parts[1]);
        // `namespaces/x/status` is the namespace itself; `namespaces/x/pods` is in it.
        if parts.len() > 2 && !matches!(parts[2].as_str(), "status" | "finalize") {
            parts = &parts[2..];
        }
    }
    let at = |i: usize| parts.get(i).cloned().unwrap_or_default();
    info.resource = at(0);
    info.name = at(1);
    info.subresource = at(2);
    info.rest = parts.get(3..).map(|r| r.join("/")).unwrap_or_default();
}

fn settle_verb(info: &mut Info, watching: bool, query: &Query) {
    if watching {
        info.verb = "watch".to_owned();
        return;
    }
    if !info.name.is_empty() {
        return;
    }
    match info.verb.as_str() {
        "get" => {
            info.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
        }
        "delete" => info.verb = "deletecollection".to_owned(),
        _ => return,
    }
    // A collection narrowed to one name is authorized as that name.
    if let Some(name) = single_name(query.get("fieldSelector")) {
        info.name = name;
    }
}

/// The name that a field selector asks for, if it asks for exactly one.
pub(crate) fn single_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let (key, value) = term.split_once('=')?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (key.trim() == "metadata.name" && !value.is_empty()).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, path: &str) -> Info {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        parse(method, path, &Query::parse(query))
    }

    fn short(i: &Info) -> String {
        format!(
            "{} {}/{}/{}/{}/{}/{}",
            i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource
        )
    }

    #[test]
    fn reads_every_shape_of_path() {
        let cases = [
            ("GET", "/api/v1/namespaces/a/pods/b", "get /v1/a/pods/b/"),
            ("GET", "/api/v1/pods", "list /v1//pods//"),
            ("GET", "/api/v1/pods?watch=1", "watch /v1//pods//"),
            ("GET", "/api/v1/pods?watch=True", "watch /v1//pods//"),
            ("GET", "/api/v1/pods?watch=false", "list /v1//pods//"),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch /v1/a/pods//"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1/a/deployments//"),
            ("GET", "/api/v1/namespaces/a", "get /v1/a/namespaces/a/"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update /v1/a/namespaces/a/finalize"),
            ("POST", "/api/v1/namespaces/a/pods/b/binding", "create /v1/a/pods/b/binding"),
            (
                "GET",
                "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db&watch=true",
                "watch /v1/a/pods/b/",
            ),
        ];
        for (method, path, want) in cases {
            assert_eq!(short(&info(method, path)), want, "{path}");
        }
        assert!(!info("GET", "/apis/apps/v1").is_resource);
        assert!(!info("GET", "/healthz").is_resource);
        assert_eq!(info("GET", "/api/v1/nodes/n/proxy/logs/x").rest, "logs/x");
    }
}
