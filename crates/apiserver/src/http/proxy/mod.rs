//! Requests that the server hands on: logs, exec, attach and port-forward to the pod's kubelet; `proxy` to a
//! pod, a service's endpoint or a kubelet.
//!
//! Authorization and admission (as a connect) come first. Upgrades are passed through byte for byte both
//! ways after the backend's 101; nothing in them is read here. Only logs are put into a WebSocket here. Of what `proxy` brings back, only redirects and
//! the links of HTML pages change.

mod forward;
mod html;
mod links;
mod socket;
mod target;

pub(crate) use target::KubeletTls;

use super::respond::{self, Body};
use crate::admission::{Attributes, Operation};
use crate::authz;
use crate::path::Info;
use crate::pipeline;
use crate::query::Query;
use crate::server::Inner;
use crate::user::UserInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use krate_api::Status;
use std::sync::Arc;

/// Whether a request is one of these.
pub(super) fn is_stream(info: &Info) -> bool {
    let streams = matches!(
        (info.resource.as_str(), info.subresource.as_str()),
        ("pods", "log" | "exec" | "attach" | "portforward" | "proxy") | ("nodes" | "services", "proxy")
    );
    info.is_resource && info.group.is_empty() && streams
}

/// Whether any method is meant, those too that the API itself has no verb for (OPTIONS).
pub(super) fn takes_any_method(info: &Info) -> bool {
    is_stream(info) && info.subresource == "proxy"
}

/// Answers it.
pub(super) async fn handle(
    server: &Arc<Inner>,
    user: &Arc<UserInfo>,
    info: &Info,
    query: &Query,
    wanted: &krate_client::Request,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let verb = if info.verb.is_empty() { "get" } else { &info.verb };
    let call = pipeline::call_of(server, user, wanted, verb)?;
    let runs = matches!(call.subresource.as_str(), "exec" | "attach" | "portforward");
    if runs && info.verb == "get" {
        // A WebSocket begins with GET, yet it creates.
        server.authz.check(&authz::Attributes::of_call(&call, "create"))?;
    }
    let at = Attributes::new(&call, Operation::Connect, None, None);
    if call.subresource != "log" {
        server.admission.validate(server, &at, None).await?;
    }
    if let Some(below) = forward::redirect(&call, info, &request) {
        return Ok(below);
    }
    let raw_query = request.uri().query().unwrap_or("").to_owned();
    let target = target::find(server, &call, info, query, &raw_query).await?;
    match target {
        Some(target) => forward::forward(server, &call, info, target, request).await,
        None => Ok(respond::raw(200, "text/plain", "")),
    }
}
