//! PATCH: the stored JSON, changed as the body says, goes the way of an update.
//!
//! A patch that names no version is applied anew when somebody wrote in between.

use crate::call::Call;
use crate::rest::update::{check_identity, write};
use crate::server::Inner;
use crate::strict;
use krate_api::status::Reason;
use krate_api::{Object, Shared, Status, schema};
use krate_client::PatchKind;
use krate_merge::{json_patch, merge_patch, strategic_merge_patch};
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
    let shared =
        write(server, call, &mut |entry, _| patched(call, kind, &call.rows.bytes(entry), patch)).await?;
    Ok((shared, false))
}

/// The object after the patch.
fn patched(call: &Call, kind: PatchKind, before: &[u8], patch: &[u8]) -> Result<Box<dyn Object>, Status> {
    let found = strict::patch(call, kind, patch)?;
    let mut after = apply(call, kind, before, patch)?;
    // Of a strategic merge the original does not ask what the result says that it is.
    if let (PatchKind::StrategicMerge, Some(after)) = (kind, after.as_object_mut()) {
        after.insert("kind".to_owned(), call.resource().kind.as_str().into());
        after.insert("apiVersion".to_owned(), call.resource().api_version().into());
    }
    let bytes = serde_json::to_vec(&after).map_err(Status::internal)?;
    let shown = || match kind {
        PatchKind::StrategicMerge => {
            serde_json::from_slice::<Value>(patch).map_or_else(|_| String::new(), |value| go_text(&value))
        }
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    };
    let object = strict::patched(call, &bytes, found, &shown)?;
    check_identity(call, &*object)?;
    Ok(object)
}

/// The JSON after the patch, whatever its shape.
pub(crate) fn apply(call: &Call, kind: PatchKind, before: &[u8], patch: &[u8]) -> Result<Value, Status> {
    let before: Value = serde_json::from_slice(before).map_err(Status::internal)?;
    let row = call.resource();
    let after = match kind {
        PatchKind::Json => json_patch(before, patch),
        PatchKind::Merge => merge_patch(before, patch),
        PatchKind::StrategicMerge => {
            let ty = schema::of_kind(&row.group, &row.version, &row.kind).ok_or_else(unsupported)?;
            strategic_merge_patch(ty, before, patch)
        }
        PatchKind::Apply => return Err(unsupported()),
    };
    after.map_err(|e| e.status())
}

/// A value as Go prints a map: `map[a:1 b:[x y]]`.
fn go_text(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut parts: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            parts.sort();
            format!("map[{}]", parts.join(" "))
        }
        Value::Array(list) => {
            format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" "))
        }
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// `415` for a kind of patch that the resource does not take.
pub(crate) fn unsupported() -> Status {
    Status::failure(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
    )
}
