//! What is served: `/api`, `/apis` and their versions, in the plain and the aggregated form.
//!
//! Made from the catalogue alone.

use krate_api::catalogue::Verb;
use krate_api::{Catalogue, Resource};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// Groups in serving order (the core group is apart); what is not here follows by name.
const ORDER: &[&str] = &[
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// The groups beside core, in order, each with its versions (preferred first).
fn groups(catalogue: &Catalogue) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for row in catalogue.iter().filter(|r| !r.group.is_empty()) {
        match found.iter_mut().find(|(g, _)| *g == row.group) {
            Some((_, versions)) if versions.contains(&row.version) => {}
            Some((_, versions)) => versions.push(row.version.clone()),
            None => found.push((row.group.clone(), vec![row.version.clone()])),
        }
    }
    for (_, versions) in &mut found {
        versions.sort_by_key(|v| std::cmp::Reverse(maturity(v)));
    }
    let place = |g: &str| ORDER.iter().position(|o| *o == g).unwrap_or(ORDER.len());
    found.sort_by(|a, b| (place(&a.0), &a.0).cmp(&(place(&b.0), &b.0)));
    found
}

/// Kubernetes' order of versions: stable over beta over alpha, then by number.
fn maturity(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    for (mark, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(mark) {
            return (rank, major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
        }
    }
    (3, rest.parse().unwrap_or(0), 0)
}

fn group_json(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v})).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

/// `/api`.
pub(crate) fn api_versions(addresses: &[IpAddr], port: u16) -> Value {
    let server = addresses.first().map_or_else(
        || format!("127.0.0.1:{port}"),
        |a| match a {
            IpAddr::V4(a) => format!("{a}:{port}"),
            IpAddr::V6(a) => format!("[{a}]:{port}"),
        },
    );
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
    })
}

/// `/apis`.
pub(crate) fn group_list(catalogue: &Catalogue) -> Value {
    let groups: Vec<Value> = groups(catalogue).iter().map(|(g, v)| group_json(g, v)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(crate) fn group(catalogue: &Catalogue, name: &str) -> Option<Value> {
    let (name, versions) = groups(catalogue).into_iter().find(|(g, _)| g == name)?;
    let mut value = group_json(&name, &versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn verbs(list: &[Verb]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = list.iter().map(|v| v.as_str()).collect();
    names.sort_unstable();
    names
}

fn rows<'a>(catalogue: &'a Catalogue, group: &'a str, version: &'a str) -> Vec<&'a Arc<Resource>> {
    catalogue.iter().filter(|r| r.group == group && r.version == version).collect()
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(crate) fn resource_list(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let rows = rows(catalogue, group, version);
    if rows.is_empty() {
        return None;
    }
    let mut list = Vec::new();
    for row in rows {
        list.push(resource_json(row));
        let mut subs: Vec<Value> = row.subresources.iter().map(|s| sub_json(row, s)).collect();
        subs.sort_by_key(|s| s["name"].to_string());
        list.extend(subs);
    }
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut value = json!({"kind": "APIResourceList", "groupVersion": version, "resources": list});
    if !group.is_empty() {
        value["apiVersion"] = "v1".into();
    }
    Some(value)
}

fn resource_json(row: &Resource) -> Value {
    let mut value = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced,
        "kind": row.kind, "verbs": verbs(&row.verbs),
    });
    if !row.short_names.is_empty() {
        value["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        value["categories"] = json!(row.categories);
    }
    if !row.storage_hash.is_empty() {
        value["storageVersionHash"] = json!(row.storage_hash);
    }
    value
}

fn sub_json(row: &Resource, sub: &krate_api::catalogue::Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", row.plural, sub.name), "singularName": "",
        "namespaced": row.namespaced, "kind": sub.kind, "verbs": verbs(&sub.verbs),
    });
    if (sub.group.as_str(), sub.version.as_str()) != (row.group.as_str(), row.version.as_str()) {
        value["group"] = json!(sub.group);
        value["version"] = json!(sub.version);
    }
    value
}

/// The aggregated form of `/api` (core only) or `/apis`, for `apidiscovery.k8s.io/<version>`.
pub(crate) fn aggregated(catalogue: &Catalogue, core: bool, version: &str) -> Value {
    let all = if core { vec![(String::new(), vec!["v1".to_owned()])] } else { groups(catalogue) };
    let items: Vec<Value> = all
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|v| {
                    let resources: Vec<Value> =
                        rows(catalogue, group, v).into_iter().map(|r| aggregated_resource(r)).collect();
                    json!({"version": v, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = json!(group);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(row: &Resource) -> Value {
    let mut value = json!({
        "resource": row.plural,
        "responseKind": response_kind(&row.group, &row.version, &row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs(&row.verbs),
    });
    if !row.short_names.is_empty() {
        value["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        value["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        let mut subs: Vec<Value> = row
            .subresources
            .iter()
            .map(|s| {
                json!({
                    "subresource": s.name,
                    "responseKind": response_kind(&s.group, &s.version, &s.kind),
                    "verbs": verbs(&s.verbs),
                })
            })
            .collect();
        subs.sort_by_key(|s| s["subresource"].to_string());
        value["subresources"] = json!(subs);
    }
    value
}
