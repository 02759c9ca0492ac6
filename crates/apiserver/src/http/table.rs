//! Tables: the columns of `kubectl get`, made by the server.
//!
//! The columns and cells of a kind are `krate-api`'s; here they become the rows of a page or of one event.

use super::respond::{meta_version, metadata_of};
use crate::codec::Rows;
use bytes::Bytes;
use krate_api::table::{columns_of, conditions, row_of};
use krate_api::types::autoscaling::v1::Scale;
use krate_api::{Kind as _, Object, Shared, Status};
use krate_base::Timestamp;
use serde_json::{Value, json};

/// What the envelope of a table says beside its rows.
#[derive(Default)]
pub(crate) struct Page<'a> {
    pub revision: &'a str,
    pub continue_token: &'a str,
    pub remaining: Option<i64>,
}

/// How a table is made: what each row carries of its object (`None`, `Metadata`, `Object`), in which version,
/// and at what time.
#[derive(Clone)]
pub(crate) struct Style {
    pub include: String,
    pub beta: bool,
    pub now: Timestamp,
    /// A watch names the columns in its first event only.
    pub headers: bool,
    /// The rows are `Scale`s of the resource.
    pub scale: bool,
}

/// A table of objects.
pub(crate) fn table(rows: &Rows, items: &[Shared], page: &Page<'_>, style: &Style) -> Result<Bytes, Status> {
    let (group, kind) = if style.scale {
        (Scale::GROUP.to_owned(), Scale::KIND.to_owned())
    } else {
        (rows.shown.group.clone(), rows.shown.kind.clone())
    };
    let mut metadata = json!({"resourceVersion": page.revision});
    if !page.continue_token.is_empty() {
        metadata["continue"] = page.continue_token.into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    let columns: Value = if style.headers {
        columns_of(&group, &kind).iter().map(krate_api::table::Column::definition).collect()
    } else {
        Value::Null
    };
    let head = json!({
        "kind": "Table", "apiVersion": meta_version(style.beta),
        "metadata": metadata, "columnDefinitions": columns,
    });
    let mut out = head.to_string().into_bytes();
    // The rows are written one by one behind the head.
    out.pop();
    out.extend_from_slice(b",\"rows\":[");
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        row(&mut out, rows, item, (&group, &kind), style)?;
    }
    out.extend_from_slice(b"]}");
    Ok(Bytes::from(out))
}

fn decode(rows: &Rows, item: &Shared, style: &Style) -> Result<Box<dyn Object>, Status> {
    if style.scale {
        return Ok(Box::new(Scale::decode(&item.bytes).map_err(Status::internal)?));
    }
    (rows.shown.codec.decode)(&item.bytes).map_err(Status::internal)
}

fn row(
    out: &mut Vec<u8>,
    rows: &Rows,
    item: &Shared,
    (group, kind): (&str, &str),
    style: &Style,
) -> Result<(), Status> {
    let object = decode(rows, item, style)?;
    let cells = Value::Array(row_of(group, kind, &*object, style.now));
    out.extend_from_slice(b"{\"cells\":");
    out.extend_from_slice(cells.to_string().as_bytes());
    let said = conditions(&*object);
    if !said.is_empty() {
        out.extend_from_slice(b",\"conditions\":");
        out.extend_from_slice(Value::Array(said).to_string().as_bytes());
    }
    out.extend_from_slice(b",\"object\":");
    match style.include.as_str() {
        "None" => out.extend_from_slice(b"null"),
        "Object" => out.extend_from_slice(&item.bytes),
        _ => out.extend_from_slice(&metadata_of(&item.bytes, style.beta)?),
    }
    out.push(b'}');
    Ok(())
}
