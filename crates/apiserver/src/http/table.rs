//! Tables: the columns of `kubectl get`, made by the server.

use crate::codec::Rows;
use bytes::Bytes;
use krate_api::{Shared, Status};

/// What the envelope of a table says beside its rows.
#[derive(Default)]
pub(crate) struct Page<'a> {
    pub revision: &'a str,
    pub continue_token: &'a str,
    pub remaining: Option<i64>,
}

/// Whether tables can be made.
pub(crate) const AVAILABLE: bool = false;

/// A table of objects. `include` is what each row carries of its object: `None`, `Metadata` (the default)
/// or `Object`.
pub(crate) fn table(
    _rows: &Rows,
    _items: &[Shared],
    _page: &Page<'_>,
    _include: &str,
    _beta: bool,
    _headers: bool,
) -> Result<Bytes, Status> {
    Err(Status::internal("tables are not available"))
}
