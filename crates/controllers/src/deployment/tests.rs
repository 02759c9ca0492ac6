//! Deployments, with ReplicaSets and hollow nodes, on the in-memory API.

use super::model::{DESIRED_REPLICAS, REVISION, REVISION_HISTORY};
use crate::replicas::start_replica_sets;
use crate::world::{World, deployment};
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use krate_api::types::core::v1::Pod;
use std::sync::Arc;

fn world() -> World {
    World::new(&[start_replica_sets, super::start])
}

async fn change(w: &World, change: impl Fn(&mut Deployment) + Send + Sync) {
    let write = |d: &mut Deployment| {
        change(d);
        true
    };
    w.api::<Deployment>().modify("default", "web", write).await.unwrap();
}

async fn set_image(w: &World, image: &str) {
    let image = image.to_owned();
    change(w, move |d| {
        let spec = d.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.clone());
    })
    .await;
}

fn get(w: &World) -> Arc<Deployment> {
    w.fake.get::<Deployment>("default", "web").unwrap()
}

fn condition(w: &World, kind: &str) -> (String, String) {
    let status = get(w).status.clone().unwrap();
    let found = status.conditions.iter().flatten().find(|c| c.type_ == kind).cloned().unwrap_or_default();
    (found.status, found.reason.unwrap_or_default())
}

/// Sets as (image, wanted replicas, revision), by revision.
fn sets(w: &World) -> Vec<(String, i32, String)> {
    let mut all: Vec<_> = w
        .fake
        .list::<ReplicaSet>()
        .iter()
        .map(|rs| {
            let spec = rs.spec.as_ref().unwrap();
            let template = spec.template.as_ref().unwrap().spec.as_ref().unwrap();
            let revision = rs.metadata.annotations.as_ref().unwrap()[REVISION].clone();
            (template.containers[0].image.clone().unwrap(), spec.replicas.unwrap(), revision)
        })
        .collect();
    all.sort_by_key(|(_, _, revision)| revision.parse::<i32>().unwrap());
    all
}

fn row(image: &str, replicas: i32, revision: &str) -> (String, i32, String) {
    (image.to_owned(), replicas, revision.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_new_deployment_becomes_available_and_then_nothing_is_written() {
    let w = world();
    w.kubelet();
    w.fake.put(&deployment("web", 3));
    w.pass(10).await;
    assert_eq!(sets(&w), [row("nginx:1", 3, "1")]);
    let d = get(&w);
    let s = d.status.as_ref().unwrap();
    assert_eq!(
        (s.replicas, s.updated_replicas, s.ready_replicas, s.available_replicas),
        (Some(3), Some(3), Some(3), Some(3))
    );
    assert_eq!(s.unavailable_replicas, None);
    assert_eq!(d.metadata.annotations.as_ref().unwrap()[REVISION], "1");
    assert_eq!(condition(&w, "Available"), ("True".to_owned(), "MinimumReplicasAvailable".to_owned()));
    assert_eq!(condition(&w, "Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    let name = &w.names::<ReplicaSet>()[0];
    assert!(w.events().contains(&format!("ScalingReplicaSet Scaled up replica set {name} from 0 to 3")));
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    assert_eq!(w.fake.take_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_never_leaves_its_limits() {
    let w = world();
    w.kubelet();
    w.fake.put(&deployment("web", 10));
    w.pass(10).await;
    set_image(&w, "nginx:2").await;
    for _ in 0..400 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let pods = w.fake.list::<Pod>();
        let living = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
        let ready =
            living.clone().filter(|p| p.status.as_ref().is_some_and(|s| s.conditions.is_some())).count();
        assert!(living.count() <= 13, "more than wanted and surge");
        assert!(ready >= 8, "fewer than wanted less unavailable: {ready}");
    }
    assert_eq!(sets(&w), [row("nginx:1", 0, "1"), row("nginx:2", 10, "2")]);
    assert_eq!(condition(&w, "Progressing").1, "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_revives_the_old_set_with_a_new_revision() {
    let w = world();
    w.kubelet();
    w.fake.put(&deployment("web", 2));
    w.pass(10).await;
    set_image(&w, "nginx:2").await;
    w.pass(30).await;
    set_image(&w, "nginx:1").await;
    w.pass(30).await;
    assert_eq!(sets(&w), [row("nginx:2", 0, "2"), row("nginx:1", 2, "3")]);
    let revived =
        w.fake.list::<ReplicaSet>().into_iter().find(|rs| rs.spec.as_ref().unwrap().replicas == Some(2));
    assert_eq!(revived.unwrap().metadata.annotations.as_ref().unwrap()[REVISION_HISTORY], "1");
    assert_eq!(get(&w).metadata.annotations.as_ref().unwrap()[REVISION], "3");
}

#[tokio::test(start_paused = true)]
async fn old_sets_beyond_the_history_limit_go() {
    let w = world();
    w.kubelet();
    let mut d = deployment("web", 1);
    d.spec.as_mut().unwrap().revision_history_limit = Some(1);
    w.fake.put(&d);
    for n in 2..=4 {
        w.pass(30).await;
        set_image(&w, &format!("nginx:{n}")).await;
    }
    w.pass(30).await;
    assert_eq!(sets(&w), [row("nginx:3", 0, "3"), row("nginx:4", 1, "4")]);
}

#[tokio::test(start_paused = true)]
async fn recreate_stops_everything_before_it_starts_anything() {
    let w = world();
    w.kubelet();
    let mut d = deployment("web", 3);
    let strategy = d.spec.as_mut().unwrap().strategy.as_mut().unwrap();
    strategy.type_ = Some("Recreate".to_owned());
    strategy.rolling_update = None;
    w.fake.put(&d);
    w.pass(10).await;
    set_image(&w, "nginx:2").await;
    for _ in 0..200 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let image = |p: &Arc<Pod>| p.spec.as_ref().unwrap().containers[0].image.clone();
        let images: std::collections::BTreeSet<_> = w.fake.list::<Pod>().iter().map(image).collect();
        assert!(images.len() <= 1, "{images:?}");
    }
    assert_eq!(sets(&w), [row("nginx:1", 0, "1"), row("nginx:2", 3, "2")]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let w = world();
    w.kubelet();
    w.fake.put(&deployment("web", 2));
    w.pass(10).await;
    change(&w, |d| d.spec.as_mut().unwrap().paused = Some(true)).await;
    set_image(&w, "nginx:2").await;
    w.settle().await;
    assert_eq!(condition(&w, "Progressing"), ("Unknown".to_owned(), "DeploymentPaused".to_owned()));
    change(&w, |d| d.spec.as_mut().unwrap().replicas = Some(4)).await;
    w.settle().await;
    assert_eq!(sets(&w), [row("nginx:1", 4, "1")]);
    change(&w, |d| d.spec.as_mut().unwrap().paused = None).await;
    w.pass(30).await;
    assert_eq!(sets(&w), [row("nginx:1", 0, "1"), row("nginx:2", 4, "2")]);
    assert_eq!(condition(&w, "Progressing").1, "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_gets_nowhere_is_told_at_its_deadline() {
    let w = world();
    w.fake.put(&deployment("web", 2));
    w.pass(590).await;
    assert_eq!(condition(&w, "Progressing").1, "ReplicaSetUpdated");
    assert_eq!(condition(&w, "Available"), ("False".to_owned(), "MinimumReplicasUnavailable".to_owned()));
    w.pass(30).await;
    assert_eq!(condition(&w, "Progressing"), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));
    w.run_pods();
    w.settle().await;
    assert_eq!(condition(&w, "Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn scaling_is_noted_in_the_sets() {
    let w = world();
    w.kubelet();
    w.fake.put(&deployment("web", 2));
    w.pass(10).await;
    change(&w, |d| d.spec.as_mut().unwrap().replicas = Some(10)).await;
    w.pass(10).await;
    let rs = &w.fake.list::<ReplicaSet>()[0];
    assert_eq!(rs.spec.as_ref().unwrap().replicas, Some(10));
    assert_eq!(rs.metadata.annotations.as_ref().unwrap()[DESIRED_REPLICAS], "10");
    assert_eq!(w.names::<Pod>().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn another_template_with_the_same_name_of_set_gets_another_hash() {
    let w = world();
    w.kubelet();
    let d = deployment("web", 1);
    // Somebody's set has the name that ours would get.
    let mut other = super::revision::new_set(&d, &super::model::Sets::default());
    other.metadata.owner_references = None;
    other.metadata.labels = None;
    other.spec.as_mut().unwrap().replicas = Some(0);
    w.fake.put(&other);
    w.fake.put(&d);
    w.pass(10).await;
    assert_eq!(w.names::<ReplicaSet>().len(), 2);
    assert_eq!(get(&w).status.as_ref().unwrap().collision_count, Some(1));
}
