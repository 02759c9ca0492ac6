//! Reading: one object, and pages of a collection at a revision.
//!
//! Lists are made of the stored bytes; nothing is parsed. A continue token names the revision and the last
//! path, so that every page shows the same instant.

use crate::call::{Call, Listed};
use crate::error::{from_store, too_large};
use crate::rest::select::Selection;
use crate::server::Inner;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use base64::{DecodeError, Engine as _, alphabet};
use krate_api::field::{self, Path};
use krate_api::status::Reason;
use krate_api::{Shared, Status};
use krate_store::{Entry, Error, Key, ListQuery};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many entries one read of the store takes when a selector thins them out.
const SELECT_PAGE: usize = 2_000;

/// What a resourceVersion asks of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Newest,
    NotOlderThan(u64),
    Exact(u64),
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Continue {
    v: String,
    rv: i64,
    start: String,
}

/// The entry of a name, now.
pub(crate) async fn entry(server: &Inner, call: &Call) -> Result<Option<Arc<Entry>>, Status> {
    let key = Key::new(call.resource().space.as_str(), call.path(&call.name));
    Ok(server.store.get(&key, None).await.map_err(from_store)?.0)
}

/// GET of one object.
pub(crate) async fn get(server: &Inner, call: &Call) -> Result<Shared, Status> {
    let at = read_revision(&call.options.resource_version).map_err(|fault| {
        // The original answers so, without a reason.
        let mut status = Status::failure(Reason::InternalError, fault.to_string());
        status.0.reason = None;
        status
    })?;
    if let At::NotOlderThan(wanted) = at {
        let current = server.store.revision();
        if wanted > current {
            return Err(too_large(wanted, current));
        }
    }
    let entry = entry(server, call).await?.ok_or_else(|| call.not_found())?;
    Ok(call.rows.shared(&entry))
}

fn read_revision(text: &str) -> Result<At, field::Error> {
    match text {
        "" | "0" => Ok(At::Newest),
        _ => revision(text).map(At::NotOlderThan),
    }
}

/// The number that a revision is.
pub(crate) fn revision(text: &str) -> Result<u64, field::Error> {
    text.parse().map_err(|_| {
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        let what = if is_number { "value out of range" } else { "invalid syntax" };
        let detail = format!("strconv.ParseUint: parsing {text:?}: {what}");
        field::Error::invalid(&Path::new("resourceVersion"), text, detail)
    })
}

/// GET of a collection.
pub(crate) async fn list(server: &Inner, call: &Call) -> Result<Listed, Status> {
    let selection = Selection::of(call)?;
    let options = &call.options;
    check_options(call)?;
    let (at, mut after) = start(server, call).await?;
    let limit = options.limit;
    let thinned = selection.is_thinning();
    let mut items: Vec<Shared> = Vec::new();
    let (mut revision, mut pinned) = (0, at);
    loop {
        let want = match (limit, thinned) {
            (0, _) => 0,
            (n, false) => n - items.len(),
            (n, true) => n.max(SELECT_PAGE),
        };
        let query = ListQuery {
            space: Arc::from(call.resource().space.as_str()),
            prefix: selection.prefix().to_owned(),
            after: after.clone(),
            limit: want,
            at: pinned,
        };
        let page = server.store.list(query).await.map_err(|e| list_error(e, call))?;
        revision = if revision == 0 { page.revision } else { revision };
        pinned = Some(revision);
        let count = page.entries.len();
        for (i, entry) in page.entries.iter().enumerate() {
            let object = call.rows.shared(entry);
            if !selection.matches(&object.view) {
                continue;
            }
            items.push(object);
            let rest = count - i - 1 + page.remaining;
            if limit > 0 && items.len() == limit && rest > 0 {
                let continue_token = token(revision, &entry.key.path);
                let remaining = (!thinned).then(|| i64::try_from(rest).unwrap_or(i64::MAX));
                return Ok(Listed { items, revision, continue_token, remaining });
            }
        }
        match page.entries.last() {
            Some(last) if page.remaining > 0 => after = Some(last.key.path.to_string()),
            _ => return Ok(Listed { items, revision, continue_token: String::new(), remaining: None }),
        }
    }
}

fn token(revision: u64, path: &str) -> String {
    let body = Continue {
        v: "meta.k8s.io/v1".to_owned(),
        rv: i64::try_from(revision).unwrap_or(i64::MAX),
        start: path.to_owned(),
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&body).unwrap_or_default())
}

/// As the original reads tokens: the bits after the last byte do not matter.
const TOKENS: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

fn base64_fault(error: &DecodeError) -> String {
    let at = match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol { offset: at, .. } => *at,
        DecodeError::InvalidLength(length) => *length,
        DecodeError::InvalidPadding => 0,
    };
    format!("illegal base64 data at input byte {at}")
}

/// The revision to read at (`None` is now) and the path to begin after.
async fn start(server: &Inner, call: &Call) -> Result<(Option<u64>, Option<String>), Status> {
    let options = &call.options;
    if !options.continue_token.is_empty() {
        let bad = |why: String| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let raw = TOKENS.decode(&options.continue_token).map_err(|e| bad(base64_fault(&e)))?;
        let token: Continue = serde_json::from_slice(&raw).map_err(|e| bad(e.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(bad(format!("server does not recognize this encoded version {:?}", token.v)));
        }
        if token.rv == 0 {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned()));
        }
        if token.start.is_empty() {
            return Err(bad("encoded start key empty (version meta.k8s.io/v1)".to_owned()));
        }
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        // A token without a consistent revision goes on at the present.
        return Ok((u64::try_from(token.rv).ok().filter(|rv| *rv > 0), Some(token.start)));
    }
    let current = server.store.revision();
    match asked(call)? {
        At::Newest => Ok((None, None)),
        At::NotOlderThan(wanted) if wanted > current => Err(too_large(wanted, current)),
        At::NotOlderThan(_) => Ok((None, None)),
        At::Exact(wanted) if wanted > current => Err(too_large(wanted, current)),
        At::Exact(wanted) => Ok((Some(wanted), None)),
    }
}

/// The table of the API concepts page: resourceVersion, resourceVersionMatch and limit together.
fn asked(call: &Call) -> Result<At, Status> {
    let options = &call.options;
    let plain = read_revision(&options.resource_version)
        .map_err(|fault| Status::bad_request(format!("invalid resource version: {fault}")))?;
    Ok(match (plain, options.resource_version_match.as_str()) {
        (At::NotOlderThan(n), "Exact") => At::Exact(n),
        (At::NotOlderThan(n), "") if options.limit > 0 => At::Exact(n),
        (at, _) => at,
    })
}

fn check_options(call: &Call) -> Result<(), Status> {
    let o = &call.options;
    let path = Path::new("resourceVersionMatch");
    let mut faults = Vec::new();
    if !o.resource_version_match.is_empty() {
        if o.resource_version.is_empty() {
            faults.push(field::Error::forbidden(
                &path,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !o.continue_token.is_empty() {
            faults.push(field::Error::forbidden(
                &path,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !matches!(o.resource_version_match.as_str(), "Exact" | "NotOlderThan") {
            faults.push(field::Error::not_supported(
                &path,
                &o.resource_version_match,
                &["Exact", "NotOlderThan", ""],
            ));
        }
        if o.resource_version_match == "Exact" && o.resource_version == "0" {
            faults.push(field::Error::forbidden(
                &path,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if o.send_initial_events.is_some() {
        let path = Path::new("sendInitialEvents");
        faults.push(field::Error::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    if !faults.is_empty() {
        return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &faults));
    }
    Ok(())
}

/// A page whose revision is gone says how to go on without it.
fn list_error(error: Error, call: &Call) -> Status {
    let continuing = !call.options.continue_token.is_empty();
    if !(continuing && matches!(error, Error::Compacted { .. })) {
        return from_store(error);
    }
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new \
         list without the continue parameter, or use the continue token in this response to retrieve the \
         remainder of the results. Continuing with the provided token results in an inconsistent list - \
         objects that were created, modified, or deleted between the time the first chunk was returned and \
         now may show up in the list.",
    );
    let old = URL_SAFE_NO_PAD.decode(&call.options.continue_token).unwrap_or_default();
    if let Ok(mut next) = serde_json::from_slice::<Continue>(&old) {
        next.rv = -1;
        let token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&next).unwrap_or_default());
        status.0.metadata.continue_ = Some(token);
    }
    status
}
