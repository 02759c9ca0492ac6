//! Deployments on a whole control plane with hollow nodes, in virtual time.

mod common;

use common::{cluster, deployment, events, living, names};
use krate_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use krate_api::types::core::v1::Pod;
use krate_client::PatchKind;
use krate_testing::{ControlPlane, Play};

async fn complete(cluster: &ControlPlane, name: &str, replicas: i32, image: &str) {
    cluster
        .until_all(|pods: &krate_client::Informer<Pod>| {
            let pods = pods.list();
            let all = living(&pods);
            let new =
                |p: &&Pod| p.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some(image));
            all.len() == usize::try_from(replicas).unwrap() && all.iter().all(new)
        })
        .await;
    cluster
        .until("default", name, |d: Option<&Deployment>| {
            let Some(d) = d else { return false };
            let status = d.status.clone().unwrap_or_default();
            status.observed_generation == d.metadata.generation
                && status.available_replicas.unwrap_or(0) == replicas
                && status.updated_replicas.unwrap_or(0) == replicas
                && status.replicas.unwrap_or(0) == replicas
        })
        .await;
}

async fn set_image(cluster: &ControlPlane, name: &str, image: &str) {
    let patch = format!(
        r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"main","image":"{image}"}}]}}}}}}}}"#
    );
    cluster.of::<Deployment>().patch("default", name, PatchKind::StrategicMerge, patch).await.unwrap();
}

async fn merge(cluster: &ControlPlane, name: &str, patch: &str) {
    cluster.of::<Deployment>().patch("default", name, PatchKind::Merge, patch.to_owned()).await.unwrap();
}

fn condition(deployment: &Deployment, name: &str) -> Option<(String, String)> {
    let all = deployment.status.as_ref()?.conditions.as_ref()?;
    let one = all.iter().find(|c| c.type_ == name)?;
    Some((one.status.clone(), one.reason.clone().unwrap_or_default()))
}

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_available_and_follows_its_scale() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<Deployment>().create(deployment("web", 3)).await.unwrap();
    complete(&cluster, "web", 3, "web:1").await;
    let web = cluster.of::<Deployment>().get("default", "web").await.unwrap();
    assert_eq!(
        condition(&web, "Available").unwrap(),
        ("True".to_owned(), "MinimumReplicasAvailable".to_owned())
    );
    merge(&cluster, "web", r#"{"spec":{"replicas":7}}"#).await;
    complete(&cluster, "web", 7, "web:1").await;
    merge(&cluster, "web", r#"{"spec":{"replicas":0}}"#).await;
    complete(&cluster, "web", 0, "web:1").await;
    let told = events(&cluster).await;
    assert!(
        told.iter().any(|e| e.contains("Scaled up replica set") && e.contains("from 3 to 7")),
        "{told:#?}"
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_keeps_its_bounds_at_every_step() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.stage.script(|_| Play { start: std::time::Duration::from_secs(3), ..Play::default() });
    let mut web = deployment("web", 8);
    web.spec.as_mut().unwrap().min_ready_seconds = Some(5);
    cluster.of::<Deployment>().create(web).await.unwrap();
    complete(&cluster, "web", 8, "web:1").await;
    let bounds = cluster
        .always(|pods: &krate_client::Informer<Pod>| {
            let pods = pods.list();
            let all = living(&pods);
            let ready = all.iter().filter(|p| common::is_ready(p)).count();
            if all.len() > 10 {
                return Err(format!("{} pods: more than maxSurge allows", all.len()));
            }
            if ready < 6 { Err(format!("{ready} ready: fewer than maxUnavailable allows")) } else { Ok(()) }
        })
        .await;
    set_image(&cluster, "web", "web:2").await;
    complete(&cluster, "web", 8, "web:2").await;
    bounds.check();
    let web = cluster.of::<Deployment>().get("default", "web").await.unwrap();
    assert_eq!(condition(&web, "Progressing").unwrap().1, "NewReplicaSetAvailable");
    let revision = web.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone();
    assert_eq!(revision, "2");
    // Back to the first template, as kubectl does it: the old set is taken up again, as revision 3.
    set_image(&cluster, "web", "web:1").await;
    complete(&cluster, "web", 8, "web:1").await;
    bounds.check();
    assert_eq!(cluster.of::<ReplicaSet>().list("default", Default::default()).await.unwrap().items.len(), 2);
    let web = cluster.of::<Deployment>().get("default", "web").await.unwrap();
    assert_eq!(web.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"], "3");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_rolls_nothing_out() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Deployment>().create(deployment("web", 2)).await.unwrap();
    complete(&cluster, "web", 2, "web:1").await;
    merge(&cluster, "web", r#"{"spec":{"paused":true}}"#).await;
    set_image(&cluster, "web", "web:2").await;
    cluster.pass(60).await;
    assert_eq!(names::<ReplicaSet>(&cluster, "default").await.len(), 1);
    let web = cluster.of::<Deployment>().get("default", "web").await.unwrap();
    assert_eq!(condition(&web, "Progressing").unwrap().1, "DeploymentPaused");
    merge(&cluster, "web", r#"{"spec":{"paused":false}}"#).await;
    complete(&cluster, "web", 2, "web:2").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_progress_until_the_deadline_is_told() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| Play::unready());
    let mut web = deployment("web", 1);
    web.spec.as_mut().unwrap().progress_deadline_seconds = Some(30);
    cluster.of::<Deployment>().create(web).await.unwrap();
    let late = |d: Option<&Deployment>| {
        let found = d.and_then(|d| condition(d, "Progressing"));
        found == Some(("False".to_owned(), "ProgressDeadlineExceeded".to_owned()))
    };
    cluster.until("default", "web", late).await;
    cluster.stage.script(|_| Play::default());
    complete(&cluster, "web", 1, "web:1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn recreate_never_runs_two_versions() {
    let (cluster, _nodes) = cluster(1).await;
    let stop = std::time::Duration::from_secs(5);
    cluster.stage.script(move |_| Play { stop, ..Play::default() });
    let mut web = deployment("web", 3);
    web.spec.as_mut().unwrap().strategy = Some(Default::default());
    web.spec.as_mut().unwrap().strategy.as_mut().unwrap().type_ = Some("Recreate".to_owned());
    cluster.of::<Deployment>().create(web).await.unwrap();
    complete(&cluster, "web", 3, "web:1").await;
    let one = cluster
        .always(|pods: &krate_client::Informer<Pod>| {
            let image = |p: &std::sync::Arc<Pod>| p.spec.as_ref().unwrap().containers[0].image.clone();
            let images: std::collections::BTreeSet<_> = pods.list().iter().map(image).collect();
            if images.len() > 1 { Err(format!("{images:?} at once")) } else { Ok(()) }
        })
        .await;
    set_image(&cluster, "web", "web:2").await;
    complete(&cluster, "web", 3, "web:2").await;
    one.check();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_are_adopted_and_strangers_released() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Deployment>().create(deployment("web", 2)).await.unwrap();
    complete(&cluster, "web", 2, "web:1").await;
    let set = names::<ReplicaSet>(&cluster, "default").await[0].clone();
    let before = names::<Pod>(&cluster, "default").await;
    let orphan = DeleteOptions { propagation_policy: Some("Orphan".to_owned()), ..Default::default() };
    cluster.of::<Deployment>().delete("default", "web", orphan).await.unwrap();
    cluster.until("default", "web", |d: Option<&Deployment>| d.is_none()).await;
    let free = |r: Option<&ReplicaSet>| {
        r.is_some_and(|r| r.metadata.owner_references.as_ref().is_none_or(Vec::is_empty))
    };
    cluster.until("default", &set, free).await;
    cluster.of::<Deployment>().create(deployment("web", 2)).await.unwrap();
    complete(&cluster, "web", 2, "web:1").await;
    assert_eq!(names::<ReplicaSet>(&cluster, "default").await, std::slice::from_ref(&set));
    assert_eq!(names::<Pod>(&cluster, "default").await, before);
    // A pod whose label no longer fits is let go and replaced.
    let lost = before[0].clone();
    let patch = r#"{"metadata":{"labels":{"app":"other"}}}"#;
    cluster.of::<Pod>().patch("default", &lost, PatchKind::Merge, patch).await.unwrap();
    cluster.until_all(|pods: &krate_client::Informer<Pod>| pods.len() == 3).await;
    let free =
        |p: Option<&Pod>| p.is_some_and(|p| p.metadata.owner_references.as_ref().is_none_or(Vec::is_empty));
    cluster.until("default", &lost, free).await;
    cluster.stop().await;
}

/// The example of the documentation: ten replicas with a surge of three and two unavailable, an image that never
/// becomes ready, and then fifteen replicas.
#[tokio::test(start_paused = true)]
async fn a_stuck_update_is_scaled_in_proportion() {
    let (cluster, _nodes) = cluster(2).await;
    let new = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some("web:2"));
    cluster.stage.script(move |pod| if new(pod) { Play::unready() } else { Play::default() });
    let mut web = deployment("web", 10);
    let strategy = web.spec.as_mut().unwrap().strategy.get_or_insert_default();
    let rolling = strategy.rolling_update.get_or_insert_default();
    rolling.max_surge = Some(IntOrString::Int(3));
    rolling.max_unavailable = Some(IntOrString::Int(2));
    cluster.of::<Deployment>().create(web).await.unwrap();
    complete(&cluster, "web", 10, "web:1").await;
    let sizes = |wanted: [i32; 2]| {
        cluster.until_all(move |sets: &krate_client::Informer<ReplicaSet>| {
            let mut sizes: Vec<i32> = sets.list().iter().filter_map(|s| s.spec.as_ref()?.replicas).collect();
            sizes.sort_unstable();
            sizes == wanted
        })
    };
    set_image(&cluster, "web", "web:2").await;
    sizes([5, 8]).await;
    let patch = r#"{"spec":{"replicas":15}}"#;
    cluster.of::<Deployment>().patch("default", "web", PatchKind::Merge, patch).await.unwrap();
    sizes([7, 11]).await;
    cluster.stop().await;
}
