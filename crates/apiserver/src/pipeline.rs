//! From a request as a value to its answer: find the resource, authorize, read the body, hand over to the
//! handler of the verb. Both transports come through here.

use crate::authz::{self, Attributes};
use crate::call::{Call, Outcome};
use crate::codec::Rows;
use crate::error::no_such_resource;
use crate::rest::{create, delete, list, patch, update, watch};
use crate::server::Inner;
use crate::strict;
use crate::user::UserInfo;
use bytes::Bytes;
use krate_api::{Object, Status};
use krate_client::{Body, Request, Verb};
use std::sync::Arc;

/// An answer with the warnings that go with it.
pub(crate) struct Answer {
    pub outcome: Outcome,
    pub warnings: Vec<String>,
}

/// The verb of RBAC and discovery.
pub(crate) fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "get",
        Verb::List => "list",
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Patch(_) => "patch",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
    }
}

/// The call of a request, when its resource exists and allows the verb.
pub(crate) fn call_of(
    server: &Inner,
    user: &Arc<UserInfo>,
    request: &Request,
    verb: &str,
) -> Result<Call, Status> {
    let catalogue = server.catalogue();
    let row =
        catalogue.get(&request.group, &request.version, &request.plural).ok_or_else(no_such_resource)?;
    let allowed = if request.subresource.is_empty() {
        row.verbs.iter().any(|v| v.as_str() == verb)
    } else {
        let sub = row.subresource(&request.subresource).ok_or_else(no_such_resource)?;
        sub.verbs.iter().any(|v| v.as_str() == verb)
    };
    if !allowed {
        return Err(Status::method_not_allowed());
    }
    if row.namespaced
        && request.namespace.is_empty()
        && !matches!(verb, "list" | "watch" | "deletecollection")
    {
        let review = row.plural == "localsubjectaccessreviews";
        if !review {
            return Err(no_such_resource());
        }
    }
    let namespace = if row.namespaced { request.namespace.clone() } else { String::new() };
    Ok(Call {
        user: user.clone(),
        rows: Rows::of(&catalogue, row),
        namespace,
        name: request.name.clone(),
        subresource: request.subresource.clone(),
        options: request.options.clone(),
        found: Vec::new(),
        warnings: deprecation(&row.group, &row.plural)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .into(),
    })
}

/// The warning that every answer about a resource carries because there is a better one.
fn deprecation(group: &str, plural: &str) -> Option<&'static str> {
    match (group, plural) {
        ("", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// The rows of a request's resource.
pub(crate) fn rows(server: &Inner, request: &Request) -> Result<Rows, Status> {
    let catalogue = server.catalogue();
    let row =
        catalogue.get(&request.group, &request.version, &request.plural).ok_or_else(no_such_resource)?;
    Ok(Rows::of(&catalogue, row))
}

/// Everything between the listener and the store, for every verb but watch.
pub(crate) async fn perform(
    server: &Inner,
    user: &Arc<UserInfo>,
    request: Request,
) -> Result<Answer, Status> {
    authorize(server, user, &request, verb_name(request.verb)).await?;
    admitted(server, user, request, Vec::new()).await
}

/// [`perform`] for a request that has been authorized, and of whose body as it was sent something was found.
pub(crate) async fn admitted(
    server: &Inner,
    user: &Arc<UserInfo>,
    request: Request,
    found: Vec<String>,
) -> Result<Answer, Status> {
    let mut call = call_of(server, user, &request, verb_name(request.verb))?;
    call.found = found;
    let outcome = handle(server, &call, request.verb, request.body).await?;
    Ok(Answer { outcome, warnings: call.warnings.into_inner() })
}

/// Opens a watch.
pub(crate) async fn open_watch(
    server: &Inner,
    user: &Arc<UserInfo>,
    request: &Request,
) -> Result<watch::Feed, Status> {
    authorize(server, user, request, "watch").await?;
    watch_admitted(server, user, request).await
}

/// [`open_watch`] for a request that has been authorized.
pub(crate) async fn watch_admitted(
    server: &Inner,
    user: &Arc<UserInfo>,
    request: &Request,
) -> Result<watch::Feed, Status> {
    let call = call_of(server, user, request, "watch")?;
    watch::open(server, &call).await
}

async fn authorize(server: &Inner, user: &UserInfo, request: &Request, verb: &str) -> Result<(), Status> {
    let single = crate::path::single_name(&request.options.field_selector);
    let narrowed = matches!(verb, "list" | "watch" | "deletecollection");
    let name = match &single {
        Some(name) if request.name.is_empty() && narrowed => name,
        _ => &request.name,
    };
    let attributes = Attributes {
        user,
        verb,
        group: &request.group,
        resource: &request.plural,
        subresource: &request.subresource,
        namespace: &request.namespace,
        name,
        field_selector: &request.options.field_selector,
        label_selector: &request.options.label_selector,
        path: None,
    };
    authz::permit(server, &attributes).await
}

async fn handle(server: &Inner, call: &Call, verb: Verb, mut body: Option<Body>) -> Result<Outcome, Status> {
    if let Some(outcome) = crate::sub::handle(server, call, verb, &mut body).await? {
        return Ok(outcome);
    }
    match verb {
        Verb::Get => Ok(Outcome::object(list::get(server, call).await?)),
        Verb::List => Ok(Outcome::List(list::list(server, call).await?)),
        Verb::Create => {
            let object = object_of(call, body)?;
            Ok(Outcome::Object { object: create::create(server, call, object).await?, created: true })
        }
        Verb::Update => {
            let object = object_of(call, body)?;
            let (object, created) = update::update(server, call, object).await?;
            Ok(Outcome::Object { object, created })
        }
        Verb::Patch(kind) => {
            let patch = bytes_of(body)?;
            let (object, created) = patch::patch(server, call, kind, &patch).await?;
            Ok(Outcome::Object { object, created })
        }
        Verb::Delete => delete::delete(server, call).await,
        Verb::DeleteCollection => delete::delete_collection(server, call).await,
    }
}

/// The body as an object of the resource's kind.
fn object_of(call: &Call, body: Option<Body>) -> Result<Box<dyn Object>, Status> {
    let row = call.resource();
    match body {
        Some(Body::Object(object))
            if object.kind() == row.kind && object.api_version() == row.api_version() =>
        {
            Ok(object)
        }
        other => strict::object(call, &bytes_of(other)?),
    }
}

/// The body as it is.
pub(crate) fn bytes_of(body: Option<Body>) -> Result<Bytes, Status> {
    match body {
        Some(Body::Bytes(bytes)) => Ok(bytes),
        Some(Body::Object(object)) => Ok(Bytes::from(object.encode())),
        None => Ok(Bytes::new()),
    }
}
