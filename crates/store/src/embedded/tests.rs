//! The engine's behaviour, on memory, on a simulated disk and on a real folder.

use super::medium::simulated::Simulated;
use super::*;
use crate::{Check, Event, Op, Value};
use krate_base::Timestamp;

fn key(path: &str) -> Key {
    Key::new("pods", path)
}

fn text(value: &str) -> Value {
    Value { bytes: value.to_owned().into(), ..Value::default() }
}

fn put(path: &str, value: &str) -> Op {
    Op::Put { key: key(path), value: text(value), ttl: None }
}

fn delete(path: &str) -> Op {
    Op::Delete { key: key(path), last: None }
}

async fn commit(store: &Embedded, ops: Vec<Op>) -> Revision {
    store.commit(Txn { checks: vec![], ops }).await.unwrap().revision
}

fn options() -> Options {
    Options::memory(Clock::starting_at(Timestamp::from_second(1_000_000).unwrap()))
}

async fn memory() -> Embedded {
    Embedded::open(options()).await.unwrap()
}

async fn on(disk: &Simulated) -> Embedded {
    Embedded::on(Some(Arc::new(disk.clone())), options()).await.unwrap()
}

fn query(at: Option<Revision>) -> ListQuery {
    ListQuery { space: "pods".into(), prefix: String::new(), after: None, limit: 0, at }
}

/// `path=value` of each entry, in order.
async fn listed(store: &Embedded, query: ListQuery) -> Result<(Vec<String>, Revision, usize), Error> {
    let page = store.list(query).await?;
    let entries = page.entries.iter().map(|entry| {
        let value = String::from_utf8_lossy(&entry.value).into_owned();
        format!("{}={value}", entry.key.path)
    });
    Ok((entries.collect(), page.revision, page.remaining))
}

/// `revision+path` or `revision-path` of each event.
fn told(events: &[Arc<Event>]) -> Vec<String> {
    let sign = |event: &Event| if event.deleted { '-' } else { '+' };
    events.iter().map(|event| format!("{}{}{}", event.revision, sign(event), event.entry.key.path)).collect()
}

#[tokio::test]
async fn a_commit_is_seen_by_reads_and_watchers() {
    let store = memory().await;
    let mut watch = store.watch("pods", 0).await.unwrap();
    assert_eq!(commit(&store, vec![put("a", "1")]).await, 1);
    let (entry, at) = store.get(&key("a"), None).await.unwrap();
    assert_eq!((&entry.unwrap().value[..], at), (&b"1"[..], 1));
    let events = watch.next().await.unwrap();
    assert!(events.len() == 1 && events[0].is_creation());
}

#[tokio::test]
async fn a_check_that_fails_changes_nothing_and_tells_the_present() {
    let store = memory().await;
    commit(&store, vec![put("a", "1")]).await;
    let attempt = |checks| store.commit(Txn { checks, ops: vec![put("a", "2"), put("b", "2")] });
    for check in [Check::Absent(key("a")), Check::At(key("a"), 7), Check::Present(key("b"))] {
        let failed = attempt(vec![check.clone()]).await;
        assert!(matches!(failed, Err(Error::Failed { .. })), "{check:?}");
    }
    let Err(Error::Failed { current: Some(current), .. }) = attempt(vec![Check::At(key("a"), 7)]).await
    else {
        panic!("the present entry is told")
    };
    assert_eq!(current.modified, 1);
    assert_eq!(store.revision(), 1);
    assert_eq!(attempt(vec![Check::At(key("a"), 1), Check::Absent(key("b"))]).await.unwrap().revision, 2);
    assert!(store.commit(Txn { checks: vec![], ops: vec![delete("nobody")] }).await.is_err());
}

#[tokio::test]
async fn a_transaction_that_changes_a_key_twice_is_refused() {
    let store = memory().await;
    let twice = Txn { checks: vec![], ops: vec![put("a", "1"), delete("a")] };
    assert!(matches!(store.commit(twice).await, Err(Error::Io(_))));
}

#[tokio::test]
async fn the_revision_is_written_into_values_and_into_the_last_state() {
    let store = memory().await;
    let value = Value { bytes: "rv=''".into(), stamp_at: Some(4), note: None };
    let op = Op::Put { key: key("a"), value, ttl: None };
    let made = store.commit(Txn { checks: vec![], ops: vec![put("x", ""), op] }).await.unwrap();
    assert_eq!(&made.entries[1].value[..], b"rv='1'");
    let gone = store.commit(Txn { checks: vec![], ops: vec![delete("a")] }).await.unwrap();
    assert_eq!(&gone.entries[0].value[..], b"rv='2'");
    let last = Value { bytes: "last=".into(), stamp_at: Some(5), note: None };
    let op = Op::Delete { key: key("x"), last: Some(last) };
    let gone = store.commit(Txn { checks: vec![], ops: vec![op] }).await.unwrap();
    assert_eq!(&gone.entries[0].value[..], b"last=3");
}

#[tokio::test]
async fn lists_are_paged_by_prefix_and_revision() {
    let store = memory().await;
    commit(&store, ["a/1", "b/1", "b/2", "b/3", "c/1"].map(|path| put(path, "x")).into()).await;
    commit(&store, vec![delete("b/2"), put("b/4", "y"), put("b/1", "y")]).await;
    let page = |after: Option<&str>, at| ListQuery {
        prefix: "b/".into(),
        after: after.map(Into::into),
        limit: 2,
        ..query(at)
    };
    let (entries, revision, remaining) = listed(&store, page(None, None)).await.unwrap();
    assert_eq!((entries, revision, remaining), (vec!["b/1=y".into(), "b/3=x".into()], 2, 1));
    let (entries, revision, remaining) = listed(&store, page(None, Some(1))).await.unwrap();
    assert_eq!((entries, revision, remaining), (vec!["b/1=x".into(), "b/2=x".into()], 1, 1));
    let (entries, _, remaining) = listed(&store, page(Some("b/2"), Some(1))).await.unwrap();
    assert_eq!((entries, remaining), (vec!["b/3=x".into()], 0));
    let whole = ListQuery { limit: 3, ..query(None) };
    assert_eq!(listed(&store, whole).await.unwrap().2, 2);
    assert!(matches!(listed(&store, query(Some(3))).await, Err(Error::Future { .. })));
}

#[tokio::test]
async fn a_watchers_position_passes_the_revisions_of_other_spaces() {
    let store = memory().await;
    let mut watch = store.watch("pods", 0).await.unwrap();
    let elsewhere = Op::Put { key: Key::new("nodes", "n"), value: text(""), ttl: None };
    commit(&store, vec![elsewhere]).await;
    assert_eq!(watch.position(), 1);
    commit(&store, vec![put("a", "")]).await;
    assert_eq!(watch.position(), 0, "an event that was not handed over yet holds it");
    watch.next().await.unwrap();
    assert_eq!(watch.position(), 2);
}

#[tokio::test]
async fn a_watcher_that_fell_off_the_ring_is_told() {
    let store = Embedded::open(Options { ring_events: 3, ..options() }).await.unwrap();
    let mut slow = store.watch("pods", 0).await.unwrap();
    for n in 0..5 {
        commit(&store, vec![put("a", &n.to_string())]).await;
    }
    assert!(matches!(slow.next().await, Err(Error::Compacted { asked: 0, .. })));
    assert!(matches!(store.watch("pods", 1).await, Err(Error::Compacted { .. })));
    let mut later = store.watch("pods", 2).await.unwrap();
    assert_eq!(told(&later.next().await.unwrap()), ["3+a", "4+a", "5+a"]);
}

#[tokio::test]
async fn a_watcher_that_fell_off_the_ring_reads_on_from_the_disk() {
    let disk = Simulated::default();
    let bounded = Options { ring_events: 2, ..options() };
    let store = Embedded::on(Some(Arc::new(disk)), bounded).await.unwrap();
    let mut slow = store.watch("pods", 0).await.unwrap();
    commit(&store, vec![put("a", "1"), put("b", "1")]).await;
    commit(&store, vec![delete("a")]).await;
    commit(&store, vec![put("a", "3"), put("b", "3")]).await;
    let mut events = Vec::new();
    while slow.position() < 3 {
        events.extend(slow.next().await.unwrap());
    }
    assert_eq!(told(&events), ["1+a", "1+b", "2-a", "3+a", "3+b"]);
    assert!(events[3].is_creation() && !events[4].is_creation());
    assert_eq!(events[4].previous.as_ref().unwrap().modified, 1);
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_power_loss() {
    let disk = Simulated::default();
    let store = on(&disk).await;
    commit(&store, vec![put("a", "1"), put("b", "1")]).await;
    commit(&store, vec![put("a", "2")]).await;
    commit(&store, vec![delete("b")]).await;
    drop(store);
    disk.lose_power();
    let store = on(&disk).await;
    assert_eq!(listed(&store, query(None)).await.unwrap(), (vec!["a=2".into()], 3, 0));
    assert_eq!(listed(&store, query(Some(1))).await.unwrap().0, ["a=1", "b=1"]);
    assert_eq!(listed(&store, query(Some(2))).await.unwrap().0, ["a=2", "b=1"]);
    assert_eq!(store.get(&key("b"), Some(2)).await.unwrap().0.unwrap().modified, 1);
    let mut watch = store.watch("pods", 1).await.unwrap();
    assert_eq!(told(&watch.next().await.unwrap()), ["2+a", "3-b"]);
    assert_eq!(commit(&store, vec![put("c", "")]).await, 4);
    assert_eq!(told(&watch.next().await.unwrap()), ["4+c"]);
}

#[tokio::test]
async fn revisions_are_not_reused_when_the_newest_commit_was_compacted_away() {
    let disk = Simulated::default();
    let store = on(&disk).await;
    commit(&store, vec![put("a", "1")]).await;
    commit(&store, vec![delete("a")]).await;
    store.compact(2).await.unwrap();
    store.close().await.unwrap();
    let store = on(&disk).await;
    assert_eq!(store.revision(), 2);
    assert!(matches!(listed(&store, query(Some(1))).await, Err(Error::Compacted { asked: 1, oldest: 2 })));
    assert_eq!(commit(&store, vec![put("a", "3")]).await, 3);
}

#[tokio::test]
async fn after_a_failed_sync_the_store_takes_no_more_writes() {
    let disk = Simulated::default();
    let store = on(&disk).await;
    commit(&store, vec![put("a", "1")]).await;
    disk.fail();
    let attempt = || store.commit(Txn { checks: vec![], ops: vec![put("a", "2")] });
    assert!(matches!(attempt().await, Err(Error::Io(_))));
    disk.lose_power();
    let text = attempt().await.unwrap_err().to_string();
    assert!(text.contains("the disk failed earlier (simulated failure)"), "{text}");
    assert_eq!(listed(&store, query(None)).await.unwrap(), (vec!["a=1".into()], 1, 0));
    assert_eq!(on(&disk).await.revision(), 1);
}

#[tokio::test]
async fn commits_that_arrive_together_share_a_sync() {
    let disk = Simulated::default();
    let store = on(&disk).await;
    let before = disk.syncs();
    let writes = (0..64).map(|n| commit_owned(&store, format!("p{n}")));
    let mut revisions = futures::future::join_all(writes).await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=64).collect::<Vec<_>>());
    assert!(disk.syncs() - before < 64, "{} syncs", disk.syncs() - before);
}

async fn commit_owned(store: &Embedded, path: String) -> Revision {
    commit(store, vec![put(&path, "")]).await
}

#[tokio::test(start_paused = true)]
async fn keys_expire_also_after_a_restart() {
    let disk = Simulated::default();
    let clock = options();
    let open = || Embedded::on(Some(Arc::new(disk.clone())), clock.clone());
    let store = open().await.unwrap();
    let expiring = |path, seconds| Op::Put {
        key: key(path),
        value: text(path),
        ttl: Some(Duration::from_secs(seconds)),
    };
    commit(&store, vec![expiring("soon", 10), expiring("late", 100), expiring("kept", 10)]).await;
    commit(&store, vec![put("kept", "rewritten without an end")]).await;
    let mut watch = store.watch("pods", 2).await.unwrap();
    assert_eq!(told(&watch.next().await.unwrap()), ["3-soon"]);
    assert_eq!(clock.clock.now().as_second(), 1_000_010);
    store.close().await.unwrap();
    let store = open().await.unwrap();
    let mut watch = store.watch("pods", 3).await.unwrap();
    assert_eq!(told(&watch.next().await.unwrap()), ["4-late"]);
    assert_eq!(clock.clock.now().as_second(), 1_000_100);
    assert_eq!(listed(&store, query(None)).await.unwrap().0, ["kept=rewritten without an end"]);
}

#[tokio::test(start_paused = true)]
async fn history_is_kept_for_the_retention_and_then_dropped() {
    let disk = Simulated::default();
    let store = on(&disk).await;
    commit(&store, vec![put("a", "1")]).await;
    commit(&store, vec![put("a", "2")]).await;
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(listed(&store, query(Some(1))).await.unwrap().0, ["a=1"]);
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(matches!(listed(&store, query(Some(1))).await, Err(Error::Compacted { .. })));
    assert_eq!(listed(&store, query(Some(2))).await.unwrap().0, ["a=2"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_minutes_old_is_left_to_the_disk() {
    let at_hand = |store: &Embedded| store.core.state.read().spaces["pods"].ring.after(0).count();
    let kept = memory().await;
    let store = on(&Simulated::default()).await;
    for store in [&kept, &store] {
        commit(store, vec![put("a", "1")]).await;
        commit(store, vec![put("a", "2")]).await;
        tokio::time::sleep(Duration::from_secs(150)).await;
        commit(store, vec![put("a", "3")]).await;
        let mut watch = store.watch("pods", 0).await.unwrap();
        let mut events = Vec::new();
        while watch.position() < 3 {
            events.extend(watch.next().await.unwrap());
        }
        assert_eq!(told(&events), ["1+a", "2+a", "3+a"]);
        assert_eq!(listed(store, query(Some(1))).await.unwrap().0, ["a=1"]);
    }
    assert_eq!((at_hand(&kept), at_hand(&store)), (3, 1));
}

#[tokio::test]
async fn history_is_bounded_by_bytes() {
    let disk = Simulated::default();
    let store = Embedded::on(Some(Arc::new(disk.clone())), Options { history_bytes: 1_000, ..options() })
        .await
        .unwrap();
    for _ in 0..100 {
        commit(&store, vec![put("a", &"x".repeat(100))]).await;
    }
    assert!(matches!(listed(&store, query(Some(80))).await, Err(Error::Compacted { .. })));
    assert_eq!(listed(&store, query(Some(97))).await.unwrap().0.len(), 1);
    store.close().await.unwrap();
    assert_eq!(listed(&on(&disk).await, query(None)).await.unwrap().1, 100);
}

#[tokio::test]
async fn a_closed_store_says_so_and_lets_go_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::folder(folder.path(), Clock::system());
    let store = Embedded::open(options.clone()).await.unwrap();
    commit(&store, vec![put("a", "1")]).await;
    let mut watch = store.watch("pods", 1).await.unwrap();
    let (closed, woken) = tokio::join!(store.close(), watch.next());
    closed.unwrap();
    assert!(matches!(woken, Err(Error::Closed)));
    assert!(matches!(store.commit(Txn::default()).await, Err(Error::Closed)));
    let again = Embedded::open(options.clone()).await.unwrap();
    assert_eq!(listed(&again, query(None)).await.unwrap(), (vec!["a=1".into()], 1, 0));
    let in_use = Embedded::open(options).await.err().unwrap().to_string();
    assert!(in_use.contains("is in use by another process"), "{in_use}");
}

/// Turns letters over and marks them with a number; seals the space `secrets` only.
#[derive(Debug, Default)]
struct Toy(std::sync::atomic::AtomicU8);

impl Toy {
    fn turn(key: &Key, bytes: &[u8]) -> Vec<u8> {
        let salt = key.path.bytes().fold(0x55, |sum, byte| sum ^ byte);
        bytes.iter().map(|byte| byte ^ salt).collect()
    }

    fn number(&self) -> u8 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl crate::Seal for Toy {
    fn seal(&self, key: &Key, plain: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        if plain == b"refuse" {
            return Err(std::io::Error::other("no key"));
        }
        let sealed = [vec![self.number()], Self::turn(key, plain)].concat();
        Ok((&*key.space == "secrets").then_some(sealed))
    }

    fn open(&self, key: &Key, sealed: &[u8]) -> std::io::Result<Vec<u8>> {
        Ok(Self::turn(key, &sealed[1..]))
    }

    fn is_stale(&self, key: &Key, sealed: Option<&[u8]>) -> bool {
        let wanted = (&*key.space == "secrets").then(|| self.number());
        sealed.map(|bytes| bytes[0]) != wanted
    }
}

fn secret(path: &str, value: &str) -> Op {
    Op::Put { key: Key::new("secrets", path), value: text(value), ttl: None }
}

async fn read(store: &Embedded, path: &str, at: Option<Revision>) -> String {
    let entry = store.get(&Key::new("secrets", path), at).await.unwrap().0.unwrap();
    String::from_utf8_lossy(&entry.value).into_owned()
}

/// Whether any file below a folder holds the text.
fn on_disk(folder: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return on_disk(&path, text);
        }
        let whole = std::fs::read(path).unwrap();
        let used: Vec<u8> =
            whole.chunks(4096).filter(|c| *c != &[0; 4096][..c.len()]).flatten().copied().collect();
        used.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

#[tokio::test]
async fn sealed_values_are_plain_for_readers_only() {
    let disk = Simulated::default();
    let toy = Arc::new(Toy::default());
    let sealed = || Options { seal: Some(toy.clone()), ..options() };
    let store = Embedded::on(Some(Arc::new(disk.clone())), sealed()).await.unwrap();
    commit(&store, vec![secret("a", "hush"), put("a", "open")]).await;
    commit(&store, vec![secret("a", "hush2")]).await;
    assert_eq!(read(&store, "a", None).await, "hush2");
    store.close().await.unwrap();
    let kept = |text: &str| disk.holds(text);
    assert!(!kept("hush") && kept("open"));
    toy.0.store(7, std::sync::atomic::Ordering::SeqCst);
    let store = Embedded::on(Some(Arc::new(disk.clone())), sealed()).await.unwrap();
    assert_eq!((&*read(&store, "a", None).await, &*read(&store, "a", Some(1)).await), ("hush2", "hush"));
    assert_eq!(store.reseal().await.unwrap(), 2);
    assert_eq!(store.reseal().await.unwrap(), 0);
    assert_eq!((&*read(&store, "a", None).await, &*read(&store, "a", Some(1)).await), ("hush2", "hush"));
    store.close().await.unwrap();
    let error = Embedded::on(Some(Arc::new(disk)), options()).await.err().unwrap().to_string();
    assert!(error.contains("secrets/a is encrypted"), "{error}");
}

#[tokio::test]
async fn a_transaction_whose_value_cannot_be_sealed_changes_nothing() {
    let disk = Simulated::default();
    let options = Options { seal: Some(Arc::new(Toy::default())), ..options() };
    let store = Embedded::on(Some(Arc::new(disk)), options).await.unwrap();
    let failing = Txn { checks: vec![], ops: vec![put("x", "1"), secret("a", "refuse")] };
    assert!(matches!(store.commit(failing).await, Err(Error::Io(_))));
    assert_eq!((store.revision(), store.get(&key("x"), None).await.unwrap().0.is_some()), (0, false));
    assert_eq!(commit(&store, vec![secret("a", "fine"), put("x", "2")]).await, 1);
}

#[tokio::test]
async fn a_plain_folder_is_sealed_when_it_is_opened_with_a_seal() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("store");
    let plain = Options { folder: Some(folder.clone()), ..options() };
    let store = Embedded::open(plain.clone()).await.unwrap();
    commit(&store, vec![secret("a", "plain-as-day"), put("p", "visible")]).await;
    commit(&store, vec![secret("a", "plain-as-day-2")]).await;
    store.close().await.unwrap();
    assert!(on_disk(&folder, "plain-as-day"));
    let sealed = Options { seal: Some(Arc::new(Toy::default())), ..plain };
    let store = Embedded::open(sealed.clone()).await.unwrap();
    assert_eq!(read(&store, "a", Some(1)).await, "plain-as-day");
    commit(&store, vec![secret("b", "plain-as-night")]).await;
    store.close().await.unwrap();
    assert!(!on_disk(base.path(), "plain-as-"));
    // a crash between the two renamings
    std::fs::rename(&folder, base.path().join("store.old")).unwrap();
    std::fs::create_dir_all(base.path().join("store.new")).unwrap();
    let store = Embedded::open(sealed).await.unwrap();
    assert_eq!((&*read(&store, "a", None).await, store.revision()), ("plain-as-day-2", 3));
    assert!(!base.path().join("store.new").exists() && !base.path().join("store.old").exists());
    store.close().await.unwrap();
}
