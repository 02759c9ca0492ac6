//! Label selectors: the text form of requests (`app=web,tier in (a,b),!old`), `metav1.LabelSelector`, and
//! matching. Grammar and error texts are those of `k8s.io/apimachinery/pkg/labels`.

mod parse;
mod validate;

use crate::meta::LabelSelector;
use std::collections::BTreeMap;
use std::fmt;
pub use validate::{dns_subdomain_faults, key_faults, value_faults};

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label. All conditions of a selector must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without repetition.
    values: Vec<String>,
}

/// The text or the structure is not a selector; the message is the original's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl Requirement {
    /// A requirement of valid parts.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        validate::requirement(key, operator, &values)?;
        let mut values = values;
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => {
                value.is_some_and(|v| self.values.contains(v))
            }
            Operator::NotIn | Operator::NotEquals => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(have, want)| have > want),
            Operator::LessThan => self.compare(value).is_some_and(|(have, want)| have < want),
        }
    }

    fn compare(&self, value: Option<&String>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list = || self.values.join(",");
        match self.operator {
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={}", list()),
            Operator::DoubleEquals => write!(f, "{key}=={}", list()),
            Operator::NotEquals => write!(f, "{key}!={}", list()),
            Operator::In => write!(f, "{key} in ({})", list()),
            Operator::NotIn => write!(f, "{key} notin ({})", list()),
            Operator::GreaterThan => write!(f, "{key}>{}", list()),
            Operator::LessThan => write!(f, "{key}<{}", list()),
        }
    }
}

/// A conjunction of requirements, or nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Matches every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: vec![], nothing: true }
    }

    /// The text of a `labelSelector` parameter; empty matches everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = parse::parse(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Equality with every one of `labels`, such as a Service's selector. Empty matches everything.
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut requirements: Vec<Requirement> = labels
            .into_iter()
            .map(|(k, v)| Requirement { key: k.clone(), operator: Operator::Equals, values: vec![v.clone()] })
            .collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// The structure of workloads and policies. None matches nothing, an empty one everything.
    pub fn of(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
                }
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Matches what both match.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.nothing |= other.nothing;
        self.requirements.extend(other.requirements.iter().cloned());
        self.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        self
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::LabelSelectorRequirement;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn selectors_match_as_the_documentation_says() {
        let web = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app = web , tier != back", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (web, db)", true),
            ("app notin (web)", false),
            ("missing notin (a)", true),
            ("tier", true),
            ("!tier", false),
            ("!missing", true),
            ("n>4", true),
            ("n<5", false),
            ("app>1", false),
            ("missing=", false),
            ("in in (in)", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&web), want, "{text}");
        }
        assert!(Selector::parse("e=").unwrap().matches(&labels(&[("e", "")])));
        assert!(Selector::parse("e in (,a)").unwrap().matches(&labels(&[("e", "")])));
    }

    #[test]
    fn faults_read_as_the_original_writes_them() {
        for (text, want) in [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            (
                "a=_b",
                "unable to parse requirement: values[0][a]: Invalid value: \"_b\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (
                "a/b/c=x",
                "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            ),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err().to_string(), want, "{text}");
        }
    }

    #[test]
    fn structures_become_selectors() {
        let selector = LabelSelector {
            match_labels: Some(labels(&[("b", "2"), ("a", "1")])),
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "c".into(),
                operator: "In".into(),
                values: Some(vec!["y".into(), "x".into()]),
            }]),
        };
        let got = Selector::of(Some(&selector)).unwrap();
        assert_eq!(got.to_string(), "a=1,b=2,c in (x,y)");
        assert_eq!(Selector::parse(&got.to_string()).unwrap(), got);
        assert!(!Selector::of(None).unwrap().matches(&Labels::new()));
        assert!(Selector::of(Some(&LabelSelector::default())).unwrap().matches(&Labels::new()));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,40}") {
            if let Ok(selector) = Selector::parse(&text) {
                proptest::prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
            }
        }

        #[test]
        fn what_is_written_is_read_again(text in "[a-c]{1,2}(=|!=| in \\(|>)[a-c0-9]{1,2}\\)?(,!?[a-c]{1,2})?") {
            if let Ok(selector) = Selector::parse(&text) {
                proptest::prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
