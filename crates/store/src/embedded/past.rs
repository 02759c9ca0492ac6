//! History that is no longer in memory, read back from the disk. Blocking: call it off the runtime.

use super::medium::Medium;
use super::record::{Record, SpaceId, Vault, key as disk_key, split_key};
use super::state::Overlay;
use crate::{Entry, Error, Event, Key, Revision};
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

/// The log of one space. What it returns is whole only if history before `after` has not been compacted
/// meanwhile: the caller checks that afterwards.
#[derive(Clone)]
pub(crate) struct Past {
    pub medium: Arc<dyn Medium>,
    pub vault: Vault,
    pub id: SpaceId,
    pub space: Arc<str>,
}

impl Past {
    /// The events in `(after, upto]`, at least `limit` if there are as many; a revision is never cut in two.
    pub(crate) fn events(
        &self,
        after: Revision,
        upto: Revision,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let mut found: Vec<(Record, Arc<str>, Revision)> = Vec::new();
        self.scan(after, upto, |record, path, revision| {
            if found.len() >= limit && found.last().is_some_and(|(_, _, last)| *last != revision) {
                return ControlFlow::Break(());
            }
            found.push((record, path.into(), revision));
            ControlFlow::Continue(())
        })?;
        let mut newest: HashMap<Arc<str>, Arc<Entry>> = HashMap::new();
        let mut events = Vec::with_capacity(found.len());
        for (record, path, revision) in found {
            let previous = match newest.remove(&path) {
                Some(entry) => Some(entry),
                None => self.version(&path, record.previous, after)?,
            };
            let deleted = record.deleted;
            let entry = record.into_entry(&self.space, path.clone(), revision);
            if !deleted {
                newest.insert(path, entry.clone());
            }
            events.push(Arc::new(Event { revision, entry, previous, deleted, frame: OnceLock::new() }));
        }
        Ok(events)
    }

    /// The keys changed in `(after, upto]`, as they were at `after`; all of them, or the one.
    pub(crate) fn overlay(
        &self,
        after: Revision,
        upto: Revision,
        only: Option<&str>,
    ) -> Result<Overlay, Error> {
        let mut first: HashMap<Arc<str>, Revision> = HashMap::new();
        self.scan(after, upto, |record, path, _| {
            if only.is_none_or(|only| only == path) {
                first.entry(path.into()).or_insert(record.previous);
                if only.is_some() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        first
            .into_iter()
            .map(|(path, previous)| {
                let entry = self.version(&path, previous, after)?;
                Ok((path, entry))
            })
            .collect()
    }

    fn scan(
        &self,
        after: Revision,
        upto: Revision,
        mut visit: impl FnMut(Record, &str, Revision) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let (from, to) = (disk_key(self.id, after + 1, ""), disk_key(self.id, upto + 1, ""));
        self.medium.scan(&from, &to, &mut |key, value| {
            let (_, revision, path) = split_key(key)?;
            let key = Key { space: self.space.clone(), path: path.into() };
            Ok(visit(Record::decode(value, &key, &self.vault)?, path, revision))
        })
    }

    /// One version of a key; 0 is "absent". That it is missing means that history was compacted.
    fn version(
        &self,
        path: &Arc<str>,
        revision: Revision,
        asked: Revision,
    ) -> Result<Option<Arc<Entry>>, Error> {
        if revision == 0 {
            return Ok(None);
        }
        let bytes = self.medium.get(&disk_key(self.id, revision, path))?;
        let bytes = bytes.ok_or(Error::Compacted { asked, oldest: asked + 1 })?;
        let key = Key { space: self.space.clone(), path: path.clone() };
        Ok(Some(Record::decode(&bytes, &key, &self.vault)?.into_entry(&self.space, path.clone(), revision)))
    }
}
