//! ResourceQuotas.

use super::check::{self, Check, entries};
use super::fill::{self, items};
use super::{Behaviour, Typed, internal, names, resources};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{ResourceQuota, ResourceQuotaSpec};
use std::collections::BTreeSet;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ResourceQuota> {
        default: |quota| {
            fill::resources(&mut quota.spec.get_or_insert_default().hard);
            let status = quota.status.get_or_insert_default();
            fill::resources(&mut status.hard);
            fill::resources(&mut status.used);
        },
        prepare_create: |quota| quota.status = Some(Default::default()),
        prepare_update: |new, old| new.status.clone_from(&old.status),
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        validate,
        validate_update,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes that either hold or do not.
const EXISTS_ONLY: [&str; 5] =
    ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];

fn validate(quota: &ResourceQuota) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let Some(spec) = &quota.spec else { return errors };
    amounts(&mut errors, &path.child("hard"), spec.hard.as_ref());
    scopes(&mut errors, &path.child("scopes"), spec);
    scope_selector(&mut errors, &path.child("scopeSelector").child("matchExpressions"), spec);
    errors
}

fn amounts(errors: &mut Errors, path: &Path, list: Option<&fill::Resources>) {
    for (name, text) in entries(list) {
        let path = path.key(name);
        resources::quota_name(errors, &path, name);
        check::amount(errors, &path, name, text);
    }
}

/// Whether a scope says something of a resource.
fn covers(scope: &str, resource: &str) -> bool {
    let of_pods = [
        "pods",
        "cpu",
        "memory",
        "limits.cpu",
        "limits.memory",
        "requests.cpu",
        "requests.memory",
        "ephemeral-storage",
        "limits.ephemeral-storage",
        "requests.ephemeral-storage",
    ];
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            ["persistentvolumeclaims", "requests.storage", "storage"].contains(&resource)
        }
        _ if !SCOPES.contains(&scope) => true,
        _ => of_pods.contains(&resource) || resource.contains("hugepages-"),
    }
}

/// How many pairs of scopes exclude each other.
fn conflicts(scopes: &BTreeSet<&str>) -> usize {
    let pairs = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
    pairs.iter().filter(|(a, b)| scopes.contains(a) && scopes.contains(b)).count()
}

fn scopes(errors: &mut Errors, path: &Path, spec: &ResourceQuotaSpec) {
    let list = items(&spec.scopes);
    for scope in list {
        if !SCOPES.contains(&scope.as_str()) {
            errors.invalid(path, list, "unsupported scope");
        }
        for (name, _) in entries(spec.hard.as_ref()) {
            if resources::is_standard_quota(name) && !covers(scope, name) {
                errors.invalid(path, list, "unsupported scope applied to resource");
            }
        }
    }
    for _ in 0..conflicts(&list.iter().map(String::as_str).collect()) {
        errors.invalid(path, list, "conflicting scopes");
    }
}

fn scope_selector(errors: &mut Errors, path: &Path, spec: &ResourceQuotaSpec) {
    let Some(selector) = &spec.scope_selector else { return };
    let list = items(&selector.match_expressions);
    for requirement in list {
        let (scope, operator) = (requirement.scope_name.as_str(), requirement.operator.as_str());
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for (name, _) in entries(spec.hard.as_ref()) {
            if resources::is_standard_quota(name) && !covers(scope, name) {
                let error = Error::invalid(path, "", "unsupported scope applied to resource");
                errors.push(error.showing(internal::show(selector, internal::SCOPE_SELECTOR)));
            }
        }
        if EXISTS_ONLY.contains(&scope) && operator != "Exists" {
            let text = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                 ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, text);
        }
        let values = items(&requirement.values);
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(Error::required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                &path.child("values"),
                values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
    }
    for _ in 0..conflicts(&list.iter().map(|r| r.scope_name.as_str()).collect()) {
        errors.invalid_list(path, items(&spec.scopes), "conflicting scopes");
    }
}

fn validate_update(subresource: &str, new: &ResourceQuota, old: &ResourceQuota) -> Errors {
    let mut errors = Errors::new();
    if subresource == "status" {
        let status = new.status.clone().unwrap_or_default();
        for (field, list) in [("hard", &status.hard), ("used", &status.used)] {
            amounts(&mut errors, &Path::new("status").child(field), list.as_ref());
        }
        return errors;
    }
    errors.extend(validate(new));
    let scopes = |quota: &ResourceQuota| -> BTreeSet<String> {
        quota.spec.as_ref().map_or(&[][..], |s| items(&s.scopes)).iter().cloned().collect()
    };
    if scopes(new) != scopes(old) {
        let list = new.spec.as_ref().map_or(&[][..], |s| items(&s.scopes));
        errors.invalid_list(&Path::new("spec").child("scopes"), list, check::IMMUTABLE);
    }
    errors
}
