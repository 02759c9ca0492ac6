//! Disruption budgets, evictions and drains on a whole control plane with hollow nodes, in virtual time.

mod common;

use common::{cluster, deployment, names, selector};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::types::apps::v1::Deployment;
use krate_api::types::core::v1::{Node, Pod};
use krate_api::types::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use krate_client::{Informer, PatchKind};
use krate_testing::{Component, ControlPlane, Play};
use std::time::Duration;

fn budget(name: &str, change: impl FnOnce(&mut PodDisruptionBudgetSpec)) -> PodDisruptionBudget {
    let mut budget = PodDisruptionBudget::default();
    budget.metadata.name = Some(name.to_owned());
    budget.metadata.namespace = Some("default".to_owned());
    let spec = budget.spec.get_or_insert_default();
    spec.selector = Some(selector(name));
    change(spec);
    budget
}

async fn allowed(cluster: &ControlPlane, name: &str, wanted: i32) {
    cluster
        .until("default", name, |b: Option<&PodDisruptionBudget>| {
            b.is_some_and(|b| {
                let status = b.status.clone().unwrap_or_default();
                status.disruptions_allowed == Some(wanted)
                    && status.observed_generation == b.metadata.generation
            })
        })
        .await;
}

async fn ready(cluster: &ControlPlane, count: usize) {
    cluster
        .until_all(|pods: &Informer<Pod>| {
            let pods = pods.list();
            common::living(&pods).into_iter().filter(|p| common::is_ready(p)).count() == count
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_eviction_is_blocked_until_the_budget_allows_it() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<Deployment>().create(deployment("web", 3)).await.unwrap();
    ready(&cluster, 3).await;
    let all = budget("web", |spec| spec.min_available = Some(IntOrString::Int(3)));
    cluster.of::<PodDisruptionBudget>().create(all).await.unwrap();
    allowed(&cluster, "web", 0).await;
    let pod = names::<Pod>(&cluster, "default").await[0].clone();
    let refused = cluster.of::<Pod>().evict("default", &pod, None).await.unwrap_err();
    assert_eq!(refused.code(), 429);
    let cause = refused.0.details.clone().unwrap().causes.unwrap()[0].clone();
    assert_eq!(cause.reason.as_deref(), Some("DisruptionBudget"));
    let text = "The disruption budget web needs 3 healthy pods and has 3 currently";
    assert_eq!(cause.message.as_deref(), Some(text));
    let patch = r#"{"spec":{"minAvailable":2}}"#.to_owned();
    cluster.of::<PodDisruptionBudget>().patch("default", "web", PatchKind::Merge, patch).await.unwrap();
    allowed(&cluster, "web", 1).await;
    cluster.of::<Pod>().evict("default", &pod, None).await.unwrap();
    cluster.until("default", &pod, |p: Option<&Pod>| p.is_none()).await;
    ready(&cluster, 3).await;
    allowed(&cluster, "web", 1).await;
    let told = cluster.of::<PodDisruptionBudget>().get("default", "web").await.unwrap();
    assert_eq!(told.status.as_ref().unwrap().disrupted_pods, None, "the pod was seen to go");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_never_goes_below_the_budget() {
    let (cluster, _nodes) = cluster(3).await;
    let start = Duration::from_secs(4);
    cluster.stage.script(move |_| Play { start, stop: Duration::from_secs(3), ..Play::default() });
    cluster.of::<Deployment>().create(deployment("web", 6)).await.unwrap();
    ready(&cluster, 6).await;
    let most = budget("web", |spec| spec.max_unavailable = Some(IntOrString::String("20%".to_owned())));
    cluster.of::<PodDisruptionBudget>().create(most).await.unwrap();
    allowed(&cluster, "web", 2).await;
    let held = cluster
        .always(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let ready = common::living(&pods).into_iter().filter(|p| common::is_ready(p)).count();
            if ready < 4 { Err(format!("only {ready} ready")) } else { Ok(()) }
        })
        .await;
    for node in ["node-1", "node-2"] {
        let cordon = r#"{"spec":{"unschedulable":true}}"#.to_owned();
        cluster.of::<Node>().patch("", node, PatchKind::Merge, cordon).await.unwrap();
        drain(&cluster, node).await;
        cluster.restart(Component::Controllers).await.unwrap();
    }
    ready(&cluster, 6).await;
    held.check();
    let pods = cluster.of::<Pod>().list("default", Default::default()).await.unwrap();
    let on = |p: &std::sync::Arc<Pod>| p.spec.as_ref().unwrap().node_name.clone().unwrap();
    assert!(pods.items.iter().all(|p| on(p) == "node-3"));
    cluster.stop().await;
}

/// As kubectl does it: every pod of the node is evicted, again and again until its budget allows it.
async fn drain(cluster: &ControlPlane, node: &str) {
    let pods = cluster.of::<Pod>().list("default", Default::default()).await.unwrap();
    let here = pods.items.iter().filter(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some(node));
    let evict = here.map(|pod| async {
        let name = pod.metadata.name.clone().unwrap();
        while let Err(status) = cluster.of::<Pod>().evict("default", &name, None).await {
            if status.is_not_found() {
                return;
            }
            assert_eq!(status.code(), 429, "{status}");
            cluster.pass(5).await;
        }
    });
    futures::future::join_all(evict).await;
}

#[tokio::test(start_paused = true)]
async fn a_percentage_follows_the_scale_of_the_owner() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<Deployment>().create(deployment("web", 4)).await.unwrap();
    let half = budget("web", |spec| spec.min_available = Some(IntOrString::String("50%".to_owned())));
    cluster.of::<PodDisruptionBudget>().create(half).await.unwrap();
    allowed(&cluster, "web", 2).await;
    let scale = r#"{"spec":{"replicas":9}}"#.to_owned();
    cluster.of::<Deployment>().patch("default", "web", PatchKind::Merge, scale).await.unwrap();
    allowed(&cluster, "web", 4).await;
    let told = cluster.of::<PodDisruptionBudget>().get("default", "web").await.unwrap();
    let status = told.status.clone().unwrap();
    assert_eq!((status.expected_pods, status.desired_healthy), (Some(9), Some(5)));
    let condition = &status.conditions.unwrap()[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_str()),
        ("DisruptionAllowed", "SufficientPods")
    );
    assert_eq!(condition.observed_generation, told.metadata.generation);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sick_pods_go_when_the_budget_is_met_or_when_they_always_may() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<Deployment>().create(deployment("web", 3)).await.unwrap();
    ready(&cluster, 3).await;
    let all = budget("web", |spec| spec.min_available = Some(IntOrString::Int(3)));
    cluster.of::<PodDisruptionBudget>().create(all).await.unwrap();
    allowed(&cluster, "web", 0).await;
    let sick = names::<Pod>(&cluster, "default").await[0].clone();
    cluster.set_ready("default", &sick, false).await.unwrap();
    let unhealthy = |b: Option<&PodDisruptionBudget>| {
        b.and_then(|b| b.status.clone()).is_some_and(|s| s.current_healthy == Some(2))
    };
    cluster.until("default", "web", unhealthy).await;
    assert_eq!(cluster.of::<Pod>().evict("default", &sick, None).await.unwrap_err().code(), 429);
    let patch = r#"{"spec":{"unhealthyPodEvictionPolicy":"AlwaysAllow"}}"#.to_owned();
    cluster.of::<PodDisruptionBudget>().patch("default", "web", PatchKind::Merge, patch).await.unwrap();
    cluster.of::<Pod>().evict("default", &sick, None).await.unwrap();
    cluster.until("default", &sick, |p: Option<&Pod>| p.is_none()).await;
    ready(&cluster, 3).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_spends_and_marks_nothing() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Deployment>().create(deployment("web", 2)).await.unwrap();
    let one = budget("web", |spec| spec.max_unavailable = Some(IntOrString::Int(1)));
    cluster.of::<PodDisruptionBudget>().create(one).await.unwrap();
    allowed(&cluster, "web", 1).await;
    let pod = names::<Pod>(&cluster, "default").await[0].clone();
    let dry = krate_api::meta::DeleteOptions { dry_run: Some(vec!["All".to_owned()]), ..Default::default() };
    for _ in 0..3 {
        cluster.of::<Pod>().evict("default", &pod, Some(dry.clone())).await.unwrap();
    }
    let pod = cluster.of::<Pod>().get("default", &pod).await.unwrap();
    assert!(
        pod.metadata.deletion_timestamp.is_none()
            && common::pod_condition(&pod, "DisruptionTarget").is_none()
    );
    allowed(&cluster, "web", 1).await;
    cluster.stop().await;
}
