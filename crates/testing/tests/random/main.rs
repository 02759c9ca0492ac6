//! Random scenarios, each from a seed that it prints: users change things while nodes, components, connections
//! and the calendar fail; then the failing stops, and the cluster must come to the end that the last wishes
//! describe, and rest there.
//!
//! `KRATE_SEED=n` replays one, `KRATE_SEEDS=n` runs so many (`cargo xtask random --seeds n`, with `--release` for
//! thousands), from `KRATE_FIRST_SEED` on. Without any of them a handful of new seeds is run every time.

mod chaos;
#[path = "../common/mod.rs"]
mod common;
mod daemons;
mod end;
mod invariants;
mod limits;
mod stateful;
mod timed;
mod user;

use krate_base::Rng;
use krate_client::Request;
use krate_testing::{ControlPlane, HollowNode, Play};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use user::User;

/// Seeds of a run that asks for nothing else.
const HANDFUL: u64 = 5;
/// What the user and chance do, at most, in one scenario.
const STEPS: u64 = 60;
/// The longest pause between two steps, in milliseconds.
const PAUSE: u64 = 15_000;
const NODES: u32 = 3;
/// How long a request is on its way, at most.
const LATENCY: Duration = Duration::from_millis(3);
/// How often, and after which time, it is looked whether the end has come: two hours at most.
const LOOKS: u32 = 720;
const LOOK: Duration = Duration::from_secs(10);
/// The end must still be there, and nobody may have written anything, after this time.
const REST: Duration = Duration::from_secs(15 * 60);

/// A cluster with everything that a scenario needs.
pub struct World {
    pub cluster: ControlPlane,
    pub nodes: Vec<HollowNode>,
    /// What this scenario leaves to chance.
    pub rng: Rng,
    /// Whether all kinds take part; stories that are kept from before had only those of web applications.
    pub wide: bool,
    /// The node that comes and goes, while it is there.
    pub guest: Option<HollowNode>,
    pub log: Vec<String>,
    /// What the user saw that must not be.
    pub breaches: Vec<String>,
    /// Every request of every component, in order.
    pub requests: Arc<parking_lot::Mutex<Vec<String>>>,
}

/// What became of a scenario.
struct Played {
    result: Result<(), String>,
    log: Vec<String>,
    requests: Vec<String>,
    print: u64,
}

impl World {
    async fn new(seed: u64, wide: bool) -> Self {
        let cluster = ControlPlane::in_virtual_time(seed).await.unwrap();
        cluster.stage.script(play);
        cluster.faults.latency(LATENCY);
        let mut nodes = vec![];
        for number in 1..=NODES {
            nodes.push(cluster.hollow_node(&format!("node-{number}")).await.unwrap());
        }
        let requests = Arc::new(parking_lot::Mutex::new(vec![]));
        let (to, clock) = (requests.clone(), cluster.clock.clone());
        let trace = std::env::var_os("KRATE_TRACE").is_some();
        cluster.faults.listen(move |who, request| {
            let at = clock.now().as_millisecond() - krate_testing::START * 1000;
            let Request { verb, plural, namespace, name, subresource, .. } = request;
            let line = format!("{at} ms {who} {verb:?} {plural}/{subresource} {namespace}/{name}");
            if trace {
                println!("{line}");
            }
            to.lock().push(line);
        });
        let rng = Rng::from_seed(!seed);
        let world = Self { cluster, nodes, rng, wide, guest: None, log: vec![], breaches: vec![], requests };
        if wide {
            stateful::prepare(&world.cluster).await;
            limits::prepare(&world).await;
        }
        world
    }

    pub fn note(&mut self, what: String) {
        let at = self.cluster.clock.now_seconds().as_second() - krate_testing::START;
        self.log.push(format!("{at:>6} s  {what}"));
    }
}

/// Pods do what their annotations say: `exit` after so many seconds, with a failure for one name in four.
fn play(pod: &krate_api::types::core::v1::Pod) -> Play {
    let notes = pod.metadata.annotations.clone().unwrap_or_default();
    let number = |name: &str| notes.get(name).and_then(|text| text.parse::<u64>().ok());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let fails = name.bytes().map(u32::from).sum::<u32>() % 4 == 0;
    let mut play = match number("exit") {
        Some(after) => Play::exits(Duration::from_secs(after), i32::from(fails)),
        None => Play::default(),
    };
    play.start = Duration::from_secs(number("start").unwrap_or(0));
    play.stop = Duration::from_secs(number("stop").unwrap_or(0));
    play
}

/// Plays one scenario. What it leaves behind tells two runs apart.
async fn scenario(seed: u64, wide: bool) -> Played {
    if let Ok(filter) = std::env::var("KRATE_LOG") {
        krate_base::telemetry::init(&filter);
    }
    let mut world = World::new(seed, wide).await;
    let mut user = User::default();
    let mut chaos = chaos::Chaos::new(&world.rng);
    let facts = invariants::watch(&world.cluster, wide).await;
    let steps = 10 + world.rng.below(STEPS - 10);
    for _ in 0..steps {
        if world.rng.below(3) == 0 {
            chaos.step(&mut world).await;
        } else {
            user.step(&mut world).await;
        }
        let pause = world.rng.below(PAUSE);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    chaos.stop(&mut world).await;
    if wide {
        daemons::finish(&world).await;
        timed::finish(&mut user, &world).await;
    }
    let mut result = settle(&mut world, &user).await;
    if let (Ok(()), Err(breach)) = (&result, facts.result()) {
        result = Err(format!("at some step: {breach}"));
    }
    if let (Ok(()), Some(breach)) = (&result, world.breaches.first()) {
        result = Err(format!("the user saw: {breach}"));
    }
    let print = end::fingerprint(&world).await;
    let World { cluster, log, requests, .. } = world;
    cluster.stop().await;
    let requests = std::mem::take(&mut *requests.lock());
    Played { result, log, requests, print }
}

async fn settle(world: &mut World, user: &User) -> Result<(), String> {
    let mut last = Ok(());
    for _ in 0..LOOKS {
        last = end::reached(world, user).await;
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    last.map_err(|why| format!("the end was not reached: {why}"))?;
    world.note("the end is reached".to_owned());
    // A controller may still have to hear of the last word, and what it started meanwhile has to end.
    tokio::time::sleep(Duration::from_secs(300)).await;
    let before = end::quiet(world).await;
    tokio::time::sleep(REST).await;
    let after = end::quiet(world).await;
    let moved: Vec<_> = after.iter().filter(|(key, at)| before.get(*key) != Some(*at)).collect();
    if !moved.is_empty() {
        return Err(format!("somebody still writes: {moved:?}"));
    }
    end::reached(world, user).await.map_err(|why| format!("the end did not last: {why}"))
}

/// Plays a seed in a runtime of its own; one thread, so that a seed is always the same story.
fn run(seed: u64, wide: bool) -> Played {
    let played = std::panic::catch_unwind(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(scenario(seed, wide))
    });
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
        let result = Err(format!("panicked: {}", text.unwrap_or_default()));
        Played { result, log: vec![], requests: vec![], print: 0 }
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = number("KRATE_SEED") {
        return vec![seed];
    }
    let first = number("KRATE_FIRST_SEED").unwrap_or_else(|| Rng::from_entropy().below(1 << 32));
    (first..first + number("KRATE_SEEDS").unwrap_or(HANDFUL)).collect()
}

#[test]
fn every_seed_comes_to_its_end() {
    let seeds = seeds();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = parking_lot::Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let Played { result, log, .. } = run(*seed, true);
                    println!("seed {seed}: {}", if result.is_ok() { "ok" } else { "FAILED" });
                    if let Err(why) = result {
                        failed.lock().insert(*seed, (why, log));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    for (seed, (why, log)) in &failed {
        println!(
            "\n== seed {seed}: {why}\nreplay it with: KRATE_SEED={seed} cargo test -p krate-testing --test random every_seed -- --nocapture"
        );
        for line in log {
            println!("{line}");
        }
    }
    assert!(failed.is_empty(), "{} of {} seeds failed: {:?}", failed.len(), seeds.len(), failed.keys());
}

/// Seeds that once found something: a ReplicaSet that only a cache still had, a garbage collector that forgot, a
/// kubelet that left a doubted node in doubt; and of wide ones: a quota that was not told of what was made while it was
/// new, and one that took an old count for the present one; pods that came to be known before it was known that
/// they have no Job; caches that came back one by one after the server had been away; a StatefulSet whose claims were
/// not its own yet when it was deleted.
#[test]
fn what_was_found_stays_fixed() {
    let narrow = [143, 1009, 54_470_924].map(|seed| (seed, false));
    let wide = [12, 1048, 1075, 20_412, 41_975].map(|seed| (seed, true));
    for (seed, wide) in narrow.into_iter().chain(wide) {
        let Played { result, log, .. } = run(seed, wide);
        assert!(result.is_ok(), "seed {seed}: {result:?}\n{}", log.join("\n"));
    }
}

/// What cannot be told apart by anything that is in the cluster at its end was the same story.
#[test]
fn a_seed_is_the_same_story_twice() {
    for seed in [11, 12] {
        let (first, second) = (run(seed, true), run(seed, true));
        let differs = first.requests.iter().zip(&second.requests).position(|(a, b)| a != b);
        if let Some(at) = differs {
            let from = at.saturating_sub(5);
            let part = |all: &[String]| all[from..(at + 3).min(all.len())].join("\n  ");
            panic!("seed {seed} differs:\n  {}\nand\n  {}", part(&first.requests), part(&second.requests));
        }
        assert_eq!((first.log, first.print), (second.log, second.print));
    }
}
