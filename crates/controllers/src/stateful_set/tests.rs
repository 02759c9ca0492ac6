//! StatefulSets: the plan of single steps, and the controller on the in-memory API.

use super::plan::{Action, Claims, Observed, plan};
use super::testing::{parallel, retention, set, with_claim};
use super::{identity, start, status};
use crate::history::REVISION_HASH;
use crate::pods::PodView;
use crate::world::{World, template};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::meta::Time;
use krate_api::types::apps::v1::{ControllerRevision, StatefulSet};
use krate_api::types::core::v1::{PersistentVolumeClaim, Pod, PodCondition};
use std::sync::Arc;

/// A set without claims.
struct NoClaims;
impl Claims for NoClaims {
    fn retained_rightly(&self, _: i32, _: &PodView, _: bool) -> bool {
        true
    }
    fn stale(&self, _: i32) -> bool {
        false
    }
    fn missing(&self, _: i32) -> bool {
        false
    }
}

/// A pod of `web` by its state: `R`eady, `U`nready, `D`eleting, `F`ailed; in lower case of the old revision.
fn pod(ordinal: i32, state: char) -> Arc<PodView> {
    let set = set("web", 1);
    let mut pod = PodView::default();
    pod.metadata.name = identity::pod_name(&set, ordinal);
    pod.metadata.uid = ordinal.to_string();
    pod.metadata.labels =
        identity::labels(&set, ordinal).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let revision = if state.is_ascii_lowercase() { "old" } else { "new" };
    pod.metadata.labels.insert(REVISION_HASH.to_owned(), revision.to_owned());
    let state = state.to_ascii_uppercase();
    pod.status.phase = if state == 'F' { "Failed" } else { "Running" }.to_owned();
    if state == 'D' {
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    }
    pod.status.conditions = vec![PodCondition {
        type_: "Ready".to_owned(),
        status: if state == 'R' || state == 'D' { "True" } else { "False" }.to_owned(),
        last_transition_time: Some(Time(Timestamp::UNIX_EPOCH)),
        ..PodCondition::default()
    }];
    Arc::new(pod)
}

/// Pods by their states, one character an ordinal; a dot is none.
fn observed<'a>(set: &'a StatefulSet, states: &str) -> Observed<'a> {
    let number = |n: usize| i32::try_from(n).unwrap();
    let pods = states.chars().enumerate().filter(|(_, s)| *s != '.');
    Observed {
        set,
        current: "old",
        update: "new",
        pods: pods.map(|(n, state)| (number(n), pod(number(n), state))).collect(),
        claims: &NoClaims,
        now: Timestamp::from_second(1000).unwrap(),
    }
}

/// The plan in short: `+2new` creates, `-2` deletes, `=2` corrects.
fn steps(set: &StatefulSet, states: &str) -> String {
    let text = |action: &Action| match action {
        Action::Create { ordinal, revision } => format!("+{ordinal}{revision}"),
        Action::CreateClaims { ordinal } => format!("c{ordinal}"),
        Action::Delete { pod, .. } => format!("-{}", pod.uid()),
        Action::Correct { ordinal, .. } => format!("={ordinal}"),
    };
    plan(&observed(set, states)).iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn pods_come_and_go_in_order() {
    for (replicas, states, wanted) in [
        (3, "", "+0new"),
        (3, "R", "+1new"),
        (3, "U", ""),
        (3, "RU", ""),
        (3, "RRR", ""),
        // A gap is filled before anything else, and a failed pod replaced.
        (3, "R.R", "+1new"),
        (3, "RFR", "-1"),
        (3, "RDR", ""),
        // Down from the highest, one at a time, and only while all are well.
        (1, "RRR", "-2"),
        (1, "RRD", ""),
        (1, "RUR", "-2"),
        (1, "RRU", "-2"),
        (1, "RUU", ""),
        (1, "URR", ""),
        (0, "UUU", ""),
        (0, "U", "-0"),
    ] {
        assert_eq!(steps(&set("web", replicas), states), wanted, "{replicas} of {states}");
    }
}

#[test]
fn in_parallel_all_come_and_go_at_once() {
    for (replicas, states, wanted) in [
        (3, "", "+0new +1new +2new"),
        (3, "UU", "+2new"),
        (1, "UUU", "-2 -1"),
        (3, "FUR", "-0"),
        // But updates go one by one.
        (3, "rrr", "-2"),
        (3, "rrU", ""),
        (3, "rrR", "-1"),
    ] {
        assert_eq!(steps(&parallel(set("web", replicas)), states), wanted, "{replicas} of {states}");
    }
}

fn rolling(partition: i32, unavailable: Option<i32>) -> StatefulSet {
    let mut set = set("web", 4);
    let strategy = set.spec.as_mut().unwrap().update_strategy.as_mut().unwrap();
    let rolling = strategy.rolling_update.as_mut().unwrap();
    rolling.partition = Some(partition);
    rolling.max_unavailable = unavailable.map(IntOrString::Int);
    set
}

#[test]
fn updates_go_down_to_the_partition() {
    for (partition, states, wanted) in [
        (0, "rrrr", "-3"),
        (0, "rrrU", ""),
        (0, "rrrR", "-2"),
        (0, "rRRR", "-0"),
        (2, "rrRR", ""),
        (2, "rrrR", "-2"),
        (9, "rrrr", ""),
        // What is lost comes back as what it is to be.
        (2, ".rRR", "+0old"),
        (2, "rr.R", "+2new"),
        // A scale comes before the update.
        (0, "rrrrr", "-4"),
    ] {
        assert_eq!(steps(&rolling(partition, None), states), wanted, "partition {partition} of {states}");
    }
    assert_eq!(steps(&rolling(0, Some(2)), "rrrr"), "-3 -2");
    assert_eq!(steps(&rolling(3, Some(2)), "rrrr"), "-3");
    let mut on_delete = rolling(0, None);
    on_delete.spec.as_mut().unwrap().update_strategy.as_mut().unwrap().type_ = Some("OnDelete".to_owned());
    assert_eq!(steps(&on_delete, "rrrr"), "");
    assert_eq!(steps(&on_delete, "rrr."), "+3new");
}

#[test]
fn ordinals_may_begin_anywhere() {
    let mut set = set("web", 2);
    set.spec.as_mut().unwrap().ordinals.get_or_insert_default().start = Some(2);
    assert_eq!(steps(&set, ""), "+2new");
    assert_eq!(steps(&set, "RRRR"), "-1");
    assert_eq!(steps(&set, "..rr"), "-3");
}

#[test]
fn a_pod_counts_when_it_has_been_ready_long_enough() {
    let mut set = set("web", 2);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(1030);
    assert_eq!(steps(&set, "R"), "");
    let seen = observed(&set, "R");
    assert_eq!(seen.next_available(), Some(std::time::Duration::from_secs(30)));
    let status = status::status(&seen, 0);
    assert_eq!((status.ready_replicas, status.available_replicas), (Some(1), Some(0)));
}

#[test]
fn the_status_counts_by_revision_and_completes() {
    let three = set("web", 3);
    let s = status::status(&observed(&three, "rrD"), 0);
    assert_eq!((s.replicas, s.ready_replicas), (3, Some(3)));
    assert_eq!((s.current_replicas, s.updated_replicas), (Some(2), None));
    assert_eq!((s.current_revision.as_deref(), s.update_revision.as_deref()), (Some("old"), Some("new")));
    let s = status::status(&observed(&three, "RRR"), 0);
    assert_eq!((s.current_replicas, s.current_revision.as_deref()), (Some(3), Some("new")));
}

fn status_of(w: &World) -> (i32, i32, i32) {
    let s = w.fake.get::<StatefulSet>("default", "web").unwrap().status.clone().unwrap_or_default();
    (s.replicas, s.ready_replicas.unwrap_or(0), s.updated_replicas.unwrap_or(0))
}

async fn change(w: &World, change: impl Fn(&mut StatefulSet) + Send + Sync) {
    let modify = |set: &mut StatefulSet| {
        change(set);
        true
    };
    w.api::<StatefulSet>().modify("default", "web", modify).await.unwrap();
    w.pass(60).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_brought_up_updated_rolled_back_and_left_alone() {
    let w = World::new(&[start]);
    w.kubelet();
    w.fake.put(&set("web", 3));
    w.pass(30).await;
    assert_eq!(
        (status_of(&w), w.names::<Pod>()),
        ((3, 3, 3), vec!["web-0".into(), "web-1".into(), "web-2".into()])
    );
    assert!(
        w.events().iter().any(|e| e == "SuccessfulCreate create Pod web-0 in StatefulSet web successful")
    );
    let first = w.fake.list::<ControllerRevision>()[0].metadata.name.clone();
    change(&w, |set| set.spec.as_mut().unwrap().template = template("web", "nginx:2")).await;
    assert_eq!(status_of(&w), (3, 3, 3));
    change(&w, |set| set.spec.as_mut().unwrap().template = template("web", "nginx:1")).await;
    let s = w.fake.get::<StatefulSet>("default", "web").unwrap().status.clone().unwrap();
    assert_eq!((s.current_revision, s.update_revision), (first.clone(), first));
    let mut numbers: Vec<_> = w.fake.list::<ControllerRevision>().iter().map(|r| r.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    assert_eq!(w.fake.take_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn claims_are_made_kept_and_owned_as_the_policy_says() {
    let w = World::new(&[start]);
    w.kubelet();
    w.fake.put(&retention(with_claim(set("web", 2), "data"), "Delete", "Delete"));
    w.pass(30).await;
    assert_eq!(w.names::<PersistentVolumeClaim>(), ["data-web-0", "data-web-1"]);
    let owner = |name: &str| {
        let claim = w.fake.get::<PersistentVolumeClaim>("default", name).unwrap();
        claim.metadata.owner_references.clone().unwrap_or_default().pop().map(|o| (o.kind, o.name))
    };
    let by_set = Some(("StatefulSet".to_owned(), "web".to_owned()));
    assert_eq!((owner("data-web-0"), owner("data-web-1")), (by_set.clone(), by_set.clone()));
    change(&w, |set| set.spec.as_mut().unwrap().replicas = Some(1)).await;
    assert_eq!(owner("data-web-1"), Some(("Pod".to_owned(), "web-1".to_owned())));
    // The claim of the pod that is gone is about to go: nothing is started on it.
    change(&w, |set| set.spec.as_mut().unwrap().replicas = Some(2)).await;
    assert_eq!(w.names::<Pod>(), ["web-0"]);
    w.fake.remove::<PersistentVolumeClaim>("default", "data-web-1");
    w.pass(30).await;
    assert_eq!((w.names::<Pod>().len(), owner("data-web-1")), (2, by_set));
}
