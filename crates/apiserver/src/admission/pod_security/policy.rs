//! What a namespace's labels ask for: a level and a version for each of enforce, audit and warn. Pure.

use krate_api::field::{Error, Errors, Path};
use std::collections::BTreeMap;
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";
const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];

/// From the least to the most that is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The minor version whose checks are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Latest,
    Minor(u16),
}

impl Version {
    pub fn is_at_least(self, minor: u16) -> bool {
        match self {
            Self::Latest => true,
            Self::Minor(own) => own >= minor,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = LEVELS[self.level as usize];
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub enforce: Rule,
    pub audit: Rule,
    pub warn: Rule,
}

type Labels = BTreeMap<String, String>;

/// The policy of a namespace and the faults of its labels. Where a level cannot be read the strictest holds, where a
/// version cannot be read the latest.
pub(super) fn read(labels: Option<&Labels>) -> (Policy, Errors) {
    let mut errors = Errors::new();
    let mut rule = |mode: &str| {
        let label = |suffix: &str| format!("{PREFIX}{mode}{suffix}");
        let text = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
        let mut fault = |key: &str, value: &str, detail: &str| {
            errors.push(Error::invalid(&Path::new("metadata").child("labels").key(key), value, detail));
        };
        let key = label("");
        let level = match text(&key) {
            None | Some("privileged") => Level::Privileged,
            Some("baseline") => Level::Baseline,
            Some("restricted") => Level::Restricted,
            Some(other) => {
                fault(&key, other, &format!("must be one of {}", LEVELS.join(", ")));
                Level::Restricted
            }
        };
        let key = label("-version");
        let version = match text(&key) {
            None | Some("latest") => Version::Latest,
            Some(other) => minor(other).map(Version::Minor).unwrap_or_else(|| {
                fault(&key, other, "must be \"latest\" or \"v1.x\"");
                Version::Latest
            }),
        };
        Rule { level, version }
    };
    let (enforce, audit) = (rule("enforce"), rule("audit"));
    let mut policy = Policy { enforce, audit, warn: rule("warn") };
    // What is enforced is warned of as well, for what makes pods.
    let warns = |suffix: &str| labels.is_some_and(|l| l.contains_key(&format!("{PREFIX}warn{suffix}")));
    if !warns("") && !warns("-version") && policy.enforce.level > policy.warn.level {
        policy.warn = policy.enforce;
    }
    (policy, errors)
}

fn minor(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("v1.")?;
    let plain = digits == "0" || !digits.starts_with('0');
    (plain && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(list: &[(&str, &str)]) -> Labels {
        list.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_say_level_and_version() {
        let (policy, errors) = read(Some(&labels(&[("enforce", "baseline"), ("enforce-version", "v1.30")])));
        assert!(errors.is_empty());
        assert_eq!(policy.enforce.to_string(), "baseline:v1.30");
        assert_eq!(policy.audit.to_string(), "privileged:latest");
        assert_eq!(policy.warn.to_string(), "baseline:v1.30", "what is enforced is warned of");
        assert_eq!(read(None).0.enforce.to_string(), "privileged:latest");
    }

    #[test]
    fn what_cannot_be_read_is_told_and_strict() {
        let (policy, errors) = read(Some(&labels(&[("enforce", "foo"), ("warn-version", "1.2")])));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"foo\": must be one of \
                 privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.2\": must be \
                 \"latest\" or \"v1.x\"",
            ]
        );
        assert_eq!(policy.enforce.level, Level::Restricted);
    }
}
