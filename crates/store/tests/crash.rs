//! Kills a writing process again and again, and proves after each kill that nothing was lost.
//!
//! The test runs itself as a child that writes from several tasks and prints every commit that was
//! acknowledged. The parent ends it with SIGKILL at an instant drawn from a printed seed, opens the
//! folder and checks: every acknowledged write is there; each transaction is there whole or not at all;
//! revisions strictly grow and are never reused; history does not change; a watcher that resumes at any
//! earlier revision is told every change.
//!
//! `KRATE_CRASH_SEED` repeats a run.

use krate_base::{Clock, Rng};
use krate_store::{Check, Embedded, Error, Event, Key, ListQuery, Op, Options, Revision, Store, Txn, Value};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Kills per life; there are two.
const KILLS: usize = 100;
const WRITERS: u64 = 6;
/// Spaces that every transaction writes to, so that each must show every revision.
const SPACES: [&str; 2] = ["pods", "leases"];
const FOLDER: &str = "KRATE_CRASH_FOLDER";
const SEED: &str = "KRATE_CRASH_SEED";
/// How much history a child leaves when it compacts.
const KEPT: u64 = 200;

/// What one transaction wrote: the writer and its counter.
type Written = (u64, u64);

fn options(folder: &Path) -> Options {
    // a small ring, so that history is read from the disk as well
    Options { ring_events: 64, ..Options::folder(folder, Clock::system()) }
}

fn key(space: &str, writer: u64, name: &str) -> Key {
    Key::new(space, format!("w{writer}/{name}"))
}

/// Counter and padding: up to 4 KiB, so that tables are flushed and compacted in the course of the test.
fn value(writer: u64, n: u64) -> Value {
    let padding = "x".repeat((n * 769 % 4096) as usize);
    Value { bytes: format!("{writer} {n} {padding}").into(), ..Value::default() }
}

fn parse(bytes: &[u8]) -> Written {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut words = text.split(' ');
    let mut number = || words.next().unwrap().parse().unwrap();
    let (writer, n) = (number(), number());
    assert_eq!(bytes, &value(writer, n).bytes[..], "a value is damaged");
    (writer, n)
}

/// Rewrites one key per space, and creates or deletes a third one in turns.
fn transaction(writer: u64, n: u64) -> Txn {
    let mut txn = Txn::default();
    for space in SPACES {
        let key = key(space, writer, "counter");
        txn.checks.push(if n == 1 { Check::Absent(key.clone()) } else { Check::Present(key.clone()) });
        txn.ops.push(Op::Put { key, value: value(writer, n), ttl: None });
    }
    let odd = key(SPACES[0], writer, "odd");
    txn.ops.push(match n % 2 {
        1 => Op::Put { key: odd, value: value(writer, n), ttl: None },
        _ => Op::Delete { key: odd, last: Some(value(writer, n)) },
    });
    txn
}

async fn write_for_ever(store: Arc<Embedded>, writer: u64) {
    let (entry, _) = store.get(&key(SPACES[0], writer, "counter"), None).await.unwrap();
    let mut n = entry.map_or(0, |entry| parse(&entry.value).1);
    // what this child writes stays readable for the parent
    let limit = store.revision();
    loop {
        n += 1;
        let revision = store.commit(transaction(writer, n)).await.unwrap().revision;
        let line = format!("{writer} {n} {revision}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        if revision % 97 == 0 {
            store.compact(limit.min(revision.saturating_sub(KEPT))).await.unwrap();
        }
    }
}

/// The child. Does nothing when it is run as an ordinary test.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Embedded::open(options(Path::new(&folder))).await.unwrap());
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write_for_ever(store.clone(), writer)));
        futures::future::join_all(writers).await;
    });
}

/// Runs a child until it has acknowledged so many commits, and a moment longer; kills it. Returns what it
/// acknowledged: revision and write.
async fn run_and_kill(folder: &Path, acknowledged: usize, moment: Duration) -> Vec<(Revision, Written)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap());
    let mut lines = Vec::new();
    let mut read = |output: &mut BufReader<_>| {
        let mut line = String::new();
        // a line cut off by the kill was not acknowledged as far as we know
        let whole = output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n');
        whole.then(|| lines.push(line)).is_some()
    };
    for _ in 0..acknowledged {
        assert!(read(&mut output), "the child ended by itself");
    }
    tokio::time::sleep(moment).await;
    child.kill().unwrap();
    child.wait().unwrap();
    while read(&mut output) {}
    lines.iter().map(|line| acknowledgement(line)).collect()
}

fn acknowledgement(line: &str) -> (Revision, Written) {
    let numbers: Option<Vec<u64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
    match numbers.as_deref() {
        Some([writer, n, revision]) => (*revision, (*writer, *n)),
        _ => panic!("the child said: {line}"),
    }
}

/// What the parent knows of the log.
#[derive(Default)]
struct Log {
    /// The newest counter of each writer before the history that is kept.
    base: BTreeMap<u64, u64>,
    /// The write of every revision of that history.
    writes: BTreeMap<Revision, Written>,
    newest: Revision,
}

impl Log {
    /// The newest counter of each writer at a revision.
    fn counters(&self, at: Revision) -> BTreeMap<u64, u64> {
        let mut counters = self.base.clone();
        counters.extend(self.writes.range(..=at).map(|(_, write)| *write));
        counters
    }

    /// Folds what history no longer holds into the base.
    fn forget(&mut self, oldest: Revision) {
        assert!(oldest <= self.newest, "history that was never seen is gone");
        self.base = self.counters(oldest);
        self.writes = self.writes.split_off(&(oldest + 1));
    }
}

/// Every event of a space after a revision, grouped by revision; none may be missing.
async fn resume(store: &Embedded, space: &str, after: Revision) -> Vec<(Revision, Vec<Arc<Event>>)> {
    let mut watch = store.watch(space, after).await.unwrap();
    let mut groups: Vec<(Revision, Vec<Arc<Event>>)> = Vec::new();
    while watch.position() < store.revision() {
        for event in watch.next().await.unwrap() {
            match groups.last_mut() {
                Some((revision, group)) if *revision == event.revision => group.push(event),
                _ => groups.push((event.revision, vec![event])),
            }
        }
    }
    let revisions: Vec<_> = groups.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, (after + 1..=store.revision()).collect::<Vec<_>>(), "{space} after {after}");
    groups
}

/// One transaction's events in a space are whole, and say which write it was.
fn whole(space: &str, events: &[Arc<Event>]) -> Written {
    let (writer, n) = parse(&events[0].entry.value);
    let mut wanted = vec![(key(space, writer, "counter"), false)];
    if space == SPACES[0] {
        wanted.push((key(space, writer, "odd"), n % 2 == 0));
    }
    let got: Vec<_> = events.iter().map(|event| (event.entry.key.clone(), event.deleted)).collect();
    assert_eq!(got, wanted, "a transaction is torn");
    for event in events {
        assert_eq!(parse(&event.entry.value), (writer, n), "a transaction is torn");
        let before = event.previous.as_ref().map(|entry| parse(&entry.value));
        let is_new = event.is_creation();
        assert_eq!(before, (!is_new).then_some((writer, n - 1)), "the version before is not the one before");
    }
    (writer, n)
}

async fn check(folder: &Path, log: &mut Log, acknowledged: &[(Revision, Written)], rng: &Rng) {
    let store = Embedded::open(options(folder)).await.unwrap();
    let newest = store.revision();
    assert!(newest >= log.newest, "revisions went back from {} to {newest}", log.newest);
    let oldest = oldest(&store).await;
    log.forget(oldest);

    // history: whole, without a gap, the same in each space, and what it was before
    for space in SPACES {
        for (revision, events) in resume(&store, space, oldest).await {
            let write = whole(space, &events);
            let known = *log.writes.entry(revision).or_insert(write);
            assert_eq!(known, write, "revision {revision} was reused or is torn");
        }
    }
    for (revision, write) in acknowledged {
        assert!(*revision > log.newest, "revision {revision} was used before");
        assert_eq!(log.writes.get(revision), Some(write), "the acknowledged write at {revision} is lost");
    }
    log.newest = newest;

    // the present and a past, and a watcher that resumes anywhere
    let past = oldest + rng.below(newest - oldest + 1);
    for at in [newest, past] {
        assert_eq!(listed(&store, at).await, log.counters(at), "at {at}");
    }
    for space in SPACES {
        resume(&store, space, past).await;
    }
    store.close().await.unwrap();
}

async fn oldest(store: &Embedded) -> Revision {
    match store.watch(SPACES[0], 0).await {
        Ok(_) => 0,
        Err(Error::Compacted { oldest, .. }) => oldest,
        Err(other) => panic!("{other}"),
    }
}

/// The counters of all writers at a revision, equal in all spaces.
async fn listed(store: &Embedded, at: Revision) -> BTreeMap<u64, u64> {
    let mut counters = BTreeMap::new();
    for space in SPACES {
        let query =
            ListQuery { space: space.into(), prefix: String::new(), after: None, limit: 0, at: Some(at) };
        for entry in store.list(query).await.unwrap().entries {
            let (writer, n) = parse(&entry.value);
            assert_eq!(*counters.entry(writer).or_insert(n), n, "{:?} at {at}", entry.key);
        }
    }
    counters
}

async fn life() {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => Rng::from_entropy().next_u64(),
    };
    println!("{SEED}={seed}");
    let rng = Rng::from_seed(seed);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut log = Log::default();
    for _ in 0..KILLS {
        let acknowledged = rng.below(80) as usize;
        let moment = Duration::from_micros(rng.below(8_000));
        let writes = run_and_kill(folder.path(), acknowledged, moment).await;
        check(folder.path(), &mut log, &writes, &rng).await;
    }
    println!("{KILLS} kills, {} revisions", log.newest);
    assert!(log.newest > KILLS as Revision);
}

// two lives, because tests run side by side

#[tokio::test]
async fn nothing_is_lost_in_a_hundred_kills() {
    life().await;
}

#[tokio::test]
async fn nothing_is_lost_in_another_hundred_kills() {
    life().await;
}
