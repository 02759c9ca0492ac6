//! One request from the wire to its answer: who, what, may they, the handler, the form of the answer.

use super::negotiate::{self, Form, Shape};
use super::respond::{self, Body};
use super::table::Style;
use super::{proxy, stream, system};
use crate::authn::{self, Peer};
use crate::authz::{self, Attributes};
use crate::error::no_such_resource;
use crate::openapi;
use crate::options::{self, number};
use crate::path::{self, Info};
use crate::pipeline;
use crate::query::Query;
use crate::rest::patch::unsupported;
use crate::server::Inner;
use crate::user::UserInfo;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use krate_api::meta::DeleteOptions;
use krate_api::status::Reason;
use krate_api::{Resource, Status};
use krate_client::{Options, PatchKind, Verb};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::time::Instant;

/// Largest body of a request, bytes.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// A request after its head has been read.
struct Head {
    pub server: Arc<Inner>,
    pub user: Arc<UserInfo>,
    pub info: Arc<Info>,
    pub query: Query,
    pub form: Form,
}

/// Answers a request. Never fails: failures are answers.
pub(crate) async fn handle(
    server: Arc<Inner>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let info = path::parse(request.method().as_str(), request.uri().path(), &query);
    let info = Arc::new(info);
    let (metered, labels) = (server.clone(), info.clone());
    let (form, refusal) = match negotiate::form(request.headers(), &query, info.is_resource) {
        Ok(form) => (form, None),
        // What the client does not take still has to be said in some form.
        Err(status) => (Form::plain(), Some(status)),
    };
    let answered = match refusal {
        Some(status) if info.is_resource && !proxy::is_stream(&info) => Err(status),
        _ => answer(server, &peer, request, info, query, form).await,
    };
    let plain = Form { shape: Shape::Whole, ..form };
    let mut response = answered.unwrap_or_else(|status| respond::failure(&status, plain));
    if let Ok(id) = HeaderValue::from_str(&metered.rng.uuid()) {
        response.headers_mut().insert("audit-id", id);
    }
    metered.meter.count(&labels, response.status().as_u16(), started.elapsed());
    Ok(response)
}

async fn answer(
    server: Arc<Inner>,
    peer: &Peer,
    request: Request<Incoming>,
    info: Arc<Info>,
    query: Query,
    form: Form,
) -> Result<Response<Body>, Status> {
    if info.verb != "watch" && info.subresource != "log" && !proxy::is_stream(&info) {
        options::timeout(&query)?;
    }
    let user = authn::authenticate(&server, peer, request.headers()).await?;
    let user = authn::impersonate::effective(&server, user, request.headers())?;
    authorize(&server, &user, &info, &query).await?;
    if !info.is_resource {
        let plain = Form { shape: Shape::Whole, ..form };
        let answer = match info.path.strip_prefix("/openapi/") {
            Some(rest) => openapi::answer(&server, rest, request.headers(), &query, plain).await,
            None => system::answer(&server, &info.path, request.headers(), &query, plain),
        };
        return Ok(answer.unwrap_or_else(no_page));
    }
    if !server.catalogue().iter().any(|row| row.group == info.group) {
        return Ok(no_page());
    }
    let incoming = Head { server, user, info, query, form };
    resource(incoming, request).await
}

/// The answer where there is nothing at all.
fn no_page() -> Response<Body> {
    let mut response = respond::raw(404, "text/plain; charset=utf-8", "404 page not found\n");
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

async fn authorize(server: &Inner, user: &UserInfo, info: &Info, query: &Query) -> Result<(), Status> {
    let attributes = Attributes {
        user,
        verb: &info.verb,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        field_selector: query.get("fieldSelector"),
        label_selector: query.get("labelSelector"),
        path: (!info.is_resource).then_some(info.path.as_str()),
    };
    authz::permit(server, &attributes).await
}

/// A request about a resource.
async fn resource(incoming: Head, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let Head { server, user, info, query, form } = incoming;
    let mut wanted = describe(&info, &query)?;
    if proxy::is_stream(&info) {
        return proxy::handle(&server, &user, &info, &query, &wanted, request).await;
    }
    let rows = pipeline::rows(&server, &wanted)?;
    check_route(&rows.shown, &info)?;
    let (parts, body) = request.into_parts();
    let style = Style {
        include: query.get("includeObject").to_owned(),
        beta: false,
        now: server.clock.now(),
        headers: true,
        scale: info.subresource == "scale",
    };
    if info.verb == "watch" {
        let feed = pipeline::watch_admitted(&server, &user, &wanted).await?;
        let mut response = respond::raw(200, form.content_type(), Bytes::new());
        if form.format == negotiate::Format::Json && form.shape == Shape::Whole {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        *response.body_mut() = stream::body(feed, form, style, server.clock.clone());
        return Ok(response);
    }
    let mut found = Vec::new();
    if matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection") {
        let bytes = read_body(body).await?;
        found = attach_body(&mut wanted, &rows.shown.kind, &parts.headers, &query, bytes)?;
        options::check(wanted.verb, &query)?;
    }
    let answer = pipeline::admitted(&server, &user, wanted, found).await?;
    let mut response = respond::outcome(&answer.outcome, form, &rows, &style)?;
    respond::warn(&mut response, &answer.warnings);
    Ok(response)
}

/// Whether the original has such a path, and the method there.
fn check_route(row: &Resource, info: &Info) -> Result<(), Status> {
    if !info.subresource.is_empty() {
        return Ok(());
    }
    let in_namespace = !info.namespace.is_empty();
    if !row.namespaced && in_namespace && row.plural != "namespaces" {
        return Err(no_such_resource());
    }
    let named = !info.name.is_empty();
    let everywhere = row.namespaced && !in_namespace && row.plural != "localsubjectaccessreviews";
    let allowed = match info.verb.as_str() {
        "create" => !named && !everywhere,
        "deletecollection" => !everywhere,
        "update" | "patch" => named,
        _ => true,
    };
    if allowed { Ok(()) } else { Err(Status::method_not_allowed()) }
}

/// The request of a path and its parameters, without a body.
fn describe(info: &Info, query: &Query) -> Result<krate_client::Request, Status> {
    let verb = match info.verb.as_str() {
        "get" => Verb::Get,
        "list" | "watch" => Verb::List,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch(PatchKind::Merge),
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        "" if proxy::takes_any_method(info) => Verb::Get,
        _ => return Err(Status::method_not_allowed()),
    };
    let collection = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    let in_path = !info.path.contains("/watch/") && collection;
    let mut options = read_options(query)?;
    let mut name = info.name.clone();
    if collection {
        // The name came from a field selector, or (old watch paths) from the path.
        if !in_path && !name.is_empty() && path::single_name(&options.field_selector).is_none() {
            options.field_selector = format!("metadata.name={name}");
        }
        name.clear();
    }
    Ok(krate_client::Request {
        verb,
        group: info.group.clone(),
        version: info.version.clone(),
        plural: info.resource.clone(),
        namespace: info.namespace.clone(),
        name,
        subresource: info.subresource.clone(),
        options,
        body: None,
    })
}

fn read_options(query: &Query) -> Result<Options, Status> {
    let limit: Option<i64> = number(query, "limit")?;
    let timeout: Option<i64> = number(query, "timeoutSeconds")?;
    Ok(Options {
        label_selector: query.get("labelSelector").to_owned(),
        field_selector: query.get("fieldSelector").to_owned(),
        resource_version: query.get("resourceVersion").to_owned(),
        resource_version_match: query.get("resourceVersionMatch").to_owned(),
        limit: limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(0),
        continue_token: query.get("continue").to_owned(),
        timeout_seconds: timeout.and_then(|t| u32::try_from(t).ok()),
        allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")),
        dry_run: query.all("dryRun").any(|v| !v.is_empty()),
        field_manager: query.get("fieldManager").to_owned(),
        field_validation: query.get("fieldValidation").to_owned(),
        force: query.flag("force"),
        delete: None,
    })
}

/// The whole body, within the limit.
pub(crate) async fn read_body(body: Incoming) -> Result<Bytes, Status> {
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(Status::failure(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {BODY_LIMIT}"),
        )),
        Err(e) => Err(Status::bad_request(format!("unable to read the body: {e}"))),
    }
}

/// Puts a body where the request has it: object of a `kind`, patch, or delete options. Gives what is wrong with it
/// and can no longer be seen there.
fn attach_body(
    request: &mut krate_client::Request,
    kind: &str,
    headers: &HeaderMap,
    query: &Query,
    bytes: Bytes,
) -> Result<Vec<String>, Status> {
    let mut found = Vec::new();
    match request.verb {
        Verb::Patch(_) => {
            request.verb = Verb::Patch(patch_kind(headers)?);
            request.body = Some(krate_client::Body::Bytes(bytes));
        }
        Verb::Delete | Verb::DeleteCollection => {
            let options = delete_options(headers, query, &bytes)?;
            request.options.dry_run |= options.dry_run.as_ref().is_some_and(|d| !d.is_empty());
            request.options.delete = Some(options);
        }
        _ => {
            let (json, told) = negotiate::sent(headers)?.json(bytes, kind)?;
            request.body = Some(krate_client::Body::Bytes(json));
            found = told;
        }
    }
    Ok(found)
}

fn patch_kind(headers: &HeaderMap) -> Result<PatchKind, Status> {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match value.split(';').next().unwrap_or("").trim() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::StrategicMerge),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        _ => Err(unsupported()),
    }
}

/// Delete options come in the body, or as parameters when there is none.
fn delete_options(headers: &HeaderMap, query: &Query, bytes: &[u8]) -> Result<DeleteOptions, Status> {
    if !bytes.is_empty() {
        let (json, _) =
            negotiate::sent(headers)?.json(Bytes::copy_from_slice(bytes), options::DELETE_OPTIONS)?;
        return options::delete_body(&json);
    }
    let some = |name: &str| query.has(name).then(|| query.get(name).to_owned());
    Ok(DeleteOptions {
        grace_period_seconds: number(query, "gracePeriodSeconds")?,
        orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
        propagation_policy: some("propagationPolicy"),
        dry_run: query
            .has("dryRun")
            .then(|| query.all("dryRun").filter(|v| !v.is_empty()).map(str::to_owned).collect()),
        ..DeleteOptions::default()
    })
}
