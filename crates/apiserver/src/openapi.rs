//! The OpenAPI documents, as `krate-api` makes them from the catalogue and the schema table.

use crate::http::respond::Body;
use crate::query::Query;
use crate::server::Inner;
use http::{HeaderMap, Response};

/// `/openapi/v2`, `/openapi/v3` and `/openapi/v3/<group version>`.
pub(crate) fn answer(
    _server: &Inner,
    _parts: &[&str],
    _headers: &HeaderMap,
    _query: &Query,
) -> Option<Response<Body>> {
    None
}
