//! Where pods go, and what is said when they can go nowhere, on a whole control plane in virtual time.

mod common;

use common::{cluster, deployment, events, living, pod_condition};
use krate_api::Kind;
use krate_api::types::apps::v1::Deployment;
use krate_api::types::core::v1::{Namespace, Node, Pod};
use krate_api::types::policy::v1::PodDisruptionBudget;
use krate_api::types::scheduling::v1::PriorityClass;
use krate_client::{Informer, PatchKind};
use krate_testing::{Component, ControlPlane, HollowNode, Shape};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// A pod with label `app`, and its `spec` beside the one container.
fn pod(name: &str, app: &str, spec: Value) -> Pod {
    let mut all = json!({"containers": [{"name": "main", "image": "app:1"}]});
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let meta = json!({"name": name, "namespace": "default", "labels": {"app": app}});
    Pod::from_value(json!({"metadata": meta, "spec": all})).unwrap()
}

fn asking(resource: &str, amount: &str) -> Value {
    let amounts = json!({resource: amount});
    json!([{"name": "main", "image": "app:1", "resources": {"requests": amounts, "limits": amounts}}])
}

fn about(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

fn spread(key: &str, app: &str) -> Value {
    json!([{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": about(app)}])
}

fn required(kind: &str, key: &str, app: &str) -> Value {
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": key, "labelSelector": about(app)}]}})
}

/// One node in each of these zones: `node-1` in the first.
async fn zones(zones: &[&str]) -> (ControlPlane, Vec<HollowNode>) {
    let cluster = ControlPlane::in_virtual_time(7).await.unwrap();
    let mut nodes = vec![];
    for (at, zone) in zones.iter().enumerate() {
        nodes.push(node_in(&cluster, &format!("node-{}", at + 1), zone).await);
    }
    (cluster, nodes)
}

async fn node_in(cluster: &ControlPlane, name: &str, zone: &str) -> HollowNode {
    cluster.hollow_node_of(name, Shape::default().label(ZONE, zone)).await.unwrap()
}

async fn create(cluster: &ControlPlane, pod: Pod) {
    cluster.of::<Pod>().create(pod).await.unwrap();
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// The node that a pod gets.
async fn placed(cluster: &ControlPlane, name: &str) -> String {
    let pod = cluster.until("default", name, |p: Option<&Pod>| p.is_some_and(|p| node_of(p).is_some())).await;
    node_of(&pod.unwrap()).unwrap().to_owned()
}

/// What is said of a pod that gets no node.
async fn refused(cluster: &ControlPlane, name: &str) -> String {
    let said = |p: &Pod| {
        let condition = pod_condition(p, "PodScheduled")?;
        (condition.reason.as_deref() == Some("Unschedulable")).then(|| condition.message.clone())?
    };
    let pod =
        cluster.until("default", name, |p: Option<&Pod>| p.is_some_and(|p| said(p).is_some())).await.unwrap();
    said(&pod).unwrap()
}

async fn place(cluster: &ControlPlane, pod: Pod) -> String {
    let name = pod.metadata.name.clone().unwrap();
    create(cluster, pod).await;
    placed(cluster, &name).await
}

async fn all_placed(cluster: &ControlPlane, count: usize) -> Vec<Arc<Pod>> {
    cluster
        .until_all(|pods: &Informer<Pod>| {
            pods.list().iter().filter(|p| node_of(p).is_some()).count() == count
        })
        .await;
    cluster.informers.of::<Pod>().list()
}

fn template(deployment: &mut Deployment, key: &str, value: Value) {
    let mut json = json!({"containers": [{"name": "main", "image": "app:1"}]});
    json[key] = value;
    let pod = Pod::from_value(json!({"spec": json})).unwrap();
    deployment.spec.as_mut().unwrap().template.spec = pod.spec;
}

#[tokio::test(start_paused = true)]
async fn a_spread_is_kept_at_every_step() {
    let (cluster, _nodes) = zones(&["a", "a", "b", "c"]).await;
    let zone_of = BTreeMap::from([("node-1", 0), ("node-2", 0), ("node-3", 1), ("node-4", 2)]);
    let watchdog = cluster
        .always(move |pods: &Informer<Pod>| {
            let mut counts = [0_i32; 3];
            pods.list().iter().filter_map(|p| node_of(p).map(|n| zone_of[n])).for_each(|z| counts[z] += 1);
            let skew = counts.iter().max().unwrap() - counts.iter().min().unwrap();
            if skew <= 1 { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    let mut web = deployment("web", 11);
    template(&mut web, "topologySpreadConstraints", spread(ZONE, "web"));
    cluster.of::<Deployment>().create(web).await.unwrap();
    all_placed(&cluster, 11).await;
    watchdog.check();
}

#[tokio::test(start_paused = true)]
async fn too_few_zones_hold_a_pod_back_until_one_more_comes() {
    let (cluster, _nodes) = zones(&["a", "b"]).await;
    let mut constraint = spread(ZONE, "web");
    constraint[0]["minDomains"] = json!(3);
    for name in ["one", "two"] {
        place(&cluster, pod(name, "web", json!({"topologySpreadConstraints": constraint}))).await;
    }
    create(&cluster, pod("three", "web", json!({"topologySpreadConstraints": constraint}))).await;
    let said = refused(&cluster, "three").await;
    let want = "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints.";
    assert!(said.starts_with(want), "{said}");
    let _third = node_in(&cluster, "node-3", "c").await;
    assert_eq!(placed(&cluster, "three").await, "node-3");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_the_topologys_label_takes_no_spread_pod() {
    let (cluster, _nodes) = cluster(1).await;
    create(&cluster, pod("web", "web", json!({"topologySpreadConstraints": spread(ZONE, "web")}))).await;
    let said = refused(&cluster, "web").await;
    let want = "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints \
                (missing required label).";
    assert!(said.starts_with(want), "{said}");
    let patch = json!({"metadata": {"labels": {ZONE: "a"}}}).to_string();
    cluster.of::<Node>().patch("", "node-1", PatchKind::Merge, patch).await.unwrap();
    assert_eq!(placed(&cluster, "web").await, "node-1");
}

#[tokio::test(start_paused = true)]
async fn anti_affinity_lets_one_on_each_host() {
    let (cluster, _nodes) = cluster(3).await;
    let watchdog = cluster
        .always(|pods: &Informer<Pod>| {
            let mut taken: Vec<String> =
                pods.list().iter().filter_map(|p| node_of(p).map(str::to_owned)).collect();
            taken.sort();
            let two = taken.windows(2).find(|two| two[0] == two[1]);
            two.map_or(Ok(()), |two| Err(format!("two on {}", two[0])))
        })
        .await;
    let mut web = deployment("web", 4);
    template(&mut web, "affinity", required("podAntiAffinity", HOST, "web"));
    cluster.of::<Deployment>().create(web).await.unwrap();
    let pods = all_placed(&cluster, 3).await;
    let waiting = pods.iter().find(|p| node_of(p).is_none()).unwrap();
    let name = waiting.metadata.name.clone().unwrap();
    let said = refused(&cluster, &name).await;
    let want = "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.";
    assert!(said.starts_with(want), "{said}");
    assert!(said.ends_with("3 No preemption victims found for incoming pod."), "{said}");
    let _fourth = cluster.hollow_node("node-4").await.unwrap();
    assert_eq!(placed(&cluster, &name).await, "node-4");
    watchdog.check();
}

#[tokio::test(start_paused = true)]
async fn those_who_are_there_keep_others_away() {
    let (cluster, _nodes) = cluster(1).await;
    let shy = pod("shy", "shy", json!({"affinity": required("podAntiAffinity", HOST, "loud")}));
    place(&cluster, shy).await;
    create(&cluster, pod("loud", "loud", json!({}))).await;
    let said = refused(&cluster, "loud").await;
    let want = "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.";
    assert!(said.starts_with(want), "{said}");
    cluster.of::<Pod>().delete("default", "shy", Default::default()).await.unwrap();
    assert_eq!(placed(&cluster, "loud").await, "node-1");
}

#[tokio::test(start_paused = true)]
async fn a_pod_follows_another_into_its_zone() {
    let (cluster, _nodes) = zones(&["a", "b", "b"]).await;
    create(&cluster, pod("web", "web", json!({"affinity": required("podAffinity", ZONE, "db")}))).await;
    let said = refused(&cluster, "web").await;
    let want = "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.";
    assert!(said.starts_with(want), "{said}");
    assert!(said.contains("3 Preemption is not helpful for scheduling."), "{said}");
    place(&cluster, pod("db", "db", json!({"nodeSelector": {HOST: "node-2"}}))).await;
    assert!(["node-2", "node-3"].contains(&placed(&cluster, "web").await.as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_wants_to_be_together_begins_somewhere_and_stays_there() {
    let (cluster, _nodes) = zones(&["a", "b", "c"]).await;
    let member = |name: &str| pod(name, "g", json!({"affinity": required("podAffinity", ZONE, "g")}));
    let first = place(&cluster, member("one")).await;
    assert_eq!(place(&cluster, member("two")).await, first);
    assert_eq!(place(&cluster, member("three")).await, first);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_gets_a_label_is_looked_into() {
    let (cluster, _nodes) = cluster(1).await;
    let mut space = Namespace::default();
    space.metadata.name = Some("data".to_owned());
    cluster.of::<Namespace>().create(space).await.unwrap();
    let mut db = pod("db", "db", json!({}));
    db.metadata.namespace = Some("data".to_owned());
    create(&cluster, db).await;
    let mut affinity = required("podAffinity", HOST, "db");
    affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["namespaceSelector"] =
        json!({"matchLabels": {"team": "x"}});
    create(&cluster, pod("web", "web", json!({"affinity": affinity}))).await;
    refused(&cluster, "web").await;
    let patch = json!({"metadata": {"labels": {"team": "x"}}}).to_string();
    cluster.of::<Namespace>().patch("", "data", PatchKind::Merge, patch).await.unwrap();
    assert_eq!(placed(&cluster, "web").await, "node-1");
}

#[tokio::test(start_paused = true)]
async fn replicas_are_spread_over_zones_without_being_asked_to() {
    let (cluster, _nodes) = zones(&["a", "a", "b"]).await;
    cluster.of::<Deployment>().create(deployment("web", 6)).await.unwrap();
    let pods = all_placed(&cluster, 6).await;
    let in_b = pods.iter().filter(|p| node_of(p) == Some("node-3")).count();
    assert!((2..=3).contains(&in_b), "{in_b} of 6 in the smaller zone");
}

async fn priority(cluster: &ControlPlane, name: &str, value: i32, policy: &str) {
    let class = json!({"metadata": {"name": name}, "value": value, "preemptionPolicy": policy});
    cluster.of::<PriorityClass>().create(PriorityClass::from_value(class).unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_important_pod_takes_a_place_and_all_is_said() {
    let (cluster, _nodes) = cluster(1).await;
    priority(&cluster, "high", 1000, "PreemptLowerPriority").await;
    place(&cluster, pod("low", "low", json!({"containers": asking("cpu", "3")}))).await;
    let marked = cluster
        .always(|pods: &Informer<Pod>| {
            let Some(low) = pods.get("default/low") else { return Ok(()) };
            let reason = pod_condition(&low, "DisruptionTarget").and_then(|c| c.reason.clone());
            let is_marked = reason.as_deref() == Some("PreemptionByScheduler");
            if low.metadata.deletion_timestamp.is_none() || is_marked {
                Ok(())
            } else {
                Err(format!("deleted with {reason:?}"))
            }
        })
        .await;
    let vip = pod("vip", "vip", json!({"containers": asking("cpu", "2"), "priorityClassName": "high"}));
    let nominated = |pod: &Pod| pod.status.as_ref().and_then(|s| s.nominated_node_name.clone());
    let promised = Arc::new(AtomicBool::new(false));
    let seen = promised.clone();
    let watched = cluster
        .always(move |pods: &Informer<Pod>| {
            let Some(vip) = pods.get("default/vip") else { return Ok(()) };
            let is_bound = vip.spec.as_ref().is_some_and(|s| s.node_name.is_some());
            seen.fetch_or(nominated(&vip).as_deref() == Some("node-1"), Ordering::Relaxed);
            if is_bound && nominated(&vip).is_some() { Err("bound and nominated".to_owned()) } else { Ok(()) }
        })
        .await;
    create(&cluster, vip).await;
    assert_eq!(placed(&cluster, "vip").await, "node-1");
    marked.check();
    watched.check();
    assert!(promised.load(Ordering::Relaxed), "it was nominated before it was bound");
    let uid = cluster.of::<Pod>().get("default", "vip").await.unwrap().metadata.uid.clone().unwrap();
    cluster.pass(5).await;
    let all = events(&cluster).await;
    let preempted = format!("Pod/low Preempted: Preempted by pod {uid} on node node-1");
    assert!(all.contains(&preempted), "{all:#?}");
    assert!(all.contains(&"Pod/vip Scheduled: Successfully assigned default/vip to node-1".to_owned()));
    let said = "Pod/vip FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu.";
    assert!(all.iter().any(|event| event.starts_with(said)), "{all:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_budget_decides_who_has_to_go() {
    let (cluster, _nodes) = cluster(2).await;
    priority(&cluster, "high", 1000, "PreemptLowerPriority").await;
    let low = |name: &str, node: &str| {
        pod(name, name, json!({"containers": asking("cpu", "3"), "nodeSelector": {HOST: node}}))
    };
    place(&cluster, low("guarded", "node-1")).await;
    place(&cluster, low("free", "node-2")).await;
    let budget = json!({"metadata": {"name": "guard", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": about("guarded")}});
    cluster.of::<PodDisruptionBudget>().create(Kind::from_value(budget).unwrap()).await.unwrap();
    cluster.pass(5).await;
    let vip = pod("vip", "vip", json!({"containers": asking("cpu", "2"), "priorityClassName": "high"}));
    assert_eq!(place(&cluster, vip).await, "node-2");
    assert!(cluster.of::<Pod>().get("default", "guarded").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_may_not_preempt_waits_for_room() {
    let (cluster, _nodes) = cluster(1).await;
    priority(&cluster, "polite", 1000, "Never").await;
    place(&cluster, pod("low", "low", json!({"containers": asking("cpu", "3")}))).await;
    let polite = json!({"containers": asking("cpu", "2"), "priorityClassName": "polite"});
    create(&cluster, pod("polite", "polite", polite)).await;
    let said = refused(&cluster, "polite").await;
    assert!(said.ends_with("preemption: not eligible due to preemptionPolicy=Never."), "{said}");
    cluster.of::<Pod>().delete("default", "low", Default::default()).await.unwrap();
    assert_eq!(placed(&cluster, "polite").await, "node-1");
}

#[tokio::test(start_paused = true)]
async fn the_most_important_of_those_who_wait_is_first() {
    let cluster = ControlPlane::in_virtual_time(7).await.unwrap();
    priority(&cluster, "high", 1000, "PreemptLowerPriority").await;
    create(&cluster, pod("low", "low", json!({"containers": asking("cpu", "3")}))).await;
    let high = json!({"containers": asking("cpu", "3"), "priorityClassName": "high"});
    create(&cluster, pod("high", "high", high)).await;
    assert_eq!(refused(&cluster, "high").await, "no nodes available to schedule pods");
    let _node = cluster.hollow_node("node-1").await.unwrap();
    assert_eq!(placed(&cluster, "high").await, "node-1");
    assert!(refused(&cluster, "low").await.contains("1 Insufficient cpu"));
}

#[tokio::test(start_paused = true)]
async fn a_gated_pod_is_not_tried_before_its_gates_are_lifted() {
    let (cluster, _nodes) = cluster(1).await;
    let gated = json!({"schedulingGates": [{"name": "example.com/a"}, {"name": "example.com/b"}]});
    create(&cluster, pod("gated", "gated", gated)).await;
    let is_gated = |p: Option<&Pod>| {
        let condition = p.and_then(|p| pod_condition(p, "PodScheduled"));
        condition.is_some_and(|c| {
            c.status == "False"
                && c.reason.as_deref() == Some("SchedulingGated")
                && c.message.as_deref() == Some("Scheduling is blocked due to non-empty scheduling gates")
        })
    };
    cluster.until("default", "gated", is_gated).await;
    let lift = |left: Value| json!({"spec": {"schedulingGates": left}}).to_string();
    let pods = cluster.of::<Pod>();
    let one = lift(json!([{"name": "example.com/b"}]));
    pods.patch("default", "gated", PatchKind::Merge, one).await.unwrap();
    cluster.pass(60).await;
    assert!(node_of(&pods.get("default", "gated").await.unwrap()).is_none());
    pods.patch("default", "gated", PatchKind::Merge, lift(json!(null))).await.unwrap();
    assert_eq!(placed(&cluster, "gated").await, "node-1");
    assert!(!events(&cluster).await.iter().any(|event| event.contains("FailedScheduling")));
}

/// 50 s after the last word of a node it is unreachable; its pods stay for as long as they tolerate that,
/// five minutes if they do not say.
#[tokio::test(start_paused = true)]
async fn pods_leave_a_lost_node_after_the_documented_times() {
    // of a cluster whose nodes are all silent nobody is taken away: it is rather we who are cut off
    let (cluster, nodes) = cluster(3).await;
    let tolerates = |seconds: Option<i64>| {
        let taint = "node.kubernetes.io/unreachable";
        let mut toleration = json!({"key": taint, "operator": "Exists", "effect": "NoExecute"});
        if let Some(seconds) = seconds {
            toleration["tolerationSeconds"] = json!(seconds);
        }
        json!({"tolerations": [toleration], "nodeSelector": {HOST: "node-1"}})
    };
    for (name, spec) in [
        ("default", json!({"nodeSelector": {HOST: "node-1"}})),
        ("hasty", tolerates(Some(20))),
        ("patient", tolerates(None)),
    ] {
        place(&cluster, pod(name, name, spec)).await;
    }
    cluster.pass(60).await;
    let lost = Instant::now();
    nodes[0].vanish().await;
    let is_leaving = |p: Option<&Pod>| p.is_none_or(|p| p.metadata.deletion_timestamp.is_some());
    let within = |name: &str, seconds: std::ops::Range<u64>| {
        let after = lost.elapsed();
        let range = Duration::from_secs(seconds.start)..Duration::from_secs(seconds.end);
        assert!(range.contains(&after), "{name} left after {after:?}");
    };
    cluster.until("default", "hasty", is_leaving).await;
    within("hasty", 55..80);
    cluster.until("default", "default", is_leaving).await;
    within("default", 335..360);
    cluster.pass(3600).await;
    assert!(!is_leaving(cluster.of::<Pod>().get("default", "patient").await.ok().as_deref()));
    let marked = cluster.of::<Pod>().get("default", "hasty").await.unwrap();
    let target = pod_condition(&marked, "DisruptionTarget").unwrap();
    assert_eq!(target.reason.as_deref(), Some("DeletionByTaintManager"));
}

#[tokio::test(start_paused = true)]
async fn every_node_says_why_not() {
    let (cluster, _nodes) = cluster(4).await;
    let patch = async |name: &str, spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        cluster.of::<Node>().patch("", name, PatchKind::Merge, patch).await.unwrap();
    };
    patch("node-1", json!({"unschedulable": true})).await;
    patch("node-2", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]})).await;
    cluster.pass(5).await;
    place(
        &cluster,
        pod("full", "full", json!({"containers": asking("cpu", "3"), "nodeSelector": {HOST: "node-3"}})),
    )
    .await;
    let expression = json!({"key": HOST, "operator": "NotIn", "values": ["node-4"]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [expression]}]}}});
    create(&cluster, pod("web", "web", json!({"containers": asking("cpu", "2"), "affinity": affinity})))
        .await;
    let said = refused(&cluster, "web").await;
    for part in [
        "0/4 nodes are available: 1 Insufficient cpu, ",
        "1 node(s) didn't match Pod's node affinity/selector",
        "1 node(s) had untolerated taint(s)",
        "1 node(s) were unschedulable.",
        "preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, \
         3 Preemption is not helpful for scheduling.",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_host_port_is_for_one_pod_on_each_address() {
    let (cluster, _nodes) = cluster(1).await;
    let with = |name: &str, ip: &str, protocol: &str| {
        let port = json!({"containerPort": 80, "hostPort": 54321, "hostIP": ip, "protocol": protocol});
        pod(name, name, json!({"containers": [{"name": "main", "image": "app:1", "ports": [port]}]}))
    };
    place(&cluster, with("one", "127.0.0.1", "TCP")).await;
    place(&cluster, with("two", "127.0.0.2", "TCP")).await;
    place(&cluster, with("three", "127.0.0.2", "UDP")).await;
    create(&cluster, with("all", "0.0.0.0", "TCP")).await;
    let said = refused(&cluster, "all").await;
    let want = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    assert!(said.starts_with(want), "{said}");
}

#[tokio::test(start_paused = true)]
async fn what_a_node_says_to_have_can_be_asked_for() {
    let (cluster, _nodes) = cluster(1).await;
    create(&cluster, pod("gpu", "gpu", json!({"containers": asking("example.com/gpu", "2")}))).await;
    assert!(refused(&cluster, "gpu").await.contains("1 Insufficient example.com/gpu"));
    let amount = json!({"example.com/gpu": "2"});
    let patch = json!({"status": {"capacity": amount, "allocatable": amount}}).to_string();
    cluster.of::<Node>().patch_status("", "node-1", PatchKind::StrategicMerge, patch).await.unwrap();
    assert_eq!(placed(&cluster, "gpu").await, "node-1");
}

#[tokio::test(start_paused = true)]
async fn pods_count_with_their_sidecars_and_not_with_all_that_prepares_them() {
    let (cluster, _nodes) = cluster(1).await;
    let container = |name: &str, cpu: &str| json!({"name": name, "image": "app:1", "resources": {"requests": {"cpu": cpu}}});
    let mut sidecar = container("s", "1");
    sidecar["restartPolicy"] = json!("Always");
    let first = json!({"containers": [container("main", "1")],
        "initContainers": [container("i", "2"), sidecar]});
    place(&cluster, pod("first", "first", first)).await;
    create(&cluster, pod("large", "large", json!({"containers": [container("main", "2100m")]}))).await;
    assert!(refused(&cluster, "large").await.contains("1 Insufficient cpu"));
    place(&cluster, pod("small", "small", json!({"containers": [container("main", "2")]}))).await;
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_is_killed_in_the_middle_finishes_when_it_is_back() {
    let (cluster, _nodes) = zones(&["a", "b", "c"]).await;
    let mut web = deployment("web", 30);
    template(&mut web, "topologySpreadConstraints", spread(ZONE, "web"));
    cluster.of::<Deployment>().create(web).await.unwrap();
    cluster.until_all(|pods: &Informer<Pod>| pods.list().iter().any(|p| node_of(p).is_some())).await;
    cluster.restart(Component::Scheduler).await.unwrap();
    let pods = all_placed(&cluster, 30).await;
    assert_eq!(living(&pods).len(), 30);
    for node in ["node-1", "node-2", "node-3"] {
        assert_eq!(pods.iter().filter(|p| node_of(p) == Some(node)).count(), 10, "{node}");
    }
}
