//! Subresources and answers that are not the generic verbs: scale, binding, eviction, tokens, reviews,
//! and what the registry does for Services.

pub(crate) mod ranges;
pub(crate) mod service;

use crate::call::{Call, Outcome};
use crate::server::Inner;
use krate_api::Status;
use krate_client::{Body, Verb};

/// The answer of a subresource or resource that has its own handler; `None` for the generic ones.
pub(crate) async fn handle(
    server: &Inner,
    call: &Call,
    verb: Verb,
    body: &Option<Body>,
) -> Result<Option<Outcome>, Status> {
    let _ = (server, call, verb, body);
    Ok(None)
}
