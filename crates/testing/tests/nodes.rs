//! Nodes that fail, vanish and return, and what becomes of their pods, in virtual time.

mod common;

use common::{cluster, deployment, is_ready, living, names, pod, pod_condition};
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::Deployment;
use krate_api::types::coordination::v1::Lease;
use krate_api::types::core::v1::{Node, Pod, Taint, Toleration};
use krate_client::Informer;
use krate_testing::{Component, ControlPlane, HollowNode, Play};
use std::time::Duration;
use tokio::time::Instant;

fn ready_condition(node: Option<&Node>) -> String {
    let conditions = node.and_then(|n| n.status.as_ref()?.conditions.clone()).unwrap_or_default();
    conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone()).unwrap_or_default()
}

fn has_taint(node: Option<&Node>, key: &str, effect: &str) -> bool {
    let taints = node.and_then(|n| n.spec.as_ref()?.taints.clone()).unwrap_or_default();
    taints.iter().any(|t| t.key == format!("node.kubernetes.io/{key}") && t.effect == effect)
}

async fn running(cluster: &ControlPlane, name: &str) {
    cluster.until("default", name, |p: Option<&Pod>| p.is_some_and(is_ready)).await;
}

async fn taint(cluster: &ControlPlane, node: &str, effect: &str) {
    let taint = Taint { key: "only".to_owned(), effect: effect.to_owned(), ..Taint::default() };
    let add = |node: &mut Node| {
        node.spec.get_or_insert_default().taints = Some(vec![taint.clone()]);
        true
    };
    cluster.of::<Node>().modify("", node, add).await.unwrap();
}

fn tolerant(name: &str, seconds: Option<i64>) -> Pod {
    let mut pod = pod(name);
    pod.spec.as_mut().unwrap().tolerations = Some(vec![Toleration {
        key: Some("only".to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: seconds,
        ..Toleration::default()
    }]);
    pod
}

async fn gone(cluster: &ControlPlane, name: &str) {
    cluster.until("default", name, |p: Option<&Pod>| p.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_runtime_is_down_is_not_ready_and_gets_no_pods() {
    let (cluster, nodes) = cluster(2).await;
    nodes[0].fail();
    cluster.until("", "node-1", |n: Option<&Node>| has_taint(n, "not-ready", "NoSchedule")).await;
    cluster.of::<Deployment>().create(deployment("web", 4)).await.unwrap();
    let all = |pods: &Informer<Pod>| {
        let pods = pods.list();
        let there = |p: &&&Pod| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some("node-2");
        living(&pods).iter().filter(|p| is_ready(p)).filter(there).count() == 4
    };
    cluster.until_all(all).await;
    nodes[0].recover();
    let clean = |n: Option<&Node>| {
        ready_condition(n) == "True"
            && !has_taint(n, "not-ready", "NoSchedule")
            && !has_taint(n, "not-ready", "NoExecute")
    };
    cluster.until("", "node-1", clean).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_restarts_changes_nothing() {
    let (cluster, nodes) = cluster(1).await;
    cluster.of::<Pod>().create(pod("web")).await.unwrap();
    running(&cluster, "web").await;
    cluster.pass(60).await;
    let before = cluster.of::<Pod>().get("default", "web").await.unwrap();
    nodes[0].restart().await;
    cluster.pass(60).await;
    let after = cluster.of::<Pod>().get("default", "web").await.unwrap();
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_control_plane_evicts_nobody_when_it_returns() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<Deployment>().create(deployment("web", 4)).await.unwrap();
    let ready = |pods: &Informer<Pod>| pods.list().iter().filter(|p| is_ready(p)).count() == 4;
    cluster.until_all(ready).await;
    let before = names::<Pod>(&cluster, "default").await;
    cluster.kill(Component::ApiServer).await;
    cluster.pass(900).await;
    cluster.revive(Component::ApiServer).await.unwrap();
    cluster.pass(900).await;
    assert_eq!(names::<Pod>(&cluster, "default").await, before, "the nodes were there all the time");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_no_execute_taint_evicts_at_once_later_or_never() {
    let (cluster, _nodes) = cluster(1).await;
    for pod in [pod("now"), tolerant("later", Some(100)), tolerant("never", None)] {
        let name = pod.metadata.name.clone().unwrap();
        cluster.of::<Pod>().create(pod).await.unwrap();
        running(&cluster, &name).await;
    }
    let start = Instant::now();
    taint(&cluster, "node-1", "NoExecute").await;
    gone(&cluster, "now").await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    gone(&cluster, "later").await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(100) && took < Duration::from_secs(105), "{took:?}");
    cluster.pass(1000).await;
    assert_eq!(names::<Pod>(&cluster, "default").await, ["never"]);
    let told = common::events(&cluster).await;
    assert!(told.iter().any(|e| e.starts_with("Pod/now TaintManagerEviction: ")), "{told:#?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_taint_that_goes_in_time_evicts_nobody() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Pod>().create(tolerant("later", Some(100))).await.unwrap();
    running(&cluster, "later").await;
    taint(&cluster, "node-1", "NoExecute").await;
    cluster.pass(50).await;
    let clear = |node: &mut Node| {
        node.spec.get_or_insert_default().taints = None;
        true
    };
    cluster.of::<Node>().modify("", "node-1", clear).await.unwrap();
    cluster.pass(300).await;
    assert_eq!(names::<Pod>(&cluster, "default").await, ["later"]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_eviction_is_kept_in_mind_through_a_restart_of_the_controllers() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Pod>().create(tolerant("later", Some(100))).await.unwrap();
    running(&cluster, "later").await;
    let start = Instant::now();
    taint(&cluster, "node-1", "NoExecute").await;
    cluster.pass(50).await;
    cluster.restart(Component::Controllers).await.unwrap();
    gone(&cluster, "later").await;
    assert!(start.elapsed() <= Duration::from_secs(155), "{:?}", start.elapsed());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_was_removed_are_collected() {
    let (cluster, nodes) = cluster(1).await;
    cluster.of::<Pod>().create(pod("web")).await.unwrap();
    running(&cluster, "web").await;
    nodes[0].vanish().await;
    cluster.of::<Node>().delete("", "node-1", DeleteOptions::default()).await.unwrap();
    gone(&cluster, "web").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_has_a_lease_that_it_renews_and_that_goes_with_it() {
    let (cluster, _nodes) = cluster(1).await;
    let lease = || async { cluster.of::<Lease>().get("kube-node-lease", "node-1").await.unwrap() };
    let renewed = |l: &Lease| l.spec.as_ref().unwrap().renew_time.as_ref().unwrap().0;
    let first = lease().await;
    cluster.pass(30).await;
    let second = lease().await;
    assert!(renewed(&second) > renewed(&first));
    assert_eq!(second.spec.as_ref().unwrap().holder_identity.as_deref(), Some("node-1"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_node_has_a_range_of_its_own() {
    let (cluster, _nodes) = cluster(5).await;
    let ranged = |nodes: &Informer<Node>| {
        let range = |n: &std::sync::Arc<Node>| n.spec.as_ref().and_then(|s| s.pod_cidr.clone());
        let ranges: std::collections::BTreeSet<_> = nodes.list().iter().filter_map(range).collect();
        ranges.len() == 5
    };
    cluster.until_all(ranged).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_on_a_lost_node_goes_when_it_is_deleted_by_force() {
    let (cluster, nodes) = cluster(1).await;
    cluster.of::<Pod>().create(pod("web")).await.unwrap();
    running(&cluster, "web").await;
    nodes[0].vanish().await;
    cluster.of::<Pod>().delete("default", "web", DeleteOptions::default()).await.unwrap();
    cluster.pass(100).await;
    assert_eq!(names::<Pod>(&cluster, "default").await, ["web"], "nobody said that it has ended");
    let force = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.of::<Pod>().delete("default", "web", force).await.unwrap();
    gone(&cluster, "web").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_its_grace_and_no_more() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| Play { stop: Duration::from_secs(600), ..Play::default() });
    let mut slow = pod("slow");
    slow.spec.as_mut().unwrap().termination_grace_period_seconds = Some(20);
    cluster.of::<Pod>().create(slow).await.unwrap();
    running(&cluster, "slow").await;
    let start = Instant::now();
    cluster.of::<Pod>().delete("default", "slow", DeleteOptions::default()).await.unwrap();
    gone(&cluster, "slow").await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(19) && took <= Duration::from_secs(22), "{took:?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_calendar_that_jumps_loses_no_node() {
    let (cluster, _nodes): (ControlPlane, Vec<HollowNode>) = cluster(2).await;
    cluster.of::<Pod>().create(pod("web")).await.unwrap();
    running(&cluster, "web").await;
    for hours in [5, -3, 24] {
        cluster.clock.step(jiff::SignedDuration::from_hours(hours));
        cluster.pass(600).await;
        for node in ["node-1", "node-2"] {
            let node = cluster.of::<Node>().get("", node).await.unwrap();
            assert_eq!(ready_condition(Some(&node)), "True", "after {hours} h");
        }
    }
    assert_eq!(names::<Pod>(&cluster, "default").await, ["web"]);
    let web = cluster.of::<Pod>().get("default", "web").await.unwrap();
    assert_eq!(pod_condition(&web, "Ready").unwrap().status, "True");
    cluster.stop().await;
}
