//! Garbage collection, namespaces and their accounts, in virtual time.

mod common;

use common::{cluster, deployment, is_ready, names, pod};
use krate_api::Kind;
use krate_api::meta::{DeleteOptions, ObjectMeta, OwnerReference};
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use krate_api::types::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use krate_client::{Informer, PatchKind};
use krate_testing::{Component, ControlPlane, Fault};

fn config(name: &str, owners: &[&ConfigMap]) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.namespace = Some("default".to_owned());
    let reference = |owner: &&ConfigMap| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: owner.metadata.name.clone().unwrap_or_default(),
        uid: owner.metadata.uid.clone().unwrap_or_default(),
        block_owner_deletion: Some(true),
        ..OwnerReference::default()
    };
    object.metadata.owner_references = Some(owners.iter().map(reference).collect());
    object
}

async fn create(cluster: &ControlPlane, name: &str, owners: &[&ConfigMap]) -> ConfigMap {
    (*cluster.of::<ConfigMap>().create(config(name, owners)).await.unwrap()).clone()
}

async fn delete<K: Kind>(cluster: &ControlPlane, name: &str, policy: &str) {
    let options = DeleteOptions { propagation_policy: Some(policy.to_owned()), ..DeleteOptions::default() };
    cluster.of::<K>().delete("default", name, options).await.unwrap();
}

async fn configs(cluster: &ControlPlane) -> Vec<String> {
    let mut names = names::<ConfigMap>(cluster, "default").await;
    names.retain(|name| name != "kube-root-ca.crt");
    names
}

async fn gone(cluster: &ControlPlane, name: &str) {
    cluster.until("default", name, |c: Option<&ConfigMap>| c.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_owners_goes_down_to_its_end() {
    let (cluster, _nodes) = cluster(0).await;
    let a = create(&cluster, "a", &[]).await;
    let b = create(&cluster, "b", &[&a]).await;
    let c = create(&cluster, "c", &[&b]).await;
    let _d = create(&cluster, "d", &[&c]).await;
    delete::<ConfigMap>(&cluster, "a", "Background").await;
    gone(&cluster, "d").await;
    assert!(configs(&cluster).await.is_empty());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_living_owner_is_enough() {
    let (cluster, _nodes) = cluster(0).await;
    let (a, b) = (create(&cluster, "a", &[]).await, create(&cluster, "b", &[]).await);
    create(&cluster, "both", &[&a, &b]).await;
    delete::<ConfigMap>(&cluster, "a", "Background").await;
    let one = |c: Option<&ConfigMap>| {
        c.is_some_and(|c| c.metadata.owner_references.as_ref().is_some_and(|o| o.len() == 1))
    };
    cluster.until("default", "both", one).await;
    cluster.pass(60).await;
    assert_eq!(configs(&cluster).await, ["b", "both"]);
    delete::<ConfigMap>(&cluster, "b", "Background").await;
    gone(&cluster, "both").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_names_an_owner_that_never_was_is_collected() {
    let (cluster, _nodes) = cluster(0).await;
    let mut ghost = config("ghost", &[]);
    ghost.metadata.uid = Some("00000000-0000-4000-8000-000000000000".to_owned());
    create(&cluster, "orphan", &[&ghost]).await;
    gone(&cluster, "orphan").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_the_same_name_is_not_the_owner() {
    let (cluster, _nodes) = cluster(0).await;
    let a = create(&cluster, "a", &[]).await;
    cluster.kill(Component::Controllers).await;
    create(&cluster, "child", &[&a]).await;
    delete::<ConfigMap>(&cluster, "a", "Background").await;
    create(&cluster, "a", &[]).await;
    cluster.revive(Component::Controllers).await.unwrap();
    gone(&cluster, "child").await;
    assert_eq!(configs(&cluster).await, ["a"]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_holds_up_a_foreground_deletion() {
    let (cluster, _nodes) = cluster(0).await;
    let a = create(&cluster, "a", &[]).await;
    let mut child = config("child", &[&a]);
    child.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    cluster.of::<ConfigMap>().create(child).await.unwrap();
    delete::<ConfigMap>(&cluster, "a", "Foreground").await;
    let going = |c: Option<&ConfigMap>| c.is_some_and(|c| c.metadata.deletion_timestamp.is_some());
    cluster.until("default", "child", going).await;
    cluster.pass(300).await;
    assert_eq!(configs(&cluster).await, ["a", "child"]);
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    cluster.of::<ConfigMap>().patch("default", "child", PatchKind::Merge, patch).await.unwrap();
    gone(&cluster, "a").await;
    assert!(configs(&cluster).await.is_empty());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_and_are_nobodys() {
    let (cluster, _nodes) = cluster(0).await;
    let a = create(&cluster, "a", &[]).await;
    create(&cluster, "one", &[&a]).await;
    create(&cluster, "two", &[&a]).await;
    delete::<ConfigMap>(&cluster, "a", "Orphan").await;
    gone(&cluster, "a").await;
    cluster.pass(60).await;
    for name in ["one", "two"] {
        let left = cluster.of::<ConfigMap>().get("default", name).await.unwrap();
        assert!(left.metadata.owner_references.as_ref().is_none_or(Vec::is_empty), "{name}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn collecting_goes_on_after_the_controllers_were_killed_in_the_middle() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Deployment>().create(deployment("web", 5)).await.unwrap();
    cluster.until_all(|pods: &Informer<Pod>| pods.list().iter().filter(|p| is_ready(p)).count() == 5).await;
    delete::<Deployment>(&cluster, "web", "Foreground").await;
    cluster.restart(Component::Controllers).await.unwrap();
    cluster.until("default", "web", |d: Option<&Deployment>| d.is_none()).await;
    assert!(names::<ReplicaSet>(&cluster, "default").await.is_empty());
    assert!(names::<Pod>(&cluster, "default").await.is_empty());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_refused_tries_again() {
    let (cluster, _nodes) = cluster(0).await;
    let a = create(&cluster, "a", &[]).await;
    create(&cluster, "child", &[&a]).await;
    let mut left = 5;
    cluster.faults.script(move |who, _| {
        let hit = who == "generic-garbage-collector" && left > 0;
        left -= i32::from(hit);
        hit.then_some(Fault::Reset)
    });
    delete::<ConfigMap>(&cluster, "a", "Background").await;
    gone(&cluster, "child").await;
    cluster.stop().await;
}

fn namespace(name: &str) -> Namespace {
    Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    }
}

fn inside<K: Kind>(mut object: K, namespace: &str) -> K {
    object.meta_mut().namespace = Some(namespace.to_owned());
    object
}

#[tokio::test(start_paused = true)]
async fn a_namespace_waits_for_what_is_held_in_it_and_says_so() {
    let (cluster, _nodes) = cluster(0).await;
    cluster.of::<Namespace>().create(namespace("team")).await.unwrap();
    let mut held = inside(config("held", &[]), "team");
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    cluster.of::<ConfigMap>().create(held).await.unwrap();
    cluster.of::<Namespace>().delete("", "team", DeleteOptions::default()).await.unwrap();
    let says = |n: Option<&Namespace>| {
        let status = n.and_then(|n| n.status.clone()).unwrap_or_default();
        status.phase.as_deref() == Some("Terminating")
            && status
                .conditions
                .iter()
                .flatten()
                .any(|c| c.type_ == "NamespaceFinalizersRemaining" && c.status == "True")
    };
    cluster.until("", "team", says).await;
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    cluster.of::<ConfigMap>().patch("team", "held", PatchKind::Merge, patch).await.unwrap();
    cluster.until("", "team", |n: Option<&Namespace>| n.is_none()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_account_and_a_certificate_that_are_deleted_come_back() {
    let (cluster, _nodes) = cluster(0).await;
    let there = |a: Option<&ServiceAccount>| a.is_some();
    let first = cluster.until("default", "default", there).await.unwrap();
    cluster.of::<ServiceAccount>().delete("default", "default", DeleteOptions::default()).await.unwrap();
    let other = |a: Option<&ServiceAccount>| a.is_some_and(|a| a.metadata.uid != first.metadata.uid);
    cluster.until("default", "default", other).await;
    let ca =
        |c: Option<&ConfigMap>| c.is_some_and(|c| c.data.as_ref().is_some_and(|d| d.contains_key("ca.crt")));
    cluster.until("default", "kube-root-ca.crt", ca).await;
    let patch = r#"{"data":{"ca.crt":"wrong"}}"#;
    cluster.of::<ConfigMap>().patch("default", "kube-root-ca.crt", PatchKind::Merge, patch).await.unwrap();
    let mended = |c: Option<&ConfigMap>| {
        c.is_some_and(|c| c.data.as_ref().is_some_and(|d| d["ca.crt"].starts_with("-----BEGIN")))
    };
    cluster.until("default", "kube-root-ca.crt", mended).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_secret_goes_with_its_account() {
    let (cluster, _nodes) = cluster(0).await;
    let mut account = ServiceAccount::default();
    account.metadata.name = Some("robot".to_owned());
    account.metadata.namespace = Some("default".to_owned());
    cluster.of::<ServiceAccount>().create(account).await.unwrap();
    let mut secret =
        Secret { type_: Some("kubernetes.io/service-account-token".to_owned()), ..Secret::default() };
    secret.metadata.name = Some("robot-token".to_owned());
    secret.metadata.namespace = Some("default".to_owned());
    secret.metadata.annotations =
        Some([("kubernetes.io/service-account.name".to_owned(), "robot".to_owned())].into());
    cluster.of::<Secret>().create(secret).await.unwrap();
    cluster.pass(5).await;
    cluster.of::<ServiceAccount>().delete("default", "robot", DeleteOptions::default()).await.unwrap();
    cluster.until("default", "robot-token", |s: Option<&Secret>| s.is_none()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn finished_pods_beyond_the_bound_are_removed_the_oldest_first() {
    let cluster = ControlPlane::builder()
        .virtual_time()
        .seed(7)
        .cluster(|cluster| cluster.terminated_pods = 2)
        .start()
        .await
        .unwrap();
    let _node = cluster.hollow_node("node-1").await.unwrap();
    cluster.stage.script(|_| krate_testing::Play::exits(std::time::Duration::from_secs(1), 0));
    for name in ["a", "b", "c", "d"] {
        let mut one = pod(name);
        one.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());
        cluster.of::<Pod>().create(one).await.unwrap();
        let over = |p: Option<&Pod>| {
            p.is_none_or(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded"))
        };
        cluster.until("default", name, over).await;
        cluster.pass(2).await;
    }
    cluster.until_all(|pods: &Informer<Pod>| pods.len() == 2).await;
    assert_eq!(names::<Pod>(&cluster, "default").await, ["c", "d"]);
    cluster.stop().await;
}
