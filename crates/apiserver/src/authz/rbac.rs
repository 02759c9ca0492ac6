//! Role-based access control: roles, bindings, and who they are about.
//!
//! Pure: an index that is told of changes and asked questions.

use super::{Attributes, Decision};
use crate::user::UserInfo;
use krate_api::types::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// `(namespace, name)`; the namespace is empty for cluster-wide roles and bindings.
type Id = (String, String);

struct Binding {
    subjects: Vec<String>,
    role: RoleRef,
}

/// Users whose grants are kept ready.
const READY: usize = 1_024;

/// What one binding gives to a user.
struct Grant {
    id: Id,
    role: RoleRef,
    /// `None` when the role is not there.
    rules: Option<Arc<[PolicyRule]>>,
}

/// Roles and bindings by whom they are about.
#[derive(Default)]
pub(crate) struct Index {
    roles: HashMap<Id, Arc<[PolicyRule]>>,
    bindings: BTreeMap<Id, Binding>,
    by_subject: HashMap<String, BTreeSet<Id>>,
    ready: Ready,
}

/// The grants of users, by name and then by groups, until a role or a binding changes.
#[derive(Default)]
struct Ready(RwLock<HashMap<String, Vec<(Vec<String>, Grants)>>>);

type Grants = Arc<[Grant]>;

impl Ready {
    fn get(&self, user: &UserInfo) -> Option<Grants> {
        let ready = self.0.read();
        let (_, grants) = ready.get(&user.name)?.iter().find(|(groups, _)| *groups == user.groups)?;
        Some(grants.clone())
    }

    fn keep(&self, user: &UserInfo, grants: Grants) {
        let mut ready = self.0.write();
        if ready.len() >= READY {
            ready.clear();
        }
        let of_name = ready.entry(user.name.clone()).or_default();
        of_name.truncate(READY - 1);
        of_name.push((user.groups.clone(), grants));
    }

    fn clear(&mut self) {
        self.0.get_mut().clear();
    }
}

fn list(items: &Option<Vec<String>>) -> &[String] {
    items.as_deref().unwrap_or_default()
}

/// How a subject is looked up; `None` for kinds that nobody can be.
fn subject_key(subject: &Subject, namespace: &str) -> Option<String> {
    match subject.kind.as_str() {
        "User" => Some(format!("u:{}", subject.name)),
        "Group" => Some(format!("g:{}", subject.name)),
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
            Some(format!("u:system:serviceaccount:{namespace}:{}", subject.name))
        }
        _ => None,
    }
}

impl Index {
    pub fn put_role(&mut self, role: &Role) {
        let id = id(&role.metadata.namespace, &role.metadata.name);
        self.put_rules(id, role.rules.clone());
    }

    pub fn put_cluster_role(&mut self, role: &ClusterRole) {
        let id = id(&None, &role.metadata.name);
        self.put_rules(id, role.rules.clone());
    }

    fn put_rules(&mut self, id: Id, rules: Option<Vec<PolicyRule>>) {
        self.ready.clear();
        self.roles.insert(id, rules.unwrap_or_default().into());
    }

    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.ready.clear();
        self.roles.remove(&(namespace.to_owned(), name.to_owned()));
    }

    pub fn put_binding(&mut self, binding: &RoleBinding) {
        let id = id(&binding.metadata.namespace, &binding.metadata.name);
        self.put(id, binding.subjects.as_deref().unwrap_or_default(), &binding.role_ref);
    }

    pub fn put_cluster_binding(&mut self, binding: &ClusterRoleBinding) {
        let id = id(&None, &binding.metadata.name);
        self.put(id, binding.subjects.as_deref().unwrap_or_default(), &binding.role_ref);
    }

    fn put(&mut self, id: Id, subjects: &[Subject], role: &RoleRef) {
        self.remove_binding(&id.0, &id.1);
        let subjects: Vec<String> = subjects.iter().filter_map(|s| subject_key(s, &id.0)).collect();
        for subject in &subjects {
            self.by_subject.entry(subject.clone()).or_default().insert(id.clone());
        }
        self.bindings.insert(id, Binding { subjects, role: role.clone() });
    }

    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        self.ready.clear();
        let id = (namespace.to_owned(), name.to_owned());
        let Some(old) = self.bindings.remove(&id) else { return };
        for subject in old.subjects {
            if let Some(set) = self.by_subject.get_mut(&subject) {
                set.remove(&id);
                if set.is_empty() {
                    self.by_subject.remove(&subject);
                }
            }
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What a user has by bindings, cluster-wide ones first.
    fn grants(&self, user: &UserInfo) -> Grants {
        if let Some(grants) = self.ready.get(user) {
            return grants;
        }
        let groups = user.groups.iter().map(|group| format!("g:{group}"));
        let keys = std::iter::once(format!("u:{}", user.name)).chain(groups);
        let ids: BTreeSet<&Id> = keys.filter_map(|key| self.by_subject.get(&key)).flatten().collect();
        let grant = |id: &Id| {
            let role = self.bindings.get(id)?.role.clone();
            let rules = self.rules(&id.0, &role.kind, &role.name).cloned();
            Some(Grant { id: id.clone(), role, rules })
        };
        let grants: Grants = ids.into_iter().filter_map(grant).collect();
        self.ready.keep(user, grants.clone());
        grants
    }

    fn rules(&self, namespace: &str, kind: &str, name: &str) -> Option<&Arc<[PolicyRule]>> {
        let place = if kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(&(place.to_owned(), name.to_owned()))
    }

    /// The rules of the role that a binding in `namespace` names.
    pub fn role(&self, namespace: &str, kind: &str, name: &str) -> Option<&[PolicyRule]> {
        self.rules(namespace, kind, name).map(|rules| &**rules)
    }

    /// Whether a rule allows it; nothing is said of why or why not.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let grants = self.grants(attributes.user);
        held_in(&grants, attributes.namespace).any(|grant| grant.allows(attributes))
    }

    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let grants = self.grants(attributes.user);
        let mut missing = Vec::new();
        for grant in held_in(&grants, attributes.namespace) {
            let role = &grant.role;
            if grant.allows(attributes) {
                return Decision::Allow(allowed_by(&grant.id, role, attributes.user));
            }
            if grant.rules.is_none() {
                missing.push(format!(
                    "{}.rbac.authorization.k8s.io \"{}\" not found",
                    role.kind.to_lowercase(),
                    role.name
                ));
            }
        }
        match missing.as_slice() {
            [] => Decision::NoOpinion(String::new()),
            [one] => Decision::NoOpinion(format!("RBAC: {one}")),
            many => Decision::NoOpinion(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let grants = self.grants(user);
        held_in(&grants, namespace).filter_map(|grant| grant.rules.as_deref()).flatten().cloned().collect()
    }
}

impl Grant {
    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        self.rules.iter().flat_map(|rules| rules.iter()).any(|rule| allows(rule, attributes))
    }
}

/// The grants that hold in a namespace.
fn held_in<'a>(grants: &'a [Grant], namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
    grants.iter().filter(move |grant| grant.id.0.is_empty() || grant.id.0 == namespace)
}

fn id(namespace: &Option<String>, name: &Option<String>) -> Id {
    (namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default())
}

fn allowed_by(id: &Id, role: &RoleRef, user: &UserInfo) -> String {
    let (kind, name) = if id.0.is_empty() {
        ("ClusterRoleBinding", id.1.clone())
    } else {
        ("RoleBinding", format!("{}/{}", id.1, id.0))
    };
    format!("RBAC: allowed by {kind} \"{name}\" of {} \"{}\" to User \"{}\"", role.kind, role.name, user.name)
}

/// Whether one rule allows it.
pub(crate) fn allows(rule: &PolicyRule, a: &Attributes<'_>) -> bool {
    let has = |items: &Option<Vec<String>>, wanted: &str| list(items).iter().any(|i| i == "*" || i == wanted);
    if !rule.verbs.iter().any(|v| v == "*" || v == a.verb) {
        return false;
    }
    if let Some(path) = a.path {
        return list(&rule.non_resource_urls).iter().any(|pattern| path_matches(pattern, path));
    }
    has(&rule.api_groups, a.group) && resource_matches(list(&rule.resources), a) && name_matches(rule, a.name)
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == "*" || pattern == path || pattern.strip_suffix('*').is_some_and(|p| path.starts_with(p))
}

fn resource_matches(resources: &[String], a: &Attributes<'_>) -> bool {
    resources.iter().any(|r| match r.split_once('/') {
        None if r == "*" => true,
        None => a.subresource.is_empty() && r == a.resource,
        Some((resource, sub)) => {
            !a.subresource.is_empty() && sub == a.subresource && (resource == "*" || resource == a.resource)
        }
    })
}

fn name_matches(rule: &PolicyRule, name: &str) -> bool {
    let names = list(&rule.resource_names);
    names.is_empty() || names.iter().any(|n| n == name)
}

/// The parts of `wanted` that `rules` do not allow, one verb, group, resource and name at a time.
pub(crate) fn uncovered(rules: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(pieces).filter(|piece| !rules.iter().any(|rule| includes(rule, piece))).collect()
}

/// A rule as rules about one thing each.
fn pieces(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in list(&rule.non_resource_urls) {
            out.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: Some(vec![url.clone()]),
                ..Default::default()
            });
        }
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let piece = |names: Option<Vec<String>>| PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    resource_names: names,
                    ..Default::default()
                };
                let names = list(&rule.resource_names);
                if names.is_empty() {
                    out.push(piece(None));
                }
                out.extend(names.iter().map(|n| piece(Some(vec![n.clone()]))));
            }
        }
    }
    out
}

fn includes(rule: &PolicyRule, piece: &PolicyRule) -> bool {
    let first = |items: &Option<Vec<String>>| list(items).first().cloned().unwrap_or_default();
    let verb = piece.verbs.first().map_or("", String::as_str);
    if !rule.verbs.iter().any(|v| v == "*" || v == verb) {
        return false;
    }
    if piece.non_resource_urls.is_some() {
        let url = first(&piece.non_resource_urls);
        return list(&rule.non_resource_urls).iter().any(|pattern| path_matches(pattern, &url));
    }
    let group = first(&piece.api_groups);
    let resource = first(&piece.resources);
    let groups = list(&rule.api_groups).iter().any(|g| g == "*" || *g == group);
    let resources = list(&rule.resources).iter().any(|r| {
        r == "*"
            || *r == resource
            || r.strip_prefix("*/").is_some_and(|sub| resource.split_once('/').is_some_and(|(_, s)| s == sub))
    });
    let names = list(&rule.resource_names);
    let name = first(&piece.resource_names);
    groups && resources && (names.is_empty() || (!name.is_empty() && names.contains(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> PolicyRule {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            verbs: own(verbs),
            api_groups: Some(own(groups)),
            resources: Some(own(resources)),
            ..Default::default()
        }
    }

    fn asks<'a>(
        user: &'a UserInfo,
        verb: &'a str,
        resource: &'a str,
        sub: &'a str,
        ns: &'a str,
    ) -> Attributes<'a> {
        Attributes {
            user,
            verb,
            group: "",
            resource,
            subresource: sub,
            namespace: ns,
            name: "x",
            field_selector: "",
            label_selector: "",
            path: None,
        }
    }

    fn index() -> Index {
        let mut index = Index::default();
        let mut role = ClusterRole {
            rules: Some(vec![rule(&["get"], &[""], &["pods", "*/scale"])]),
            ..Default::default()
        };
        role.metadata.name = Some("reader".to_owned());
        index.put_cluster_role(&role);
        let mut binding = RoleBinding::default();
        binding.metadata.name = Some("b".to_owned());
        binding.metadata.namespace = Some("a".to_owned());
        binding.subjects =
            Some(vec![Subject { kind: "Group".into(), name: "team".into(), ..Default::default() }]);
        binding.role_ref =
            RoleRef { kind: "ClusterRole".into(), name: "reader".into(), ..Default::default() };
        index.put_binding(&binding);
        index
    }

    #[test]
    fn what_is_kept_ready_follows_roles_and_bindings() {
        let mut index = index();
        let user = UserInfo::new("jane", &["team"]);
        let ask = asks(&user, "get", "pods", "", "a");
        assert!(index.allows(&ask) && index.allows(&ask));
        let other = UserInfo::new("jane", &["others"]);
        assert!(!index.allows(&asks(&other, "get", "pods", "", "a")), "another with the same name");
        let mut role =
            ClusterRole { rules: Some(vec![rule(&["list"], &[""], &["pods"])]), ..Default::default() };
        role.metadata.name = Some("reader".to_owned());
        index.put_cluster_role(&role);
        assert!(!index.allows(&ask) && index.allows(&asks(&user, "list", "pods", "", "a")));
        index.remove_binding("a", "b");
        assert!(!index.allows(&asks(&user, "list", "pods", "", "a")));
    }

    #[test]
    fn a_role_binding_holds_in_its_namespace_only() {
        let index = index();
        let user = UserInfo::new("jane", &["team"]);
        let allowed = |a: &Attributes<'_>| matches!(index.decide(a), Decision::Allow(_));
        assert!(allowed(&asks(&user, "get", "pods", "", "a")));
        assert!(allowed(&asks(&user, "get", "things", "scale", "a")));
        assert!(!allowed(&asks(&user, "get", "pods", "log", "a")));
        assert!(!allowed(&asks(&user, "get", "pods", "", "b")));
        assert!(!allowed(&asks(&user, "list", "pods", "", "a")));
        assert!(!allowed(&asks(&UserInfo::new("joe", &[]), "get", "pods", "", "a")));
    }

    #[test]
    fn a_removed_binding_allows_nothing() {
        let mut index = index();
        index.remove_binding("a", "b");
        let user = UserInfo::new("jane", &["team"]);
        assert_eq!(index.decide(&asks(&user, "get", "pods", "", "a")), Decision::NoOpinion(String::new()));
    }

    #[test]
    fn nobody_gives_what_they_have_not() {
        let have = [rule(&["get", "list"], &[""], &["pods"])];
        assert!(uncovered(&have, &[rule(&["get"], &[""], &["pods"])]).is_empty());
        assert_eq!(uncovered(&have, &[rule(&["get", "delete"], &[""], &["pods"])]).len(), 1);
        assert_eq!(uncovered(&[rule(&["*"], &["*"], &["*"])], &[rule(&["x"], &["y"], &["z/w"])]).len(), 0);
    }
}
