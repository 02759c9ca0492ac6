//! Checks a JSON body against its type before it is decoded: unknown and duplicate fields, values of the
//! wrong type, and the few spellings that Go reads and `k8s-openapi` does not.
//!
//! One pass over the bytes, no tree. Names are compared exactly, as the original does. Messages are those of
//! `sigs.k8s.io/json` and of the API server's decoder; [`cannot_be_handled`] makes the answer of them.

mod patch;
mod scan;
mod values;

use crate::schema::{Field, Shape, Type};
use crate::status::Status;
pub use patch::{PatchShape, check_patch};
use scan::Scanner;
pub use scan::SyntaxError;
use std::borrow::Cow;
use std::ops::Range;

/// Findings beyond this many are not told (the original's limit).
const MAX_FINDINGS: usize = 100;

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It is not JSON.
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    /// A value has the wrong type; the message is that of Go's decoder.
    #[error("{0}")]
    Type(String),
}

/// What a body that can be decoded is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// `unknown field "spec.foo"`, `duplicate field "metadata.name"`, in the order found.
    pub findings: Vec<String>,
    /// The body with what only Go reads spelt out (nulls in lists, quantities as numbers or not canonical);
    /// none if it can be decoded as it is.
    pub rewritten: Option<Vec<u8>>,
}

impl Checked {
    /// The message of `fieldValidation=Strict`.
    #[must_use]
    pub fn strict_error(&self) -> Option<String> {
        strict_error(&self.findings)
    }

    /// The bytes to decode.
    #[must_use]
    pub fn bytes<'a>(&'a self, original: &'a [u8]) -> &'a [u8] {
        self.rewritten.as_deref().unwrap_or(original)
    }
}

/// Go's word for the kind of JSON value that a body is.
#[must_use]
pub fn json_type(bytes: &[u8]) -> &'static str {
    values::json_type(bytes.iter().copied().find(|b| !b.is_ascii_whitespace()).unwrap_or(b'n'))
}

/// The message of `fieldValidation=Strict` for findings, if there are any.
#[must_use]
pub fn strict_error(findings: &[String]) -> Option<String> {
    (!findings.is_empty()).then(|| format!("strict decoding error: {}", findings.join(", ")))
}

/// Checks `bytes` against `ty`.
pub fn check(ty: &'static Type, bytes: &[u8]) -> Result<Checked, CheckError> {
    let mut checker = Checker::new(bytes);
    checker.object(ty)?;
    checker.scanner.end()?;
    if let Some(fault) = checker.fault {
        return Err(CheckError::Type(fault));
    }
    let rewritten = (!checker.edits.is_empty()).then(|| apply(bytes, &checker.edits));
    Ok(Checked { findings: checker.findings, rewritten })
}

/// `Deployment in version "v1" cannot be handled as a Deployment: <error>`: the answer to a body of `kind` and
/// `version` (without the group) that was meant to be a `wanted`.
#[must_use]
pub fn cannot_be_handled(kind: &str, version: &str, wanted: &str, error: &str) -> Status {
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {wanted}: {error}"))
}

/// The answer to a body that says no kind: `the object provided is unrecognized (must be of type ..)`.
#[must_use]
pub fn unrecognized(wanted: &str, error: &str, body: &[u8]) -> Status {
    let what = format!("the object provided is unrecognized (must be of type {wanted})");
    Status::bad_request(format!("{what}: {error} ({})", summary(body)))
}

/// The first bytes of a body, as text if it is an object and in hexadecimal otherwise.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let head = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{more}", head.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

fn apply(bytes: &[u8], edits: &[(Range<usize>, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let mut at = 0;
    for (range, text) in edits {
        out.extend_from_slice(&bytes[at..range.start]);
        out.extend_from_slice(text.as_bytes());
        at = range.end;
    }
    out.extend_from_slice(&bytes[at..]);
    out
}

/// A step of the way to a value.
enum Step<'a> {
    Field(&'static str),
    /// A key of a map, or of an object that does not know it.
    Key(Cow<'a, str>),
    Index(usize),
}

struct Checker<'a> {
    scanner: Scanner<'a>,
    path: Vec<Step<'a>>,
    /// The innermost type whose field is being read.
    owner: Option<&'static Type>,
    findings: Vec<String>,
    /// The first wrong type.
    fault: Option<String>,
    /// Replacements, in order.
    edits: Vec<(Range<usize>, String)>,
}

type Found = Result<(), SyntaxError>;

impl<'a> Checker<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let scanner = Scanner::new(bytes);
        Self { scanner, path: vec![], owner: None, findings: vec![], fault: None, edits: vec![] }
    }

    fn find(&mut self, what: &str) {
        let finding = format!("{what} field \"{}\"", self.full_path());
        if self.findings.len() < MAX_FINDINGS && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// `spec.containers[0].env`
    fn full_path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            let name: &str = match step {
                Step::Index(i) => {
                    path.push_str(&format!("[{i}]"));
                    continue;
                }
                Step::Field(name) => name,
                Step::Key(key) => key,
            };
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        }
        path
    }

    /// Go's message; its path has fields only.
    fn wrong(&mut self, value: &str, go_type: &str) {
        if self.fault.is_some() {
            return;
        }
        let fields: Vec<&str> = self
            .path
            .iter()
            .filter_map(|s| if let Step::Field(name) = s { Some(*name) } else { None })
            .collect();
        self.fault = Some(match self.owner {
            Some(owner) if !fields.is_empty() => format!(
                "json: cannot unmarshal {value} into Go struct field {}.{} of type {go_type}",
                owner.name,
                fields.join(".")
            ),
            _ => format!("json: cannot unmarshal {value} into Go value of type {go_type}"),
        });
    }

    /// An error that Go gives without its place.
    fn fail(&mut self, message: String) {
        self.fault.get_or_insert(message);
    }

    fn edit(&mut self, range: Range<usize>, text: impl Into<String>) {
        self.edits.push((range, text.into()));
    }

    fn object(&mut self, ty: &'static Type) -> Found {
        if self.scanner.peek()? != b'{' {
            return self.mismatch(&ty.go_name());
        }
        let outer = self.owner.replace(ty);
        let mut seen: u128 = 0;
        self.scanner.open()?;
        while let Some(key) = self.scanner.key(b'}')? {
            let Some(place) = ty.position(&key) else {
                self.path.push(Step::Key(key));
                self.find("unknown");
                self.path.pop();
                self.scanner.skip()?;
                continue;
            };
            let field = &ty.fields[place];
            self.path.push(Step::Field(field.name));
            if seen & (1 << place) != 0 {
                self.find("duplicate");
            }
            seen |= 1 << place;
            self.value(&field.shape, field)?;
            self.path.pop();
        }
        self.owner = outer;
        Ok(())
    }

    /// The value of a field, or of an element of it.
    fn value(&mut self, shape: &'static Shape, field: &'static Field) -> Found {
        let first = self.scanner.peek()?;
        if first == b'n' {
            return self.null(shape, field);
        }
        match shape {
            Shape::Any => self.scanner.skip(),
            Shape::Object(_) => match shape.object() {
                Some(ty) => self.object(ty),
                None => self.scanner.skip(),
            },
            Shape::List(inner) => self.list(inner, field),
            Shape::Map(inner) => self.map(inner, field),
            scalar => self.scalar(scalar, field, first),
        }
    }

    /// Null is the zero value everywhere in Go; within lists and maps it has to be spelt out for serde.
    fn null(&mut self, shape: &Shape, field: &'static Field) -> Found {
        let range = self.scanner.literal()?;
        if std::ptr::eq(shape, &field.shape) {
            return Ok(());
        }
        let zero = match shape {
            Shape::String | Shape::Bytes => "\"\"",
            Shape::Bool => "false",
            Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => "0",
            Shape::Quantity => "\"0\"",
            Shape::Time | Shape::MicroTime => "\"0001-01-01T00:00:00Z\"",
            Shape::Object(_) | Shape::Map(_) => "{}",
            Shape::List(_) => "[]",
            Shape::Any => return Ok(()),
        };
        self.edit(range, zero);
        Ok(())
    }

    fn list(&mut self, inner: &'static Shape, field: &'static Field) -> Found {
        if self.scanner.peek()? != b'[' {
            return self.mismatch(&format!("[]{}", values::go_type(inner, field)));
        }
        self.scanner.open()?;
        let mut index = 0;
        while self.scanner.item(index == 0)? {
            self.path.push(Step::Index(index));
            self.value(inner, field)?;
            self.path.pop();
            index += 1;
        }
        Ok(())
    }

    fn map(&mut self, inner: &'static Shape, field: &'static Field) -> Found {
        if self.scanner.peek()? != b'{' {
            return self.mismatch(&format!("map[string]{}", values::go_type(inner, field)));
        }
        self.scanner.open()?;
        let mut keys: std::collections::HashSet<Cow<'a, str>> = Default::default();
        while let Some(key) = self.scanner.key(b'}')? {
            let repeated = !keys.insert(key.clone());
            self.path.push(Step::Key(key));
            if repeated {
                self.find("duplicate");
            }
            self.value(inner, field)?;
            self.path.pop();
        }
        Ok(())
    }

    /// A value whose JSON type is not the wanted one.
    fn mismatch(&mut self, go_type: &str) -> Found {
        let first = self.scanner.peek()?;
        if first == b'n' {
            return self.scanner.literal().map(drop);
        }
        let found = values::json_type(first);
        self.scanner.skip()?;
        self.wrong(found, go_type);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    fn findings(group: &str, kind: &str, json: &str) -> Vec<String> {
        check(schema::of_kind(group, "v1", kind).unwrap(), json.as_bytes()).unwrap().findings
    }

    fn fault(group: &str, kind: &str, json: &str) -> String {
        check(schema::of_kind(group, "v1", kind).unwrap(), json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn unknown_and_duplicate_fields_are_told_with_their_paths() {
        assert_eq!(
            findings(
                "apps",
                "Deployment",
                r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","name":"b",
                "labels":{"x":"1","x":"2"}},"foo":{"a":[1,{}]},"spec":{"replica":1,"template":{"spec":
                {"containers":[{"name":"c"},{"nam":"d","ports":[{"containerport":1}]}]}}}}"#
            ),
            [
                r#"duplicate field "metadata.name""#,
                r#"duplicate field "metadata.labels.x""#,
                r#"unknown field "foo""#,
                r#"unknown field "spec.replica""#,
                r#"unknown field "spec.template.spec.containers[1].nam""#,
                r#"unknown field "spec.template.spec.containers[1].ports[0].containerport""#,
            ]
        );
        let checked = check(schema::of_kind("", "v1", "Pod").unwrap(), br#"{"a":1,"b":2}"#).unwrap();
        assert_eq!(
            checked.strict_error().unwrap(),
            r#"strict decoding error: unknown field "a", unknown field "b""#
        );
    }

    #[test]
    fn wrong_types_read_as_go_writes_them() {
        for (json, want) in [
            (
                r#"{"spec":{"replicas":"3"}}"#,
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"replicas":1.5}}"#,
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"replicas":3000000000}}"#,
                "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":[]}"#,
                "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
            ),
            (
                r#"{"metadata":{"labels":{"a":1}}}"#,
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":[{"imagePullPolicy":true}]}}}}"#,
                "json: cannot unmarshal bool into Go struct field Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}}}"#,
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                r#"{"metadata":{"creationTimestamp":"now"}}"#,
                r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#,
            ),
            (r#""x""#, "json: cannot unmarshal string into Go value of type v1.Deployment"),
        ] {
            assert_eq!(fault("apps", "Deployment", json), want, "{json}");
        }
        assert_eq!(fault("", "Secret", r#"{"data":{"a":"x!"}}"#), "illegal base64 data at input byte 1");
        assert_eq!(fault("", "Secret", r#"{"data":{"a":"abc"}}"#), "illegal base64 data at input byte 0");
    }

    #[test]
    fn bad_syntax_reads_as_go_writes_it() {
        for (json, want) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"kind":"a" 1}"#, "invalid character '1' after object key:value pair"),
            (r#"{"x":[1 2]}"#, "invalid character '2' after array element"),
            (r#"{} x"#, "invalid character 'x' after top-level value"),
            (r#"{"x":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
            ("{\"x\":\"a\nb\"}", "invalid character '\\n' in string literal"),
        ] {
            assert_eq!(fault("", "Pod", json), want, "{json}");
        }
    }

    #[test]
    fn what_only_go_reads_is_spelt_out() {
        let json =
            br#"{"metadata":{"name":null,"labels":{"a":null},"finalizers":[null]},"spec":{"containers":
            [{"name":"c","resources":{"limits":{"cpu":2,"memory":"0.5Gi"}}}]}}"#;
        let checked = check(schema::of_kind("", "v1", "Pod").unwrap(), json).unwrap();
        let text = String::from_utf8(checked.rewritten.unwrap()).unwrap();
        assert!(text.contains(r#""labels":{"a":""},"finalizers":[""]"#), "{text}");
        assert!(text.contains(r#"{"cpu":"2","memory":"512Mi"}"#), "{text}");
        let plain = br#"{"metadata":{"name":"a"}}"#;
        assert_eq!(check(schema::of_kind("", "v1", "Pod").unwrap(), plain).unwrap(), Checked::default());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(json in "[{}\\[\\]:,\"a-z0-9\\\\. -]{0,60}") {
            let ours = check(schema::of_kind("", "v1", "Pod").unwrap(), json.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&json);
            let syntax = matches!(ours, Err(CheckError::Syntax(_)));
            proptest::prop_assert_eq!(syntax, theirs.is_err());
        }
    }
}
