//! What writes do: create, update, patch, delete, through the in-process transport.

use crate::common::{admin, config_map, config_maps, pod, pods, server};
use krate_api::Reason;
use krate_api::meta::DeleteOptions;
use krate_client::{Api, Body, Options, PatchKind, Request, Verb};
use serde_json::json;

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    let made = maps.create(config_map("default", "a")).await.unwrap();
    assert!(made.metadata.uid.as_deref().is_some_and(|u| u.len() == 36));
    assert!(made.metadata.creation_timestamp.is_some());
    let version: u64 = made.metadata.resource_version.as_deref().unwrap().parse().unwrap();
    let mut changed = (*made).clone();
    changed.data = Some([("k".to_owned(), "v".to_owned())].into());
    let changed = maps.update(changed).await.unwrap();
    assert!(changed.metadata.resource_version.as_deref().unwrap().parse::<u64>().unwrap() > version);
    let patched = maps
        .patch("default", "a", PatchKind::Merge, json!({"data": {"k": null, "l": "w"}}).to_string())
        .await
        .unwrap();
    assert_eq!(patched.data.as_ref().unwrap().len(), 1);
    maps.delete("default", "a", DeleteOptions::default()).await.unwrap();
    assert!(maps.get("default", "a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_second_create_and_a_stale_update_are_conflicts() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    let first = maps.create(config_map("default", "a")).await.unwrap();
    let error = maps.create(config_map("default", "a")).await.unwrap_err();
    assert_eq!(error.message(), "configmaps \"a\" already exists");
    let mut newer = (*first).clone();
    newer.data = Some([("k".to_owned(), "v".to_owned())].into());
    maps.update(newer.clone()).await.unwrap();
    newer.data = None;
    let error = maps.update(newer).await.unwrap_err();
    assert_eq!(
        error.message(),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
    assert!(error.is_conflict());
}

#[tokio::test]
async fn an_update_of_what_is_not_there_is_not_found() {
    let server = server().await;
    let error = config_maps(&admin(&server)).update(config_map("default", "a")).await.unwrap_err();
    assert_eq!(error.message(), "configmaps \"a\" not found");
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_version() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    let made = maps.create(config_map("default", "a")).await.unwrap();
    let same = maps.update((*made).clone()).await.unwrap();
    assert_eq!(made.metadata.resource_version, same.metadata.resource_version);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = server().await;
    let transport = admin(&server);
    let mut request = Request::of::<krate_api::types::core::v1::ConfigMap>(Verb::Create, "default", "");
    request.options.dry_run = true;
    request.body = Some(Body::Object(Box::new(config_map("default", "a"))));
    transport.send(request).await.unwrap();
    assert!(config_maps(&transport).get("default", "a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn names_are_generated() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    let mut map = config_map("default", "");
    map.metadata.name = None;
    map.metadata.generate_name = Some("a-".to_owned());
    let made = maps.create(map.clone()).await.unwrap();
    assert_eq!(made.metadata.name.as_deref().map(|n| (n.len(), n.starts_with("a-"))), Some((7, true)));
    map.metadata.generate_name = None;
    let error = maps.create(map).await.unwrap_err();
    assert!(error.is(Reason::Invalid));
    assert_eq!(
        error.message(),
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
}

#[tokio::test]
async fn finalizers_hold_a_deleted_object() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    let mut map = config_map("default", "a");
    map.metadata.finalizers = Some(vec!["example.com/wait".to_owned()]);
    maps.create(map).await.unwrap();
    maps.delete("default", "a", DeleteOptions::default()).await.unwrap();
    let held = maps.get("default", "a").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    assert_eq!(held.metadata.deletion_grace_period_seconds, Some(0));
    maps.patch("default", "a", PatchKind::Merge, json!({"metadata": {"finalizers": null}}).to_string())
        .await
        .unwrap();
    assert!(maps.get("default", "a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn propagation_policies_become_finalizers() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        maps.create(config_map("default", policy.to_lowercase().as_str())).await.unwrap();
        let options = DeleteOptions { propagation_policy: Some(policy.to_owned()), ..Default::default() };
        maps.delete("default", &policy.to_lowercase(), options).await.unwrap();
        let held = maps.get("default", &policy.to_lowercase()).await.unwrap();
        assert_eq!(held.metadata.finalizers.as_deref(), Some(&[finalizer.to_owned()][..]));
    }
}

#[tokio::test]
async fn a_bound_pod_is_deleted_gracefully_and_another_at_once() {
    let server = server().await;
    let pods = pods(&admin(&server));
    pods.create(pod("default", "free")).await.unwrap();
    pods.delete("default", "free", DeleteOptions::default()).await.unwrap();
    assert!(pods.get("default", "free").await.unwrap_err().is_not_found());
    let mut bound = pod("default", "bound");
    bound.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
    pods.create(bound).await.unwrap();
    pods.delete("default", "bound", DeleteOptions::default()).await.unwrap();
    let going = pods.get("default", "bound").await.unwrap();
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
    let now = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    pods.delete("default", "bound", now).await.unwrap();
    assert!(pods.get("default", "bound").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn preconditions_of_a_delete_hold() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    maps.create(config_map("default", "a")).await.unwrap();
    let error = maps.delete("default", "a", krate_client::api::delete_uid("other")).await.unwrap_err();
    assert!(error.is_conflict());
    assert!(error.message().contains("the UID in the precondition (other) does not match the UID in record"));
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = server().await;
    let transport = admin(&server);
    let maps = config_maps(&transport);
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut map = config_map("default", name);
        map.metadata.labels = Some([("l".to_owned(), label.to_owned())].into());
        maps.create(map).await.unwrap();
    }
    let options = Options { label_selector: "l=x".to_owned(), ..Default::default() };
    maps.delete_collection("default", options, DeleteOptions::default()).await.unwrap();
    let left =
        maps.list("default", Options { label_selector: "l".to_owned(), ..Default::default() }).await.unwrap();
    assert_eq!(left.items.len(), 1);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = server().await;
    let api = Api::<krate_api::types::apps::v1::Deployment>::new(admin(&server));
    let deployment = serde_json::from_value::<krate_api::types::apps::v1::Deployment>(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 3},
    }))
    .unwrap();
    let made = api.create(deployment).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.status.as_ref().and_then(|s| s.replicas), None);
    let mut both = (*made).clone();
    both.status.get_or_insert_default().replicas = Some(2);
    both.spec.as_mut().unwrap().replicas = Some(5);
    let after = api.update_status(both.clone()).await.unwrap();
    assert_eq!(after.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(after.status.as_ref().unwrap().replicas, Some(2));
    assert_eq!(after.metadata.generation, Some(1));
    both.metadata.resource_version = after.metadata.resource_version.clone();
    both.status.as_mut().unwrap().replicas = Some(9);
    let after = api.update(both).await.unwrap();
    assert_eq!(after.metadata.generation, Some(2));
    assert_eq!(after.status.as_ref().unwrap().replicas, Some(2));
}
