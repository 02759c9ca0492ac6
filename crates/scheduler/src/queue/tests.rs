//! How pods wait.

use super::*;
use crate::profile::ProfileConfig;
use crate::testing::{node, pod};

fn profile() -> Arc<Profile> {
    Arc::new(Profile::new(&ProfileConfig::default()).unwrap())
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn name(waiting: Option<Waiting>) -> Option<String> {
    waiting.map(|waiting| waiting.pod.name.to_string())
}

fn fit() -> BTreeSet<&'static str> {
    BTreeSet::from(["NodeResourcesFit"])
}

#[tokio::test(start_paused = true)]
async fn the_most_important_pod_is_first_and_then_the_oldest() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for (name, priority, at) in [("old", 0, 1), ("young", 0, 2), ("vip", 10, 3)] {
        queue.add(pod(name).priority(priority).view(), profile(), now + seconds(at)).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| name(queue.pop())).collect();
    assert_eq!(order, ["vip", "old", "young"]);
}

#[tokio::test(start_paused = true)]
async fn a_gated_pod_waits_for_its_gates() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let gate = queue.add(pod("web").gate("example.com/ready").view(), profile(), now).unwrap_err();
    assert_eq!(gate, "Scheduling is blocked due to non-empty scheduling gates");
    assert!(queue.pop().is_none() && queue.count(Place::Gated) == 1);
    queue.update(pod("web").view(), now).unwrap();
    assert_eq!(name(queue.pop()).as_deref(), Some("web"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_waits_for_an_event_that_helps() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(pod("web").cpu(500).view(), profile(), now).unwrap();
    let waiting = queue.pop().unwrap();
    queue.refuse(waiting, fit(), now);
    assert!(queue.pop().is_none());
    assert_eq!(queue.happened(&Event::NodeAdded(node("small").cpu(100).view()), now), 0);
    assert_eq!(queue.happened(&Event::NamespaceChanged, now), 0);
    assert_eq!(queue.happened(&Event::NodeAdded(node("large").cpu(1000).view()), now), 1);
    assert_eq!(queue.count(Place::Backoff), 1, "its pause has not ended");
    assert_eq!(name(queue.pop()).as_deref(), Some("web"), "but there is nothing else to do");
}

#[tokio::test(start_paused = true)]
async fn pauses_double_up_to_their_ceiling() {
    let (mut queue, mut now) = (Queue::default(), Instant::now());
    queue.add(pod("web").view(), profile(), now).unwrap();
    for pause in [1, 2, 4, 8, 10, 10] {
        let waiting = queue.pop().unwrap();
        queue.retry(waiting, now);
        assert!(queue.pop().is_none(), "an error is not tried again early");
        assert_eq!(queue.tick(now), Some(now + seconds(pause)));
        now += seconds(pause);
        assert_eq!(queue.tick(now), None);
    }
    assert_eq!(queue.count(Place::Active), 1);
}

#[tokio::test(start_paused = true)]
async fn after_five_minutes_a_pod_is_tried_without_an_event() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(pod("web").view(), profile(), now).unwrap();
    let waiting = queue.pop().unwrap();
    queue.refuse(waiting, fit(), now);
    assert_eq!(queue.tick(now + seconds(299)), Some(now + FLUSH_AFTER));
    assert_eq!(queue.tick(now + FLUSH_AFTER), None);
    assert_eq!(name(queue.pop()).as_deref(), Some("web"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_waits_nowhere() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for name in ["a", "b", "c", "d"] {
        queue.add(pod(name).view(), profile(), now).unwrap();
    }
    let (a, b) = (queue.pop().unwrap(), queue.pop().unwrap());
    queue.refuse(a, fit(), now);
    queue.retry(b, now);
    for name in ["a", "b", "c", "d"] {
        queue.remove(&format!("uid-{name}"));
    }
    assert!(queue.pop().is_none() && queue.tick(now).is_none());
    assert_eq!(queue.happened(&Event::Unknown, now), 0);
}
