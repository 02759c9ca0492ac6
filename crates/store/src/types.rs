//! The words of the store's border.

use async_trait::async_trait;
use bytes::Bytes;
use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A point in the history of the whole store. The first commit has revision 1; 0 is "before everything".
pub type Revision = u64;

/// What a caller of the store remembers beside a value (never stored, dropped with the entry).
pub type Note = Arc<dyn Any + Send + Sync>;

/// A key: a space (one per resource, such as `pods` or `apps/deployments`) and a path in it
/// (`namespace/name`, or `name`). Watch history is kept per space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub space: Arc<str>,
    pub path: Arc<str>,
}

impl Key {
    #[must_use]
    pub fn new(space: impl Into<Arc<str>>, path: impl Into<Arc<str>>) -> Self {
        Self { space: space.into(), path: path.into() }
    }
}

/// A value on its way in.
#[derive(Clone, Default)]
pub struct Value {
    pub bytes: Bytes,
    /// Offset in `bytes` at which the store inserts the commit's revision in decimal.
    pub stamp_at: Option<usize>,
    /// Handed back with the entry by [`Entry::note`].
    pub note: Option<Note>,
}

/// One stored version of one key. Immutable and shared by every reader.
pub struct Entry {
    pub key: Key,
    /// The bytes as stored, with the revision written in where the writer asked for it.
    pub value: Bytes,
    /// Revision of the commit that created the key (it was absent before).
    pub created: Revision,
    /// Revision of the commit that wrote this version.
    pub modified: Revision,
    /// Offset and length of the stamped revision in `value`, if any.
    pub stamp: Option<(usize, usize)>,
    note: OnceLock<Note>,
}

impl Entry {
    #[must_use]
    pub fn new(
        key: Key,
        value: Bytes,
        created: Revision,
        modified: Revision,
        stamp: Option<(usize, usize)>,
        note: Option<Note>,
    ) -> Self {
        let cell = OnceLock::new();
        if let Some(note) = note {
            let _ = cell.set(note);
        }
        Self { key, value, created, modified, stamp, note: cell }
    }

    /// The caller's note of this entry, made by `make` on first use and shared afterwards.
    pub fn note(&self, make: impl FnOnce(&Self) -> Note) -> &Note {
        self.note.get_or_init(|| make(self))
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("created", &self.created)
            .field("modified", &self.modified)
            .field("bytes", &self.value.len())
            .finish()
    }
}

/// What must hold for a transaction to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The key does not exist.
    Absent(Key),
    /// The key exists and its last version was written at this revision.
    At(Key, Revision),
    /// The key exists, at any revision.
    Present(Key),
}

/// One change of a transaction. A transaction changes a key at most once.
#[derive(Clone)]
pub enum Op {
    /// Creates or replaces. With `ttl` the key is deleted by the store that long after the commit.
    Put { key: Key, value: Value, ttl: Option<Duration> },
    /// Deletes; an absent key makes the transaction fail with [`Error::Failed`]. `last` is what watchers
    /// are shown as the object's last state (stamped with the revision of the deletion); without it, they
    /// see the stored bytes.
    Delete { key: Key, last: Option<Value> },
}

/// All or nothing: when every check holds, every change is made at one new revision.
#[derive(Clone, Default)]
pub struct Txn {
    pub checks: Vec<Check>,
    pub ops: Vec<Op>,
}

/// What a commit made.
#[derive(Debug)]
pub struct Committed {
    pub revision: Revision,
    /// For each op in order: the entry put, or for a delete the last state.
    pub entries: Vec<Arc<Entry>>,
}

/// What to list: the keys of `space` whose path begins with `prefix`, in order of path.
#[derive(Clone, Debug)]
pub struct ListQuery {
    pub space: Arc<str>,
    pub prefix: String,
    /// Only paths strictly greater than this one.
    pub after: Option<String>,
    /// At most so many; 0 is no limit.
    pub limit: usize,
    /// As of this revision; `None` is now.
    pub at: Option<Revision>,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    /// The revision that the page shows (the query's, or the store's at the read).
    pub revision: Revision,
    /// How many more there are after this page.
    pub remaining: usize,
}

/// A change, in the order of revisions. Shared by all watchers.
pub struct Event {
    pub revision: Revision,
    /// The new version, or for a deletion the last state as watchers are to see it.
    pub entry: Arc<Entry>,
    /// The version before, if the key existed.
    pub previous: Option<Arc<Entry>>,
    pub deleted: bool,
    /// A place for the API server to keep the frame that it encoded for this event.
    pub frame: OnceLock<Bytes>,
}

impl Event {
    /// Whether the key did not exist before.
    #[must_use]
    pub fn is_creation(&self) -> bool {
        !self.deleted && self.previous.is_none()
    }
}

/// A reader of one space's history at its own position.
#[async_trait]
pub trait Watch: Send {
    /// The next events; waits until there are some. Cancel-safe.
    /// Errors with [`Error::Compacted`] when the reader fell off the history.
    async fn next(&mut self) -> Result<Vec<Arc<Event>>, Error>;

    /// The revision up to which this watcher has been given everything.
    fn position(&self) -> Revision;
}

/// The border of the store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits, durable when this returns. [`Error::Failed`] when a check does not hold.
    async fn commit(&self, txn: Txn) -> Result<Committed, Error>;

    /// The entry of a key, now or at a revision, and the revision of the read.
    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<(Option<Arc<Entry>>, Revision), Error>;

    /// A page of a space. Reads at a revision work as far back as history is kept.
    async fn list(&self, query: ListQuery) -> Result<Page, Error>;

    /// The changes of a space after `after` (exclusive).
    async fn watch(&self, space: &str, after: Revision) -> Result<Box<dyn Watch>, Error>;

    /// The revision of the newest commit.
    fn revision(&self) -> Revision;

    /// Drops history older than `upto`; reads before it fail with [`Error::Compacted`].
    async fn compact(&self, upto: Revision) -> Result<(), Error>;
}

/// What can go wrong, by what the caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A check did not hold: read again and decide anew. `current` is the key's entry now.
    #[error("transaction check failed on {key:?}")]
    Failed { key: Key, current: Option<Arc<Entry>> },
    /// The revision is older than the kept history: start again from a new list (410 Gone).
    #[error("revision {asked} has been compacted, history begins at {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision is newer than the store's (a client of another store, or of a later time).
    #[error("revision {asked} is in the future, the store is at {current}")]
    Future { asked: Revision, current: Revision },
    /// The disk failed. The write may or may not have happened; nothing was acknowledged.
    #[error("storage: {0}")]
    Io(#[from] std::io::Error),
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}
