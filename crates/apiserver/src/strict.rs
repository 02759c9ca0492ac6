//! Bodies into objects, as `fieldValidation` says: unknown and duplicate fields are refused (`Strict`),
//! warned of (`Warn`, the default) or passed over (`Ignore`); values of the wrong type are always refused.

use crate::call::Call;
use crate::codec::{check_head, decode};
use krate_api::field::{Error, Path};
use krate_api::schema::{self, Type};
use krate_api::strict::{self, CheckError, Checked};
use krate_api::{Kind, Object, Status};
use std::borrow::Cow;

/// What is done with findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ignore,
    Warn,
    Strict,
}

fn level(call: &Call) -> Result<Level, Status> {
    match call.options.field_validation.as_str() {
        "Ignore" => Ok(Level::Ignore),
        "" | "Warn" => Ok(Level::Warn),
        "Strict" => Ok(Level::Strict),
        other => {
            let path = Path::new("fieldValidation");
            let fault = Error::not_supported(&path, other, &["", "Ignore", "Strict", "Warn"]);
            Err(Status::invalid("meta.k8s.io", "CreateOptions", "", &[fault]))
        }
    }
}

/// A group, version and kind with the schema of it.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

impl Wanted<'_> {
    fn schema(&self) -> Option<&'static Type> {
        schema::of_kind(self.group, self.version, self.kind)
    }

    /// The bytes to decode, after findings have been dealt with.
    fn check<'b>(&self, call: &Call, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>, Status> {
        let level = level(call)?;
        let Some(ty) = self.schema() else { return Ok(Cow::Borrowed(bytes)) };
        let refuse = |error: &str| {
            check_head(self.group, self.version, self.kind, bytes)
                .err()
                .unwrap_or_else(|| strict::cannot_be_handled(self.kind, self.version, self.kind, error))
        };
        let checked = match strict::check(ty, bytes) {
            Ok(checked) => checked,
            Err(CheckError::Syntax(e)) => {
                let error = format!("couldn't get version/kind; json parse error: {e}");
                return Err(strict::unrecognized(self.kind, &error, bytes));
            }
            Err(CheckError::Type(error)) => return Err(refuse(&error)),
        };
        if let Some(error) = checked.strict_error().filter(|_| level == Level::Strict) {
            return Err(refuse(&error));
        }
        if !checked.findings.is_empty() {
            check_head(self.group, self.version, self.kind, bytes)?;
        }
        if level == Level::Warn {
            warn(call, &checked);
        }
        Ok(checked.rewritten.map_or(Cow::Borrowed(bytes), Cow::Owned))
    }
}

fn warn(call: &Call, checked: &Checked) {
    for finding in &checked.findings {
        call.warn(finding.clone());
    }
}

/// A body of the resource's own kind.
pub(crate) fn object(call: &Call, bytes: &[u8]) -> Result<Box<dyn Object>, Status> {
    let row = call.resource();
    let wanted = Wanted { group: &row.group, version: &row.version, kind: &row.kind };
    let bytes = wanted.check(call, bytes)?;
    decode(row, &bytes)
        .map_err(|status| check_head(&row.group, &row.version, &row.kind, &bytes).err().unwrap_or(status))
}

/// A body of another kind (`Scale`, `Eviction`), of a subresource.
pub(crate) fn of_kind<K: Kind>(call: &Call, bytes: &[u8]) -> Result<K, Status> {
    let wanted = Wanted { group: K::GROUP, version: K::VERSION, kind: K::KIND };
    let bytes = wanted.check(call, bytes)?;
    K::decode(&bytes).map_err(|e| {
        let refused = strict::cannot_be_handled(K::KIND, K::VERSION, K::KIND, &e.to_string());
        check_head(K::GROUP, K::VERSION, K::KIND, &bytes).err().unwrap_or(refused)
    })
}

/// The result of a patch. `shown` is how errors show the patch.
pub(crate) fn patched(
    call: &Call,
    bytes: &[u8],
    shown: &dyn Fn() -> String,
) -> Result<Box<dyn Object>, Status> {
    let row = call.resource();
    let level = level(call)?;
    let refuse =
        |error: String| Status::invalid("", "", "", &[Error::invalid(&Path::new("patch"), &shown(), error)]);
    let Some(ty) = schema::of_kind(&row.group, &row.version, &row.kind) else { return decode(row, bytes) };
    let checked = strict::check(ty, bytes).map_err(|e| refuse(e.to_string()))?;
    match checked.strict_error() {
        Some(error) if level == Level::Strict => return Err(refuse(error)),
        Some(_) if level == Level::Warn => warn(call, &checked),
        _ => {}
    }
    (row.codec.decode)(checked.bytes(bytes)).map_err(|e| refuse(e.to_string()))
}
