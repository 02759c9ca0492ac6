//! What informers promise, on the in-memory server.

use super::*;
use crate::testing::Fake;
use krate_api::types::core::v1::{ConfigMap, Pod};
use krate_api::{Reason, Status};
use krate_base::{Clock, Timestamp};
use std::time::Duration;

struct World {
    fake: Fake,
    informers: Informers,
    metrics: Metrics,
}

fn world() -> World {
    let rng = Rng::from_seed(1);
    let fake = Fake::new(Clock::starting_at(Timestamp::UNIX_EPOCH), rng.clone());
    let metrics = Metrics::default();
    let supervisor = Supervisor::new(Shutdown::new());
    let informers = Informers::new(fake.transport(), rng, metrics.clone(), supervisor);
    World { fake, informers, metrics }
}

fn config(namespace: &str, name: &str, value: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.namespace = Some(namespace.to_owned());
    object.metadata.name = Some(name.to_owned());
    object.metadata.labels = Some([("value".to_owned(), value.to_owned())].into());
    object
}

fn label(object: &ConfigMap) -> &str {
    object.metadata.labels.as_ref().and_then(|l| l.get("value")).map_or("", String::as_str)
}

/// A log of what the handler was told: `name:old>new`.
fn record(informer: &Informer<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(vec![]));
    let told = log.clone();
    informer.subscribe(move |old, new| {
        let name = old.or(new).unwrap().metadata.name.clone().unwrap();
        let text = |o: Option<&Arc<ConfigMap>>| o.map_or("-", |o| label(o)).to_owned();
        told.lock().push(format!("{name}:{}>{}", text(old), text(new)));
    });
    log
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn tells_every_change_once_and_in_order() {
    let w = world();
    w.fake.put(&config("a", "one", "1"));
    let informer = w.informers.of::<ConfigMap>();
    let log = record(&informer);
    informer.synced().await;
    w.fake.put(&config("a", "two", "1"));
    w.fake.put(&config("a", "one", "2"));
    w.fake.remove::<ConfigMap>("a", "two");
    settle().await;
    assert_eq!(*log.lock(), ["one:->1", "two:->1", "one:1>2", "two:1>-"]);
    let late = record(&informer);
    assert_eq!(*late.lock(), ["one:->2"], "a late subscriber hears of what is there");
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_goes_on_where_it_was() {
    let w = world();
    let informer = w.informers.of::<ConfigMap>();
    let log = record(&informer);
    informer.synced().await;
    w.fake.put(&config("a", "one", "1"));
    settle().await;
    w.fake.fail(|_| Some(Status::failure(Reason::ServiceUnavailable, "away")));
    w.fake.break_watches();
    w.fake.put(&config("a", "one", "2"));
    w.fake.put(&config("a", "one", "3"));
    settle().await;
    w.fake.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*log.lock(), ["one:->1", "one:1>2", "one:2>3"]);
}

#[tokio::test(start_paused = true)]
async fn when_one_gets_through_all_come_back() {
    let w = world();
    let namespaces = (0..20).map(|n| format!("n{n}"));
    let informers: Vec<Informer<ConfigMap>> = namespaces
        .map(|namespace| w.informers.get(Source::of::<ConfigMap>().namespace(&namespace)))
        .collect();
    let back = Arc::new(Mutex::new(vec![]));
    for informer in &informers {
        informer.synced().await;
        let back = back.clone();
        informer.subscribe(move |_, _| back.lock().push(tokio::time::Instant::now()));
    }
    w.fake.fail(|_| Some(Status::failure(Reason::ServiceUnavailable, "away")));
    w.fake.break_watches();
    (0..20).for_each(|n| drop(w.fake.put(&config(&format!("n{n}"), "one", "1"))));
    tokio::time::sleep(Duration::from_secs(300)).await;
    w.fake.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let back = back.lock();
    assert_eq!(back.len(), 20);
    assert!(back[19] - back[0] < Duration::from_secs(1), "the last was {:?} late", back[19] - back[0]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_lists_again_and_tells_the_difference() {
    let w = world();
    for name in ["kept", "changed", "gone", "replaced"] {
        w.fake.put(&config("a", name, "1"));
    }
    let informer = w.informers.of::<ConfigMap>();
    informer.synced().await;
    settle().await;
    let log = record(&informer);
    log.lock().clear();
    w.fake.fail(|_| Some(Status::failure(Reason::ServiceUnavailable, "away")));
    w.fake.break_watches();
    settle().await;
    let mut changed = (*w.fake.get::<ConfigMap>("a", "changed").unwrap()).clone();
    changed.metadata.labels = Some([("value".to_owned(), "2".to_owned())].into());
    w.fake.put(&changed);
    w.fake.remove::<ConfigMap>("a", "gone");
    w.fake.remove::<ConfigMap>("a", "replaced");
    w.fake.put(&config("a", "replaced", "2"));
    w.fake.put(&config("a", "new", "1"));
    w.fake.compact();
    w.fake.heal();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut log = log.lock().clone();
    log.sort();
    assert_eq!(log, ["changed:1>2", "gone:1>-", "new:->1", "replaced:->2", "replaced:1>-"]);
}

#[tokio::test(start_paused = true)]
async fn selectors_namespaces_and_indexes() {
    let w = world();
    w.fake.put(&config("a", "one", "x"));
    w.fake.put(&config("ab", "two", "x"));
    w.fake.put(&config("a", "three", "y"));
    let informer = w.informers.of::<ConfigMap>();
    let only_x = w.informers.get::<Raw>(Source::of::<ConfigMap>().labels("value=x"));
    let by_label = informer.index("label", |o: &ConfigMap| vec![label(o).to_owned()]);
    only_x.synced().await;
    informer.synced().await;
    assert_eq!(informer.list_in("a").len(), 2);
    assert_eq!(informer.len(), 3);
    assert_eq!(only_x.keys(), ["a/one", "ab/two"]);
    assert_eq!(by_label.keys("x"), ["a/one", "ab/two"]);
    w.fake.put(&config("a", "one", "y"));
    settle().await;
    assert_eq!(only_x.keys(), ["ab/two"]);
    assert_eq!(by_label.keys("y"), ["a/one", "a/three"]);
    assert_eq!(by_label.count("x"), 1);
}

#[tokio::test(start_paused = true)]
async fn one_informer_is_shared_by_all_who_ask() {
    let w = world();
    let (a, b) = (w.informers.of::<Pod>(), w.informers.of::<Pod>());
    assert!(Arc::ptr_eq(&a.0, &b.0));
}

/// A view that cannot read some objects.
#[derive(Debug)]
struct Picky;

impl View for Picky {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        if object.view.labels.get("value").is_some_and(|v| v == "bad") {
            let error = serde_json::from_slice::<u8>(b"bad").unwrap_err();
            return Err(DecodeError::from(error));
        }
        Ok(Arc::new(Self))
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_counted_and_not_taken_for_deleted() {
    let w = world();
    w.fake.put(&config("a", "one", "good"));
    let informer = w.informers.get::<Picky>(Source::of::<ConfigMap>());
    informer.synced().await;
    w.fake.put(&config("a", "one", "bad"));
    settle().await;
    assert_eq!(informer.len(), 1);
    let text = w.metrics.render();
    assert!(text.contains("informer_undecodable_objects_total{resource=\"configmaps\"} 1"), "{text}");
}
