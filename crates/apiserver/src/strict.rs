//! Bodies into objects, as `fieldValidation` says: unknown and duplicate fields are refused (`Strict`),
//! warned of (`Warn`, the default) or passed over (`Ignore`); values of the wrong type are always refused.

use crate::call::Call;
use crate::codec::{HeadFault, check_head, decode, head_fault};
use crate::yaml;
use krate_api::field::{Error, Path};
use krate_api::schema::{self, Type};
use krate_api::strict::{self, CheckError, PatchShape};
use krate_api::{Kind, Object, Status};
use krate_client::PatchKind;
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
        let refuse_all = |error: &str| {
            let error = format!("couldn't get version/kind; json parse error: {error}");
            strict::unrecognized(self.kind, &error, bytes)
        };
        let checked = match strict::check(ty, bytes) {
            Ok(checked) => checked,
            Err(CheckError::Syntax(e)) => return Err(refuse_all(&e.to_string())),
            Err(CheckError::Type(_)) if !matches!(first(bytes), Some(b'{' | b'n')) => {
                return Err(refuse_all(&no_object(bytes)));
            }
            Err(CheckError::Type(error)) => return Err(refuse(&error)),
        };
        let found: Vec<String> = call.found.iter().chain(&checked.findings).cloned().collect();
        if let Some(error) = strict::strict_error(&found).filter(|_| level == Level::Strict) {
            return Err(refuse(&error));
        }
        if !found.is_empty() {
            check_head(self.group, self.version, self.kind, bytes)?;
        }
        if level == Level::Warn {
            warn(call, &found);
        }
        Ok(checked.rewritten.map_or(Cow::Borrowed(bytes), Cow::Owned))
    }

    /// The bytes of a patch's result to decode, after findings in it and in the patch have been dealt with.
    fn settle<'b>(
        &self,
        call: &Call,
        bytes: &'b [u8],
        mut found: Vec<String>,
        refuse: &dyn Fn(String) -> Status,
    ) -> Result<Cow<'b, [u8]>, Status> {
        let Some(ty) = self.schema() else { return Ok(Cow::Borrowed(bytes)) };
        let checked = strict::check(ty, bytes).map_err(|e| refuse(e.to_string()))?;
        found.extend(checked.findings);
        match (strict::strict_error(&found), level(call)?) {
            (Some(error), Level::Strict) => return Err(refuse(error)),
            (Some(_), Level::Warn) => warn(call, &found),
            _ => {}
        }
        Ok(checked.rewritten.map_or(Cow::Borrowed(bytes), Cow::Owned))
    }
}

/// What the original reads of a body to find out what it is; its errors print the type.
const HEAD: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// The error of a body that is JSON and no object.
pub(crate) fn no_object(bytes: &[u8]) -> String {
    format!("json: cannot unmarshal {} into Go value of type {HEAD}", strict::json_type(bytes))
}

fn first(bytes: &[u8]) -> Option<u8> {
    bytes.iter().copied().find(|b| !b.is_ascii_whitespace())
}

/// A warning for each finding, and for each line of what YAML's reader found.
fn warn(call: &Call, found: &[String]) {
    for finding in found {
        match finding.strip_prefix(yaml::UNMARSHAL_ERRORS) {
            Some(lines) => lines.lines().for_each(|line| call.warn(line.trim())),
            None => call.warn(finding.clone()),
        }
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

/// What is wrong with a patch before it is applied.
pub(crate) fn patch(call: &Call, kind: PatchKind, bytes: &[u8]) -> Result<Vec<String>, Status> {
    if level(call)? == Level::Ignore {
        return Ok(Vec::new());
    }
    let shape = if kind == PatchKind::Json { PatchShape::Operations } else { PatchShape::Object };
    strict::check_patch(shape, bytes).map_err(|e| {
        let told = kind != PatchKind::StrategicMerge;
        Status::bad_request(if told { format!("error decoding patch: {e}") } else { e.to_string() })
    })
}

/// The `422` of a patch, which errors show as `shown`.
fn invalid_patch(shown: &str, error: String) -> Status {
    Status::invalid("", "", "", &[Error::invalid(&Path::new("patch"), &shown, error)])
}

/// The result of a patch in which `found` was found. `shown` is how errors show the patch.
pub(crate) fn patched(
    call: &Call,
    bytes: &[u8],
    found: Vec<String>,
    shown: &dyn Fn() -> String,
) -> Result<Box<dyn Object>, Status> {
    let row = call.resource();
    let refuse = |error: String| invalid_patch(&shown(), error);
    if let Some(HeadFault::Kind(_, _, error)) = head_fault(&row.group, &row.version, &row.kind, bytes) {
        return Err(refuse(error));
    }
    let wanted = Wanted { group: &row.group, version: &row.version, kind: &row.kind };
    let bytes = wanted.settle(call, bytes, found, &refuse)?;
    (row.codec.decode)(&bytes).map_err(|e| refuse(e.to_string()))
}

/// The result of a patch of a subresource's own kind.
pub(crate) fn patched_kind<K: Kind>(call: &Call, bytes: &[u8], found: Vec<String>) -> Result<K, Status> {
    let refuse = |error: String| invalid_patch(&String::from_utf8_lossy(bytes), error);
    let wanted = Wanted { group: K::GROUP, version: K::VERSION, kind: K::KIND };
    let bytes = wanted.settle(call, bytes, found, &refuse)?;
    K::decode(&bytes).map_err(|e| refuse(e.to_string()))
}
