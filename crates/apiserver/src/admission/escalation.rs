//! Nobody gives by a role or a binding what they have not themselves, unless they may `escalate` or `bind`.

use super::{Attributes, Operation, Plugin, cast};
use crate::authz::{self, covers};
use crate::server::Inner;
use crate::user::MASTERS;
use async_trait::async_trait;
use krate_api::types::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use krate_api::{Object, Status};

pub(super) struct NoEscalation;

#[async_trait]
impl Plugin for NoEscalation {
    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let writes = matches!(at.operation, Operation::Create | Operation::Update);
        let group = &at.call.resource().group;
        let Some(object) = object.filter(|_| writes && group == "rbac.authorization.k8s.io") else {
            return Ok(());
        };
        if at.call.user.is_in(MASTERS) {
            return Ok(());
        }
        if let Some(role) = cast::<Role>(object) {
            let old = at.old.and_then(cast::<Role>).map(|r| r.rules.clone());
            return role_rules(server, at, &role.rules, old);
        }
        if let Some(role) = cast::<ClusterRole>(object) {
            let old = at.old.and_then(cast::<ClusterRole>);
            role_rules(server, at, &role.rules, old.map(|r| r.rules.clone()))?;
            let sums = |r: &ClusterRole| r.aggregation_rule.is_some();
            return if sums(role) || old.is_some_and(sums) { sums_up(server, at) } else { Ok(()) };
        }
        if let Some(binding) = cast::<RoleBinding>(object) {
            let same = at.old.and_then(cast::<RoleBinding>).is_some_and(|o| o.subjects == binding.subjects);
            return if same { Ok(()) } else { bound(server, at, &binding.role_ref) };
        }
        if let Some(binding) = cast::<ClusterRoleBinding>(object) {
            let same =
                at.old.and_then(cast::<ClusterRoleBinding>).is_some_and(|o| o.subjects == binding.subjects);
            return if same { Ok(()) } else { bound(server, at, &binding.role_ref) };
        }
        Ok(())
    }
}

fn may(server: &Inner, at: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = authz::Attributes {
        user: &at.call.user,
        verb,
        group: "rbac.authorization.k8s.io",
        resource,
        subresource: "",
        namespace: &at.call.namespace,
        name,
        field_selector: "",
        label_selector: "",
        path: None,
    };
    server.authz.check(&attributes).is_ok()
}

fn role_rules(
    server: &Inner,
    at: &Attributes<'_>,
    rules: &Option<Vec<PolicyRule>>,
    old: Option<Option<Vec<PolicyRule>>>,
) -> Result<(), Status> {
    let rules = rules.as_deref().unwrap_or_default();
    let unchanged = old.flatten().is_some_and(|old| old == rules);
    let resource = at.call.resource().plural.as_str();
    if unchanged || may(server, at, "escalate", resource, &at.call.name) {
        return Ok(());
    }
    granted(server, at, rules)
}

/// A role that sums up others may come to grant anything.
fn sums_up(server: &Inner, at: &Attributes<'_>) -> Result<(), Status> {
    let any = || Some(vec!["*".to_owned()]);
    let verbs = || vec!["*".to_owned()];
    let everything = [
        PolicyRule { verbs: verbs(), api_groups: any(), resources: any(), ..Default::default() },
        PolicyRule { verbs: verbs(), non_resource_urls: any(), ..Default::default() },
    ];
    let own = server.authz.rules(&at.call.user, &at.call.namespace);
    if may(server, at, "escalate", "clusterroles", &at.call.name) || covers(&own, &everything).is_empty() {
        return Ok(());
    }
    Err(at.forbidden("must have cluster-admin privileges to use the aggregationRule"))
}

fn bound(server: &Inner, at: &Attributes<'_>, role: &RoleRef) -> Result<(), Status> {
    let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    if may(server, at, "bind", resource, &role.name) {
        return Ok(());
    }
    let Some(rules) = server.authz.role_rules(&at.call.namespace, &role.kind, &role.name) else {
        let group = "rbac.authorization.k8s.io";
        return Err(Status::not_found(group, resource, &role.name));
    };
    granted(server, at, &rules)
}

fn granted(server: &Inner, at: &Attributes<'_>, rules: &[PolicyRule]) -> Result<(), Status> {
    let user = &at.call.user;
    let missing = covers(&server.authz.rules(user, &at.call.namespace), rules);
    if missing.is_empty() {
        return Ok(());
    }
    let quoted = |list: &[String]| {
        let items: Vec<String> = list.iter().map(|i| format!("\"{i}\"")).collect();
        format!("[{}]", items.join(" "))
    };
    let texts: Vec<String> = missing.iter().map(show).collect();
    Err(at.forbidden(&format!(
        "user \"{}\" (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        texts.join("\n")
    )))
}

/// A rule as the original prints it.
fn show(rule: &PolicyRule) -> String {
    let mut parts = Vec::new();
    let mut add = |name: &str, list: Option<&Vec<String>>| {
        if let Some(list) = list.filter(|l| !l.is_empty()) {
            let items: Vec<String> = list.iter().map(|i| format!("\"{i}\"")).collect();
            parts.push(format!("{name}:[{}]", items.join(" ")));
        }
    };
    add("NonResourceURLs", rule.non_resource_urls.as_ref());
    add("APIGroups", rule.api_groups.as_ref());
    add("Resources", rule.resources.as_ref());
    add("ResourceNames", rule.resource_names.as_ref());
    add("Verbs", Some(&rule.verbs));
    format!("{{{}}}", parts.join(", "))
}
