//! Subresources and answers that are not the generic verbs: scale, binding, eviction, tokens, reviews, component
//! statuses, and what the registry does for Services.

pub(crate) mod binding;
mod component;
pub(crate) mod eviction;
pub(crate) mod ranges;
pub(crate) mod review;
pub(crate) mod scale;
pub(crate) mod service;
pub(crate) mod token;

use crate::admission::{Attributes, Operation};
use crate::call::{Call, Outcome};
use crate::pipeline::bytes_of;
use crate::server::Inner;
use crate::strict;
use bytes::Bytes;
use krate_api::{Kind, Object, Shared, Status};
use krate_client::{Body, Verb};

/// The answer of a subresource or resource that has its own handler; `None` for the generic ones.
pub(crate) async fn handle(
    server: &Inner,
    call: &Call,
    verb: Verb,
    body: &mut Option<Body>,
) -> Result<Option<Outcome>, Status> {
    let row = call.resource().clone();
    let outcome = match (row.group.as_str(), row.plural.as_str(), call.subresource.as_str()) {
        (_, _, "scale") => scale::handle(server, call, verb, body.take()).await?,
        ("", "pods", "binding") | ("", "bindings", "") => binding::create(server, call, body.take()).await?,
        ("", "pods", "eviction") => eviction::create(server, call, body.take()).await?,
        ("", "serviceaccounts", "token") => token::create(server, call, body.take()).await?,
        ("authentication.k8s.io" | "authorization.k8s.io", _, "") => {
            review::create(server, call, body.take()).await?
        }
        ("", "componentstatuses", "") => component::read(server, call, verb).await?,
        ("", "pods", "log" | "exec" | "attach" | "portforward" | "proxy")
        | ("", "nodes" | "services", "proxy") => {
            // Streams; they exist on the wire only.
            return Err(Status::method_not_allowed());
        }
        _ => return Ok(None),
    };
    Ok(Some(outcome))
}

/// A body of a kind of its own, in its call's namespace and through admission.
pub(crate) async fn admitted<K: Kind>(server: &Inner, call: &Call, body: Option<Body>) -> Result<K, Status> {
    let mut object: K = match body {
        Some(Body::Object(object)) => match object.into_any().downcast::<K>() {
            Ok(typed) => *typed,
            Err(_) => return Err(Status::bad_request(format!("the body is not a {}", K::KIND))),
        },
        other => strict::of_kind(call, &bytes_of(other)?)?,
    };
    let meta = object.meta_mut();
    if !call.name.is_empty() && meta.name.as_deref().is_some_and(|n| !n.is_empty() && n != call.name) {
        if matches!(K::KIND, "Binding" | "Eviction") {
            let text = format!("name in URL does not match name in {} object", K::KIND);
            return Err(Status::bad_request(text));
        }
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta.name.as_deref().unwrap_or(""),
            call.name
        )));
    }
    if !call.namespace.is_empty() {
        crate::rest::meta::enter_namespace(call, meta)?;
    }
    let at = Attributes::new(call, Operation::Create, Some(&object), None);
    server.admission.admit(server, &at, &mut object).await?;
    server.admission.validate(server, &at, Some(&object)).await?;
    Ok(object)
}

/// An answer that is an object which is not stored.
pub(crate) fn answer(object: &dyn Object, created: bool) -> Result<Outcome, Status> {
    let object = Shared::parse(Bytes::from(object.encode())).map_err(Status::internal)?;
    Ok(Outcome::Object { object, created })
}

/// The `Status` of something that was done and has no object.
pub(crate) fn done() -> Outcome {
    let status = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}"#;
    Outcome::Encoded { code: 201, bytes: Bytes::from_static(status.as_bytes()) }
}
