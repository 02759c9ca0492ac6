//! Cluster roles that sum up others: their rules are those of every role that their selectors choose.
//!
//! The sum is in the order of the roles' names and holds no rule twice; what somebody wrote into the rules of such
//! a role is replaced. A role never counts itself; a chain of sums (`view` in `edit` in `admin`) comes to rest
//! because each write wakes the next.

use crate::env::{Env, synced};
use crate::meta;
use krate_api::Status;
use krate_api::labels::Selector;
use krate_api::types::rbac::v1::{ClusterRole, PolicyRule};
use krate_client::{Api, Informer, Outcome, Queue};
use std::sync::Arc;

const ACCOUNT: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 1;

struct Controller {
    api: Api<ClusterRole>,
    roles: Informer<ClusterRole>,
}

pub fn start(env: &Env) {
    let roles = env.informers.of::<ClusterRole>();
    let queue: Queue = env.queue("cluster_role_aggregation");
    let (q, all) = (queue.clone(), roles.clone());
    roles.subscribe(move |_, _| {
        for role in all.list().iter().filter(|r| r.aggregation_rule.is_some()) {
            q.add(meta::key(&role.metadata));
        }
    });
    let controller = Arc::new(Controller { api: env.api(ACCOUNT), roles: roles.clone() });
    env.run(&queue, WORKERS, synced!(roles), move |name: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&name).await }
    });
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Status> {
        let Some(role) = self.roles.get(name) else { return Ok(Outcome::Done) };
        let Some(rules) = sum(&role, &self.roles.list()) else { return Ok(Outcome::Done) };
        if rules == role.rules.as_deref().unwrap_or_default() {
            return Ok(Outcome::Done);
        }
        let mut wanted = (*role).clone();
        wanted.rules = Some(rules);
        match self.api.update(wanted).await {
            // What made it so wakes this again.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(Outcome::Done),
            result => result.map(|_| Outcome::Done),
        }
    }
}

/// The rules that a role is to have, if it sums up others. A selector that cannot be read chooses nothing.
fn sum(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let selectors: Vec<Selector> = selectors.iter().filter_map(|s| Selector::of(Some(s)).ok()).collect();
    let name = meta::name(&role.metadata);
    let mut parts: Vec<&Arc<ClusterRole>> = all
        .iter()
        .filter(|part| meta::name(&part.metadata) != name)
        .filter(|part| selectors.iter().any(|s| s.matches(meta::labels(&part.metadata))))
        .collect();
    parts.sort_by_key(|part| meta::name(&part.metadata));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.iter().flat_map(|part| part.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::Kind as _;
    use serde_json::json;

    fn role(name: &str, label: &str, verbs: &[&str], sums: &str) -> Arc<ClusterRole> {
        let mut value = json!({"metadata": {"name": name, "labels": {label: "true"}}});
        value["rules"] =
            verbs.iter().map(|v| json!({"verbs": [v], "apiGroups": [""], "resources": ["pods"]})).collect();
        if !sums.is_empty() {
            value["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {sums: "true"}}]});
        }
        Arc::new(ClusterRole::from_value(value).unwrap())
    }

    fn verbs(rules: Option<Vec<PolicyRule>>) -> Option<Vec<String>> {
        Some(rules?.into_iter().flat_map(|r| r.verbs).collect())
    }

    #[test]
    fn the_sum_is_in_order_without_doubles_and_without_itself() {
        let sum_up = role("sum", "part", &["delete"], "part");
        let all = [
            role("b", "part", &["get", "watch"], ""),
            role("a", "part", &["list", "get"], ""),
            role("c", "other", &["patch"], ""),
            sum_up.clone(),
        ];
        assert_eq!(verbs(sum(&sum_up, &all)).unwrap(), ["list", "get", "watch"]);
        assert_eq!(sum(&all[0], &all), None, "a plain role keeps its rules");
    }
}
