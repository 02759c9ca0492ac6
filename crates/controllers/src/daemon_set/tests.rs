//! DaemonSets: the plan of single steps, and the controller on the in-memory API.

use super::nodes::Belongs;
use super::plan::{Daemon, Observed};
use super::rollout::{self, Bounds};
use super::testing::{node, object, set, set_image, surging};
use super::{start, status};
use crate::history::REVISION_HASH;
use crate::nodes::NodeView;
use crate::patience::Patience;
use crate::pods::PodView;
use crate::world::World;
use jiff::Timestamp;
use krate_api::meta::Time;
use krate_api::types::apps::v1::{ControllerRevision, DaemonSet};
use krate_api::types::core::v1::{Pod, PodCondition};
use std::sync::Arc;
use std::time::Duration;

/// Nobody waits.
struct None;
impl Patience for None {
    fn replace(&mut self, _: &str) -> Result<(), Duration> {
        Ok(())
    }
}

fn daemon(name: &str, node: &str, hash: &str, ready: bool) -> PodView {
    let mut pod = PodView::default();
    pod.metadata.name = name.to_owned();
    pod.metadata.labels = [(REVISION_HASH.to_owned(), hash.to_owned())].into();
    pod.spec.node_name = node.to_owned();
    pod.status.phase = "Running".to_owned();
    pod.status.conditions = vec![PodCondition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        last_transition_time: Some(Time(Timestamp::UNIX_EPOCH)),
        ..PodCondition::default()
    }];
    pod
}

fn nodes(names: &[&str]) -> Vec<Arc<NodeView>> {
    names.iter().map(|n| Arc::new(node(n))).collect()
}

fn names(pods: &[Daemon]) -> Vec<&str> {
    pods.iter().map(|p| p.name()).collect()
}

fn observe<'a>(set: &'a DaemonSet, nodes: &'a [Arc<NodeView>], pods: &'a [Daemon]) -> Observed<'a> {
    Observed::new(set, "new", nodes, pods, Timestamp::from_second(1000).unwrap())
}

fn shared(pods: Vec<PodView>) -> Vec<Daemon> {
    pods.into_iter().map(Arc::new).collect()
}

#[test]
fn every_node_gets_one_and_keeps_the_oldest() {
    let (set, nodes) = (set("agent"), nodes(&["a", "b", "c"]));
    let mut young = daemon("young", "b", "new", true);
    young.metadata.creation_timestamp = Some(Time(Timestamp::from_second(50).unwrap()));
    let mut failed = daemon("failed", "c", "new", false);
    failed.status.phase = "Failed".to_owned();
    let mut stranded = daemon("stranded", "", "new", false);
    stranded.spec.pinned_to = "gone".to_owned();
    let pods = shared(vec![young, daemon("old", "b", "new", true), failed, stranded]);
    let actions = observe(&set, &nodes, &pods).manage(false, &mut None);
    assert_eq!(actions.create, ["a"]);
    assert_eq!(names(&actions.delete), ["young", "failed", "stranded"]);
    assert_eq!(names(&actions.ended), ["failed"]);
}

#[test]
fn an_update_costs_no_more_than_it_may() {
    let (set, nodes) = (set("agent"), nodes(&["a", "b", "c"]));
    let pods = shared(vec![
        daemon("1", "a", "old", true),
        daemon("2", "b", "old", true),
        daemon("3", "c", "old", true),
    ]);
    assert_eq!(names(&rollout::step(&observe(&set, &nodes, &pods)).delete), ["1"]);
    // One is missing: nothing more is taken away.
    assert!(rollout::step(&observe(&set, &nodes, &pods[1..])).delete.is_empty());
    // An unready old one is replaced at no cost.
    let pods = shared(vec![
        daemon("1", "a", "new", false),
        daemon("2", "b", "old", false),
        daemon("3", "c", "old", true),
    ]);
    assert_eq!(names(&rollout::step(&observe(&set, &nodes, &pods)).delete), ["2"]);
}

#[test]
fn a_surge_starts_the_new_beside_the_old() {
    let (set, nodes) = (surging(set("agent"), 1), nodes(&["a", "b"]));
    let mut pods = shared(vec![daemon("1", "a", "old", true), daemon("2", "b", "old", true)]);
    let step = rollout::step(&observe(&set, &nodes, &pods));
    assert_eq!((step.create, step.delete.len()), (vec!["a".to_owned()], 0));
    pods.push(Arc::new(daemon("3", "a", "new", false)));
    let step = rollout::step(&observe(&set, &nodes, &pods));
    assert!(step.create.is_empty() && step.delete.is_empty(), "it waits for the new one");
    pods[2] = Arc::new(daemon("3", "a", "new", true));
    let observed = observe(&set, &nodes, &pods);
    assert_eq!(names(&observed.manage(true, &mut None).delete), ["1"]);
    assert_eq!(names(&rollout::step(&observed).delete), ["1"]);
}

#[test]
fn bounds_are_shares_of_the_nodes() {
    let bounds = |set: &DaemonSet, desired| {
        let b = Bounds::of(set, desired);
        (b.surge, b.unavailable)
    };
    let mut percent = set("agent");
    let spec = percent.spec.as_mut().unwrap();
    let rolling = spec.update_strategy.as_mut().unwrap().rolling_update.as_mut().unwrap();
    rolling.max_unavailable =
        Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("34%".to_owned()));
    assert_eq!(bounds(&percent, 10), (0, 4));
    assert_eq!(bounds(&surging(set("agent"), 2), 10), (2, 0));
    assert!(rollout::surges(&surging(set("agent"), 2)) && !rollout::surges(&percent));
}

#[test]
fn the_status_counts_nodes() {
    let (set, all) = (set("agent"), nodes(&["a", "b", "c"]));
    let pods = shared(vec![daemon("1", "a", "new", true), daemon("2", "b", "old", false)]);
    let mut observed = observe(&set, &all, &pods);
    observed.nodes[1].1 = Belongs::MayStay;
    let (status, _) = status::status(&observed, true);
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (2, 1));
    assert_eq!((status.number_ready, status.number_misscheduled), (1, 1));
    assert_eq!((status.updated_number_scheduled, status.number_available), (Some(1), Some(1)));
    assert_eq!(status.number_unavailable, Some(1));
}

fn cluster(nodes: &[&str]) -> World {
    let w = World::new(&[start]);
    for name in nodes {
        w.fake.put(&object(name));
    }
    w
}

/// Binds pods to the nodes that they are pinned to and runs them, for some time.
async fn run(w: &World, seconds: u64) {
    for _ in 0..seconds {
        for pod in w.fake.list::<Pod>() {
            let mut pod = (*pod).clone();
            let affinity = pod.spec.as_ref().unwrap().affinity.clone().unwrap().node_affinity.unwrap();
            let terms = affinity.required_during_scheduling_ignored_during_execution.unwrap();
            let name = terms.node_selector_terms[0].match_fields.as_ref().unwrap()[0].values.clone();
            if pod.spec.as_ref().unwrap().node_name.is_none() {
                pod.spec.as_mut().unwrap().node_name = name.unwrap().pop();
                w.set_ready(&pod, true);
            }
        }
        w.finish_deletions();
        w.pass(1).await;
    }
}

fn status_of(w: &World) -> (i32, i32, i32) {
    let s = w.fake.get::<DaemonSet>("default", "agent").unwrap().status.clone().unwrap_or_default();
    (s.desired_number_scheduled, s.number_ready, s.updated_number_scheduled.unwrap_or(0))
}

#[tokio::test(start_paused = true)]
async fn it_follows_the_nodes_and_then_rests() {
    let w = cluster(&["a", "b"]);
    w.fake.put(&set("agent"));
    run(&w, 10).await;
    assert_eq!(status_of(&w), (2, 2, 2));
    w.fake.put(&object("c"));
    run(&w, 10).await;
    assert_eq!(status_of(&w), (3, 3, 3));
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    assert_eq!(w.fake.take_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_takes_the_old_revision_up_again() {
    let w = cluster(&["a", "b"]);
    w.fake.put(&set("agent"));
    run(&w, 10).await;
    set_image(&w, "agent", "nginx:2").await;
    run(&w, 30).await;
    set_image(&w, "agent", "nginx:1").await;
    run(&w, 30).await;
    assert_eq!(status_of(&w), (2, 2, 2));
    let revisions = w.fake.list::<ControllerRevision>();
    let mut numbers: Vec<_> = revisions.iter().map(|r| r.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    let newest = revisions.iter().find(|r| r.revision == 3).unwrap();
    let hash = &newest.metadata.labels.as_ref().unwrap()[REVISION_HASH];
    for pod in w.fake.list::<Pod>() {
        assert_eq!(&pod.metadata.labels.as_ref().unwrap()[REVISION_HASH], hash);
    }
}
