//! Field paths and field errors, as validation reports them.
//!
//! The texts are those of `k8s.io/apimachinery/pkg/util/validation/field`; clients and tests match them.

use crate::meta::StatusCause;
use std::fmt;

/// A path such as `spec.containers[0].name` or `metadata.labels[app]`. The default is no path at all, which
/// the original writes as `<nil>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Option<String>);

impl Path {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Some(name.to_owned()))
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        match self.0.as_deref() {
            None | Some("") => Self::new(name),
            Some(parent) => Self(Some(format!("{parent}.{name}"))),
        }
    }

    #[must_use]
    pub fn index(&self, i: usize) -> Self {
        Self(Some(format!("{}[{i}]", self.0.as_deref().unwrap_or(""))))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(Some(format!("{}[{key}]", self.0.as_deref().unwrap_or(""))))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("<nil>"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TooFew,
    TooShort,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of a status cause.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::TooShort => "FieldValueTooShort",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::TooShort => "Too short",
            Self::Internal => "Internal error",
        }
    }
}

/// One fault of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorType,
    pub path: Path,
    /// The offending value as JSON (strings quoted, `null` for none).
    pub value: String,
    pub detail: String,
}

/// The faults of an object, in the order found.
pub type Errors = Vec<Error>;

/// Go's JSON: `<`, `>` and `&` are escaped in everything but a plain string, which it quotes otherwise.
fn show<T: serde::Serialize + ?Sized>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    if text.starts_with('"') || !text.contains(['<', '>', '&']) {
        return text;
    }
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

impl Error {
    #[must_use]
    pub fn required(path: &Path, detail: &str) -> Self {
        Self {
            kind: ErrorType::Required,
            path: path.clone(),
            value: String::new(),
            detail: detail.to_owned(),
        }
    }

    #[must_use]
    pub fn invalid<T: serde::Serialize + ?Sized>(path: &Path, value: &T, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Invalid, path: path.clone(), value: show(value), detail: detail.into() }
    }

    /// A fault of a thing as a whole, whose value is not told.
    #[must_use]
    pub fn untold(path: &Path, detail: impl Into<String>) -> Self {
        let (kind, value) = (ErrorType::Invalid, String::new());
        Self { kind, path: path.clone(), value, detail: detail.into() }
    }

    #[must_use]
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Forbidden, path: path.clone(), value: String::new(), detail: detail.into() }
    }

    #[must_use]
    pub fn duplicate<T: serde::Serialize + ?Sized>(path: &Path, value: &T) -> Self {
        Self { kind: ErrorType::Duplicate, path: path.clone(), value: show(value), detail: String::new() }
    }

    #[must_use]
    pub fn not_found<T: serde::Serialize + ?Sized>(path: &Path, value: &T) -> Self {
        Self { kind: ErrorType::NotFound, path: path.clone(), value: show(value), detail: String::new() }
    }

    /// `Unsupported value: "x": supported values: "A", "B"`, in the order given (mostly by name).
    #[must_use]
    pub fn not_supported<T: serde::Serialize + ?Sized>(path: &Path, value: &T, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let detail =
            if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self { kind: ErrorType::NotSupported, path: path.clone(), value: show(value), detail }
    }

    #[must_use]
    pub fn too_long(path: &Path, max_bytes: usize) -> Self {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {max_bytes} {unit}");
        Self { kind: ErrorType::TooLong, path: path.clone(), value: String::new(), detail }
    }

    #[must_use]
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {items}");
        Self { kind: ErrorType::TooMany, path: path.clone(), value: actual.to_string(), detail }
    }

    #[must_use]
    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Internal, path: path.clone(), value: String::new(), detail: detail.into() }
    }

    /// The same fault with another text for its value.
    #[must_use]
    pub fn showing(mut self, value: impl Into<String>) -> Self {
        self.value = value.into();
        self
    }

    /// The same fault with another detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The message without the path, as a status cause carries it.
    #[must_use]
    pub fn body(&self) -> String {
        let mut out = self.kind.text().to_owned();
        if !self.value.is_empty() {
            out.push_str(": ");
            out.push_str(&self.value);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }

    #[must_use]
    pub fn cause(&self) -> StatusCause {
        StatusCause {
            field: Some(self.path.to_string()),
            message: Some(self.body()),
            reason: Some(self.kind.reason().to_owned()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_the_original_writes_them() {
        let spec = Path::new("spec");
        assert_eq!(
            Error::invalid(&spec.child("replicas"), &-1, "must be greater than or equal to 0").to_string(),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(
            Error::required(&spec.child("containers"), "").to_string(),
            "spec.containers: Required value"
        );
        assert_eq!(
            Error::not_supported(&spec.child("restartPolicy"), "x", &["Always", "OnFailure"]).to_string(),
            "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnFailure\""
        );
    }
}
