//! DaemonSets on a whole control plane with hollow nodes, in virtual time.

mod common;

use common::{cluster, events, is_ready, living, selector, template};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::types::apps::v1::{ControllerRevision, DaemonSet};
use krate_api::types::core::v1::{Node, Pod, Taint};
use krate_client::{Informer, PatchKind};
use krate_testing::{ControlPlane, Play, Shape};
use std::collections::BTreeMap;
use std::time::Duration;

fn daemon_set(name: &str) -> DaemonSet {
    let mut set = DaemonSet::default();
    set.metadata.name = Some(name.to_owned());
    set.metadata.namespace = Some("default".to_owned());
    let spec = set.spec.get_or_insert_default();
    spec.selector = selector(name);
    spec.template = template(name);
    set
}

fn bounded(mut set: DaemonSet, unavailable: i32, surge: i32) -> DaemonSet {
    let strategy = set.spec.get_or_insert_default().update_strategy.get_or_insert_default();
    strategy.type_ = Some("RollingUpdate".to_owned());
    let rolling = strategy.rolling_update.get_or_insert_default();
    rolling.max_unavailable = Some(IntOrString::Int(unavailable));
    rolling.max_surge = Some(IntOrString::Int(surge));
    set
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.containers[0].image.as_deref()).unwrap_or("")
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

/// Waits until the set runs on exactly these nodes, with this image, and says so.
async fn runs_on(cluster: &ControlPlane, nodes: &[&str], wanted: &str) {
    let n = i32::try_from(nodes.len()).unwrap();
    let nodes: Vec<String> = nodes.iter().map(|n| (*n).to_owned()).collect();
    cluster
        .until_all(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let mut on: Vec<_> = pods.iter().filter(|p| image(p) == wanted).map(|p| node(p)).collect();
            on.sort_unstable();
            on == nodes && pods.len() == nodes.len()
        })
        .await;
    cluster
        .until("default", "agent", |set: Option<&DaemonSet>| {
            let Some(set) = set else { return false };
            let s = set.status.clone().unwrap_or_default();
            s.observed_generation == set.metadata.generation
                && (s.desired_number_scheduled, s.current_number_scheduled) == (n, n)
                && (s.number_ready, s.number_available.unwrap_or(0)) == (n, n)
                && (s.updated_number_scheduled.unwrap_or(0), s.number_unavailable.unwrap_or(0)) == (n, 0)
        })
        .await;
}

async fn merge(cluster: &ControlPlane, patch: &str) {
    let sets = cluster.of::<DaemonSet>();
    sets.patch("default", "agent", PatchKind::StrategicMerge, patch.to_owned()).await.unwrap();
}

async fn set_image(cluster: &ControlPlane, image: &str) {
    let containers = format!(r#"{{"containers":[{{"name":"main","image":"{image}"}}]}}"#);
    merge(cluster, &format!(r#"{{"spec":{{"template":{{"spec":{containers}}}}}}}"#)).await;
}

async fn label(cluster: &ControlPlane, node: &str, labels: &str) {
    let patch = format!(r#"{{"metadata":{{"labels":{labels}}}}}"#);
    cluster.of::<Node>().patch("", node, PatchKind::Merge, patch).await.unwrap();
}

async fn taint(cluster: &ControlPlane, node: &str, key: &str, effect: &str) {
    let change = |node: &mut Node| {
        let taint = Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() };
        node.spec.get_or_insert_default().taints.get_or_insert_default().push(taint);
        true
    };
    cluster.of::<Node>().modify("", node, change).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_node_has_one_and_a_joining_node_gets_one() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<DaemonSet>().create(daemon_set("agent")).await.unwrap();
    runs_on(&cluster, &["node-1", "node-2"], "agent:1").await;
    let _late = cluster.hollow_node("node-3").await.unwrap();
    runs_on(&cluster, &["node-1", "node-2", "node-3"], "agent:1").await;
    let pod = cluster.informers.of::<Pod>().list()[0].clone();
    let labels = pod.metadata.labels.clone().unwrap();
    assert_eq!(labels["pod-template-generation"], "1");
    assert!(labels.contains_key("controller-revision-hash"));
    assert!(
        events(&cluster)
            .await
            .iter()
            .any(|e| e.contains("DaemonSet/agent SuccessfulCreate: Created pod: agent-"))
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_deleted_or_fails_is_replaced() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<DaemonSet>().create(daemon_set("agent")).await.unwrap();
    runs_on(&cluster, &["node-1"], "agent:1").await;
    let first = cluster.informers.of::<Pod>().list()[0].clone();
    let name = first.metadata.name.clone().unwrap();
    cluster.of::<Pod>().delete("default", &name, Default::default()).await.unwrap();
    cluster.until("default", &name, |p: Option<&Pod>| p.is_none()).await;
    runs_on(&cluster, &["node-1"], "agent:1").await;
    // As a node that rejects or evicts a pod leaves it.
    let second = cluster.informers.of::<Pod>().list()[0].metadata.name.clone().unwrap();
    cluster.stage.script(|_| Play::default());
    let fail = r#"{"status":{"phase":"Failed","reason":"Evicted"}}"#;
    cluster.of::<Pod>().patch_status("default", &second, PatchKind::Merge, fail).await.unwrap();
    cluster.until("default", &second, |p: Option<&Pod>| p.is_none()).await;
    runs_on(&cluster, &["node-1"], "agent:1").await;
    let told = events(&cluster).await;
    let text = format!(
        "FailedDaemonPod: Found failed daemon pod default/{second} on node node-1, will try to kill it"
    );
    assert!(told.iter().any(|e| e.contains(&text)), "{told:#?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_are_chosen_by_label() {
    let cluster = ControlPlane::in_virtual_time(7).await.unwrap();
    let _a = cluster.hollow_node_of("node-1", Shape::default().label("color", "blue")).await.unwrap();
    let _b = cluster.hollow_node("node-2").await.unwrap();
    let mut set = daemon_set("agent");
    set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_selector =
        Some(BTreeMap::from([("color".to_owned(), "blue".to_owned())]));
    cluster.of::<DaemonSet>().create(set).await.unwrap();
    runs_on(&cluster, &["node-1"], "agent:1").await;
    label(&cluster, "node-2", r#"{"color":"blue"}"#).await;
    runs_on(&cluster, &["node-1", "node-2"], "agent:1").await;
    label(&cluster, "node-1", r#"{"color":"green"}"#).await;
    runs_on(&cluster, &["node-2"], "agent:1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn taints_keep_daemons_out_or_drive_them_off() {
    let (cluster, _nodes) = cluster(3).await;
    taint(&cluster, "node-1", "dedicated", "NoSchedule").await;
    cluster.of::<DaemonSet>().create(daemon_set("agent")).await.unwrap();
    runs_on(&cluster, &["node-2", "node-3"], "agent:1").await;
    // A cordon keeps no daemon away, and a later NoSchedule leaves the running one where it is.
    taint(&cluster, "node-2", "dedicated", "NoSchedule").await;
    cluster
        .until("default", "agent", |s: Option<&DaemonSet>| {
            let s = s.and_then(|s| s.status.clone()).unwrap_or_default();
            (s.desired_number_scheduled, s.number_misscheduled) == (1, 1)
        })
        .await;
    assert_eq!(cluster.informers.of::<Pod>().len(), 2);
    taint(&cluster, "node-2", "gone", "NoExecute").await;
    runs_on(&cluster, &["node-3"], "agent:1").await;
    let mut cordoned = (*cluster.of::<Node>().get("", "node-3").await.unwrap()).clone();
    cordoned.spec.get_or_insert_default().unschedulable = Some(true);
    cluster.of::<Node>().update(cordoned).await.unwrap();
    cluster.pass(60).await;
    runs_on(&cluster, &["node-3"], "agent:1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_keeps_its_bounds_and_can_be_rolled_back() {
    let (cluster, _nodes) = cluster(4).await;
    cluster.stage.script(|_| Play { start: Duration::from_secs(3), ..Play::default() });
    cluster.of::<DaemonSet>().create(bounded(daemon_set("agent"), 2, 0)).await.unwrap();
    let all = ["node-1", "node-2", "node-3", "node-4"];
    runs_on(&cluster, &all, "agent:1").await;
    let bounds = cluster
        .always(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let ready = living(&pods).into_iter().filter(|p| is_ready(p)).count();
            // One that has ended and only waits to be removed is in nobody's way.
            let ended = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
            let there = pods.iter().filter(|p| !ended(p) && p.metadata.deletion_timestamp.is_none()).count();
            if there > 4 {
                return Err(format!("{there} pods on 4 nodes"));
            }
            if ready < 2 { Err(format!("{ready} ready")) } else { Ok(()) }
        })
        .await;
    set_image(&cluster, "agent:2").await;
    runs_on(&cluster, &all, "agent:2").await;
    bounds.check();
    // As kubectl rolls back: the old revision's data is the patch.
    let revisions = cluster.informers.of::<ControllerRevision>();
    revisions.synced().await;
    let first = revisions.list().into_iter().find(|r| r.revision == 1).unwrap();
    merge(&cluster, &first.data.clone().unwrap().0.to_string()).await;
    runs_on(&cluster, &all, "agent:1").await;
    bounds.check();
    let name = first.metadata.name.clone().unwrap();
    let third = |r: Option<&ControllerRevision>| r.is_some_and(|r| r.revision == 3);
    cluster.until("default", &name, third).await;
    assert_eq!(revisions.len(), 2);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_surge_never_leaves_a_node_without() {
    let (cluster, _nodes) = cluster(3).await;
    cluster.stage.script(|_| Play { start: Duration::from_secs(3), ..Play::default() });
    let mut set = bounded(daemon_set("agent"), 0, 1);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(5);
    cluster.of::<DaemonSet>().create(set).await.unwrap();
    let all = ["node-1", "node-2", "node-3"];
    runs_on(&cluster, &all, "agent:1").await;
    let bounds = cluster
        .always(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let mut ready: Vec<_> =
                living(&pods).into_iter().filter(|p| is_ready(p)).map(|p| node(p).to_owned()).collect();
            ready.sort_unstable();
            ready.dedup();
            if ready.len() < 3 {
                return Err(format!("ready on {ready:?} only"));
            }
            let living = living(&pods).len();
            if living > 4 { Err(format!("{living} pods: more than maxSurge allows")) } else { Ok(()) }
        })
        .await;
    set_image(&cluster, "agent:2").await;
    runs_on(&cluster, &all, "agent:2").await;
    bounds.check();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn on_delete_waits_for_the_deletion() {
    let (cluster, _nodes) = cluster(1).await;
    let mut set = daemon_set("agent");
    set.spec.as_mut().unwrap().update_strategy.get_or_insert_default().type_ = Some("OnDelete".to_owned());
    cluster.of::<DaemonSet>().create(set).await.unwrap();
    runs_on(&cluster, &["node-1"], "agent:1").await;
    set_image(&cluster, "agent:2").await;
    cluster.pass(120).await;
    let pod = cluster.informers.of::<Pod>().list()[0].clone();
    assert_eq!(image(&pod), "agent:1");
    let name = pod.metadata.name.clone().unwrap();
    cluster.of::<Pod>().delete("default", &name, Default::default()).await.unwrap();
    runs_on(&cluster, &["node-1"], "agent:2").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_keeps_its_daemon_and_a_removed_one_loses_it() {
    let (cluster, nodes) = cluster(2).await;
    cluster.of::<DaemonSet>().create(daemon_set("agent")).await.unwrap();
    runs_on(&cluster, &["node-1", "node-2"], "agent:1").await;
    let before = common::names::<Pod>(&cluster, "default").await;
    nodes[1].vanish().await;
    cluster.pass(1800).await;
    assert_eq!(common::names::<Pod>(&cluster, "default").await, before, "daemons tolerate unreachable nodes");
    nodes[1].come_back();
    runs_on(&cluster, &["node-1", "node-2"], "agent:1").await;
    nodes[1].vanish().await;
    cluster.of::<Node>().delete("", "node-2", Default::default()).await.unwrap();
    runs_on(&cluster, &["node-1"], "agent:1").await;
    cluster.stop().await;
}
