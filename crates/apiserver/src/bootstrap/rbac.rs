//! The default roles and bindings, from one compact table (`rbac.txt`), and how they are kept.
//!
//! What the table names is created when it is missing; roles and bindings that are there are only ever
//! given what they lack, and nothing at all when they are annotated against it.
//!
//! The table: `role NAMESPACE NAME [part-of A] [sum-of B]` and, under it, `VERBS GROUPS RESOURCES [NAMES]` or
//! `VERBS url PATHS`; `bind NAMESPACE NAME KIND ROLE SUBJECTS`. `-` is nothing (the core group, no
//! namespace); `read` is get, list, watch; `write` is create, delete, deletecollection, patch, update.

use super::{ensure, replace};
use crate::authz::covers;
use crate::server::Inner;
use krate_api::meta::{LabelSelector, ObjectMeta};
use krate_api::types::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use krate_api::{Kind, Status};
use std::collections::BTreeMap;
use std::sync::OnceLock;

const TABLE: &str = include_str!("rbac.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Everything that the table says.
#[derive(Default)]
pub(crate) struct Defaults {
    pub cluster_roles: Vec<ClusterRole>,
    pub roles: Vec<Role>,
    pub cluster_bindings: Vec<ClusterRoleBinding>,
    pub bindings: Vec<RoleBinding>,
}

/// The table, read once.
pub(crate) fn defaults() -> &'static Defaults {
    static DEFAULTS: OnceLock<Defaults> = OnceLock::new();
    DEFAULTS.get_or_init(|| parse(TABLE))
}

/// What every kubelet may do: the role `system:node`.
pub(crate) fn node_rules() -> &'static [PolicyRule] {
    let role = defaults().cluster_roles.iter().find(|r| r.metadata.name.as_deref() == Some("system:node"));
    role.and_then(|r| r.rules.as_deref()).unwrap_or_default()
}

fn words(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|w| !w.is_empty())
        .map(|w| if w == "-" { String::new() } else { w.to_owned() })
        .collect()
}

fn verbs(text: &str) -> Vec<String> {
    let mut list: Vec<String> = text
        .split(',')
        .flat_map(|verb| match verb {
            "read" => vec!["get", "list", "watch"],
            "write" => vec!["create", "delete", "deletecollection", "patch", "update"],
            other => vec![other],
        })
        .map(str::to_owned)
        .collect();
    list.sort();
    list
}

fn rule(line: &str) -> PolicyRule {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let at = |i: usize| parts.get(i).copied().unwrap_or("");
    if at(1) == "url" {
        let urls = Some(words(at(2)));
        return PolicyRule { verbs: verbs(at(0)), non_resource_urls: urls, ..Default::default() };
    }
    PolicyRule {
        verbs: verbs(at(0)),
        api_groups: Some(words(at(1))),
        resources: Some(words(at(2))),
        resource_names: parts.get(3).map(|n| words(n)),
        ..Default::default()
    }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (namespace != "-").then(|| namespace.to_owned()),
        labels: Some([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned())].into()),
        annotations: Some([(AUTOUPDATE.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn subjects(text: &str) -> Option<Vec<Subject>> {
    let list: Vec<Subject> = text
        .split(',')
        .filter_map(|s| s.split_once(':'))
        .map(|(kind, name)| match kind {
            "ServiceAccount" => {
                let (namespace, name) = name.split_once('/').unwrap_or(("", name));
                Subject {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                    namespace: Some(namespace.to_owned()),
                    api_group: None,
                }
            }
            _ => Subject {
                kind: kind.to_owned(),
                name: name.to_owned(),
                api_group: Some(GROUP.to_owned()),
                namespace: None,
            },
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

fn aggregation_label(name: &str) -> String {
    format!("{GROUP}/aggregate-to-{name}")
}

fn parse(table: &str) -> Defaults {
    let mut found = Defaults::default();
    let mut in_cluster = true;
    for line in table.lines() {
        let parts: Vec<&str> = line.split_whitespace().collect();
        match parts.as_slice() {
            ["role", "-", name, options @ ..] => {
                in_cluster = true;
                found.cluster_roles.push(cluster_role(name, options));
            }
            ["role", namespace, name, ..] => {
                in_cluster = false;
                found.roles.push(Role { metadata: metadata(namespace, name), rules: Some(vec![]) });
            }
            ["bind", namespace, name, kind, role, who] => {
                let metadata = metadata(namespace, name);
                let role_ref = RoleRef {
                    api_group: Some(GROUP.to_owned()),
                    kind: (*kind).to_owned(),
                    name: (*role).to_owned(),
                };
                if *namespace == "-" {
                    let subjects = subjects(who);
                    found.cluster_bindings.push(ClusterRoleBinding { metadata, role_ref, subjects });
                } else {
                    found.bindings.push(RoleBinding { metadata, role_ref, subjects: subjects(who) });
                }
            }
            _ if line.starts_with(' ') => {
                let rules = if in_cluster {
                    found.cluster_roles.last_mut().map(|r| r.rules.get_or_insert_default())
                } else {
                    found.roles.last_mut().map(|r| r.rules.get_or_insert_default())
                };
                if let Some(rules) = rules {
                    rules.push(rule(line));
                }
            }
            _ => {}
        }
    }
    // Twice: `admin` sums up `edit`, which sums up `view`.
    for _ in 0..3 {
        sum_up(&mut found.cluster_roles);
    }
    found
}

fn cluster_role(name: &str, options: &[&str]) -> ClusterRole {
    let mut role = ClusterRole { metadata: metadata("-", name), rules: Some(vec![]), aggregation_rule: None };
    for pair in options.chunks(2) {
        match pair {
            ["part-of", whole] => {
                let labels = role.metadata.labels.get_or_insert_default();
                labels.insert(aggregation_label(whole), "true".to_owned());
            }
            ["sum-of", parts] => {
                let labels: BTreeMap<String, String> = [(aggregation_label(parts), "true".to_owned())].into();
                let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
                role.aggregation_rule =
                    Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
            }
            _ => {}
        }
    }
    role
}

/// Gives the roles that sum up others the rules of those, in the order of their names.
fn sum_up(roles: &mut [ClusterRole]) {
    let mut parts: Vec<ClusterRole> = roles.to_vec();
    parts.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for role in roles.iter_mut() {
        let Some(rule) = &role.aggregation_rule else { continue };
        let selectors = rule.cluster_role_selectors.clone().unwrap_or_default();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for part in parts.iter().filter(|p| p.metadata.name != role.metadata.name) {
            let labels = part.metadata.labels.clone().unwrap_or_default();
            let chosen = selectors
                .iter()
                .any(|s| s.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v)));
            for rule in part.rules.iter().flatten().filter(|_| chosen) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        role.rules = Some(rules);
    }
}

/// Whether the object wants to be kept up to date, and what its labels and annotations lack.
fn keeps(meta: &ObjectMeta) -> bool {
    meta.annotations.as_ref().and_then(|a| a.get(AUTOUPDATE)).is_none_or(|v| v != "false")
}

fn add_labels(have: &mut ObjectMeta, wanted: &ObjectMeta) -> bool {
    let before = (have.labels.clone(), have.annotations.clone());
    for (key, value) in wanted.labels.iter().flatten() {
        have.labels.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in wanted.annotations.iter().flatten() {
        have.annotations.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    before != (have.labels.clone(), have.annotations.clone())
}

async fn existing<K: Kind>(server: &Inner, wanted: &K) -> Result<Option<K>, Status> {
    let meta = wanted.meta();
    let namespace = meta.namespace.as_deref().unwrap_or("");
    let found = server.read::<K>(namespace, meta.name.as_deref().unwrap_or("")).await?;
    Ok(found.map(|f| (*f).clone()))
}

pub(crate) async fn reconcile_cluster_role(server: &Inner, wanted: &ClusterRole) -> Result<(), Status> {
    let Some(mut have) = existing(server, wanted).await? else { return ensure(server, wanted.clone()).await };
    if !keeps(&have.metadata) {
        return Ok(());
    }
    let mut changed = add_labels(&mut have.metadata, &wanted.metadata);
    if wanted.aggregation_rule.is_none() {
        changed |= add_rules(&mut have.rules, &wanted.rules);
    }
    if changed { replace(server, have).await } else { Ok(()) }
}

pub(crate) async fn reconcile_role(server: &Inner, wanted: &Role) -> Result<(), Status> {
    let Some(mut have) = existing(server, wanted).await? else { return ensure(server, wanted.clone()).await };
    if !keeps(&have.metadata) {
        return Ok(());
    }
    let labelled = add_labels(&mut have.metadata, &wanted.metadata);
    if add_rules(&mut have.rules, &wanted.rules) || labelled { replace(server, have).await } else { Ok(()) }
}

fn add_rules(have: &mut Option<Vec<PolicyRule>>, wanted: &Option<Vec<PolicyRule>>) -> bool {
    let rules = have.get_or_insert_default();
    let missing = covers(rules, wanted.as_deref().unwrap_or_default());
    let changed = !missing.is_empty();
    rules.extend(missing);
    changed
}

fn add_subjects(have: &mut Option<Vec<Subject>>, wanted: &Option<Vec<Subject>>) -> bool {
    let list = have.get_or_insert_default();
    let before = list.len();
    for subject in wanted.iter().flatten() {
        if !list.contains(subject) {
            list.push(subject.clone());
        }
    }
    list.len() != before
}

pub(crate) async fn reconcile_cluster_binding(
    server: &Inner,
    wanted: &ClusterRoleBinding,
) -> Result<(), Status> {
    let Some(mut have) = existing(server, wanted).await? else { return ensure(server, wanted.clone()).await };
    if !keeps(&have.metadata) || have.role_ref != wanted.role_ref {
        return Ok(());
    }
    let labelled = add_labels(&mut have.metadata, &wanted.metadata);
    if add_subjects(&mut have.subjects, &wanted.subjects) || labelled {
        return replace(server, have).await;
    }
    Ok(())
}

pub(crate) async fn reconcile_binding(server: &Inner, wanted: &RoleBinding) -> Result<(), Status> {
    let Some(mut have) = existing(server, wanted).await? else { return ensure(server, wanted.clone()).await };
    if !keeps(&have.metadata) || have.role_ref != wanted.role_ref {
        return Ok(());
    }
    let labelled = add_labels(&mut have.metadata, &wanted.metadata);
    if add_subjects(&mut have.subjects, &wanted.subjects) || labelled {
        return replace(server, have).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let defaults = defaults();
        let role = |name: &str| {
            defaults.cluster_roles.iter().find(|r| r.metadata.name.as_deref() == Some(name)).unwrap()
        };
        assert_eq!(role("cluster-admin").rules.as_ref().unwrap().len(), 2);
        assert_eq!(role("cluster-admin").rules.as_ref().unwrap()[0].verbs, ["*"]);
        assert_eq!(node_rules().len(), 25);
        let (view, edit, admin) = (role("view"), role("edit"), role("admin"));
        let count = |r: &ClusterRole| r.rules.as_ref().unwrap().len();
        assert!(count(view) > 5 && count(edit) > count(view) && count(admin) > count(edit));
        assert!(covers(admin.rules.as_ref().unwrap(), view.rules.as_ref().unwrap()).is_empty());
        let bindings = &defaults.cluster_bindings;
        assert!(bindings.iter().all(|b| {
            defaults.cluster_roles.iter().any(|r| r.metadata.name.as_deref() == Some(&b.role_ref.name))
        }));
        let names = words("-,apps");
        assert_eq!(names, ["", "apps"]);
    }
}
