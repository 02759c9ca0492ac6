//! The writes of the in-memory server.

use super::{Inner, Logged, State};
use crate::request::{Reply, Request};
use bytes::Bytes;
use krate_api::{Reason, Shared, Status};
use serde_json::{Value, json};

/// An object and its encoding.
pub(super) struct Stored {
    pub(super) value: Value,
    pub(super) shared: Shared,
}

fn share(value: &Value) -> Shared {
    Shared::parse(Bytes::from(value.to_string())).expect("an object has metadata of the right form")
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn stale(request: &Request) -> Status {
    Status::modified(&request.group, &request.plural, &request.name)
}

impl State {
    pub(super) fn find(&self, request: &Request, resource: &str, key: &str) -> Result<&Stored, Status> {
        self.objects
            .get(resource)
            .and_then(|all| all.get(key))
            .ok_or_else(|| Status::not_found(&request.group, &request.plural, &request.name))
    }

    fn commit(&mut self, resource: &str, key: &str, mut value: Value) -> Shared {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let shared = share(&value);
        let all = self.objects.entry(resource.to_owned()).or_default();
        let old = all.insert(key.to_owned(), Stored { value, shared: shared.clone() });
        self.history.push(Logged {
            revision: self.revision,
            resource: resource.to_owned(),
            old: old.map(|o| o.shared),
            new: Some(shared.clone()),
            last: None,
        });
        shared
    }

    pub(super) fn remove(&mut self, resource: &str, key: &str) -> Option<Shared> {
        let old = self.objects.get_mut(resource)?.remove(key)?;
        self.revision += 1;
        let mut last = old.value;
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let last = share(&last);
        self.history.push(Logged {
            revision: self.revision,
            resource: resource.to_owned(),
            old: Some(old.shared),
            new: None,
            last: Some(last.clone()),
        });
        Some(last)
    }

    fn stamp(value: &mut Value, inner: &Inner) {
        let meta = &mut value["metadata"];
        if text(meta, "/name").is_empty() {
            meta["name"] = json!(format!("{}{}", text(meta, "/generateName"), inner.rng.suffix(5)));
        }
        if text(meta, "/uid").is_empty() {
            meta["uid"] = json!(inner.rng.uuid());
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = json!(inner.clock.now_seconds().to_string());
        }
        if meta["generation"].is_null() {
            meta["generation"] = json!(1);
        }
    }

    pub(super) fn store_raw(&mut self, resource: &str, mut value: Value, inner: &Inner) -> Shared {
        let key = krate_api::object::key(text(&value, "/metadata/namespace"), text(&value, "/metadata/name"));
        let old = self.objects.get(resource).and_then(|all| all.get(&key));
        if let Some(old) = old.filter(|_| text(&value, "/metadata/uid").is_empty()) {
            value["metadata"]["uid"] = old.value["metadata"]["uid"].clone();
        }
        Self::stamp(&mut value, inner);
        let key = krate_api::object::key(text(&value, "/metadata/namespace"), text(&value, "/metadata/name"));
        self.commit(resource, &key, value)
    }

    pub(super) fn create(
        &mut self,
        request: &Request,
        resource: &str,
        inner: &Inner,
    ) -> Result<Reply, Status> {
        let mut value = super::body(request)?;
        if !request.namespace.is_empty() {
            value["metadata"]["namespace"] = json!(request.namespace);
        }
        if let Some(object) = value.as_object_mut() {
            object.remove("status");
        }
        for field in ["uid", "creationTimestamp", "generation"] {
            value["metadata"][field] = Value::Null;
        }
        Self::stamp(&mut value, inner);
        if resource == "namespaces" {
            value["spec"] = json!({"finalizers": ["kubernetes"]});
            value["status"] = json!({"phase": "Active"});
        }
        let name = text(&value, "/metadata/name").to_owned();
        let key = krate_api::object::key(&request.namespace, &name);
        if self.objects.get(resource).is_some_and(|all| all.contains_key(&key)) {
            return Err(Status::already_exists(&request.group, &request.plural, &name));
        }
        Ok(Reply::Object(self.commit(resource, &key, value)))
    }

    /// Replaces an object, or the part of it that the subresource names.
    pub(super) fn update(
        &mut self,
        request: &Request,
        resource: &str,
        key: &str,
        body: Value,
    ) -> Result<Reply, Status> {
        let old = self.find(request, resource, key)?;
        let (before, present) = (old.value.clone(), old.shared.clone());
        let revision = text(&body, "/metadata/resourceVersion");
        if !revision.is_empty() && revision != text(&before, "/metadata/resourceVersion") {
            return Err(stale(request));
        }
        let uid = text(&body, "/metadata/uid");
        if !uid.is_empty() && uid != text(&before, "/metadata/uid") {
            return Err(stale(request));
        }
        let after = match request.subresource.as_str() {
            "" => replaced(&before, body),
            "scale" => with(&before, "/spec/replicas", &body),
            "finalize" => with(&before, "/spec/finalizers", &body),
            _ if resource == "deployments.apps" => {
                with(&with(&before, "/status", &body), "/metadata/annotations", &body)
            }
            _ => with(&before, "/status", &body),
        };
        if after == before {
            return Ok(Reply::Object(present));
        }
        let finalized = is_empty_list(&after["metadata"]["finalizers"])
            && (resource != "namespaces" || is_empty_list(&after["spec"]["finalizers"]));
        let graceful = after["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
        let shared = self.commit(resource, key, after.clone());
        if !after["metadata"]["deletionTimestamp"].is_null() && finalized && !graceful {
            self.remove(resource, key);
        }
        Ok(Reply::Object(shared))
    }

    pub(super) fn delete(
        &mut self,
        request: &Request,
        resource: &str,
        key: &str,
        inner: &Inner,
    ) -> Result<Reply, Status> {
        let mut value = self.find(request, resource, key)?.value.clone();
        let before = value.clone();
        let options = request.options.delete.clone().unwrap_or_default();
        let wanted = options.preconditions.unwrap_or_default();
        if wanted.uid.is_some_and(|uid| uid != text(&value, "/metadata/uid"))
            || wanted.resource_version.is_some_and(|v| v != text(&value, "/metadata/resourceVersion"))
        {
            return Err(stale(request));
        }
        match options.propagation_policy.as_deref() {
            Some("Orphan") => add_finalizer(&mut value, "orphan"),
            Some("Foreground") => add_finalizer(&mut value, "foregroundDeletion"),
            _ => {}
        }
        let runs = resource == "pods" && !text(&value, "/spec/nodeName").is_empty();
        let finished = matches!(text(&value, "/status/phase"), "Succeeded" | "Failed");
        let default = value["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
        let grace = if runs && !finished { options.grace_period_seconds.unwrap_or(default) } else { 0 };
        let finalized = is_empty_list(&value["metadata"]["finalizers"]) && resource != "namespaces";
        if grace == 0 && finalized {
            self.remove(resource, key);
            return Ok(Reply::Bytes(Bytes::from_static(br#"{"kind":"Status","status":"Success"}"#)));
        }
        if value["metadata"]["deletionTimestamp"].is_null() {
            value["metadata"]["deletionTimestamp"] = json!(inner.clock.now_seconds().to_string());
        }
        value["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        if resource == "namespaces" {
            value["status"]["phase"] = json!("Terminating");
        }
        if value == before {
            return Ok(Reply::Object(share(&value)));
        }
        Ok(Reply::Object(self.commit(resource, key, value)))
    }

    pub(super) fn delete_collection(
        &mut self,
        request: &Request,
        resource: &str,
        inner: &Inner,
    ) -> Result<Reply, Status> {
        let Reply::List { items, .. } = self.list(resource, request)? else {
            unreachable!("a list is a list")
        };
        for item in items {
            let one = Request {
                verb: crate::Verb::Delete,
                group: request.group.clone(),
                version: request.version.clone(),
                plural: request.plural.clone(),
                namespace: item.view.namespace.clone(),
                name: item.view.name.clone(),
                subresource: String::new(),
                options: request.options.clone(),
                body: None,
            };
            self.delete(&one, resource, &item.key(), inner)?;
        }
        Ok(Reply::Bytes(Bytes::from_static(br#"{"kind":"Status","status":"Success"}"#)))
    }

    pub(super) fn create_at(
        &mut self,
        request: &Request,
        resource: &str,
        key: &str,
        inner: &Inner,
    ) -> Result<Reply, Status> {
        let body = super::body(request)?;
        let mut value = self.find(request, resource, key)?.value.clone();
        match request.subresource.as_str() {
            "binding" => {
                if !text(&value, "/spec/nodeName").is_empty() {
                    let detail = "pod is already assigned to a node";
                    return Err(Status::conflict(&request.group, "pods/binding", &request.name, detail));
                }
                value["spec"]["nodeName"] = body["target"]["name"].clone();
                Ok(Reply::Object(self.commit(resource, key, value)))
            }
            "eviction" => self.delete(request, resource, key, inner),
            other => Err(Status::failure(
                Reason::NotFound,
                format!("the in-memory server has no subresource {other}"),
            )),
        }
    }
}

/// The old object with everything but its status and its server-set metadata from the new one.
fn replaced(before: &Value, mut after: Value) -> Value {
    for field in [
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ] {
        set(&mut after["metadata"], field, before["metadata"].get(field));
    }
    set(&mut after, "status", before.get("status"));
    if after.get("spec") != before.get("spec") {
        after["metadata"]["generation"] = json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
    }
    after
}

fn set(object: &mut Value, field: &str, to: Option<&Value>) {
    match (to, object.as_object_mut()) {
        (Some(to), _) => object[field] = to.clone(),
        (None, Some(map)) => {
            map.remove(field);
        }
        (None, None) => {}
    }
}

/// `before` with the value at a pointer of depth one or two taken from `from`.
fn with(before: &Value, pointer: &str, from: &Value) -> Value {
    let mut after = before.clone();
    let mut place = &mut after;
    for part in pointer.trim_start_matches('/').split('/') {
        place = &mut place[part];
    }
    *place = from.pointer(pointer).cloned().unwrap_or(Value::Null);
    if place.is_null() {
        *place = if pointer == "/spec/finalizers" { json!([]) } else { json!({}) };
    }
    after
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

fn add_finalizer(value: &mut Value, name: &str) {
    let list = &mut value["metadata"]["finalizers"];
    if list.is_null() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut()
        && !list.contains(&json!(name))
    {
        list.push(json!(name));
    }
}

/// RFC 7396.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().map(|map| map.remove(key));
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

/// The operations `test`, `add`, `replace` and `remove` of RFC 6902.
pub(super) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), Status> {
    let bad = |what: String| Status::failure(Reason::Invalid, what);
    for op in patch.as_array().into_iter().flatten() {
        let path = text(op, "/path");
        let (parent, last) = path.rsplit_once('/').ok_or_else(|| bad(format!("bad path {path:?}")))?;
        let last = last.replace("~1", "/").replace("~0", "~");
        if text(op, "/op") == "test" {
            if target.pointer(path).unwrap_or(&Value::Null) != &op["value"] {
                return Err(bad(format!("testing path {path} failed")));
            }
            continue;
        }
        let place = target.pointer_mut(parent).ok_or_else(|| bad(format!("no such path {path}")))?;
        let index = last.parse::<usize>().ok();
        match (text(op, "/op"), place) {
            ("add" | "replace", Value::Object(map)) => {
                map.insert(last, op["value"].clone());
            }
            ("remove", Value::Object(map)) if map.contains_key(&last) => {
                map.remove(&last);
            }
            ("add", Value::Array(list)) if last == "-" => list.push(op["value"].clone()),
            ("add", Value::Array(list)) if index.is_some_and(|i| i <= list.len()) => {
                list.insert(index.unwrap_or(0), op["value"].clone());
            }
            ("remove", Value::Array(list)) if index.is_some_and(|i| i < list.len()) => {
                list.remove(index.unwrap_or(0));
            }
            (op, _) => return Err(bad(format!("cannot {op} {path}"))),
        }
    }
    Ok(())
}
