//! Field selectors (`status.phase=Running,spec.nodeName!=n1`): grammar, the labels that a resource accepts,
//! and matching against a [`View`]. Texts are those of the original.

use crate::catalogue::Resource;
use crate::labels::SelectorError;
use crate::object::View;
use std::fmt;

/// One comparison of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// A conjunction of terms; the default matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub terms: Vec<Term>,
}

impl Selector {
    /// Reads the text of a `fieldSelector` parameter. The fields are as written; see [`Self::for_resource`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let Some((field, equal, value)) = split_term(part) else {
                let message = format!("invalid selector: '{text}'; can't understand '{part}'");
                return Err(SelectorError(message));
            };
            terms.push(Term { field: field.to_owned(), equal, value: unescape(value)? });
        }
        Ok(Self { terms })
    }

    /// The selector with the names that `resource` gives these fields in its views, or the original's
    /// refusal of a field by which it cannot be selected.
    pub fn for_resource(mut self, resource: &Resource) -> Result<Self, SelectorError> {
        for term in &mut self.terms {
            term.field = resolve(resource, &term.field)?;
        }
        Ok(self)
    }

    #[must_use]
    pub fn matches(&self, view: &View) -> bool {
        self.terms.iter().all(|term| {
            let value = match term.field.as_str() {
                "metadata.name" => view.name.as_str(),
                "metadata.namespace" => view.namespace.as_str(),
                field => view.fields.iter().find(|(name, _)| *name == field).map_or("", |(_, v)| v.as_str()),
            };
            (value == term.value) == term.equal
        })
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, if the selector says so: `metadata.name=x` is a get of one object.
    #[must_use]
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

/// The name in the view of a field label.
fn resolve(resource: &Resource, label: &str) -> Result<String, SelectorError> {
    if matches!(label, "metadata.name" | "metadata.namespace") {
        return Ok(label.to_owned());
    }
    if let Some((_, name)) = resource.selectable.iter().find(|(l, _)| l == label) {
        return Ok(name.clone());
    }
    let message = match (resource.group.as_str(), resource.selectable.is_empty()) {
        ("batch", false) => format!("field label {label:?} not supported for batchv1.{}", resource.kind),
        (_, false) => format!("field label not supported: {label}"),
        (_, true) => {
            format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
    };
    Err(SelectorError(message))
}

/// Splits at commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// The first of `!=`, `==`, `=` in a term.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = term[i..].strip_prefix(operator) {
                return Some((&term[..i], equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let bad = |detail: String| Err(SelectorError(format!("invalid field selector: {detail}")));
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return bad(format!("invalid escape sequence: \\{c}")),
                None => return bad("invalid escape sequence: \\".to_owned()),
            },
            // The original prints the rune as a number.
            ',' | '=' => return bad(format!("unescaped character in value: {}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    fn select(group: &str, plural: &str, text: &str) -> Result<Selector, String> {
        let catalogue = Catalogue::builtin();
        let resource = catalogue.get(group, "v1", plural).unwrap();
        Selector::parse(text).and_then(|s| s.for_resource(resource)).map_err(|e| e.0)
    }

    #[test]
    fn fields_are_those_of_the_resource() {
        let s = select("", "pods", "spec.host==n1,status.phase!=Running,metadata.name=a\\,b").unwrap();
        assert_eq!(s.to_string(), "metadata.name=a\\,b,spec.nodeName=n1,status.phase!=Running");
        assert_eq!(s.requires("metadata.name"), Some("a,b"));
        let mut view = View::default();
        view.name = "a,b".into();
        view.fields = vec![("spec.nodeName", "n1".into()), ("status.phase", "Pending".into())];
        assert!(s.matches(&view));
        let events = select("events.k8s.io", "events", "regarding.name=x").unwrap();
        assert_eq!(events.to_string(), "involvedObject.name=x");
    }

    #[test]
    fn faults_read_as_the_original_writes_them() {
        assert_eq!(select("", "pods", "spec.x=1").unwrap_err(), "field label not supported: spec.x");
        assert_eq!(
            select("batch", "jobs", "spec.x=1").unwrap_err(),
            "field label \"spec.x\" not supported for batchv1.Job"
        );
        assert_eq!(
            select("apps", "deployments", "spec.x=1").unwrap_err(),
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        assert_eq!(select("", "pods", "abc").unwrap_err(), "invalid selector: 'abc'; can't understand 'abc'");
        assert_eq!(
            select("", "pods", "a=b\\c").unwrap_err(),
            "invalid field selector: invalid escape sequence: \\c"
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(fields in proptest::collection::vec(("[a-z.]{1,8}", "[a-z\\\\,=]{0,6}", proptest::bool::ANY), 0..4)) {
            let mut terms: Vec<Term> =
                fields.into_iter().map(|(field, value, equal)| Term { field, equal, value }).collect();
            let written = Selector { terms: terms.clone() }.to_string();
            let mut read = Selector::parse(&written).unwrap().terms;
            let order = |t: &Term| (t.field.clone(), t.equal, t.value.clone());
            terms.sort_by_key(order);
            read.sort_by_key(order);
            proptest::prop_assert_eq!(read, terms);
        }
    }
}
