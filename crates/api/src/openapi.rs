//! The OpenAPI documents, v2 and v3, made of the catalogue and the schema table.
//!
//! A document is made when somebody asks for it and not kept: what it is made of is in the program already.
//! Its hash is that of what it is made of, so that the index of all documents costs nothing.

mod definitions;
mod gnostic;
mod paths;

use crate::catalogue::{Catalogue, Resource};
use crate::schema::Descriptions;
use definitions::Definitions;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

pub use gnostic::encode as gnostic;

/// Content type of [`gnostic`] documents, as clients ask for it in `Accept`.
pub const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The two dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// A reference to a definition.
    fn reference(self, definition: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{definition}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{definition}")}),
        }
    }
}

/// What a served group version is called in paths: `api/v1`, `apis/apps/v1`.
#[must_use]
pub fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn group_versions(catalogue: &Catalogue) -> BTreeSet<(&str, &str)> {
    catalogue.iter().map(|r| (r.group.as_str(), r.version.as_str())).collect()
}

fn rows<'a>(catalogue: &'a Catalogue, group: &str, version: &str) -> Vec<&'a Arc<Resource>> {
    catalogue.iter().filter(|r| r.group == group && r.version == version).collect()
}

/// Digest of the data that all documents are made of.
static DATA: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(include_bytes!("../data/schema.txt"));
    hash.update(include_bytes!("../data/docs.bin"));
    hash.finalize().into()
});

/// Changes when the document of these rows does; in upper-case hexadecimal.
fn hash(rows: &[&Arc<Resource>]) -> String {
    let mut hash = Sha256::new();
    hash.update(*DATA);
    for row in rows {
        hash.update(format!(
            "{row:?} {} {:?} {:?} {}",
            row.kind, row.verbs, row.subresources, row.namespaced
        ));
    }
    hash.finalize().iter().map(|b| format!("{b:02X}")).collect()
}

/// The answer to `/openapi/v3`: every document with its address, which has a hash for caches.
#[must_use]
pub fn v3_index(catalogue: &Catalogue) -> Value {
    let entries = group_versions(catalogue).into_iter().map(|(group, version)| {
        let path = path_of(group, version);
        let url = format!("/openapi/v3/{path}?hash={}", hash(&rows(catalogue, group, version)));
        (path, json!({"serverRelativeURL": url}))
    });
    json!({"paths": entries.collect::<Map<_, _>>()})
}

/// The hash of the document of a group version, as its address has it.
#[must_use]
pub fn v3_hash(catalogue: &Catalogue, group: &str, version: &str) -> String {
    hash(&rows(catalogue, group, version))
}

/// The hash of the document of everything.
#[must_use]
pub fn v2_hash(catalogue: &Catalogue) -> String {
    hash(&catalogue.iter().collect::<Vec<_>>())
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

/// The document of a group version; none if nothing of it is served.
#[must_use]
pub fn v3(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let rows = rows(catalogue, group, version);
    if rows.is_empty() {
        return None;
    }
    let docs = Descriptions::unpack();
    let mut definitions = Definitions::new(Dialect::V3, &docs, vec![(group, version)]);
    let mut paths = Map::new();
    paths::add(&mut paths, &mut definitions, group, version, &rows);
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {
            "schemas": definitions.finish(),
            "securitySchemes": {"BearerToken": bearer()},
        },
    }))
}

fn bearer() -> Value {
    json!({"type": "apiKey", "name": "authorization", "in": "header", "description": "A bearer token."})
}

/// The document of everything.
#[must_use]
pub fn v2(catalogue: &Catalogue) -> Value {
    let docs = Descriptions::unpack();
    let groups: Vec<(&str, &str)> = group_versions(catalogue).into_iter().collect();
    let mut definitions = Definitions::new(Dialect::V2, &docs, groups.clone());
    let mut paths = Map::new();
    for (group, version) in groups {
        paths::add(&mut paths, &mut definitions, group, version, &rows(catalogue, group, version));
    }
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": definitions.finish(),
        "securityDefinitions": {"BearerToken": bearer()},
        "security": [{"BearerToken": []}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference in a document, without its prefix.
    fn references(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value.as_str().filter(|_| key == "$ref") {
                        Some(text) => drop(found.insert(text.strip_prefix(prefix).unwrap().to_owned())),
                        None => references(value, prefix, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|v| references(v, prefix, found)),
            _ => {}
        }
    }

    #[test]
    fn what_is_referred_to_is_defined_and_nothing_else() {
        let catalogue = Catalogue::builtin();
        let document = v2(&catalogue);
        let mut found = BTreeSet::new();
        references(&document, "#/definitions/", &mut found);
        let defined: BTreeSet<String> =
            document["definitions"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(found, defined);
        for (group, version) in group_versions(&catalogue) {
            let document = v3(&catalogue, group, version).unwrap();
            let mut found = BTreeSet::new();
            references(&document, "#/components/schemas/", &mut found);
            let schemas = document["components"]["schemas"].as_object().unwrap();
            assert_eq!(found, schemas.keys().cloned().collect(), "{group}/{version}");
        }
        assert!(v3(&catalogue, "apps", "v9").is_none());
    }

    #[test]
    fn a_schema_has_what_apply_and_explain_need() {
        let document = v3(&Catalogue::builtin(), "apps", "v1").unwrap();
        let schemas = &document["components"]["schemas"];
        assert_eq!(
            schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
        );
        let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["required"], json!(["containers"]));
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
        let container = &schemas["io.k8s.api.core.v1.Container"]["properties"];
        assert_eq!(container["resources"]["default"], json!({}));
        assert_eq!(container["imagePullPolicy"]["enum"], json!(["Always", "IfNotPresent", "Never"]));
        assert!(container["image"]["description"].as_str().unwrap().starts_with("Container image name."));
        let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
        assert_eq!(port["default"], "TCP");
    }

    #[test]
    fn paths_say_what_can_be_done_with_which_kind() {
        let document = v3(&Catalogue::builtin(), "apps", "v1").unwrap();
        let paths = &document["paths"];
        let one = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        assert_eq!(one["get"]["operationId"], "readAppsV1NamespacedDeployment");
        assert_eq!(one["patch"]["x-kubernetes-action"], "patch");
        assert_eq!(
            one["patch"]["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "kind": "Deployment", "version": "v1"})
        );
        let parameters = one["patch"]["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|p| p["name"] == "fieldValidation"));
        let all = &paths["/apis/apps/v1/deployments"]["get"];
        assert_eq!(all["operationId"], "listAppsV1DeploymentForAllNamespaces");
        let scale = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
        assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
        let core = v3(&Catalogue::builtin(), "", "v1").unwrap();
        let exec = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"];
        assert_eq!(exec["operationId"], "connectCoreV1GetNamespacedPodExec");
        assert_eq!(exec["x-kubernetes-action"], "connect");
    }

    #[test]
    fn hashes_follow_the_rows() {
        let mut catalogue = Catalogue::builtin();
        let (before, apps) = (v3_index(&catalogue), v3_hash(&catalogue, "apps", "v1"));
        assert!(before["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().ends_with(&apps));
        let mut row = paths::tests::custom();
        row.group = "apps".into();
        catalogue.insert(row);
        assert_ne!(v3_hash(&catalogue, "apps", "v1"), apps);
        assert_eq!(v3_index(&catalogue)["paths"]["api/v1"], before["paths"]["api/v1"]);
    }
}
