//! `metav1.Status` as the error of every call to the API, with the texts of the original.
//!
//! The one place where an error becomes a code, a reason and a message. What can be retried:
//! [`Reason::Conflict`] after reading again, [`Reason::TooManyRequests`], [`Reason::ServerTimeout`] and
//! [`Reason::Timeout`] later; everything else is the caller's to change.

use crate::field;
use crate::meta;
use serde::Serialize;

/// A machine-readable cause (`status.reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::ServerTimeout | Self::StoreReadError | Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::StoreReadError => "StorageReadError",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        use Reason::*;
        [
            Unauthorized,
            Forbidden,
            NotFound,
            AlreadyExists,
            Conflict,
            Gone,
            Invalid,
            ServerTimeout,
            StoreReadError,
            Timeout,
            TooManyRequests,
            BadRequest,
            MethodNotAllowed,
            NotAcceptable,
            RequestEntityTooLarge,
            UnsupportedMediaType,
            InternalError,
            Expired,
            ServiceUnavailable,
        ]
        .into_iter()
        .find(|r| r.as_str() == text)
    }
}

/// A failure (or, rarely, a plain success such as that of a delete) in the API's own form.
#[derive(Clone, Debug, PartialEq)]
pub struct Status(pub Box<meta::Status>);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Status {}

impl Status {
    /// A failure with a reason and a message, and the code that belongs to the reason.
    #[must_use]
    pub fn failure(reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(meta::Status {
            code: Some(i32::from(reason.code())),
            message: Some(message.into()),
            metadata: Default::default(),
            reason: Some(reason.as_str().to_owned()),
            status: Some("Failure".to_owned()),
            details: None,
        }))
    }

    /// `pods "web" not found`. `resource` is the plural, with the group after a dot if there is one.
    #[must_use]
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        Self::failure(Reason::NotFound, format!("{} \"{name}\" not found", qualified(group, plural)))
            .about(group, plural, name)
    }

    #[must_use]
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        Self::failure(
            Reason::AlreadyExists,
            format!("{} \"{name}\" already exists", qualified(group, plural)),
        )
        .about(group, plural, name)
    }

    /// `Operation cannot be fulfilled on pods "web": <detail>`.
    #[must_use]
    pub fn conflict(group: &str, plural: &str, name: &str, detail: &str) -> Self {
        let what = qualified(group, plural);
        Self::failure(
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {what} \"{name}\": {detail}"),
        )
        .about(group, plural, name)
    }

    /// The conflict of a stale `resourceVersion`.
    #[must_use]
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(
            group,
            plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// `pods "web" is forbidden: <detail>`, or `pods is forbidden: ..` without a name.
    #[must_use]
    pub fn forbidden(group: &str, plural: &str, name: &str, detail: &str) -> Self {
        let what = qualified(group, plural);
        let message = match (what.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {detail}"),
            (false, true) => format!("{what} is forbidden: {detail}"),
            (false, false) => format!("{what} \"{name}\" is forbidden: {detail}"),
        };
        Self::failure(Reason::Forbidden, message).about(group, plural, name)
    }

    /// `Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be ..`, with one cause per
    /// field error. `details.kind` is the kind.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[field::Error]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let detail = match texts.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => {
                let mut seen: Vec<&str> = Vec::new();
                for text in many {
                    if !seen.contains(&text.as_str()) {
                        seen.push(text);
                    }
                }
                if seen.len() == 1 { format!(": {}", seen[0]) } else { format!(": [{}]", seen.join(", ")) }
            }
        };
        let mut status = Self::failure(
            Reason::Invalid,
            format!("{} \"{name}\" is invalid{detail}", qualified(group, kind)),
        )
        .about(group, kind, name);
        if let Some(details) = &mut status.0.details {
            details.causes = Some(errors.iter().map(field::Error::cause).collect());
        }
        status
    }

    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(Reason::BadRequest, message)
    }

    #[must_use]
    pub fn unauthorized() -> Self {
        Self::failure(Reason::Unauthorized, "Unauthorized")
    }

    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(Reason::Expired, message)
    }

    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::failure(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .about("", "", "")
    }

    /// `Internal error occurred: <detail>`.
    #[must_use]
    pub fn internal(detail: impl std::fmt::Display) -> Self {
        Self::failure(Reason::InternalError, format!("Internal error occurred: {detail}"))
    }

    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let mut status = Self::failure(Reason::TooManyRequests, message);
        status.0.details = Some(meta::StatusDetails {
            retry_after_seconds: Some(retry_after_seconds),
            ..Default::default()
        });
        status
    }

    /// Says in `details` which object this is about.
    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let details = self.0.details.get_or_insert_default();
        details.group = some(group);
        details.kind = some(kind);
        details.name = some(name);
        self
    }

    #[must_use]
    pub fn code(&self) -> u16 {
        self.0.code.and_then(|c| u16::try_from(c).ok()).unwrap_or(500)
    }

    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason.as_deref().and_then(Reason::parse)
    }

    #[must_use]
    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or("")
    }

    #[must_use]
    pub fn is(&self, reason: Reason) -> bool {
        self.reason() == Some(reason)
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is(Reason::NotFound)
    }

    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.is(Reason::Conflict)
    }

    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.is(Reason::AlreadyExists)
    }

    /// The JSON that goes over the wire, its fields in the original's order: people read it with curl.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Wire::of(&self.0)).unwrap_or_default()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'a meta::ListMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<WireDetails<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireDetails<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causes: Option<Vec<WireCause<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<i32>,
}

#[derive(Serialize)]
struct WireCause<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl<'a> Wire<'a> {
    fn of(status: &'a meta::Status) -> Self {
        let cause = |c: &'a meta::StatusCause| WireCause {
            reason: c.reason.as_deref(),
            message: c.message.as_deref(),
            field: c.field.as_deref(),
        };
        let details = status.details.as_ref().map(|d| WireDetails {
            name: d.name.as_deref(),
            group: d.group.as_deref(),
            kind: d.kind.as_deref(),
            uid: d.uid.as_deref(),
            causes: d.causes.as_ref().map(|all| all.iter().map(cause).collect()),
            retry_after_seconds: d.retry_after_seconds,
        });
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: &status.metadata,
            status: status.status.as_deref(),
            message: status.message.as_deref(),
            reason: status.reason.as_deref(),
            details,
            code: status.code,
        }
    }
}

/// `pods`, or `deployments.apps`.
#[must_use]
pub fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}
