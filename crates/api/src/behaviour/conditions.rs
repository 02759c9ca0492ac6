//! The faults of conditions in the form that kinds share (`metav1.Condition`).

use super::check::Check;
use super::names;
use crate::field::{Error, Errors, Path};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::collections::BTreeSet;

/// Longest reason and message, in bytes.
const REASON: usize = 1024;
const MESSAGE: usize = 32 * 1024;
/// What an absent time reads as: the first second of the year 1.
const ABSENT: i64 = -62_135_596_800;

/// The faults of a list of conditions.
pub fn validate(errors: &mut Errors, path: &Path, conditions: &[Condition]) {
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        if !seen.insert(&condition.type_) {
            errors.push(Error::duplicate(&path.child("type"), &condition.type_));
        }
        one(errors, &path, condition);
    }
}

fn one(errors: &mut Errors, path: &Path, condition: &Condition) {
    let kind = &condition.type_;
    errors.faults(&path.child("type"), kind, names::qualified_name(kind));
    errors.one_of(&path.child("status"), &condition.status, &["False", "True", "Unknown"]);
    if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
        let text = "must be greater than or equal to zero";
        errors.invalid(&path.child("observedGeneration"), &generation, text);
    }
    if condition.last_transition_time.0.as_second() == ABSENT {
        errors.push(Error::required(&path.child("lastTransitionTime"), "must be set"));
    }
    let (at, reason) = (path.child("reason"), condition.reason.as_str());
    if reason.is_empty() {
        errors.push(Error::required(&at, "must be set"));
    } else {
        errors.faults(&at, reason, reason_faults(reason));
        if reason.len() > REASON {
            errors.push(Error::too_long(&at, REASON));
        }
    }
    if condition.message.len() > MESSAGE {
        errors.push(Error::too_long(&path.child("message"), MESSAGE));
    }
}

fn reason_faults(reason: &str) -> names::Faults {
    const TEXT: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
         alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let bytes = reason.as_bytes();
    let begins = bytes.first().is_some_and(u8::is_ascii_alphabetic);
    let ends = bytes.last().is_some_and(|c| word(*c));
    if begins && ends && bytes.iter().all(|c| word(*c) || b",:".contains(c)) {
        return vec![];
    }
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![names::regex(TEXT, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples)]
}
