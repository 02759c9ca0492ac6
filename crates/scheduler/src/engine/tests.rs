//! What the engine decides.

use super::*;
use crate::profile::ProfileConfig;
use crate::testing::{NodeBuilder, PodBuilder, node, pod};
use std::collections::BTreeSet;

struct World {
    engine: Engine,
    now: Instant,
}

impl World {
    fn new(nodes: impl IntoIterator<Item = NodeBuilder>) -> Self {
        Self::with(&[], nodes)
    }

    fn with(profiles: &[ProfileConfig], nodes: impl IntoIterator<Item = NodeBuilder>) -> Self {
        let profiles = Profile::all(profiles).unwrap();
        let mut world = Self { engine: Engine::new(profiles, Rng::from_seed(1)), now: Instant::now() };
        for node in nodes {
            world.engine.node(None, Some(node.view()), world.now);
        }
        world
    }

    fn add(&mut self, pod: PodBuilder) -> &mut Self {
        self.engine.pod(None, Some(pod.view()), self.now);
        self
    }

    /// What is decided next: the node, or the message.
    fn next(&mut self) -> Result<String, String> {
        match self.engine.step(self.now).0.expect("a pod is waiting") {
            Decision::Bind { node, .. } => Ok(node.to_string()),
            Decision::Refuse { message, .. } => Err(message),
            Decision::Skip(pod) => Err(format!("skipped {}", pod.name)),
        }
    }

    fn place(&mut self, pod: PodBuilder) -> Result<String, String> {
        self.add(pod).next()
    }
}

const NOT_HELPFUL: &str = "no new claims to deallocate, preemption: 0/2 nodes are available: \
                           2 Preemption is not helpful for scheduling.";

#[tokio::test(start_paused = true)]
async fn a_decision_counts_for_the_next_one() {
    let mut world = World::new([node("a").cpu(1000), node("b").cpu(1000)]);
    let placed: BTreeSet<_> =
        [pod("x").cpu(600), pod("y").cpu(600)].map(|pod| world.place(pod).unwrap()).into();
    assert_eq!(placed.len(), 2);
    let refused = world.place(pod("z").cpu(600)).unwrap_err();
    assert!(refused.starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn each_node_says_why_not_in_the_originals_words() {
    let mut world =
        World::new([node("small").cpu(100), node("tainted").taint("dedicated", "db", "NoSchedule")]);
    let refused = world.place(pod("web").cpu(500)).unwrap_err();
    let reasons = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s).";
    assert_eq!(refused, format!("{reasons} {NOT_HELPFUL}"));
    assert_eq!(world.place(pod("db").cpu(500).tolerate("dedicated")).unwrap(), "tainted");
}

#[tokio::test(start_paused = true)]
async fn without_nodes_there_is_nothing_to_say_but_that() {
    let mut world = World::new([]);
    assert_eq!(world.place(pod("web")).unwrap_err(), "no nodes available to schedule pods");
    world.engine.node(None, Some(node("a").view()), world.now);
    assert_eq!(world.next().unwrap(), "a", "a node helps at once");
}

#[tokio::test(start_paused = true)]
async fn a_daemons_pod_goes_to_its_node_or_says_why_not() {
    let pin = |name: &str| {
        serde_json::json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [name]},
            ]}],
        }}})
    };
    let mut world = World::new([node("a"), node("b").cpu(100)]);
    assert_eq!(world.place(pod("d1").spec("affinity", pin("a"))).unwrap(), "a");
    let refused = world.place(pod("d2").cpu(200).spec("affinity", pin("b"))).unwrap_err();
    let reasons =
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity].";
    assert_eq!(refused, format!("{reasons} {NOT_HELPFUL}"));
}

#[tokio::test(start_paused = true)]
async fn selectors_ports_and_cordons_are_kept() {
    let mut world = World::new([node("a").label("disk", "ssd"), node("b"), node("c").unschedulable()]);
    assert_eq!(world.place(pod("s").select("disk", "ssd")).unwrap(), "a");
    let two: BTreeSet<_> =
        [pod("p1").host_port(80), pod("p2").host_port(80)].map(|pod| world.place(pod).unwrap()).into();
    assert_eq!(two, BTreeSet::from(["a".into(), "b".into()]));
    let refused = world.place(pod("p3").host_port(80)).unwrap_err();
    let reasons = "0/3 nodes are available: 1 node(s) were unschedulable, \
                   2 node(s) didn't have free ports for the requested pod ports.";
    assert!(refused.starts_with(reasons), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn soft_taints_and_preferences_decide_between_nodes_that_fit() {
    let mut world = World::new([node("a").taint("k", "v", "PreferNoSchedule"), node("b")]);
    assert_eq!(world.place(pod("one")).unwrap(), "b");
    let prefer = serde_json::json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]},
        ]}},
    ]}});
    let tolerant = pod("two").tolerate("k").spec("affinity", prefer);
    assert_eq!(world.place(tolerant).unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn pods_of_other_schedulers_are_not_ours_but_count() {
    let mut world = World::new([node("a").cpu(1000)]);
    world.add(pod("theirs").spec("schedulerName", "other".into()));
    assert!(world.engine.step(world.now).0.is_none());
    world.add(pod("theirs").spec("schedulerName", "other".into()).cpu(800).on("a"));
    assert!(world.place(pod("ours").cpu(300)).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_makes_room() {
    let mut world = World::new([node("a").cpu(1000)]);
    let old = pod("old").cpu(800).on("a");
    world.add(old.clone());
    assert!(world.place(pod("new").cpu(500)).is_err());
    assert!(world.engine.step(world.now).0.is_none());
    world.engine.pod(Some(old.clone().view()), Some(old.status("phase", "Succeeded").view()), world.now);
    assert_eq!(world.next().unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_failed_bind_gives_the_room_back() {
    let mut world = World::new([node("a").cpu(1000)]);
    world.add(pod("one").cpu(800));
    let Some(Decision::Bind { waiting, node, .. }) = world.engine.step(world.now).0 else { panic!("binds") };
    assert!(world.place(pod("two").cpu(800)).is_err());
    world.engine.failed(waiting, &node, world.now);
    assert_eq!(world.next().unwrap(), "a", "the other pod is helped at once");
    world.now += Duration::from_secs(1);
    assert!(world.next().unwrap_err().contains("Insufficient cpu"), "the first is tried again");
}

#[tokio::test(start_paused = true)]
async fn a_bound_pod_is_not_tried_again_by_late_news() {
    let mut world = World::new([node("a")]);
    assert_eq!(world.place(pod("one")).unwrap(), "a");
    let (old, new) = (pod("one").view(), pod("one").label("x", "y").view());
    world.engine.pod(Some(old), Some(new.clone()), world.now);
    assert!(world.engine.step(world.now).0.is_none());
    world.engine.pod(Some(new), Some(pod("one").on("a").view()), world.now);
    assert!(world.engine.step(world.now).0.is_none());
    assert_eq!(world.engine.cluster.counts(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_being_deleted_is_skipped() {
    let mut world = World::new([node("a")]);
    let mut dying = pod("one");
    dying.0["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(world.place(dying).unwrap_err(), "skipped one");
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_same_name_is_another_pod() {
    let mut world = World::new([node("a").cpu(1000)]);
    let first = pod("one").cpu(800).on("a");
    world.add(first.clone());
    let mut second = pod("one").cpu(900);
    second.0["metadata"]["uid"] = "another".into();
    world.engine.pod(Some(first.view()), Some(second.view()), world.now);
    assert_eq!(world.next().unwrap(), "a");
}

fn room(decision: Option<Decision>) -> (Option<String>, Vec<String>, String) {
    let Some(Decision::Refuse { room, message, .. }) = decision else { panic!("it is refused") };
    let mut victims: Vec<_> = room.victims.iter().map(|pod| pod.name.to_string()).collect();
    victims.sort();
    (room.nominate.map(|node| node.to_string()), victims, message)
}

#[tokio::test(start_paused = true)]
async fn an_important_pod_takes_the_place_of_the_least_important_ones() {
    let mut world = World::new([node("a").cpu(1000), node("b").cpu(1000)]);
    world.add(pod("a1").cpu(500).priority(5).on("a")).add(pod("a2").cpu(500).priority(1).on("a"));
    world.add(pod("b1").cpu(1000).priority(4).on("b"));
    world.add(pod("vip").cpu(400).priority(10));
    let (nominate, victims, message) = room(world.engine.step(world.now).0);
    assert_eq!((nominate.as_deref(), victims), (Some("a"), vec!["a2".to_owned()]));
    assert_eq!(message, "0/2 nodes are available: 2 Insufficient cpu.");

    // its place is kept from others until it comes
    world.engine.pod(Some(pod("a2").view()), None, world.now);
    assert_eq!(world.next().unwrap(), "a");
    assert!(world.place(pod("late").cpu(400).priority(3)).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_nominated_place_counts_for_lesser_pods_only() {
    let mut world = World::new([node("a").cpu(1000)]);
    world.add(pod("low").cpu(1000).on("a")).add(pod("vip").cpu(600).priority(10));
    assert_eq!(room(world.engine.step(world.now).0).0.as_deref(), Some("a"));
    let before = world.engine.cluster.table.get("a").unwrap().clone();
    assert_eq!(before.pods.len(), 1, "nominated, not bound");
    world.engine.cluster.remove("uid-low");
    let refused = world.place(pod("small").cpu(500).priority(1)).unwrap_err();
    assert!(refused.contains("1 Insufficient cpu"), "{refused}");
    assert_eq!(world.place(pod("higher").cpu(500).priority(20)).unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_preempt_says_so() {
    let mut world = World::new([node("a").cpu(1000)]);
    world.add(pod("low").cpu(1000).on("a"));
    world.add(pod("vip").cpu(600).priority(10).spec("preemptionPolicy", "Never".into()));
    let (nominate, _, message) = room(world.engine.step(world.now).0);
    assert_eq!(nominate, None);
    let text = "0/1 nodes are available: 1 Insufficient cpu. \
                no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never.";
    assert_eq!(message, text);
    world.add(pod("equal").cpu(600));
    let (_, _, message) = room(world.engine.step(world.now).0);
    assert!(message.ends_with("1 No preemption victims found for incoming pod."), "{message}");
}

#[tokio::test(start_paused = true)]
async fn extended_resources_are_preempted_too() {
    let gpu = |name: &str| pod(name).scalar("nvidia.com/gpu", 1);
    let mut world = World::new([node("a").has("nvidia.com/gpu", "1")]);
    world.add(gpu("low").on("a")).add(gpu("vip").priority(10));
    let (nominate, victims, message) = room(world.engine.step(world.now).0);
    assert_eq!((nominate.as_deref(), victims), (Some("a"), vec!["low".to_owned()]));
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.");
}

/// The same life with and without memory: the decisions are equal.
#[tokio::test(start_paused = true)]
async fn remembered_judgements_change_no_decision() {
    let life = |distinct: bool| {
        let rng = Rng::from_seed(7);
        let nodes = (0..150).map(|n| {
            let node =
                node(&format!("n{n:03}")).cpu(2000 + n % 7 * 500).label("zone", &format!("z{}", n % 3));
            if n % 11 == 0 { node.taint("k", "v", "PreferNoSchedule") } else { node }
        });
        let mut world = World::new(nodes);
        let mut decisions = Vec::new();
        for n in 0..600_u64 {
            let template = pod(&format!("p{n}")).cpu(100 + (n % 4) as i64 * 150).memory(64 << 20);
            let template = if n % 5 == 0 { template.select("zone", "z1") } else { template };
            // an image of its own gives each pod a signature of its own, and no other difference
            let template = if distinct { template.image(&format!("none:{n}")) } else { template };
            decisions.push(world.place(template));
            if rng.below(10) == 0 {
                let changed = node(&format!("n{:03}", rng.below(150))).cpu(1500).view();
                let old = world.engine.cluster.table.get(&changed.name).map(|node| node.view.clone());
                world.engine.node(old, Some(changed), world.now);
            }
        }
        decisions
    };
    assert_eq!(life(false), life(true));
}
