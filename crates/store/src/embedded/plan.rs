//! What a group of transactions does, computed before any of it happens.
//!
//! Pure: reads the present state, returns records for the disk and events for the readers. Transactions
//! of one group see each other's changes in order, exactly as if they had been committed one by one.

use super::record::{META_SPACE, Record, SpaceId, Vault, key as disk_key, meta_key};
use super::state::State;
use crate::{Check, Committed, Entry, Error, Event, Key, Op, Revision, Txn, Value};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::medium::Change;

/// A version on the disk that nobody can read once history up to `superseded` is dropped.
#[derive(Debug)]
pub(crate) struct Garbage {
    pub superseded: Revision,
    pub space: SpaceId,
    pub path: Arc<str>,
    pub revision: Revision,
    pub bytes: usize,
}

/// The numbers of the spaces on the disk.
#[derive(Default)]
pub(crate) struct Spaces {
    pub ids: HashMap<Arc<str>, SpaceId>,
}

impl Spaces {
    /// The space's shared name and number; a new number comes with the record that remembers it.
    fn intern(&mut self, name: &Arc<str>) -> (Arc<str>, SpaceId, Option<Change>) {
        if let Some((name, id)) = self.ids.get_key_value(name) {
            return (name.clone(), *id, None);
        }
        let id = self.ids.values().max().map_or(1, |newest| newest + 1);
        self.ids.insert(name.clone(), id);
        let change = Change::Put(meta_key(&format!("{META_SPACE}{name}")), id.to_be_bytes().to_vec());
        (name.clone(), id, Some(change))
    }
}

/// How far a plan had come.
struct Mark {
    changes: usize,
    events: usize,
    garbage: usize,
    deadlines: usize,
}

/// Whether a change gives a space its number.
fn is_name(change: &Change) -> bool {
    matches!(change, Change::Put(key, _) if key.starts_with(&meta_key(META_SPACE)))
}

/// A group being planned.
pub(crate) struct Plan<'a> {
    state: &'a State,
    spaces: &'a mut Spaces,
    /// How records for a disk are sealed, if there is one.
    vault: Option<&'a Vault>,
    now: i64,
    changed: HashMap<Key, Option<Arc<Entry>>>,
    pub revision: Revision,
    pub changes: Vec<Change>,
    pub events: Vec<(Arc<Event>, SpaceId)>,
    pub garbage: Vec<Garbage>,
    pub deadlines: Vec<(i64, Key, Revision)>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(state: &'a State, spaces: &'a mut Spaces, vault: Option<&'a Vault>, now: i64) -> Self {
        Self {
            state,
            spaces,
            vault,
            now,
            changed: HashMap::new(),
            revision: state.revision,
            changes: Vec::new(),
            events: Vec::new(),
            garbage: Vec::new(),
            deadlines: Vec::new(),
        }
    }

    /// Adds one transaction, or says why it is refused; a refused one changes nothing.
    pub(crate) fn add(&mut self, txn: Txn) -> Result<Committed, Error> {
        self.admit(&txn)?;
        if txn.ops.is_empty() {
            return Ok(Committed { revision: self.revision, entries: vec![] });
        }
        self.revision += 1;
        let before = self.mark();
        let first = before.events;
        let mut entries = Vec::with_capacity(txn.ops.len());
        for op in txn.ops {
            match self.change(op) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    self.undo(&before);
                    return Err(error.into());
                }
            }
        }
        // within a revision, events are in order of path: live and when read back from the disk
        self.events[first..].sort_by(|a, b| a.0.entry.key.cmp(&b.0.entry.key));
        Ok(Committed { revision: self.revision, entries })
    }

    fn mark(&self) -> Mark {
        Mark {
            changes: self.changes.len(),
            events: self.events.len(),
            garbage: self.garbage.len(),
            deadlines: self.deadlines.len(),
        }
    }

    /// Takes back what a transaction began to change. The numbers of new spaces stay: they mean nothing.
    fn undo(&mut self, to: &Mark) {
        self.revision -= 1;
        for (event, _) in self.events.drain(to.events..) {
            self.changed.insert(event.entry.key.clone(), event.previous.clone());
        }
        let named = self.changes.drain(to.changes..).filter(is_name).collect::<Vec<_>>();
        self.changes.extend(named);
        self.garbage.truncate(to.garbage);
        self.deadlines.truncate(to.deadlines);
    }

    fn admit(&self, txn: &Txn) -> Result<(), Error> {
        let mut seen = HashSet::new();
        for op in &txn.ops {
            let (Op::Put { key, .. } | Op::Delete { key, .. }) = op;
            if txn.ops.len() > 1 && !seen.insert(key) {
                let what = format!("a transaction changes {key:?} twice");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
            }
        }
        for check in &txn.checks {
            let (Check::Absent(key) | Check::At(key, _) | Check::Present(key)) = check;
            let current = self.current(key);
            let holds = match check {
                Check::Absent(_) => current.is_none(),
                Check::At(_, revision) => current.as_ref().is_some_and(|entry| entry.modified == *revision),
                Check::Present(_) => current.is_some(),
            };
            if !holds {
                return Err(Error::Failed { key: key.clone(), current });
            }
        }
        for op in &txn.ops {
            if let Op::Delete { key, .. } = op
                && self.current(key).is_none()
            {
                return Err(Error::Failed { key: key.clone(), current: None });
            }
        }
        Ok(())
    }

    fn current(&self, key: &Key) -> Option<Arc<Entry>> {
        match self.changed.get(key) {
            Some(changed) => changed.clone(),
            None => self.state.spaces.get(&key.space).and_then(|space| space.live.get(&key.path)).cloned(),
        }
    }

    fn change(&mut self, op: Op) -> io::Result<Arc<Entry>> {
        let (deleted, key, value, ttl) = match op {
            Op::Put { key, value, ttl } => (false, key, Some(value), ttl),
            Op::Delete { key, last } => (true, key, last, None),
        };
        let previous = self.current(&key);
        let (space, id, named) = self.spaces.intern(&key.space);
        let path = previous.as_ref().map_or(key.path, |entry| entry.key.path.clone());
        let key = Key { space, path };
        let created = previous.as_ref().map_or(self.revision, |entry| entry.created);
        let (bytes, stamp, note) = match (value, &previous) {
            (Some(Value { bytes, stamp_at, note }), _) => {
                let (bytes, stamp) = stamp(bytes, stamp_at.map(|at| (at, 0)), self.revision);
                (bytes, stamp, note)
            }
            (None, Some(entry)) => {
                let (bytes, stamp) = stamp(entry.value.clone(), entry.stamp, self.revision);
                (bytes, stamp, None)
            }
            (None, None) => (Bytes::new(), None, None),
        };
        let entry = Arc::new(Entry::new(key.clone(), bytes, created, self.revision, stamp, note));
        self.changes.extend(named.filter(|_| self.vault.is_some()));
        self.record(id, &entry, previous.as_ref(), deleted, ttl)?;
        self.changed.insert(key, (!deleted).then(|| entry.clone()));
        let event = Event {
            revision: self.revision,
            entry: entry.clone(),
            previous,
            deleted,
            frame: OnceLock::new(),
        };
        self.events.push((Arc::new(event), id));
        Ok(entry)
    }

    fn record(
        &mut self,
        id: SpaceId,
        entry: &Arc<Entry>,
        previous: Option<&Arc<Entry>>,
        deleted: bool,
        ttl: Option<Duration>,
    ) -> io::Result<()> {
        let expires = ttl.map_or(0, |ttl| {
            self.now.saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX)).max(1)
        });
        if expires != 0 {
            self.deadlines.push((expires, entry.key.clone(), self.revision));
        }
        let Some(vault) = self.vault else { return Ok(()) };
        let record = Record {
            deleted,
            created: entry.created,
            previous: previous.map_or(0, |entry| entry.modified),
            time: self.now,
            expires,
            stamp: entry.stamp,
            value: entry.value.clone(),
        };
        let path = &entry.key.path;
        self.changes.push(Change::Put(disk_key(id, self.revision, path), record.encode(&entry.key, vault)?));
        // the put before its deletion: a compaction cut short must never leave the put alone
        let dead = previous.into_iter().chain(deleted.then_some(entry));
        self.garbage.extend(dead.map(|dead| Garbage {
            superseded: self.revision,
            space: id,
            path: path.clone(),
            revision: dead.modified,
            bytes: dead.value.len(),
        }));
        Ok(())
    }
}

/// Writes the revision into a value: over the `(offset, length)` of an older stamp, or inserts it at an
/// offset. An offset outside of the value is ignored.
fn stamp(bytes: Bytes, place: Option<(usize, usize)>, revision: Revision) -> (Bytes, Option<(usize, usize)>) {
    let Some((at, length)) = place.filter(|(at, length)| at + length <= bytes.len()) else {
        return (bytes, None);
    };
    let digits = revision.to_string();
    let mut out = Vec::with_capacity(bytes.len() + digits.len());
    out.extend_from_slice(&bytes[..at]);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(&bytes[at + length..]);
    (out.into(), Some((at, digits.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_inserted_and_later_replaced() {
        let (bytes, place) = stamp(Bytes::from_static(b"rv=\"\"!"), Some((4, 0)), 98);
        assert_eq!((&bytes[..], place), (&b"rv=\"98\"!"[..], Some((4, 2))));
        let (bytes, place) = stamp(bytes, place, 1234);
        assert_eq!((&bytes[..], place), (&b"rv=\"1234\"!"[..], Some((4, 4))));
        let (bytes, place) = stamp(bytes, Some((99, 0)), 5);
        assert_eq!((&bytes[..], place), (&b"rv=\"1234\"!"[..], None));
    }
}
