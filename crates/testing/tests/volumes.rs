//! Claims, volumes and the pods that use them, on a whole control plane with hollow nodes, in virtual time.

mod common;

use common::{cluster, events, is_ready, pod};
use krate_api::Kind;
use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use krate_api::types::storage::v1::StorageClass;
use krate_client::PatchKind;
use krate_testing::ControlPlane;
use serde_json::{Value, json};

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

async fn class(cluster: &ControlPlane, name: &str, change: Value) {
    let mut class = json!({
        "metadata": {"name": name}, "provisioner": "krate.io/folder", "allowVolumeExpansion": true,
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    class.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    cluster.of::<StorageClass>().create(StorageClass::from_value(class).unwrap()).await.unwrap();
}

async fn claim(cluster: &ControlPlane, name: &str, change: Value) {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let claim = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    cluster
        .of::<PersistentVolumeClaim>()
        .create(PersistentVolumeClaim::from_value(claim).unwrap())
        .await
        .unwrap();
}

async fn volume(cluster: &ControlPlane, name: &str, change: Value) {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"},
    });
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let volume = json!({"metadata": {"name": name}, "spec": spec});
    cluster.of::<PersistentVolume>().create(PersistentVolume::from_value(volume).unwrap()).await.unwrap();
}

fn using(name: &str, claim: &str) -> Pod {
    let mut value = pod(name).to_value();
    value["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    value["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    Pod::from_value(value).unwrap()
}

async fn ready(cluster: &ControlPlane, name: &str) {
    cluster.until("default", name, |p: Option<&Pod>| p.is_some_and(is_ready)).await;
}

fn claim_phase(claim: Option<&PersistentVolumeClaim>) -> &str {
    claim.and_then(|c| c.status.as_ref()).and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn volume_phase(volume: Option<&PersistentVolume>) -> &str {
    volume.and_then(|c| c.status.as_ref()).and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

async fn claim_is(cluster: &ControlPlane, name: &str, phase: &str) -> PersistentVolumeClaim {
    let claim =
        cluster.until("default", name, |c: Option<&PersistentVolumeClaim>| claim_phase(c) == phase).await;
    (*claim.unwrap()).clone()
}

async fn volume_is(cluster: &ControlPlane, name: &str, phase: &str) {
    cluster.until("", name, |v: Option<&PersistentVolume>| volume_phase(v) == phase).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_waits_for_its_first_pod_and_gets_a_volume_then() {
    let (cluster, _nodes) = cluster(2).await;
    class(&cluster, "standard", json!({"metadata": {"name": "standard", "annotations": {DEFAULT: "true"}}}))
        .await;
    claim(&cluster, "data", json!({})).await;
    cluster.pass(30).await;
    assert_eq!(
        claim_is(&cluster, "data", "Pending").await.spec.unwrap().storage_class_name.unwrap(),
        "standard"
    );
    let told = events(&cluster).await;
    let wait = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert!(told.iter().any(|e| e.ends_with(wait)), "{told:#?}");
    cluster.of::<Pod>().create(using("web", "data")).await.unwrap();
    ready(&cluster, "web").await;
    let claim = claim_is(&cluster, "data", "Bound").await;
    let node =
        cluster.of::<Pod>().get("default", "web").await.unwrap().spec.clone().unwrap().node_name.unwrap();
    let annotations = claim.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["volume.kubernetes.io/selected-node"], node);
    assert_eq!(annotations["volume.kubernetes.io/storage-provisioner"], "krate.io/folder");
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(claim.status.unwrap().capacity.unwrap()["storage"].0, "1Gi");
    let name = format!("pvc-{}", claim.metadata.uid.unwrap());
    let volume = cluster.of::<PersistentVolume>().get("", &name).await.unwrap();
    let (made, bound) = (volume.metadata.creation_timestamp.clone(), volume.status.clone().unwrap());
    assert!(bound.last_phase_transition_time >= made, "{bound:?}");
    assert_eq!(bound.phase.as_deref(), Some("Bound"));
    assert_eq!(volume.spec.as_ref().unwrap().persistent_volume_reclaim_policy.as_deref(), Some("Delete"));

    // It grows.
    let patch = r#"{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}"#.to_owned();
    cluster.of::<PersistentVolumeClaim>().patch("default", "data", PatchKind::Merge, patch).await.unwrap();
    cluster
        .until("default", "data", |c: Option<&PersistentVolumeClaim>| {
            let status = c.and_then(|c| c.status.clone()).unwrap_or_default();
            status.capacity.is_some_and(|c| c["storage"].0 == "3Gi")
                && status.conditions.is_none()
                && status.allocated_resource_statuses.is_none()
        })
        .await;

    // It stays while its pod uses it, and its volume goes with it.
    cluster.of::<PersistentVolumeClaim>().delete("default", "data", Default::default()).await.unwrap();
    cluster.pass(60).await;
    assert!(cluster.of::<PersistentVolumeClaim>().get_opt("default", "data").await.unwrap().is_some());
    assert_eq!(volume_phase(Some(&*cluster.of::<PersistentVolume>().get("", &name).await.unwrap())), "Bound");
    cluster.of::<Pod>().delete("default", "web", Default::default()).await.unwrap();
    cluster.until("default", "data", |c: Option<&PersistentVolumeClaim>| c.is_none()).await;
    cluster.until("", &name, |v: Option<&PersistentVolume>| v.is_none()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_smallest_volume_is_bound_kept_and_freed_by_its_policy() {
    let (cluster, _nodes) = cluster(1).await;
    volume(&cluster, "large", json!({"capacity": {"storage": "10Gi"}})).await;
    volume(&cluster, "right", json!({"capacity": {"storage": "2Gi"}})).await;
    volume(&cluster, "meant", json!({"claimRef": {"name": "other", "namespace": "default"}})).await;
    for name in ["large", "right", "meant"] {
        volume_is(&cluster, name, "Available").await;
    }
    claim(&cluster, "data", json!({"storageClassName": ""})).await;
    let bound = claim_is(&cluster, "data", "Bound").await;
    assert_eq!(bound.spec.unwrap().volume_name.as_deref(), Some("right"));
    assert_eq!(bound.status.unwrap().capacity.unwrap()["storage"].0, "2Gi");
    claim(&cluster, "other", json!({"storageClassName": ""})).await;
    assert_eq!(
        claim_is(&cluster, "other", "Bound").await.spec.unwrap().volume_name.as_deref(),
        Some("meant")
    );
    cluster.of::<PersistentVolume>().delete("", "right", Default::default()).await.unwrap();
    cluster.pass(60).await;
    volume_is(&cluster, "right", "Bound").await;
    cluster.of::<PersistentVolumeClaim>().delete("default", "data", Default::default()).await.unwrap();
    cluster.until("", "right", |v: Option<&PersistentVolume>| v.is_none()).await;
    cluster.of::<PersistentVolumeClaim>().delete("default", "other", Default::default()).await.unwrap();
    volume_is(&cluster, "meant", "Released").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_recycled_volume_is_emptied_by_a_pod_and_free_again() {
    let (cluster, _nodes) = cluster(1).await;
    volume(&cluster, "old", json!({"persistentVolumeReclaimPolicy": "Recycle"})).await;
    let recycler = |pod: Option<&Pod>| pod.is_some_and(is_ready);
    for turn in 1..=2 {
        claim(&cluster, "data", json!({"storageClassName": ""})).await;
        claim_is(&cluster, "data", "Bound").await;
        cluster.of::<PersistentVolumeClaim>().delete("default", "data", Default::default()).await.unwrap();
        let pod = cluster.until("default", "recycler-for-old", recycler).await;
        let spec = pod.unwrap().spec.clone().unwrap();
        assert_eq!(spec.volumes.unwrap()[0].host_path.as_ref().unwrap().path, "/data");
        assert_eq!(spec.active_deadline_seconds, Some(60));
        volume_is(&cluster, "old", "Released").await;
        cluster.exit("default", "recycler-for-old", 0).await.unwrap();
        volume_is(&cluster, "old", "Available").await;
        let freed = cluster.of::<PersistentVolume>().get("", "old").await.unwrap();
        assert_eq!(freed.spec.as_ref().unwrap().claim_ref, None, "turn {turn}");
        cluster.until("default", "recycler-for-old", |p: Option<&Pod>| p.is_none()).await;
    }
    claim(&cluster, "data", json!({"storageClassName": ""})).await;
    claim_is(&cluster, "data", "Bound").await;
    cluster.of::<PersistentVolumeClaim>().delete("default", "data", Default::default()).await.unwrap();
    cluster.until("default", "recycler-for-old", recycler).await;
    cluster.exit("default", "recycler-for-old", 1).await.unwrap();
    volume_is(&cluster, "old", "Failed").await;
    cluster.pass(10).await;
    let told = events(&cluster).await;
    for text in ["VolumeRecycled: Volume recycled", "VolumeFailedRecycle: Recycle failed: "] {
        assert!(told.iter().any(|e| e.contains(text)), "{told:#?}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_volume_is_gone_is_lost() {
    let (cluster, _nodes) = cluster(1).await;
    volume(&cluster, "pv", json!({})).await;
    claim(&cluster, "data", json!({"storageClassName": "", "volumeName": "pv"})).await;
    claim_is(&cluster, "data", "Bound").await;
    cluster.of::<PersistentVolume>().delete("", "pv", Default::default()).await.unwrap();
    let patch = r#"{"metadata":{"finalizers":null}}"#.to_owned();
    cluster.of::<PersistentVolume>().patch("", "pv", PatchKind::Merge, patch).await.unwrap();
    claim_is(&cluster, "data", "Lost").await;
    cluster.pass(10).await;
    let told = events(&cluster).await;
    assert!(
        told.iter().any(|e| e.contains("ClaimLost: Bound claim has lost its PersistentVolume.")),
        "{told:#?}"
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn claims_that_were_there_before_it_get_the_default_class() {
    let (cluster, _nodes) = cluster(1).await;
    claim(&cluster, "data", json!({})).await;
    cluster.pass(10).await;
    let told = events(&cluster).await;
    let none = "FailedBinding: no persistent volumes available for this claim and no storage class is set";
    assert!(told.iter().any(|e| e.ends_with(none)), "{told:#?}");
    let meta = json!({"name": "now", "annotations": {DEFAULT: "true"}});
    class(&cluster, "now", json!({"metadata": meta, "volumeBindingMode": "Immediate"})).await;
    let bound = claim_is(&cluster, "data", "Bound").await;
    assert_eq!(bound.spec.unwrap().storage_class_name.as_deref(), Some("now"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_volume_comes_and_goes_with_its_pod() {
    let (cluster, _nodes) = cluster(1).await;
    class(&cluster, "standard", json!({})).await;
    let mut value = pod("web").to_value();
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
        "resources": {"requests": {"storage": "1Gi"}},
    });
    value["spec"]["volumes"] =
        json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}]);
    cluster.of::<Pod>().create(Pod::from_value(value).unwrap()).await.unwrap();
    ready(&cluster, "web").await;
    let claim = claim_is(&cluster, "web-scratch", "Bound").await;
    assert_eq!(claim.metadata.owner_references.unwrap()[0].name, "web");
    cluster.of::<Pod>().delete("default", "web", Default::default()).await.unwrap();
    cluster.until("default", "web-scratch", |c: Option<&PersistentVolumeClaim>| c.is_none()).await;
    cluster.until_all(|all: &krate_client::Informer<PersistentVolume>| all.is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_where_its_local_volume_is() {
    let (cluster, _nodes) = cluster(3).await;
    class(&cluster, "local", json!({"provisioner": "kubernetes.io/no-provisioner"})).await;
    claim(&cluster, "data", json!({"storageClassName": "local"})).await;
    cluster.of::<Pod>().create(using("web", "data")).await.unwrap();
    cluster.pass(20).await;
    let told = events(&cluster).await;
    let none = "3 node(s) didn't find available persistent volumes to bind";
    assert!(told.iter().any(|e| e.contains(none)), "{told:#?}");
    let terms = json!([{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-3"]},
    ]}]);
    let affinity = json!({"required": {"nodeSelectorTerms": terms}});
    let source = json!({"storageClassName": "local", "hostPath": null, "local": {"path": "/mnt/x"}, "nodeAffinity": affinity});
    volume(&cluster, "pv", source).await;
    ready(&cluster, "web").await;
    let node = cluster.of::<Pod>().get("default", "web").await.unwrap().spec.clone().unwrap().node_name;
    assert_eq!(node.as_deref(), Some("node-3"));
    assert_eq!(claim_is(&cluster, "data", "Bound").await.spec.unwrap().volume_name.as_deref(), Some("pv"));
    cluster.stop().await;
}
