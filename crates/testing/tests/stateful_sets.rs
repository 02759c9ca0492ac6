//! StatefulSets on a whole control plane with hollow nodes, in virtual time.

mod common;

use common::{cluster, events, is_ready, selector, template};
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::{ControllerRevision, StatefulSet};
use krate_api::types::core::v1::{PersistentVolumeClaim, Pod, Service, ServicePort};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_client::{Informer, PatchKind};
use krate_testing::{ControlPlane, Play, Watchdog};
use std::collections::HashMap;
use std::time::Duration;

fn stateful_set(name: &str, replicas: i32) -> StatefulSet {
    let mut set = StatefulSet::default();
    set.metadata.name = Some(name.to_owned());
    set.metadata.namespace = Some("default".to_owned());
    let spec = set.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.service_name = Some(name.to_owned());
    spec.selector = selector(name);
    spec.template = template(name);
    set
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.containers[0].image.as_deref()).unwrap_or("")
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}

/// Waits until exactly these pods are ready with these images, and the set says so.
async fn runs(cluster: &ControlPlane, pods: &[(&str, &str)]) {
    let wanted: HashMap<String, String> =
        pods.iter().map(|(name, image)| ((*name).to_owned(), (*image).to_owned())).collect();
    cluster
        .until_all(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let right = |p: &Pod| {
                wanted.get(name(p)).is_some_and(|i| i == image(p))
                    && is_ready(p)
                    && p.metadata.deletion_timestamp.is_none()
            };
            pods.len() == wanted.len() && pods.iter().all(|p| right(p))
        })
        .await;
    let n = i32::try_from(pods.len()).unwrap();
    cluster
        .until("default", "db", |set: Option<&StatefulSet>| {
            let Some(set) = set else { return false };
            let s = set.status.clone().unwrap_or_default();
            s.observed_generation == set.metadata.generation
                && (s.replicas, s.ready_replicas.unwrap_or(0), s.available_replicas.unwrap_or(0)) == (n, n, n)
        })
        .await;
}

fn all<'a>(pods: &[&'a str], image: &'a str) -> Vec<(&'a str, &'a str)> {
    pods.iter().map(|p| (*p, image)).collect()
}

const THREE: [&str; 3] = ["db-0", "db-1", "db-2"];

async fn merge(cluster: &ControlPlane, patch: &str) {
    let sets = cluster.of::<StatefulSet>();
    sets.patch("default", "db", PatchKind::StrategicMerge, patch.to_owned()).await.unwrap();
}

async fn scale(cluster: &ControlPlane, replicas: i32) {
    merge(cluster, &format!(r#"{{"spec":{{"replicas":{replicas}}}}}"#)).await;
}

async fn set_image(cluster: &ControlPlane, image: &str) {
    let containers = format!(r#"{{"containers":[{{"name":"main","image":"{image}"}}]}}"#);
    merge(cluster, &format!(r#"{{"spec":{{"template":{{"spec":{containers}}}}}}}"#)).await;
}

async fn partition(cluster: &ControlPlane, from: i32) {
    let strategy = format!(r#"{{"type":"RollingUpdate","rollingUpdate":{{"partition":{from}}}}}"#);
    merge(cluster, &format!(r#"{{"spec":{{"updateStrategy":{strategy}}}}}"#)).await;
}

/// Holds at every step that a pod only comes when all before it are ready.
async fn in_order(cluster: &ControlPlane) -> Watchdog {
    cluster
        .always(|pods: &Informer<Pod>| {
            let pods = pods.list();
            for ordinal in 1..pods.len() {
                let Some(pod) = pods.iter().find(|p| name(p) == format!("db-{ordinal}")) else { continue };
                let new = pod.status.as_ref().is_none_or(|s| s.conditions.is_none());
                let before = pods.iter().find(|p| name(p) == format!("db-{}", ordinal - 1));
                if new && !before.is_some_and(|p| is_ready(p)) {
                    return Err(format!("db-{ordinal} is there before db-{} is ready", ordinal - 1));
                }
            }
            Ok(())
        })
        .await
}

fn slowly() -> Play {
    Play { start: Duration::from_secs(5), stop: Duration::from_secs(2), ..Play::default() }
}

#[tokio::test(start_paused = true)]
async fn pods_start_in_order_with_names_and_labels() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.stage.script(|_| slowly());
    let order = in_order(&cluster).await;
    cluster.of::<StatefulSet>().create(stateful_set("db", 3)).await.unwrap();
    runs(&cluster, &all(&THREE, "db:1")).await;
    order.check();
    let pod = cluster.of::<Pod>().get("default", "db-1").await.unwrap();
    let labels = pod.metadata.labels.clone().unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    let set = cluster.of::<StatefulSet>().get("default", "db").await.unwrap();
    let status = set.status.clone().unwrap();
    assert_eq!(status.current_revision.as_ref(), Some(&labels["controller-revision-hash"]));
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(3), Some(3)));
    let told = events(&cluster).await;
    let text = "StatefulSet/db SuccessfulCreate: create Pod db-0 in StatefulSet db successful";
    assert!(told.iter().any(|e| e == text), "{told:#?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_halts_while_a_pod_is_unwell() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<StatefulSet>().create(stateful_set("db", 1)).await.unwrap();
    runs(&cluster, &all(&["db-0"], "db:1")).await;
    cluster.set_ready("default", "db-0", false).await.unwrap();
    cluster.until("default", "db-0", |p: Option<&Pod>| p.is_some_and(|p| !is_ready(p))).await;
    scale(&cluster, 3).await;
    cluster.pass(300).await;
    assert_eq!(common::names::<Pod>(&cluster, "default").await, ["db-0"]);
    cluster.set_ready("default", "db-0", true).await.unwrap();
    runs(&cluster, &all(&THREE, "db:1")).await;
    for pod in THREE {
        cluster.set_ready("default", pod, false).await.unwrap();
        cluster.until("default", pod, |p: Option<&Pod>| p.is_some_and(|p| !is_ready(p))).await;
    }
    scale(&cluster, 0).await;
    cluster.pass(300).await;
    assert_eq!(common::names::<Pod>(&cluster, "default").await, THREE);
    // Down from the highest, one at a time.
    let one = cluster
        .always(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let going = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_some()).count();
            let highest = pods.iter().map(|p| name(p)).max().unwrap_or("");
            let low = pods.iter().find(|p| p.metadata.deletion_timestamp.is_some() && name(p) != highest);
            if going > 1 || low.is_some() { Err(format!("{going} go, not only {highest}")) } else { Ok(()) }
        })
        .await;
    for pod in THREE {
        cluster.set_ready("default", pod, true).await.unwrap();
    }
    runs(&cluster, &[]).await;
    one.check();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn parallel_sets_start_and_stop_at_once_unwell_or_not() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.stage.script(|_| Play::unready());
    let mut set = stateful_set("db", 3);
    set.spec.as_mut().unwrap().pod_management_policy = Some("Parallel".to_owned());
    cluster.of::<StatefulSet>().create(set).await.unwrap();
    cluster.until_all(|pods: &Informer<Pod>| pods.len() == 3).await;
    scale(&cluster, 1).await;
    cluster.until_all(|pods: &Informer<Pod>| pods.len() == 1).await;
    assert_eq!(common::names::<Pod>(&cluster, "default").await, ["db-0"]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_goes_from_the_last_to_the_first_and_back() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.stage.script(|_| slowly());
    cluster.of::<StatefulSet>().create(stateful_set("db", 3)).await.unwrap();
    runs(&cluster, &all(&THREE, "db:1")).await;
    let one = cluster
        .always(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let ready = |p: &Pod| is_ready(p) && p.metadata.deletion_timestamp.is_none();
            let well = pods.iter().filter(|p| ready(p)).count();
            if well < 2 { Err(format!("only {well} ready")) } else { Ok(()) }
        })
        .await;
    set_image(&cluster, "db:2").await;
    cluster.until("default", "db-2", |p: Option<&Pod>| p.is_some_and(|p| image(p) == "db:2")).await;
    assert_eq!(image(&cluster.of::<Pod>().get("default", "db-1").await.unwrap()), "db:1");
    runs(&cluster, &all(&THREE, "db:2")).await;
    let revisions = cluster.informers.of::<ControllerRevision>();
    revisions.synced().await;
    let first = revisions.list().into_iter().find(|r| r.revision == 1).unwrap();
    merge(&cluster, &first.data.clone().unwrap().0.to_string()).await;
    runs(&cluster, &all(&THREE, "db:1")).await;
    one.check();
    let back = |s: Option<&StatefulSet>| {
        let s = s.and_then(|s| s.status.clone()).unwrap_or_default();
        s.current_revision == first.metadata.name && s.update_revision == first.metadata.name
    };
    cluster.until("default", "db", back).await;
    assert_eq!(revisions.len(), 2, "a rollback is no new revision");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_holds_the_rest_back() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<StatefulSet>().create(stateful_set("db", 3)).await.unwrap();
    runs(&cluster, &all(&THREE, "db:1")).await;
    partition(&cluster, 3).await;
    set_image(&cluster, "db:2").await;
    cluster.pass(120).await;
    runs(&cluster, &all(&THREE, "db:1")).await;
    partition(&cluster, 2).await;
    let canary = [("db-0", "db:1"), ("db-1", "db:1"), ("db-2", "db:2")];
    runs(&cluster, &canary).await;
    // What is lost comes back on its own side of the partition.
    for lost in ["db-0", "db-2"] {
        cluster.of::<Pod>().delete("default", lost, Default::default()).await.unwrap();
        cluster.pass(10).await;
        runs(&cluster, &canary).await;
    }
    let status = cluster.of::<StatefulSet>().get("default", "db").await.unwrap().status.clone().unwrap();
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(2), Some(1)));
    partition(&cluster, 0).await;
    runs(&cluster, &all(&THREE, "db:2")).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stuck_rollout_waits_for_the_broken_pod_to_be_deleted() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.stage.script(|pod| if image(pod) == "db:bad" { Play::unready() } else { Play::default() });
    cluster.of::<StatefulSet>().create(stateful_set("db", 3)).await.unwrap();
    runs(&cluster, &all(&THREE, "db:1")).await;
    set_image(&cluster, "db:bad").await;
    cluster.until("default", "db-2", |p: Option<&Pod>| p.is_some_and(|p| image(p) == "db:bad")).await;
    set_image(&cluster, "db:1").await;
    cluster.pass(600).await;
    assert_eq!(image(&cluster.of::<Pod>().get("default", "db-2").await.unwrap()), "db:bad");
    cluster.of::<Pod>().delete("default", "db-2", Default::default()).await.unwrap();
    cluster.pass(10).await;
    runs(&cluster, &all(&THREE, "db:1")).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_pod_is_made_anew_under_its_name() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<StatefulSet>().create(stateful_set("db", 1)).await.unwrap();
    runs(&cluster, &all(&["db-0"], "db:1")).await;
    let first = cluster.of::<Pod>().get("default", "db-0").await.unwrap().metadata.uid.clone();
    let fail = r#"{"status":{"phase":"Failed","reason":"Evicted"}}"#;
    cluster.of::<Pod>().patch_status("default", "db-0", PatchKind::Merge, fail).await.unwrap();
    cluster.until("default", "db-0", |p: Option<&Pod>| p.is_some_and(|p| p.metadata.uid != first)).await;
    runs(&cluster, &all(&["db-0"], "db:1")).await;
    let told = events(&cluster).await;
    let text = "RecreatingFailedPod: StatefulSet default/db is recreating failed Pod db-0";
    assert!(told.iter().any(|e| e.contains(text)), "{told:#?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_its_node_refuses_is_made_anew_ever_later() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<StatefulSet>().create(stateful_set("db", 1)).await.unwrap();
    let (mut uid, mut made) = (None, vec![]);
    for _ in 0..10 {
        let anew = |p: Option<&Pod>| p.is_some_and(|p| p.metadata.uid != uid);
        uid = cluster.until("default", "db-0", anew).await.unwrap().metadata.uid.clone();
        made.push(tokio::time::Instant::now());
        let fail = r#"{"status":{"phase":"Failed","reason":"OutOfcpu"}}"#;
        cluster.of::<Pod>().patch_status("default", "db-0", PatchKind::Merge, fail).await.unwrap();
    }
    let pauses: Vec<u64> = made.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    let wanted = [0, 1, 2, 4, 8, 16, 32, 60, 60];
    assert!(pauses.iter().zip(wanted).all(|(is, wanted)| *is >= wanted && *is <= wanted + 1), "{pauses:?}");
    // What may help is tried at once.
    set_image(&cluster, "db:2").await;
    let before = tokio::time::Instant::now();
    runs(&cluster, &all(&["db-0"], "db:2")).await;
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_lost_node_comes_back_only_when_the_old_one_is_surely_gone() {
    let (cluster, nodes) = cluster(2).await;
    cluster.of::<StatefulSet>().create(stateful_set("db", 1)).await.unwrap();
    runs(&cluster, &all(&["db-0"], "db:1")).await;
    let pod = cluster.of::<Pod>().get("default", "db-0").await.unwrap();
    let on = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
    let node = nodes.iter().find(|n| n.name() == on).unwrap();
    node.vanish().await;
    cluster.pass(3000).await;
    let held = cluster.of::<Pod>().get("default", "db-0").await.unwrap();
    assert_eq!(held.metadata.uid, pod.metadata.uid, "it might still run");
    assert!(held.metadata.deletion_timestamp.is_some(), "it is evicted");
    node.come_back();
    let anew = |p: Option<&Pod>| p.is_some_and(|p| p.metadata.uid != pod.metadata.uid);
    cluster.until("default", "db-0", anew).await;
    runs(&cluster, &all(&["db-0"], "db:1")).await;
    cluster.stop().await;
}

fn with_claims(mut set: StatefulSet, deleted: &str, scaled: &str) -> StatefulSet {
    let claim = serde_json::json!({"spec": {"volumeClaimTemplates": [{
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }], "selector": {}, "template": {}}});
    let from = <StatefulSet as krate_api::Kind>::from_value(claim).unwrap().spec.unwrap();
    let spec = set.spec.get_or_insert_default();
    spec.volume_claim_templates = from.volume_claim_templates;
    let policy = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    policy.when_deleted = Some(deleted.to_owned());
    policy.when_scaled = Some(scaled.to_owned());
    set
}

async fn claims(cluster: &ControlPlane, wanted: &[&str]) {
    let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
    cluster
        .until_all(|all: &Informer<PersistentVolumeClaim>| {
            let mut names: Vec<_> = all.list().iter().filter_map(|c| c.metadata.name.clone()).collect();
            names.sort_unstable();
            names == wanted
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn claims_outlive_their_pods_and_their_set() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<StatefulSet>().create(with_claims(stateful_set("db", 1), "Retain", "Retain")).await.unwrap();
    claims(&cluster, &["data-db-0"]).await;
    let pod = cluster.until("default", "db-0", |p: Option<&Pod>| p.is_some()).await.unwrap();
    let volumes = pod.spec.as_ref().unwrap().volumes.clone().unwrap();
    let claim = volumes.iter().find(|v| v.name == "data").unwrap().persistent_volume_claim.clone().unwrap();
    assert_eq!(claim.claim_name, "data-db-0");
    scale(&cluster, 0).await;
    cluster.until_all(|pods: &Informer<Pod>| pods.is_empty()).await;
    cluster.of::<StatefulSet>().delete("default", "db", Default::default()).await.unwrap();
    cluster.pass(60).await;
    claims(&cluster, &["data-db-0"]).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn claims_go_with_the_set_when_it_says_so() {
    let (cluster, _nodes) = cluster(1).await;
    let mut set = with_claims(stateful_set("db", 2), "Delete", "Retain");
    set.spec.as_mut().unwrap().pod_management_policy = Some("Parallel".to_owned());
    cluster.of::<StatefulSet>().create(set).await.unwrap();
    claims(&cluster, &["data-db-0", "data-db-1"]).await;
    let owned = |c: Option<&PersistentVolumeClaim>| {
        let owners = c.and_then(|c| c.metadata.owner_references.clone()).unwrap_or_default();
        owners.iter().any(|o| o.kind == "StatefulSet" && o.name == "db")
    };
    cluster.until("default", "data-db-0", owned).await;
    cluster.until("default", "data-db-1", owned).await;
    cluster.of::<StatefulSet>().delete("default", "db", DeleteOptions::default()).await.unwrap();
    // They are gone, or only protected for as long as a pod uses them.
    let goes = |c: &PersistentVolumeClaim| c.metadata.deletion_timestamp.is_some();
    cluster.until_all(|all: &Informer<PersistentVolumeClaim>| all.list().iter().all(|c| goes(c))).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn on_delete_ordinals_and_scale() {
    let (cluster, _nodes) = cluster(1).await;
    let mut set = stateful_set("db", 2);
    let spec = set.spec.as_mut().unwrap();
    spec.update_strategy.get_or_insert_default().type_ = Some("OnDelete".to_owned());
    spec.ordinals.get_or_insert_default().start = Some(5);
    cluster.of::<StatefulSet>().create(set).await.unwrap();
    runs(&cluster, &all(&["db-5", "db-6"], "db:1")).await;
    set_image(&cluster, "db:2").await;
    cluster.pass(120).await;
    runs(&cluster, &all(&["db-5", "db-6"], "db:1")).await;
    cluster.of::<Pod>().delete("default", "db-6", Default::default()).await.unwrap();
    cluster.pass(10).await;
    runs(&cluster, &[("db-5", "db:1"), ("db-6", "db:2")]).await;
    let mut wanted = (*cluster.of::<StatefulSet>().scale("default", "db").await.unwrap()).clone();
    assert_eq!(wanted.status.as_ref().unwrap().selector.as_deref(), Some("app=db"));
    wanted.spec.get_or_insert_default().replicas = Some(1);
    cluster.of::<StatefulSet>().update_scale("default", "db", wanted).await.unwrap();
    runs(&cluster, &all(&["db-5"], "db:1")).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_headless_service_tells_the_names_of_the_pods() {
    let (cluster, _nodes) = cluster(1).await;
    let mut service = Service::default();
    service.metadata.name = Some("db".to_owned());
    service.metadata.namespace = Some("default".to_owned());
    let spec = service.spec.get_or_insert_default();
    spec.cluster_ip = Some("None".to_owned());
    spec.selector = selector("db").match_labels;
    spec.ports = Some(vec![ServicePort { port: 5432, ..ServicePort::default() }]);
    cluster.of::<Service>().create(service).await.unwrap();
    cluster.of::<StatefulSet>().create(stateful_set("db", 2)).await.unwrap();
    cluster
        .until_all(|slices: &Informer<EndpointSlice>| {
            let slices = slices.list();
            let endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
            let mut names: Vec<_> = endpoints.filter_map(|e| e.hostname.clone()).collect();
            names.sort_unstable();
            names == ["db-0", "db-1"]
        })
        .await;
    cluster.stop().await;
}
