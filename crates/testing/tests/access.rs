//! Access: what roles that sum up others come to allow.

mod common;

use common::cluster;
use krate_api::Kind as _;
use krate_api::types::rbac::v1::{ClusterRole, ClusterRoleBinding};
use krate_client::Api;
use krate_testing::ControlPlane;
use serde_json::json;

fn allows(role: Option<&ClusterRole>, resource: &str) -> bool {
    role.and_then(|r| r.rules.as_ref())
        .into_iter()
        .flatten()
        .any(|rule| rule.resources.iter().flatten().any(|r| r == resource))
}

fn part(name: &str, label: &str, resource: &str) -> ClusterRole {
    ClusterRole::from_value(json!({
        "metadata": {"name": name, "labels": {label: "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["stable.example.com"], "resources": [resource]}],
    }))
    .unwrap()
}

async fn until_allows(cluster: &ControlPlane, role: &str, resource: &str, wanted: bool) {
    cluster.until("", role, |r: Option<&ClusterRole>| r.is_some() && allows(r, resource) == wanted).await;
}

#[tokio::test(start_paused = true)]
async fn a_role_is_the_sum_of_what_it_selects() {
    let (cluster, _nodes) = cluster(0).await;
    let roles = cluster.of::<ClusterRole>();
    let sum = json!({
        "metadata": {"name": "monitoring"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-monitoring": "true"}}]},
        "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["written-by-hand"]}],
    });
    roles.create(ClusterRole::from_value(sum).unwrap()).await.unwrap();
    roles.create(part("endpoints-of-monitoring", "to-monitoring", "gauges")).await.unwrap();
    until_allows(&cluster, "monitoring", "gauges", true).await;
    until_allows(&cluster, "monitoring", "written-by-hand", false).await;
    roles.delete("", "endpoints-of-monitoring", Default::default()).await.unwrap();
    until_allows(&cluster, "monitoring", "gauges", false).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_added_to_view_reaches_edit_and_admin_too() {
    let (cluster, _nodes) = cluster(0).await;
    let label = "rbac.authorization.k8s.io/aggregate-to-view";
    cluster.of::<ClusterRole>().create(part("crontabs-viewer", label, "crontabs")).await.unwrap();
    for role in ["view", "edit", "admin"] {
        until_allows(&cluster, role, "crontabs", true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_who_may_all_may_sum_up() {
    let (cluster, _nodes) = cluster(0).await;
    let author = json!({
        "metadata": {"name": "author"},
        "rules": [{"verbs": ["create", "update"], "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["clusterroles"]}],
    });
    cluster.of::<ClusterRole>().create(ClusterRole::from_value(author).unwrap()).await.unwrap();
    let binding = json!({
        "metadata": {"name": "author"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "author"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
    });
    let binding = ClusterRoleBinding::from_value(binding).unwrap();
    cluster.of().create(binding).await.unwrap();
    let ann: Api<ClusterRole> = Api::new(cluster.user("ann", &[]));
    let sum = json!({
        "metadata": {"name": "mine"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
    });
    let mut refused = ann.create(ClusterRole::from_value(sum.clone()).unwrap()).await.unwrap_err();
    // The rights reach the server with the events of its own writes.
    while refused.message().contains("cannot create") {
        cluster.pass(1).await;
        refused = ann.create(ClusterRole::from_value(sum.clone()).unwrap()).await.unwrap_err();
    }
    assert_eq!(
        refused.message(),
        "clusterroles.rbac.authorization.k8s.io \"mine\" is forbidden: must have cluster-admin privileges to use \
         the aggregationRule"
    );
}
