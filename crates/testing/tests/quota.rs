//! Resource quotas: nothing beyond them is made, and what goes away makes room.

mod common;

use common::{cluster, deployment, pod};
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use krate_api::types::core::v1::{
    ConfigMap, Namespace, Pod, ResourceQuota, ResourceRequirements, Secret, Service, ServicePort, ServiceSpec,
};
use krate_api::{Kind, Status};
use krate_client::PatchKind;
use krate_testing::ControlPlane;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

type Amounts = BTreeMap<String, Quantity>;

fn amounts(list: &[(&str, &str)]) -> Amounts {
    list.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
}

fn quota(name: &str, hard: &[(&str, &str)], scopes: &[&str]) -> ResourceQuota {
    let mut quota = ResourceQuota::default();
    quota.metadata.name = Some(name.to_owned());
    quota.metadata.namespace = Some("default".to_owned());
    let spec = quota.spec.get_or_insert_default();
    spec.hard = Some(amounts(hard));
    spec.scopes = (!scopes.is_empty()).then(|| scopes.iter().map(|s| (*s).to_owned()).collect());
    quota
}

fn asking(name: &str, requests: &[(&str, &str)]) -> Pod {
    let mut pod = pod(name);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.resources =
        Some(ResourceRequirements { requests: Some(amounts(requests)), ..ResourceRequirements::default() });
    pod
}

/// Makes the quota and waits until it is counted.
async fn enforced(cluster: &ControlPlane, quota: ResourceQuota) {
    let name = quota.metadata.name.clone().unwrap();
    cluster.of::<ResourceQuota>().create(quota).await.unwrap();
    cluster
        .until("default", &name, |q: Option<&ResourceQuota>| {
            q.and_then(|q| q.status.as_ref()).is_some_and(|s| s.used.is_some() && s.hard.is_some())
        })
        .await;
}

async fn uses(cluster: &ControlPlane, name: &str, wanted: &[(&str, &str)]) {
    let wanted = amounts(wanted);
    cluster
        .until("default", name, move |q: Option<&ResourceQuota>| {
            let used = q.and_then(|q| q.status.as_ref()).and_then(|s| s.used.clone()).unwrap_or_default();
            wanted.iter().all(|(name, amount)| used.get(name) == Some(amount))
        })
        .await;
}

fn message(status: Status) -> String {
    assert_eq!(status.code(), 403, "{status}");
    status.message().to_owned()
}

#[tokio::test(start_paused = true)]
async fn pods_are_charged_and_what_goes_away_makes_room() {
    let (cluster, _nodes) = cluster(1).await;
    enforced(&cluster, quota("q", &[("pods", "5"), ("cpu", "1"), ("memory", "500Mi")], &[])).await;
    let pods = cluster.of::<Pod>();
    pods.create(asking("a", &[("cpu", "500m"), ("memory", "252Mi")])).await.unwrap();
    // Charged with the write: no wait is needed.
    let now = cluster.of::<ResourceQuota>().get("default", "q").await.unwrap();
    let used = now.status.as_ref().unwrap().used.clone().unwrap();
    assert_eq!(used, amounts(&[("pods", "1"), ("cpu", "500m"), ("memory", "252Mi")]));
    let refused = pods.create(asking("b", &[("cpu", "600m"), ("memory", "100Mi")])).await.unwrap_err();
    assert_eq!(
        message(refused),
        "pods \"b\" is forbidden: exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1"
    );
    let silent = pods.create(asking("c", &[("cpu", "100m")])).await.unwrap_err();
    assert_eq!(message(silent), "pods \"c\" is forbidden: failed quota: q: must specify memory for: main");
    uses(&cluster, "q", &[("pods", "1")]).await;
    pods.delete("default", "a", Default::default()).await.unwrap();
    uses(&cluster, "q", &[("pods", "0"), ("cpu", "0"), ("memory", "0")]).await;
    pods.create(asking("b", &[("cpu", "600m"), ("memory", "100Mi")])).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_kind_is_counted_and_released() {
    let (cluster, _nodes) = cluster(1).await;
    let hard = [
        ("services", "10"),
        ("services.nodeports", "1"),
        ("services.loadbalancers", "1"),
        ("secrets", "10"),
        ("count/configmaps", "10"),
        ("count/replicasets.apps", "5"),
        ("resourcequotas", "1"),
    ];
    enforced(&cluster, quota("q", &hard, &[])).await;
    uses(&cluster, "q", &[("resourcequotas", "1"), ("services", "1"), ("secrets", "0")]).await;
    let second = cluster.of::<ResourceQuota>().create(quota("second", &[("pods", "1")], &[])).await;
    assert!(message(second.unwrap_err()).contains("exceeded quota: q, requested: resourcequotas=1"));
    let service = |name: &str, kind: &str| {
        let mut service = Service::default();
        service.metadata.name = Some(name.to_owned());
        service.metadata.namespace = Some("default".to_owned());
        service.spec = Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
            ..ServiceSpec::default()
        });
        service
    };
    let services = cluster.of::<Service>();
    services.create(service("one", "NodePort")).await.unwrap();
    let two = services.create(service("two", "LoadBalancer")).await.unwrap_err();
    assert!(message(two).contains(
        "requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"
    ));
    services.create(service("three", "ClusterIP")).await.unwrap();
    let grown = services
        .patch("default", "three", PatchKind::Merge, r#"{"spec":{"type":"NodePort"}}"#.to_owned())
        .await;
    assert!(message(grown.unwrap_err()).contains("exceeded quota: q, requested: services.nodeports=1"));
    let mut secret = Secret::default();
    secret.metadata.name = Some("s".to_owned());
    secret.metadata.namespace = Some("default".to_owned());
    cluster.of::<Secret>().create(secret).await.unwrap();
    let mut map = ConfigMap::default();
    map.metadata.name = Some("m".to_owned());
    map.metadata.namespace = Some("default".to_owned());
    cluster.of::<ConfigMap>().create(map).await.unwrap();
    cluster.of::<Deployment>().create(deployment("web", 1)).await.unwrap();
    uses(&cluster, "q", &[("secrets", "1"), ("services", "3"), ("count/replicasets.apps", "1")]).await;
    services.delete("default", "one", Default::default()).await.unwrap();
    cluster.of::<Secret>().delete("default", "s", Default::default()).await.unwrap();
    cluster.of::<Deployment>().delete("default", "web", Default::default()).await.unwrap();
    uses(
        &cluster,
        "q",
        &[("secrets", "0"), ("services", "2"), ("services.nodeports", "0"), ("count/replicasets.apps", "0")],
    )
    .await;
    assert!(cluster.of::<ReplicaSet>().list("default", Default::default()).await.unwrap().items.is_empty());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn scopes_choose_what_counts() {
    let (cluster, _nodes) = cluster(1).await;
    enforced(&cluster, quota("best", &[("pods", "1")], &["BestEffort"])).await;
    enforced(&cluster, quota("rest", &[("pods", "1")], &["NotBestEffort"])).await;
    enforced(&cluster, quota("timed", &[("pods", "1")], &["Terminating"])).await;
    cluster.of::<Pod>().create(pod("plain")).await.unwrap();
    let again = cluster.of::<Pod>().create(pod("plain-2")).await.unwrap_err();
    assert!(
        message(again).contains("exceeded quota: best, requested: pods=1, used: pods=1, limited: pods=1")
    );
    let mut timed = asking("timed", &[("cpu", "100m")]);
    timed.spec.as_mut().unwrap().active_deadline_seconds = Some(3600);
    cluster.of::<Pod>().create(timed).await.unwrap();
    uses(&cluster, "best", &[("pods", "1")]).await;
    uses(&cluster, "rest", &[("pods", "1")]).await;
    uses(&cluster, "timed", &[("pods", "1")]).await;
    cluster.of::<Pod>().delete("default", "timed", Default::default()).await.unwrap();
    uses(&cluster, "rest", &[("pods", "0")]).await;
    uses(&cluster, "timed", &[("pods", "0")]).await;
    uses(&cluster, "best", &[("pods", "1")]).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_writers_share_exactly_what_there_is() {
    let (cluster, _nodes) = cluster(1).await;
    enforced(&cluster, quota("q", &[("configmaps", "8")], &[])).await;
    // The authority's map is there already, or comes and takes its place.
    let all = (0..40).map(|number| {
        let api = cluster.of::<ConfigMap>();
        let mut map = ConfigMap::default();
        map.metadata.name = Some(format!("m{number}"));
        map.metadata.namespace = Some("default".to_owned());
        async move { api.create(map).await }
    });
    let outcomes = futures::future::join_all(all).await;
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert!(message(refused).contains("exceeded quota: q"));
    }
    let maps = cluster.of::<ConfigMap>().list("default", Default::default()).await.unwrap().items;
    assert_eq!(maps.len(), 8);
    uses(&cluster, "q", &[("configmaps", "8")]).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_costs_nothing_and_a_change_of_the_quota_is_counted() {
    let (cluster, _nodes) = cluster(1).await;
    enforced(&cluster, quota("q", &[("pods", "0")], &[])).await;
    assert!(message(cluster.of::<Pod>().create(pod("a")).await.unwrap_err()).contains("exceeded quota"));
    let wider = r#"{"spec":{"hard":{"pods":"1","configmaps":"20"}}}"#.to_owned();
    cluster.of::<ResourceQuota>().patch("default", "q", PatchKind::Merge, wider).await.unwrap();
    uses(&cluster, "q", &[("pods", "0"), ("configmaps", "1")]).await;
    cluster.of::<Pod>().create(pod("a")).await.unwrap();
    uses(&cluster, "q", &[("pods", "1")]).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_made_while_a_quota_is_new_is_counted() {
    let (cluster, _nodes) = cluster(0).await;
    cluster.faults.latency(Duration::from_millis(4));
    let hard = [("count/configmaps", "5")];
    // Each time a bit later: before, while and after the controller counts for the first time.
    for delay in 0..15 {
        let name = format!("q-{delay}");
        let namespace = json!({"metadata": {"name": name}});
        cluster.of::<Namespace>().create(Namespace::from_value(namespace).unwrap()).await.unwrap();
        cluster.until(&name, "kube-root-ca.crt", |map: Option<&ConfigMap>| map.is_some()).await;
        let mut quota = quota("q", &hard, &[]);
        quota.metadata.namespace = Some(name.clone());
        cluster.of::<ResourceQuota>().create(quota).await.unwrap();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let map = json!({"metadata": {"name": "m", "namespace": name}});
        cluster.of::<ConfigMap>().create(ConfigMap::from_value(map).unwrap()).await.unwrap();
    }
    cluster.pass(30).await;
    for quota in cluster.of::<ResourceQuota>().list("", Default::default()).await.unwrap().items {
        let used = quota.status.as_ref().and_then(|s| s.used.clone()).unwrap_or_default();
        assert_eq!(used, amounts(&[("count/configmaps", "2")]), "{:?}", quota.metadata.namespace);
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_at_once_is_counted_once() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.faults.latency(Duration::from_millis(4));
    enforced(&cluster, quota("q", &[("pods", "6"), ("count/configmaps", "9")], &[])).await;
    cluster.of::<Deployment>().create(deployment("web", 3)).await.unwrap();
    uses(&cluster, "q", &[("pods", "3")]).await;
    for _ in 0..20 {
        let pod = common::names::<Pod>(&cluster, "default").await[0].clone();
        let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        cluster.of::<Pod>().delete("default", &pod, at_once).await.unwrap();
        cluster.pass(10).await;
        let quota = cluster.of::<ResourceQuota>().get("default", "q").await.unwrap();
        assert_eq!(quota.status.as_ref().unwrap().used.as_ref().unwrap()["pods"].0, "3");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_counted_is_left_alone() {
    let (cluster, _nodes) = cluster(0).await;
    enforced(&cluster, quota("q", &[("pods", "3")], &[])).await;
    cluster.of::<Pod>().create(asking("one", &[])).await.unwrap();
    uses(&cluster, "q", &[("pods", "1")]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    cluster.faults.listen(move |who, _| {
        count.fetch_add(usize::from(who == "resourcequota-controller"), Ordering::Relaxed);
    });
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
