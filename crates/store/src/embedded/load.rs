//! Reading the log at start: what is live, what is dead and since when, what expires.

use super::agenda::Agenda;
use super::medium::{Change, Medium};
use super::plan::{Garbage, Spaces};
use super::record::{
    FORMAT, META, META_COMPACTED, META_FORMAT, META_SPACE, OLDEST_FORMAT, Record, SpaceId, Vault, corrupt,
    key as disk_key, meta_key, split_key,
};
use super::state::State;
use crate::{Entry, Key, Revision};
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Everything that the disk knows.
#[derive(Default)]
pub(crate) struct Loaded {
    pub state: State,
    pub spaces: Spaces,
    pub garbage: Vec<Garbage>,
    /// How many records would be sealed otherwise now.
    pub stale: usize,
    names: HashMap<SpaceId, Arc<str>>,
    times: Vec<(i64, Revision)>,
    deadlines: Vec<(i64, Key, Revision)>,
}

/// Reads the whole log; a new medium is given its format.
pub(crate) fn load(medium: &dyn Medium, vault: &Vault, agenda: &mut Agenda) -> io::Result<Loaded> {
    let mut loaded = Loaded::default();
    loaded.facts(medium)?;
    medium.scan(&disk_key(META + 1, 0, ""), &[0xff; 5], &mut |key, value| {
        let (space, revision, path) = split_key(key)?;
        loaded.record((space, revision, path), value, vault)?;
        Ok(ControlFlow::Continue(()))
    })?;
    loaded.finish(agenda);
    Ok(loaded)
}

impl Loaded {
    fn facts(&mut self, medium: &dyn Medium) -> io::Result<()> {
        let mut format = None;
        medium.scan(&meta_key(""), &(META + 1).to_be_bytes(), &mut |key, value| {
            let name = std::str::from_utf8(&key[4..]).map_err(|_| corrupt("a name is not UTF-8"))?;
            if name == META_FORMAT {
                format = value.first().copied();
            } else if name == META_COMPACTED {
                let bytes = value.try_into().map_err(|_| corrupt("the compacted revision is no number"))?;
                self.state.compacted = Revision::from_be_bytes(bytes);
            } else if let Some(space) = name.strip_prefix(META_SPACE) {
                let bytes = value.try_into().map_err(|_| corrupt("a space's number is none"))?;
                self.name(SpaceId::from_be_bytes(bytes), space.into());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.state.revision = self.state.compacted;
        match format {
            Some(FORMAT) => Ok(()),
            Some(OLDEST_FORMAT) | None => {
                medium.write(vec![Change::Put(meta_key(META_FORMAT), vec![FORMAT])], true)
            }
            Some(other) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the store's files have format {other}; this version of Krate reads the formats \
                     {OLDEST_FORMAT} to {FORMAT}"
                ),
            )),
        }
    }

    fn name(&mut self, id: SpaceId, name: Arc<str>) {
        self.state.space_mut(&name).id = id;
        self.spaces.ids.insert(name.clone(), id);
        self.names.insert(id, name);
    }

    /// Takes the next record; within a space they come in the order of revisions.
    fn record(
        &mut self,
        (id, revision, path): (SpaceId, Revision, &str),
        bytes: &[u8],
        vault: &Vault,
    ) -> io::Result<()> {
        let name = self.names.get(&id).ok_or_else(|| corrupt("a record belongs to no space"))?;
        let live = &mut self.state.spaces.entry(name.clone()).or_default().live;
        let path = live.get_key_value(path).map_or_else(|| path.into(), |(path, _)| path.clone());
        let key = Key { space: name.clone(), path: path.clone() };
        self.stale += usize::from(vault.is_stale(bytes, &key));
        let record = Record::decode(bytes, &key, vault)?;
        self.times.push((record.time, revision));
        let (deleted, expires) = (record.deleted, record.expires);
        let entry = record.into_entry(name, path.clone(), revision);
        let previous = if deleted { live.remove(&path) } else { live.insert(path, entry.clone()) };
        if expires != 0 {
            self.deadlines.push((expires, entry.key.clone(), revision));
        }
        self.bury(id, revision, previous);
        if deleted {
            self.bury(id, revision, Some(entry));
        }
        self.state.revision = self.state.revision.max(revision);
        Ok(())
    }

    fn bury(&mut self, space: SpaceId, superseded: Revision, dead: Option<Arc<Entry>>) {
        self.garbage.extend(dead.map(|dead| Garbage {
            superseded,
            space,
            path: dead.key.path.clone(),
            revision: dead.modified,
            bytes: dead.value.len(),
        }));
    }

    fn finish(&mut self, agenda: &mut Agenda) {
        // stable: a deletion stays behind the version that it deleted
        self.garbage.sort_by_key(|dead| dead.superseded);
        for space in self.state.spaces.values_mut() {
            space.ring.start = self.state.revision;
        }
        self.times.sort_unstable_by_key(|(_, revision)| *revision);
        let compacted = self.state.compacted;
        for (time, revision) in self.times.drain(..).filter(|(_, revision)| *revision > compacted) {
            agenda.mark(time, revision);
        }
        for (at, key, modified) in self.deadlines.drain(..) {
            let live = self.state.spaces.get(&key.space).and_then(|space| space.live.get(&key.path));
            if live.is_some_and(|entry| entry.modified == modified) {
                agenda.expire(at, key, modified);
            }
        }
    }
}
