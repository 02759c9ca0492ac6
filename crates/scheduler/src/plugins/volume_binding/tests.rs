//! Where a pod with claims can go, and what is said when it cannot.

use crate::engine::{Decision, Engine};
use crate::plugins::Settings;
use crate::profile::{Profile, ProfileConfig};
use crate::queue::StorageKind;
use crate::storage::Storage;
use crate::testing::{PodBuilder, node, pod};
use krate_api::Kind;
use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim};
use krate_api::types::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use krate_base::Rng;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::Instant;

struct World {
    engine: Engine,
    storage: Storage,
}

impl World {
    /// Nodes `a` and `b`, and the classes `wait` (waits and provides), `local` (waits, by hand) and `now`.
    fn new() -> Self {
        let storage = Storage::default();
        let settings = Settings { storage: storage.clone(), ..Settings::default() };
        let config = ProfileConfig { settings, ..ProfileConfig::default() };
        let mut engine = Engine::new(Profile::all(&[config]).unwrap(), Rng::from_seed(1));
        for name in ["a", "b"] {
            engine.node(None, Some(node(name).view()), Instant::now());
        }
        for (name, provisioner, mode) in [
            ("wait", "example.com/x", "WaitForFirstConsumer"),
            ("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
            ("now", "example.com/x", "Immediate"),
        ] {
            let class =
                json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
            storage.set(name, Some(Arc::new(StorageClass::from_value(class).unwrap())));
        }
        Self { engine, storage }
    }

    fn claim(&self, name: &str, class: &str, volume: &str, modes: &[&str]) {
        let annotations =
            if volume.is_empty() { json!({}) } else { json!({"pv.kubernetes.io/bind-completed": "yes"}) };
        let claim = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": annotations},
            "spec": {"storageClassName": class, "volumeName": volume, "accessModes": modes,
                     "resources": {"requests": {"storage": "1Gi"}}},
        });
        self.storage.set(
            &format!("default/{name}"),
            Some(Arc::new(PersistentVolumeClaim::from_value(claim).unwrap())),
        );
    }

    fn volume(&self, name: &str, class: &str, host: &str, labels: Value) {
        let volume = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "local": {"path": "/x"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}},
            "status": {"phase": "Available"},
        });
        self.storage.set(name, Some(Arc::new(PersistentVolume::from_value(volume).unwrap())));
    }

    fn place(&mut self, pod: PodBuilder) -> Result<String, String> {
        self.engine.pod(None, Some(pod.view()), Instant::now());
        self.next()
    }

    fn next(&mut self) -> Result<String, String> {
        match self.engine.step(Instant::now()).0.expect("a pod is waiting") {
            Decision::Bind { node, .. } => Ok(node.to_string()),
            Decision::Refuse { message, .. } => Err(message),
            Decision::Skip(pod) => Err(format!("skipped {}", pod.name)),
        }
    }
}

fn with(name: &str, claims: &[&str]) -> PodBuilder {
    let volumes: Vec<Value> =
        claims.iter().map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}})).collect();
    pod(name).spec("volumes", json!(volumes))
}

const RWO: &[&str] = &["ReadWriteOnce"];

#[tokio::test(start_paused = true)]
async fn claims_that_cannot_be_had_are_told_of() {
    let mut world = World::new();
    world.claim("unbound", "now", "", RWO);
    for (claim, want) in [
        ("missing", "0/2 nodes are available: persistentvolumeclaim \"missing\" not found."),
        ("unbound", "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
    ] {
        let said = world.place(with(claim, &[claim])).unwrap_err();
        assert!(said.starts_with(want), "{said}");
    }
    // The claim gets its volume: the pod is worth a look.
    world.claim("unbound", "now", "pv", RWO);
    world.volume("pv", "now", "b", json!({}));
    world.engine.storage(StorageKind::Claim, "default/unbound".to_owned(), Instant::now());
    tokio::time::advance(std::time::Duration::from_secs(20)).await;
    assert_eq!(world.next().unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_pod_follows_its_volume() {
    let mut world = World::new();
    world.claim("data", "local", "pv", RWO);
    world.volume("pv", "local", "b", json!({}));
    assert_eq!(world.place(with("x", &["data"])).unwrap(), "b");
    world.volume("pv", "local", "elsewhere", json!({}));
    let said = world.place(with("y", &["data"])).unwrap_err();
    assert!(
        said.starts_with("0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_free_volume_is_given_to_one_pod_only() {
    let mut world = World::new();
    world.claim("one", "local", "", RWO);
    world.claim("two", "local", "", RWO);
    world.volume("pv", "local", "a", json!({}));
    assert_eq!(world.place(with("x", &["one"])).unwrap(), "a");
    let said = world.place(with("y", &["two"])).unwrap_err();
    assert!(
        said.starts_with(
            "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
        ),
        "{said}"
    );
    world.claim("three", "wait", "", RWO);
    assert!(world.place(with("z", &["three"])).is_ok(), "a class that provides can serve any node");
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_one_pod_is_for_one_pod() {
    let mut world = World::new();
    world.claim("mine", "local", "pv", &["ReadWriteOncePod"]);
    world.volume("pv", "local", "a", json!({}));
    assert_eq!(world.place(with("x", &["mine"])).unwrap(), "a");
    let said = world.place(with("y", &["mine"])).unwrap_err();
    let want = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    assert!(said.contains(want), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_a_zone_is_for_its_nodes() {
    let mut world = World::new();
    world.claim("data", "local", "pv", RWO);
    world.volume("pv", "local", "a", json!({"topology.kubernetes.io/zone": "z1"}));
    let said = world.place(with("x", &["data"])).unwrap_err();
    assert!(said.contains("node(s) had no available volume zone"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_class_is_for_the_nodes_of_its_topologies() {
    let mut world = World::new();
    let class = json!({
        "metadata": {"name": "wait"}, "provisioner": "example.com/x", "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [
            {"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["elsewhere", "b"]}]},
        ],
    });
    world.storage.set("wait", Some(Arc::new(StorageClass::from_value(class).unwrap())));
    world.claim("data", "wait", "", RWO);
    assert_eq!(world.place(with("x", &["data"])).unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn storage_that_is_used_up_takes_no_pod_where_the_driver_says_how_much_is_left() {
    let mut world = World::new();
    let driver = json!({"metadata": {"name": "example.com/x"}, "spec": {"storageCapacity": true}});
    world.storage.set("example.com/x", Some(Arc::new(CSIDriver::from_value(driver).unwrap())));
    let capacity = |host: &str, amounts: Value| {
        let mut capacity = json!({
            "metadata": {"name": host, "namespace": "default"}, "storageClassName": "wait",
            "nodeTopology": {"matchLabels": {"kubernetes.io/hostname": host}},
        });
        capacity.as_object_mut().unwrap().extend(amounts.as_object().unwrap().clone());
        Some(Arc::new(CSIStorageCapacity::from_value(capacity).unwrap()))
    };
    world.storage.set("default/a", capacity("a", json!({"capacity": "512Mi"})));
    world.storage.set("default/b", capacity("b", json!({"capacity": "9Gi", "maximumVolumeSize": "512Mi"})));
    world.claim("data", "wait", "", RWO);
    let said = world.place(with("x", &["data"])).unwrap_err();
    let want = "0/2 nodes are available: 2 node(s) did not have enough free storage.";
    assert!(said.starts_with(want), "{said}");
    // More of it is a reason to look again.
    world.storage.set("default/a", capacity("a", json!({"capacity": "1Gi"})));
    world.engine.storage(StorageKind::CsiCapacity, "default/a".to_owned(), Instant::now());
    tokio::time::advance(std::time::Duration::from_secs(20)).await;
    assert_eq!(world.next().unwrap(), "a");
}
