//! Roles, ClusterRoles and their bindings: one file, since they are the same thing in two scopes.

use super::check::Check;
use super::fill::{self, is_empty, items, items_mut, str_of, text};
use super::{Behaviour, Typed, names, selector};
use crate::field::{Error, Errors, Path};
use crate::types::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use std::sync::Arc;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn role() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Role> {
        validate: |role| rules(items(&role.rules), true),
        validate_update: |_, new, _| rules(items(&new.rules), true),
        check_name: names::path_name,
        ..Default::default()
    })
}

pub fn cluster_role() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ClusterRole> {
        validate: validate_cluster_role,
        validate_update: |_, new, _| validate_cluster_role(new),
        check_name: names::path_name,
        ..Default::default()
    })
}

pub fn role_binding() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<RoleBinding> {
        default: |b| default_binding(&mut b.role_ref, &mut b.subjects),
        validate: |b| binding(&b.role_ref, items(&b.subjects), true),
        validate_update: |_, new, old| {
            let mut errors = binding(&new.role_ref, items(&new.subjects), true);
            same_role(&mut errors, &new.role_ref, &old.role_ref);
            errors
        },
        check_name: names::path_name,
        ..Default::default()
    })
}

pub fn cluster_role_binding() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ClusterRoleBinding> {
        default: |b| default_binding(&mut b.role_ref, &mut b.subjects),
        validate: |b| binding(&b.role_ref, items(&b.subjects), false),
        validate_update: |_, new, old| {
            let mut errors = binding(&new.role_ref, items(&new.subjects), false);
            same_role(&mut errors, &new.role_ref, &old.role_ref);
            errors
        },
        check_name: names::path_name,
        ..Default::default()
    })
}

fn validate_cluster_role(role: &ClusterRole) -> Errors {
    let mut errors = rules(items(&role.rules), false);
    if let Some(aggregation) = &role.aggregation_rule {
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = items(&aggregation.cluster_role_selectors);
        if selectors.is_empty() {
            let text = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(Error::required(&path, text));
        }
        for (i, wanted) in selectors.iter().enumerate() {
            selector::validate(&mut errors, &path.index(i), wanted);
        }
    }
    errors
}

fn rules(rules: &[PolicyRule], namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    for (i, rule) in rules.iter().enumerate() {
        validate_rule(&mut errors, &Path::new("rules").index(i), rule, namespaced);
    }
    errors
}

fn validate_rule(errors: &mut Errors, path: &Path, rule: &PolicyRule, namespaced: bool) {
    if rule.verbs.is_empty() {
        errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    let (groups, resources) = (items(&rule.api_groups), items(&rule.resources));
    let (object_names, urls) = (items(&rule.resource_names), items(&rule.non_resource_urls));
    if !urls.is_empty() {
        let path = path.child("nonResourceURLs");
        if namespaced {
            errors.invalid(&path, urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if !groups.is_empty() || !resources.is_empty() || !object_names.is_empty() {
            let text = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&path, urls, text);
        }
        return;
    }
    if groups.is_empty() {
        let text = "resource rules must supply at least one api group";
        errors.push(Error::required(&path.child("apiGroups"), text));
    }
    if resources.is_empty() {
        let text = "resource rules must supply at least one resource";
        errors.push(Error::required(&path.child("resources"), text));
    }
}

fn binding(role: &RoleRef, subjects: &[Subject], namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("roleRef");
    errors.one_of(&path.child("apiGroup"), str_of(&role.api_group), &[GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    errors.one_of(&path.child("kind"), &role.kind, kinds);
    if errors.required(&path.child("name"), &role.name) {
        errors.faults(&path.child("name"), &role.name, names::path_segment(&role.name));
    }
    for (i, subject) in subjects.iter().enumerate() {
        validate_subject(&mut errors, &Path::new("subjects").index(i), subject, namespaced);
    }
    errors
}

fn validate_subject(errors: &mut Errors, path: &Path, subject: &Subject, namespaced: bool) {
    let name = path.child("name");
    let named = errors.required(&name, &subject.name);
    let group = str_of(&subject.api_group);
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if named {
                errors.faults(&name, &subject.name, names::dns1123_subdomain(&subject.name));
            }
            errors.one_of(&path.child("apiGroup"), group, &[""]);
            if !namespaced && is_empty(&subject.namespace) {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => errors.one_of(&path.child("apiGroup"), group, &[GROUP]),
        other => errors.one_of(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

fn same_role(errors: &mut Errors, new: &RoleRef, old: &RoleRef) {
    if new != old {
        let mut error = Error::invalid(&Path::new("roleRef"), "", "cannot change roleRef");
        // The original shows its internal form.
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        error.value = format!(
            "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
            quoted(str_of(&new.api_group)),
            quoted(&new.kind),
            quoted(&new.name)
        );
        errors.push(error);
    }
}

fn default_binding(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    text(&mut role.api_group, GROUP);
    for subject in items_mut(subjects) {
        if fill::is_empty(&subject.api_group) && matches!(subject.kind.as_str(), "User" | "Group") {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}
