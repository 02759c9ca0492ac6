//! The scheduler against an API in memory.

use super::*;
use crate::testing::{node, pod};
use async_trait::async_trait;
use krate_api::types::core::v1::{Event, Pod};
use krate_client::testing::Fake;
use krate_client::{PatchKind, Reply, Request, Verb, WatchStream};
use tokio::sync::Notify;

/// The API, on which one pod's binding can be held up. A strategic patch of one condition is the same as
/// a merge patch here.
struct Gate {
    fake: Fake,
    held: Option<&'static str>,
    release: Notify,
}

#[async_trait]
impl Transport for Gate {
    async fn send(&self, mut request: Request) -> Result<Reply, Status> {
        if request.verb == Verb::Patch(PatchKind::StrategicMerge) {
            request.verb = Verb::Patch(PatchKind::Merge);
        }
        if request.subresource == "binding" && Some(&*request.name) == self.held {
            self.release.notified().await;
        }
        self.fake.send(request).await
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, Status> {
        self.fake.watch(request).await
    }
}

struct World {
    fake: Fake,
    gate: Arc<Gate>,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<Result<(), Error>>,
}

impl World {
    fn new(held: Option<&'static str>, fake: Fake) -> Self {
        let gate = Arc::new(Gate { fake: fake.clone(), held, release: Notify::new() });
        let scheduler = Scheduler::new(Config {
            transport: gate.clone(),
            clock: Clock::starting_at(krate_base::Timestamp::UNIX_EPOCH),
            rng: Rng::from_seed(1),
            profiles: vec![],
            metrics: Metrics::default(),
        });
        let shutdown = Shutdown::new();
        let signal = shutdown.clone();
        let running = tokio::spawn(async move { scheduler.run(signal).await });
        Self { fake, gate, shutdown, running }
    }

    /// The pod, when it is as wanted. The clock is paused: a second of it is no time.
    async fn pod_when(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        for _ in 0..100 {
            if let Some(pod) = self.fake.get::<Pod>("default", name).filter(|pod| wanted(pod)) {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("pod {name} never became what was wanted: {:?}", self.fake.get::<Pod>("default", name));
    }

    async fn events(&self, reason: &str) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let events = self.fake.list::<Event>();
        let ours = events.iter().filter(|event| event.reason.as_deref() == Some(reason));
        ours.filter_map(|event| event.message.clone()).collect()
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

fn fake() -> Fake {
    Fake::new(Clock::starting_at(krate_base::Timestamp::UNIX_EPOCH), Rng::from_seed(2))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_and_an_event_says_so() {
    let fake = fake();
    fake.put(&node("node-1").build());
    let world = World::new(None, fake);
    world.fake.put(&pod("web-x").cpu(100).build());
    world.pod_when("web-x", |pod| node_of(pod) == Some("node-1")).await;
    assert_eq!(world.events("Scheduled").await, ["Successfully assigned default/web-x to node-1"]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_says_so_and_is_placed_when_a_node_comes() {
    let fake = fake();
    fake.put(&node("small").cpu(100).build());
    fake.put(&pod("web").cpu(500).build());
    let world = World::new(None, fake);
    let refused = world.pod_when("web", |pod| pod.status.as_ref().unwrap().conditions.is_some()).await;
    let condition = refused.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].clone();
    let text = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: \
                1 Preemption is not helpful for scheduling.";
    assert_eq!((&*condition.type_, &*condition.status), ("PodScheduled", "False"));
    assert_eq!(condition.reason.as_deref(), Some("Unschedulable"));
    assert_eq!(condition.message.as_deref(), Some(text));
    assert_eq!(world.events("FailedScheduling").await, [text]);
    world.fake.put(&node("large").build());
    world.pod_when("web", |pod| node_of(pod) == Some("large")).await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_bind_holds_up_nobody() {
    let fake = fake();
    fake.put(&node("a").build());
    let world = World::new(Some("slow"), fake);
    world.fake.put(&pod("slow").build());
    world.fake.put(&pod("quick").build());
    world.pod_when("quick", |pod| node_of(pod).is_some()).await;
    assert_eq!(node_of(&world.fake.get::<Pod>("default", "slow").unwrap()), None);
    world.gate.release.notify_one();
    world.pod_when("slow", |pod| node_of(pod).is_some()).await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bind_that_fails_is_tried_again() {
    let fake = fake();
    fake.put(&node("a").build());
    let mut failures = 2;
    fake.fail(move |request| {
        let fails = request.subresource == "binding" && failures > 0;
        failures -= i32::from(fails);
        fails.then(|| Status::internal("no luck"))
    });
    let world = World::new(None, fake);
    world.fake.put(&pod("web").build());
    world.pod_when("web", |pod| node_of(pod).is_some()).await;
    assert!(!world.events("FailedScheduling").await.is_empty());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_gated_pod_says_so_and_is_placed_when_the_gate_is_lifted() {
    let fake = fake();
    fake.put(&node("a").build());
    let world = World::new(None, fake);
    world.fake.put(&pod("web").gate("example.com/ready").build());
    let gated = world.pod_when("web", |pod| pod.status.as_ref().unwrap().conditions.is_some()).await;
    let condition = &gated.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("SchedulingGated"));
    world.fake.put(&pod("web").build());
    world.pod_when("web", |pod| node_of(pod).is_some()).await;
    world.end().await;
}
