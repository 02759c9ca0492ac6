//! ReplicaSets on the in-memory API.

use super::start_replica_sets;
use crate::meta::controller_of;
use crate::world::{World, named, selector, template};
use krate_api::types::apps::v1::ReplicaSet;
use krate_api::types::core::v1::Pod;
use krate_api::{Object, Reason, Status};

fn replica_set(name: &str, replicas: i32) -> ReplicaSet {
    let mut rs = ReplicaSet::default();
    named(&mut rs, name);
    let spec = rs.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector = selector(name);
    spec.template = Some(template(name, "nginx"));
    rs
}

fn stray(name: &str, app: &str) -> Pod {
    let mut pod = Pod::default();
    named(&mut pod, name);
    pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
    pod
}

async fn scale(w: &World, name: &str, to: i32) {
    let change = |rs: &mut ReplicaSet| {
        rs.spec.get_or_insert_default().replicas = Some(to);
        true
    };
    w.api::<ReplicaSet>().modify("default", name, change).await.unwrap();
    w.settle().await;
}

fn status(w: &World, name: &str) -> (i32, i32, i32) {
    let s = w.fake.get::<ReplicaSet>("default", name).unwrap().status.clone().unwrap_or_default();
    (s.replicas, s.ready_replicas.unwrap_or(0), s.available_replicas.unwrap_or(0))
}

#[tokio::test(start_paused = true)]
async fn makes_pods_counts_them_and_writes_nothing_more() {
    let w = World::new(&[start_replica_sets]);
    w.fake.put(&replica_set("web", 3));
    w.settle().await;
    assert_eq!(status(&w, "web"), (3, 0, 0));
    w.run_pods();
    w.settle().await;
    assert_eq!(status(&w, "web"), (3, 3, 3));
    let pod = &w.fake.list::<Pod>()[0];
    assert!(pod.metadata.name.as_ref().unwrap().starts_with("web-"));
    let owner = controller_of(pod.meta()).unwrap();
    assert_eq!((owner.kind.as_str(), owner.block_owner_deletion), ("ReplicaSet", Some(true)));
    assert_eq!(w.events().iter().filter(|e| e.starts_with("SuccessfulCreate Created pod: web-")).count(), 3);
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    assert_eq!(w.fake.take_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn replaces_lost_pods_and_scales_down() {
    let w = World::new(&[start_replica_sets]);
    w.fake.put(&replica_set("web", 3));
    w.settle().await;
    let first = w.names::<Pod>()[0].clone();
    w.fake.remove::<Pod>("default", &first);
    w.settle().await;
    assert_eq!(w.names::<Pod>().len(), 3);
    scale(&w, "web", 1).await;
    assert_eq!(w.names::<Pod>().len(), 1);
    assert_eq!(status(&w, "web"), (1, 0, 0));
    assert!(w.events().iter().any(|e| e.starts_with("SuccessfulDelete Deleted pod: web-")));
}

#[tokio::test(start_paused = true)]
async fn the_unready_pod_goes_first() {
    let w = World::new(&[start_replica_sets]);
    w.fake.put(&replica_set("web", 3));
    w.settle().await;
    w.run_pods();
    let pods = w.fake.list::<Pod>();
    w.set_ready(&pods[1], false);
    w.settle().await;
    scale(&w, "web", 2).await;
    let doomed = w.fake.get::<Pod>("default", pods[1].metadata.name.as_deref().unwrap()).unwrap();
    assert!(doomed.metadata.deletion_timestamp.is_some());
    assert_eq!(w.names::<Pod>().len(), 3, "the kubelet ends it");
    let rs = w.fake.get::<ReplicaSet>("default", "web").unwrap();
    assert_eq!(rs.status.as_ref().unwrap().terminating_replicas, Some(1));
}

#[tokio::test(start_paused = true)]
async fn adopts_strays_and_releases_what_no_longer_matches() {
    let w = World::new(&[start_replica_sets]);
    w.fake.put(&stray("alone", "web"));
    w.fake.put(&replica_set("web", 2));
    w.settle().await;
    assert_eq!(w.names::<Pod>().len(), 2);
    let mut adopted = (*w.fake.get::<Pod>("default", "alone").unwrap()).clone();
    assert_eq!(controller_of(&adopted.metadata).unwrap().name, "web");
    adopted.metadata.labels = Some([("app".to_owned(), "debug".to_owned())].into());
    w.fake.put(&adopted);
    w.settle().await;
    let released = w.fake.get::<Pod>("default", "alone").unwrap();
    assert!(controller_of(&released.metadata).is_none());
    assert_eq!(w.names::<Pod>().len(), 3, "a new pod stands in for it");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_tried_again() {
    let w = World::new(&[start_replica_sets]);
    w.fake.fail(|r| {
        (r.plural == "pods" && r.verb == krate_client::Verb::Create)
            .then(|| Status::failure(Reason::Forbidden, "pods is forbidden: exceeded quota"))
    });
    w.fake.put(&replica_set("web", 10));
    w.settle().await;
    let rs = w.fake.get::<ReplicaSet>("default", "web").unwrap();
    let conditions = rs.status.as_ref().unwrap().conditions.clone().unwrap();
    assert_eq!(conditions[0].type_, "ReplicaFailure");
    assert_eq!(conditions[0].reason.as_deref(), Some("FailedCreate"));
    assert!(w.events().iter().any(|e| e == "FailedCreate Error creating: pods is forbidden: exceeded quota"));
    let tries = w.fake.take_writes().iter().filter(|x| x.starts_with("create pods")).count();
    assert!(tries < 20, "slow start and back-off: {tries}");
    w.fake.heal();
    w.pass(60).await;
    assert_eq!(status(&w, "web").0, 10);
    let rs = w.fake.get::<ReplicaSet>("default", "web").unwrap();
    assert_eq!(rs.status.as_ref().unwrap().conditions, None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_available_when_it_has_been_ready_long_enough() {
    let w = World::new(&[start_replica_sets]);
    let mut rs = replica_set("web", 1);
    rs.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    w.fake.put(&rs);
    w.settle().await;
    w.run_pods();
    w.pass(25).await;
    assert_eq!(status(&w, "web"), (1, 1, 0));
    w.pass(10).await;
    assert_eq!(status(&w, "web"), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_made_for_an_owner_that_only_the_cache_still_has() {
    let w = World::new(&[start_replica_sets]);
    w.fake.put(&replica_set("web", 1));
    w.settle().await;
    // The watch of sets hears of nothing any more; the set goes, and with it, each time, what it made.
    w.fake.fail(|request| {
        let blind = request.plural == "replicasets" && request.name.is_empty();
        blind.then(|| Status::failure(Reason::ServiceUnavailable, "away"))
    });
    w.fake.break_watches();
    w.fake.remove::<ReplicaSet>("default", "web");
    w.pass(60).await;
    for _ in 0..20 {
        for name in w.names::<Pod>() {
            w.fake.remove::<Pod>("default", &name);
        }
        w.pass(1).await;
    }
    assert!(w.names::<Pod>().is_empty(), "{:?}", w.names::<Pod>());
}
