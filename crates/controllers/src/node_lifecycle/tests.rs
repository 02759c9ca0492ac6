//! Nodes that fall silent, on the in-memory API.

use super::health::{NO_EXECUTE, UNREACHABLE};
use crate::world::{World, named};
use krate_api::meta::{MicroTime, Time};
use krate_api::types::coordination::v1::Lease;
use krate_api::types::core::v1::{Node, NodeCondition, Pod, Toleration};
use std::sync::Arc;

fn world() -> World {
    World::new(&[super::start, crate::taint_eviction::start])
}

fn node(w: &World, name: &str) {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        last_heartbeat_time: Some(Time(w.context.clock.now_seconds())),
        ..NodeCondition::default()
    }]);
    w.fake.put(&node);
}

/// Renews leases for a time, every ten seconds.
async fn live(w: &World, names: &[&str], seconds: u64) {
    for _ in 0..seconds / 10 {
        for name in names {
            let mut lease = Lease::default();
            lease.metadata.name = Some((*name).to_owned());
            lease.metadata.namespace = Some("kube-node-lease".to_owned());
            lease.spec.get_or_insert_default().renew_time = Some(MicroTime(w.context.clock.now_micros()));
            w.fake.put(&lease);
        }
        w.pass(10).await;
    }
}

fn pod(w: &World, name: &str, node: &str, tolerates: Option<i64>) {
    let mut pod = Pod::default();
    named(&mut pod, name);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    spec.tolerations = Some(vec![Toleration {
        key: Some(UNREACHABLE.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(NO_EXECUTE.to_owned()),
        toleration_seconds: tolerates,
        value: None,
    }]);
    w.set_ready(&w.fake.put(&pod), true);
}

fn ready(w: &World, name: &str) -> (String, String) {
    let node = w.fake.get::<Node>("", name).unwrap();
    let conditions = node.status.as_ref().unwrap().conditions.clone().unwrap();
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready").unwrap();
    (ready.status, ready.reason.unwrap_or_default())
}

fn taints(w: &World, name: &str) -> Vec<String> {
    let node = w.fake.get::<Node>("", name).unwrap();
    let taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    taints.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect()
}

fn is_going(p: &Arc<Pod>) -> bool {
    p.metadata.deletion_timestamp.is_some()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_is_marked_tainted_and_emptied_after_the_documented_times() {
    let w = world();
    node(&w, "a");
    node(&w, "b");
    pod(&w, "tolerant", "b", Some(300));
    pod(&w, "steadfast", "b", None);
    live(&w, &["a", "b"], 300).await;
    assert_eq!(ready(&w, "b"), ("True".to_owned(), String::new()));
    live(&w, &["a"], 60).await;
    assert_eq!(ready(&w, "b"), ("Unknown".to_owned(), "NodeStatusUnknown".to_owned()));
    assert_eq!(
        taints(&w, "b"),
        ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
    );
    assert_eq!(ready(&w, "a").0, "True");
    let unready = |p: &Arc<Pod>| p.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].status == "False";
    assert!(w.fake.list::<Pod>().iter().all(unready));
    live(&w, &["a"], 280).await;
    assert!(!w.fake.list::<Pod>().iter().any(is_going));
    live(&w, &["a"], 30).await;
    assert!(is_going(&w.fake.get::<Pod>("default", "tolerant").unwrap()));
    assert!(!is_going(&w.fake.get::<Pod>("default", "steadfast").unwrap()));
    assert!(w.events().iter().any(|e| e == "NodeNotReady Node b status is now: NodeNotReady"));
    assert!(w.events().iter().any(|e| e == "TaintManagerEviction Marking for deletion Pod default/tolerant"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_returns_is_free_of_taints_and_keeps_its_pods() {
    let w = world();
    node(&w, "a");
    node(&w, "b");
    pod(&w, "tolerant", "b", Some(300));
    live(&w, &["a", "b"], 20).await;
    live(&w, &["a"], 120).await;
    assert_eq!(taints(&w, "b").len(), 2);
    node(&w, "b");
    live(&w, &["a", "b"], 600).await;
    assert_eq!(taints(&w, "b"), Vec::<String>::new());
    assert!(!w.fake.list::<Pod>().iter().any(is_going));
    assert!(
        w.events().iter().any(|e| e == "TaintManagerEviction Cancelling deletion of Pod default/tolerant")
    );
}

#[tokio::test(start_paused = true)]
async fn when_everybody_is_silent_nobody_is_evicted() {
    let w = world();
    node(&w, "a");
    node(&w, "b");
    pod(&w, "tolerant", "b", Some(300));
    w.pass(3600).await;
    assert_eq!(ready(&w, "a").0, "Unknown");
    assert_eq!(taints(&w, "b"), ["node.kubernetes.io/unreachable:NoSchedule"]);
    assert!(!w.fake.list::<Pod>().iter().any(is_going));
}
