//! PATCH: the stored JSON, changed as the body says, goes the way of an update.

use crate::call::Call;
use crate::codec;
use crate::rest::update::write;
use crate::server::Inner;
use krate_api::status::Reason;
use krate_api::{Object, Resource, Shared, Status};
use krate_client::PatchKind;
use serde_json::Value;

/// Patches the call's object.
pub(crate) async fn patch(
    server: &Inner,
    call: &Call,
    kind: PatchKind,
    patch: &[u8],
) -> Result<(Shared, bool), Status> {
    if kind == PatchKind::Apply {
        return Err(unsupported());
    }
    let patch: Value = serde_json::from_slice(patch)
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    let row = call.resource().clone();
    let shared = write(server, call, &mut |_, old| patched(&row, kind, old, &patch)).await?;
    Ok((shared, false))
}

fn patched(
    row: &Resource,
    kind: PatchKind,
    old: &dyn Object,
    patch: &Value,
) -> Result<Box<dyn Object>, Status> {
    let before: Value = serde_json::from_slice(&old.encode()).map_err(Status::internal)?;
    let after = match kind {
        PatchKind::Merge => {
            let mut after = before;
            merge(&mut after, patch);
            after
        }
        _ => return Err(unsupported()),
    };
    let bytes = serde_json::to_vec(&after).map_err(Status::internal)?;
    codec::decode(row, &bytes)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let Value::Object(fields) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// `415` for a kind of patch that the resource does not take.
pub(crate) fn unsupported() -> Status {
    Status::failure(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
         application/apply-patch+yaml",
    )
}
