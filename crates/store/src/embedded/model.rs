//! The engine against a model that is too simple to be wrong: one map per revision.

use super::medium::simulated::Simulated;
use super::*;
use crate::{Check, Event, Op, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Snapshot = BTreeMap<String, String>;

/// One step of a random life. Numbers are cut to what exists when the step is taken.
#[derive(Clone, Debug)]
enum Step {
    Commit {
        ops: Vec<(u8, Option<u8>)>,
        guess: Option<(u8, u8)>,
    },
    /// Several commits at once, so that they share a group.
    Burst(u8),
    Compact(u8),
    PowerLoss,
    ListAt {
        at: u8,
        prefix: u8,
        limit: u8,
    },
    GetAt {
        at: u8,
        path: u8,
    },
    Watch(u8),
    Follow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = (0..8u8, proptest::option::weighted(0.7, any::<u8>()));
    let commit =
        (proptest::collection::vec(op, 1..4), proptest::option::weighted(0.3, (0..8u8, any::<u8>())));
    let step = prop_oneof![
        6 => commit.prop_map(|(ops, guess)| Step::Commit { ops, guess }),
        1 => (2..20u8).prop_map(Step::Burst),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::PowerLoss),
        3 => (any::<u8>(), 0..3u8, 0..5u8).prop_map(|(at, prefix, limit)| Step::ListAt { at, prefix, limit }),
        2 => (any::<u8>(), 0..8u8).prop_map(|(at, path)| Step::GetAt { at, path }),
        2 => any::<u8>().prop_map(Step::Watch),
        2 => Just(Step::Follow),
    ];
    proptest::collection::vec(step, 1..80)
}

fn path(n: u8) -> String {
    format!("{}/{n}", ["a", "b"][usize::from(n % 2)])
}

fn key(n: u8) -> Key {
    Key::new("pods", path(n))
}

/// `0..=revision`, from a byte, mostly near the newest.
fn revision(byte: u8, newest: Revision) -> Revision {
    newest.saturating_sub(u64::from(byte) % (newest + 1).min(24))
}

struct World {
    disk: Option<Simulated>,
    store: Embedded,
    /// The state at each revision.
    snapshots: Vec<Snapshot>,
    compacted: Revision,
    /// A watcher that goes through the whole life, and where it is.
    follower: Box<dyn Watch>,
}

impl World {
    async fn new(disk: Option<Simulated>) -> Self {
        let store = Self::open(disk.as_ref()).await;
        let follower = store.watch("pods", 0).await.unwrap();
        Self { disk, store, snapshots: vec![Snapshot::new()], compacted: 0, follower }
    }

    async fn open(disk: Option<&Simulated>) -> Embedded {
        let options = Options { ring_events: 5, ..Options::memory(Clock::system()) };
        let medium = disk.map(|disk| Arc::new(disk.clone()) as Arc<dyn Medium>);
        Embedded::on(medium, options).await.unwrap()
    }

    fn newest(&self) -> Revision {
        self.snapshots.len() as Revision - 1
    }

    fn present(&self) -> &Snapshot {
        &self.snapshots[self.snapshots.len() - 1]
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Commit { ops, guess } => self.commit(ops, guess).await,
            Step::Burst(count) => self.burst(count).await,
            Step::Compact(byte) => {
                let upto = revision(byte, self.newest());
                self.store.compact(upto).await.unwrap();
                self.compacted = self.compacted.max(upto);
            }
            Step::PowerLoss => self.power_loss().await,
            Step::ListAt { at, prefix, limit } => self.list_at(at, prefix, limit).await,
            Step::GetAt { at, path: n } => {
                let at = revision(at, self.newest());
                let got = self.store.get(&key(n), Some(at)).await;
                if self.readable(at, got.as_ref().err()) {
                    let value = got.unwrap().0.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
                    assert_eq!(value.as_ref(), self.snapshots[at as usize].get(&path(n)));
                }
            }
            Step::Watch(byte) => {
                let after = revision(byte, self.newest());
                let watch = self.store.watch("pods", after).await;
                if self.readable(after, watch.as_ref().err()) {
                    self.drain(watch.unwrap(), after).await;
                }
            }
            Step::Follow => self.follow().await,
        }
        assert_eq!(self.store.revision(), self.newest());
    }

    async fn commit(&mut self, ops: Vec<(u8, Option<u8>)>, guess: Option<(u8, u8)>) {
        let mut next = self.present().clone();
        let mut seen = std::collections::BTreeSet::new();
        let mut fails = false;
        let mut txn = Txn::default();
        for (n, value) in ops.into_iter().filter(|(n, _)| seen.insert(*n)) {
            txn.ops.push(match value {
                Some(value) => {
                    next.insert(path(n), value.to_string());
                    let value = Value { bytes: value.to_string().into(), ..Value::default() };
                    Op::Put { key: key(n), value, ttl: None }
                }
                None => {
                    fails |= next.remove(&path(n)).is_none();
                    Op::Delete { key: key(n), last: None }
                }
            });
        }
        if let Some((n, byte)) = guess {
            let guessed = revision(byte, self.newest());
            let actual = self.store.get(&key(n), None).await.unwrap().0.map_or(0, |entry| entry.modified);
            fails |= actual != guessed;
            txn.checks.push(if guessed == 0 { Check::Absent(key(n)) } else { Check::At(key(n), guessed) });
        }
        match self.store.commit(txn).await {
            Ok(made) => {
                assert!(!fails);
                self.snapshots.push(next);
                assert_eq!(made.revision, self.newest());
            }
            Err(Error::Failed { .. }) => assert!(fails),
            Err(other) => panic!("{other}"),
        }
    }

    async fn burst(&mut self, count: u8) {
        let commits = (0..count).map(|n| {
            let value = Value { bytes: n.to_string().into(), ..Value::default() };
            let ops = vec![Op::Put { key: key(n % 8), value, ttl: None }];
            self.store.commit(Txn { checks: vec![], ops })
        });
        for (n, made) in (0..count).zip(futures::future::join_all(commits).await) {
            let mut next = self.present().clone();
            next.insert(path(n % 8), n.to_string());
            self.snapshots.push(next);
            assert_eq!(made.unwrap().revision, self.newest());
        }
    }

    async fn power_loss(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        self.follow().await;
        let position = self.follower.position();
        self.store.close().await.unwrap();
        disk.lose_power();
        self.store = Self::open(Some(&disk)).await;
        // compaction is not synced: it may be undone, but never half
        let read = self.store.list(ListQuery {
            space: "pods".into(),
            prefix: String::new(),
            after: None,
            limit: 1,
            at: Some(0),
        });
        self.compacted = match read.await {
            Ok(_) => 0,
            Err(Error::Compacted { oldest, .. }) => oldest,
            Err(other) => panic!("{other}"),
        };
        self.follower = self.store.watch("pods", position).await.unwrap();
    }

    async fn list_at(&self, at: u8, prefix: u8, limit: u8) {
        let at = revision(at, self.newest());
        let prefix = ["", "a/", "b/"][usize::from(prefix)];
        let wanted: Vec<_> =
            self.snapshots[at as usize].iter().filter(|(path, _)| path.starts_with(prefix)).collect();
        let mut query = ListQuery {
            space: "pods".into(),
            prefix: prefix.into(),
            after: None,
            limit: usize::from(limit),
            at: Some(at),
        };
        let mut got = Vec::new();
        loop {
            let page = self.store.list(query.clone()).await;
            if !self.readable(at, page.as_ref().err()) {
                return;
            }
            let page = page.unwrap();
            let values = page
                .entries
                .iter()
                .map(|entry| (entry.key.path.to_string(), String::from_utf8(entry.value.to_vec()).unwrap()));
            got.extend(values);
            assert_eq!((page.revision, page.remaining), (at, wanted.len() - got.len()));
            if page.remaining == 0 {
                break;
            }
            query.after = got.last().map(|(path, _)| path.clone());
        }
        assert!(got.iter().map(|(path, value)| (path, value)).eq(wanted), "{got:?} at {at}");
    }

    /// Whether history can be read from `at`, checked against the error that there was.
    fn readable(&self, at: Revision, error: Option<&Error>) -> bool {
        match error {
            None => assert!(at >= self.compacted, "{at} is before {}", self.compacted),
            Some(Error::Compacted { asked, .. }) => {
                assert_eq!(*asked, at);
                // in memory, history is what the ring holds
                assert!(at < self.compacted || (self.disk.is_none() && at < self.newest()));
            }
            Some(other) => panic!("{other}"),
        }
        error.is_none()
    }

    async fn follow(&mut self) {
        let from = self.follower.position();
        let next = self.store.watch("pods", self.newest()).await.unwrap();
        let follower = std::mem::replace(&mut self.follower, next);
        if from < self.newest() {
            self.drain(follower, from).await;
        }
    }

    /// Reads a watcher to the end: its events must lead from each snapshot to the next.
    async fn drain(&self, mut watch: Box<dyn Watch>, after: Revision) {
        let mut state = self.snapshots[after as usize].clone();
        let mut at = after;
        while watch.position() < self.newest() {
            let events = match watch.next().await {
                Ok(events) => events,
                Err(Error::Compacted { .. }) if at < self.compacted || self.disk.is_none() => return,
                Err(other) => panic!("{other}"),
            };
            for event in events {
                if event.revision != at {
                    assert_eq!(state, self.snapshots[at as usize], "at {at}");
                    assert_eq!(event.revision, at + 1);
                    at = event.revision;
                }
                apply(&mut state, &event);
            }
        }
        assert_eq!((at, &state), (self.newest(), self.present()));
    }
}

fn apply(state: &mut Snapshot, event: &Event) {
    let path = event.entry.key.path.to_string();
    let text = |entry: &Arc<Entry>| String::from_utf8(entry.value.to_vec()).unwrap();
    let previous = if event.deleted { state.remove(&path) } else { state.insert(path, text(&event.entry)) };
    assert_eq!(previous, event.previous.as_ref().map(text));
    assert_eq!(event.entry.modified, event.revision);
}

fn live(disk: Option<Simulated>, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(disk).await;
        for step in steps {
            world.take(step).await;
        }
        world.take(Step::PowerLoss).await;
        world.take(Step::Watch(255)).await;
        world.store.close().await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_store_on_a_disk_is_the_model(steps in steps()) {
        live(Some(Simulated::default()), steps);
    }

    #[test]
    fn a_store_in_memory_is_the_model(steps in steps()) {
        live(None, steps);
    }
}
