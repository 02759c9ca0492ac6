//! The options of writes and of logs, as the parameters say them: faults in the words of the original, under the
//! name that the options have.

use crate::query::Query;
use krate_api::behaviour::meta::field_manager;
use krate_api::field::{Error, Errors, Path};
use krate_api::meta::DeleteOptions;
use krate_api::schema;
use krate_api::status::{Reason, Status};
use krate_api::strict::{self, CheckError, PatchShape};
use krate_client::{PatchKind, Verb};

/// The kind of a deletion's body.
pub(crate) const DELETE_OPTIONS: &str = "DeleteOptions";
/// Where the original keeps the kinds of such bodies; its errors say so.
const SCHEME: &str = "pkg/apis/meta/internalversion/scheme/register.go:31";
/// What dry runs can be asked for.
const DRY_RUN: &str = "All";

/// Checks the options of a write; those of deletions are checked where they are obeyed.
pub(crate) fn check(verb: Verb, query: &Query) -> Result<(), Status> {
    let kind = match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch(_) => "PatchOptions",
        Verb::Get | Verb::List | Verb::Delete | Verb::DeleteCollection => return Ok(()),
    };
    let manager = query.get("fieldManager");
    let mut faults = Errors::new();
    match verb {
        Verb::Patch(PatchKind::Apply) if manager.is_empty() => {
            faults.push(Error::required(&Path::new("fieldManager"), "is required for apply patch"));
        }
        Verb::Patch(kind) if kind != PatchKind::Apply && query.has("force") => {
            let text = "may not be specified for non-apply patch";
            faults.push(Error::forbidden(&Path::new("force"), text));
        }
        _ => {}
    }
    faults.extend(field_manager(manager, &Path::new("fieldManager")));
    let dry: Vec<&str> = query.all("dryRun").filter(|v| !v.is_empty()).collect();
    faults.extend(dry_run(&dry));
    let levels = ["", "Ignore", "Strict", "Warn"];
    let level = query.get("fieldValidation");
    if !levels.contains(&level) {
        faults.push(Error::not_supported(&Path::new("fieldValidation"), level, &levels));
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", &faults)) }
}

/// The fault of dry runs that are not known.
pub(crate) fn dry_run(asked: &[&str]) -> Option<Error> {
    let unknown = asked.iter().any(|stage| *stage != DRY_RUN);
    unknown.then(|| Error::not_supported(&Path::new("dryRun"), asked, &[DRY_RUN]))
}

/// The faults of what is asked of a log.
pub(crate) fn log(query: &Query, pod: &str) -> Result<(), Status> {
    let least = |name: &str, least: i64, text: &str| -> Result<Option<Error>, Status> {
        let given: Option<i64> = number(query, name)?;
        Ok(given.filter(|n| *n < least).map(|n| Error::invalid(&Path::new(name), &n, text)))
    };
    let mut faults = Errors::new();
    faults.extend(least("tailLines", 0, "must be greater than or equal to 0")?);
    faults.extend(least("limitBytes", 1, "must be greater than 0")?);
    let seconds = least("sinceSeconds", 1, "must be greater than 0")?;
    if !query.get("sinceSeconds").is_empty() && !query.get("sinceTime").is_empty() {
        let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        faults.push(Error::forbidden(&Path::new(""), text));
    } else {
        faults.extend(seconds);
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", pod, &faults)) }
}

/// A number among the parameters.
pub(crate) fn number<T: std::str::FromStr>(query: &Query, name: &str) -> Result<Option<T>, Status> {
    match query.get(name) {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let what = if is_number { "value out of range" } else { "invalid syntax" };
            Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {what}"))
        }),
    }
}

/// The body of a deletion. The original answers 500, without a reason, to what it cannot read.
pub(crate) fn delete_body(json: &[u8]) -> Result<DeleteOptions, Status> {
    #[derive(serde::Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Head {
        api_version: String,
        kind: String,
    }
    let refuse = |message: String| {
        let mut status = Status::failure(Reason::InternalError, message);
        status.0.reason = None;
        status
    };
    if let Err(error) = strict::check_patch(PatchShape::Object, json) {
        let error = match error {
            CheckError::Syntax(error) => error.to_string(),
            CheckError::Type(_) => crate::strict::no_object(json),
        };
        return Err(refuse(format!("couldn't get version/kind; json parse error: {error}")));
    }
    let head: Head = serde_json::from_slice(json).unwrap_or_default();
    if !matches!(head.kind.as_str(), "" | DELETE_OPTIONS) {
        let version = if head.api_version.is_empty() { "v1" } else { &head.api_version };
        let kind = &head.kind;
        return Err(refuse(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme {SCHEME:?}"
        )));
    }
    if let Some(Err(error)) = schema::of_kind("", "v1", DELETE_OPTIONS).map(|ty| strict::check(ty, json)) {
        return Err(refuse(error.to_string()));
    }
    serde_json::from_slice(json).map_err(|e| refuse(e.to_string()))
}

/// The time that a request gives itself must be a duration. Nothing of ours takes as long as anybody asks for.
pub(crate) fn timeout(query: &Query) -> Result<(), Status> {
    match query.get("timeout") {
        "" => Ok(()),
        text => krate_api::cron::duration(text).map(drop).map_err(|error| {
            Status::bad_request(format!("invalid timeout specified in the request URL - {error}"))
        }),
    }
}
