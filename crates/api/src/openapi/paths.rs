//! Paths and operations of resources, in both dialects.

use super::Dialect;
use super::definitions::{Definitions, META};
use crate::catalogue::{Resource, Subresource, Verb};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Name, type and meaning of a query parameter.
type Query = (&'static str, &'static str, &'static str);

const PRETTY: Query = ("pretty", "string", "If 'true', then the output is indented for people.");
const DRY_RUN: Query =
    ("dryRun", "string", "If 'All', the request goes through every stage and nothing is stored.");
const FIELD_MANAGER: Query =
    ("fieldManager", "string", "Who makes these changes: up to 128 printable characters.");
const FIELD_VALIDATION: Query = (
    "fieldValidation",
    "string",
    "What unknown and duplicate fields are: 'Ignore' drops them, 'Warn' (the default) warns of them, 'Strict' refuses the request.",
);
const FORCE: Query =
    ("force", "boolean", "Whether to take over fields of other managers. Only for apply patches.");
const WRITE: &[Query] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Query] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const LIST: &[Query] = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch may send bookmarks."),
    ("continue", "string", "Where the previous page of a list ended."),
    ("fieldSelector", "string", "Restricts the objects by their fields."),
    ("labelSelector", "string", "Restricts the objects by their labels."),
    ("limit", "integer", "The most objects of one page of a list."),
    ("resourceVersion", "string", "How recent what is shown must be."),
    ("resourceVersionMatch", "string", "How the resource version is meant: 'Exact' or 'NotOlderThan'."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with all objects that there are."),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("watch", "boolean", "Whether to send changes as they happen instead of a list."),
];
const DELETE: &[Query] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "How long the object has to go in order; zero is at once."),
    ("orphanDependents", "boolean", "Superseded by propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: 'Orphan', 'Background' or 'Foreground'."),
];

const BODIES: &[&str] = &["application/json", "application/yaml"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Adds the paths of a group version.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    definitions: &mut Definitions<'_>,
    group: &str,
    version: &str,
    rows: &[&Arc<Resource>],
) {
    let root = format!("/{}/", super::path_of(group, version));
    let camel = camel(group, version);
    let mut operation = Operation::new(&format!("get{camel}APIResources"), "", &tag(group, version));
    operation.text = "get available resources".to_owned();
    operation.answer = definitions.reference(&format!("{META}.APIResourceList"));
    let get = operation.finish(definitions.dialect);
    paths.insert(root.clone(), json!({"get": get}));
    for row in rows {
        Paths { paths, definitions, row, root: &root, camel: &camel }.add();
    }
}

/// `AppsV1`, `RbacAuthorizationV1`, `CoreV1`.
fn camel(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.trim_end_matches(".k8s.io") };
    group.split(['.', '-']).chain([version]).map(capital).collect()
}

/// `apps_v1`, `rbacAuthorization_v1`, `core_v1`.
fn tag(group: &str, version: &str) -> String {
    let group = camel(group, "");
    format!("{}{}_{version}", group[..1].to_lowercase(), &group[1..])
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// One operation before it is written.
struct Operation {
    id: String,
    action: String,
    tag: String,
    text: String,
    kind: Option<Value>,
    query: Vec<Query>,
    /// Media types and schema of the body, and whether there must be one.
    body: Option<(&'static [&'static str], Value, bool)>,
    answer: Value,
    codes: &'static [&'static str],
}

impl Operation {
    fn new(id: &str, action: &str, tag: &str) -> Self {
        Self {
            id: id.to_owned(),
            action: action.to_owned(),
            tag: tag.to_owned(),
            text: String::new(),
            kind: None,
            query: vec![],
            body: None,
            answer: json!({"type": "string"}),
            codes: &["200"],
        }
    }

    fn finish(self, dialect: Dialect) -> Value {
        let mut parameters: Vec<Value> = self.query.iter().map(|q| query(dialect, *q)).collect();
        let mut operation = Map::new();
        operation.insert("operationId".into(), json!(self.id));
        operation.insert("description".into(), json!(self.text));
        operation.insert("tags".into(), json!([self.tag]));
        if let Some((media, schema, required)) = self.body {
            match dialect {
                Dialect::V2 => {
                    operation.insert("consumes".into(), json!(media));
                    parameters
                        .push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
                }
                Dialect::V3 => {
                    // Any media type will do but for patches, whose type says what they are.
                    let media = if media == PATCHES { media } else { &["*/*"][..] };
                    let content: Map<String, Value> =
                        media.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect();
                    operation.insert("requestBody".into(), json!({"content": content, "required": required}));
                }
            }
        }
        if !parameters.is_empty() {
            operation.insert("parameters".into(), parameters.into());
        }
        if dialect == Dialect::V2 {
            operation.insert("produces".into(), json!(BODIES));
            operation.insert("schemes".into(), json!(["https"]));
        }
        operation.insert("responses".into(), responses(dialect, self.codes, &self.answer));
        if let Some(kind) = self.kind {
            operation.insert("x-kubernetes-action".into(), json!(self.action));
            operation.insert("x-kubernetes-group-version-kind".into(), kind);
        }
        operation.into()
    }
}

fn responses(dialect: Dialect, codes: &[&str], schema: &Value) -> Value {
    let mut responses = Map::new();
    for code in codes {
        let text = match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let response = match dialect {
            Dialect::V2 => json!({"description": text, "schema": schema}),
            Dialect::V3 => {
                let content = BODIES.iter().map(|m| ((*m).to_owned(), json!({"schema": schema})));
                json!({"description": text, "content": content.collect::<Map<_, _>>()})
            }
        };
        responses.insert((*code).to_owned(), response);
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    responses.into()
}

fn query(dialect: Dialect, (name, kind, text): Query) -> Value {
    match dialect {
        Dialect::V2 => {
            json!({"name": name, "in": "query", "description": text, "type": kind, "uniqueItems": true})
        }
        Dialect::V3 => json!({"name": name, "in": "query", "description": text,
            "schema": {"type": kind, "uniqueItems": true}}),
    }
}

fn in_path(dialect: Dialect, name: &str, text: &str) -> Value {
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "path", "description": text, "required": true,
            "type": "string", "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": "path", "description": text, "required": true,
            "schema": {"type": "string", "uniqueItems": true}}),
    }
}

/// The paths of one resource.
struct Paths<'a, 'd> {
    paths: &'a mut Map<String, Value>,
    definitions: &'a mut Definitions<'d>,
    row: &'a Resource,
    root: &'a str,
    camel: &'a str,
}

impl Paths<'_, '_> {
    fn add(&mut self) {
        let plural = &self.row.plural;
        let base = match self.row.namespaced {
            true => format!("{}namespaces/{{namespace}}/{plural}", self.root),
            false => format!("{}{plural}", self.root),
        };
        self.item(&base, &[Verb::List, Verb::Create, Verb::DeleteCollection], false);
        let one = format!("{base}/{{name}}");
        self.item(&one, &[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete], true);
        if self.row.namespaced && self.row.allows(Verb::List) {
            let mut operation = self.operation(Verb::List);
            operation.id = format!("list{}{}ForAllNamespaces", self.camel, self.row.kind);
            self.insert(&format!("{}{plural}", self.root), vec![("get", operation)], false, false);
        }
        for subresource in &self.row.subresources {
            self.subresource(&format!("{one}/{}", subresource.name), subresource);
        }
    }

    fn item(&mut self, path: &str, verbs: &[Verb], named: bool) {
        let verbs = verbs.iter().filter(|v| self.row.allows(**v));
        let operations = verbs.map(|v| (method(*v), self.operation(*v))).collect::<Vec<_>>();
        if !operations.is_empty() {
            self.insert(path, operations, named, self.row.namespaced);
        }
    }

    fn insert(&mut self, path: &str, operations: Vec<(&str, Operation)>, named: bool, namespaced: bool) {
        let dialect = self.definitions.dialect;
        let mut item = Map::new();
        for (method, operation) in operations {
            item.insert(method.to_owned(), operation.finish(dialect));
        }
        let mut parameters = Vec::new();
        if named {
            let text = format!("Name of the {}.", self.row.kind);
            parameters.push(in_path(dialect, "name", &text));
        }
        if namespaced {
            parameters.push(in_path(dialect, "namespace", "Namespace that it is in."));
        }
        parameters.push(query(dialect, PRETTY));
        item.insert("parameters".into(), parameters.into());
        self.paths.insert(path.to_owned(), item.into());
    }

    fn operation(&mut self, verb: Verb) -> Operation {
        let row = self.row;
        let scope = if row.namespaced { "Namespaced" } else { "" };
        let (word, action) = words(verb);
        let id = format!(
            "{word}{}{}{scope}{}",
            self.camel,
            if verb == Verb::DeleteCollection { "Collection" } else { "" },
            row.kind
        );
        let mut operation = Operation::new(&id, action, &tag(&row.group, &row.version));
        operation.kind = Some(json!({"group": row.group, "version": row.version, "kind": row.kind}));
        operation.text = sentence(verb, &row.kind);
        let own = self.definitions.kind(&row.group, &row.version, &row.kind);
        self.fill(&mut operation, verb, own);
        if verb == Verb::List {
            operation.answer = self.definitions.kind(&row.group, &row.version, &row.list_kind());
        }
        operation
    }

    /// Parameters, body and answers of a verb on objects of the schema `own`.
    fn fill(&mut self, operation: &mut Operation, verb: Verb, own: Value) {
        match verb {
            Verb::Get | Verb::Watch => {}
            Verb::List => operation.query = LIST.to_vec(),
            Verb::Create => {
                operation.query = WRITE.to_vec();
                operation.body = Some((BODIES, own.clone(), true));
                operation.codes = &["200", "201", "202"];
            }
            Verb::Update => {
                operation.query = WRITE.to_vec();
                operation.body = Some((BODIES, own.clone(), true));
                operation.codes = &["200", "201"];
            }
            Verb::Patch => {
                operation.query = PATCH.to_vec();
                let patch = self.definitions.reference(&format!("{META}.Patch"));
                operation.body = Some((PATCHES, patch, true));
                operation.codes = &["200", "201"];
            }
            Verb::Delete | Verb::DeleteCollection => {
                operation.query = DELETE.to_vec();
                if verb == Verb::DeleteCollection {
                    operation.query.extend_from_slice(&LIST[1..9]);
                }
                let options = self.definitions.reference(&format!("{META}.DeleteOptions"));
                operation.body = Some((BODIES, options, false));
                operation.answer = self.definitions.reference(&format!("{META}.Status"));
                if verb == Verb::Delete {
                    operation.codes = &["200", "202"];
                }
                return;
            }
        }
        operation.answer = own;
    }

    fn subresource(&mut self, path: &str, subresource: &Subresource) {
        let connects = subresource.kind.ends_with("Options");
        let mut operations = Vec::new();
        for verb in &subresource.verbs {
            operations.push((method(*verb), self.sub_operation(*verb, subresource, connects)));
        }
        self.insert(path, operations, true, self.row.namespaced);
    }

    fn sub_operation(&mut self, verb: Verb, subresource: &Subresource, connects: bool) -> Operation {
        let row = self.row;
        let scope = if row.namespaced { "Namespaced" } else { "" };
        let (mut word, mut action) = words(verb);
        let mut how = String::new();
        if connects {
            (word, action, how) = ("connect", "connect", capital(method(verb)));
        }
        let id = format!("{word}{}{how}{scope}{}{}", self.camel, row.kind, capital(&subresource.name));
        let mut operation = Operation::new(&id, action, &tag(&row.group, &row.version));
        let Subresource { group, version, kind, .. } = subresource;
        operation.kind = Some(json!({"group": group, "version": version, "kind": kind}));
        operation.text = match connects {
            true => format!(
                "connect {} requests to {} of {}",
                method(verb).to_uppercase(),
                subresource.name,
                row.kind
            ),
            false => sentence(verb, &format!("{} of {}", subresource.name, row.kind)),
        };
        if !connects && subresource.name != "log" {
            let own = self.definitions.kind(group, version, kind);
            self.fill(&mut operation, verb, own);
        }
        operation
    }
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Delete | Verb::DeleteCollection => "delete",
        Verb::Get | Verb::List | Verb::Watch => "get",
        Verb::Patch => "patch",
        Verb::Update => "put",
    }
}

/// The first word of the operation's id, and its action.
fn words(verb: Verb) -> (&'static str, &'static str) {
    match verb {
        Verb::Create => ("create", "post"),
        Verb::Delete => ("delete", "delete"),
        Verb::DeleteCollection => ("delete", "deletecollection"),
        Verb::Get => ("read", "get"),
        Verb::List => ("list", "list"),
        Verb::Patch => ("patch", "patch"),
        Verb::Update => ("replace", "put"),
        Verb::Watch => ("watch", "watch"),
    }
}

fn sentence(verb: Verb, what: &str) -> String {
    match verb {
        Verb::Create => format!("create a {what}"),
        Verb::Delete => format!("delete a {what}"),
        Verb::DeleteCollection => format!("delete collection of {what}"),
        Verb::Get => format!("read the specified {what}"),
        Verb::List | Verb::Watch => format!("list or watch objects of kind {what}"),
        Verb::Patch => format!("partially update the specified {what}"),
        Verb::Update => format!("replace the specified {what}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::catalogue::Codec;

    /// A row without a type in the table.
    pub(in crate::openapi) fn custom() -> Resource {
        let any = crate::Catalogue::builtin();
        let codec: Codec = any.get("", "v1", "configmaps").unwrap().codec.clone();
        Resource {
            group: "example.org".into(),
            version: "v1".into(),
            plural: "things".into(),
            singular: "thing".into(),
            kind: "Thing".into(),
            short_names: vec![],
            categories: vec![],
            namespaced: false,
            verbs: vec![Verb::Get],
            subresources: vec![],
            storage_hash: String::new(),
            space: "things.example.org".into(),
            codec,
            conversion: None,
            selectable: vec![],
            behaviour: crate::behaviour::plain(),
        }
    }

    #[test]
    fn names_of_groups() {
        assert_eq!(camel("", "v1"), "CoreV1");
        assert_eq!(camel("rbac.authorization.k8s.io", "v1"), "RbacAuthorizationV1");
        assert_eq!(tag("rbac.authorization.k8s.io", "v1"), "rbacAuthorization_v1");
        assert_eq!(tag("", "v1"), "core_v1");
    }
}
