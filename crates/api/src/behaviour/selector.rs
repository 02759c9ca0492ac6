//! Label selectors as fields of objects.

use super::check::Check;
use super::fill::items;
use super::{meta, names};
use crate::field::{Error, Errors, Path};
use crate::labels::Selector;
use crate::meta::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

/// The faults of a selector.
pub fn validate(errors: &mut Errors, path: &Path, selector: &LabelSelector) {
    if let Some(labels) = &selector.match_labels {
        errors.extend(meta::labels(labels, &path.child("matchLabels")));
    }
    for (i, requirement) in items(&selector.match_expressions).iter().enumerate() {
        validate_requirement(errors, &path.child("matchExpressions").index(i), requirement);
    }
}

/// The faults of a selector that may be absent.
pub fn validate_opt(errors: &mut Errors, path: &Path, selector: &Option<LabelSelector>) {
    if let Some(selector) = selector {
        validate(errors, path, selector);
    }
}

fn validate_requirement(errors: &mut Errors, path: &Path, requirement: &LabelSelectorRequirement) {
    let values = items(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let text = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(&path.child("values"), text));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
            &path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    errors.faults(&path.child("key"), &requirement.key, names::qualified_name(&requirement.key));
    for (i, value) in values.iter().enumerate() {
        errors.faults(&path.child("values").index(i), value, names::label_value(value));
    }
}

#[must_use]
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && items(&selector.match_expressions).is_empty()
}

/// The selector of a workload: present, valid, and matching the labels of the workload's own template.
/// `kind` as in `empty selector is invalid for deployment`.
pub fn validate_workload(
    errors: &mut Errors,
    path: &Path,
    selector: &LabelSelector,
    kind: &str,
) -> Option<Selector> {
    // The field is not optional in our types: what was left out is what was given empty.
    if *selector == LabelSelector::default() {
        errors.push(Error::required(path, ""));
        return Some(Selector::nothing());
    }
    validate(errors, path, selector);
    if is_empty(selector) {
        errors.invalid(path, selector, &format!("empty selector is invalid for {kind}"));
    }
    match Selector::of(Some(selector)) {
        Ok(selector) => Some(selector),
        Err(_) => {
            let text = if kind == "statefulset" { "" } else { "invalid label selector" };
            errors.invalid(path, selector, text);
            None
        }
    }
}

/// The template's labels match the selector.
pub fn matches_template(
    errors: &mut Errors,
    path: &Path,
    selector: &Selector,
    labels: Option<&BTreeMap<String, String>>,
) {
    let none = BTreeMap::new();
    let given = labels.unwrap_or(&none);
    if !selector.is_everything() && !selector.matches(given) {
        errors.invalid(
            &path.child("metadata").child("labels"),
            &labels,
            "`selector` does not match template `labels`",
        );
    }
}
