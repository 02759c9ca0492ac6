//! Where the log is kept: a border of three calls, with one real side (fjall, on a folder) and, in tests,
//! a simulated disk that can fail and lose what was not synced.
//!
//! A medium promises that a batch is all or nothing, that batches become durable in the order in which
//! they were written, and that a batch written with `sync` is durable when the call returns.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// Size in bytes at which the log's newest part is moved from memory and journal into a table file.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Bytes of journal that may have to be read back at the next start (the least that fjall allows).
const JOURNAL_BYTES: u64 = 64 << 20;
/// Bytes of table blocks kept in memory. Small: only reads of old history come here.
const CACHE_BYTES: u64 = 4 << 20;

/// One change of a batch.
pub(crate) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
}

/// An ordered, durable map of bytes.
pub(crate) trait Medium: Send + Sync {
    fn write(&self, batch: Vec<Change>, sync: bool) -> io::Result<()>;

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Lets go of what was overwritten, as far as the medium can.
    fn tidy(&self) -> io::Result<()> {
        Ok(())
    }

    /// Visits the pairs with `from <= key < to` in order, until the visitor breaks.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<()>;
}

/// The log in a folder.
pub(crate) struct Fjall {
    db: Database,
    log: Keyspace,
}

impl Fjall {
    /// Opens or makes the folder. It belongs to one process at a time.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let db = Database::builder(folder)
            .worker_threads(1)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(|error| from_fjall(error, folder))?;
        let log = db
            .keyspace("log", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES))
            .map_err(|error| from_fjall(error, folder))?;
        Ok(Self { db, log })
    }
}

fn from_fjall(error: fjall::Error, folder: &Path) -> io::Error {
    match error {
        fjall::Error::Io(error) => error,
        fjall::Error::Locked => io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{} is in use by another process", folder.display()),
        ),
        other => io::Error::other(other.to_string()),
    }
}

fn plain(error: fjall::Error) -> io::Error {
    from_fjall(error, Path::new(""))
}

impl Medium for Fjall {
    fn write(&self, changes: Vec<Change>, sync: bool) -> io::Result<()> {
        let mut batch = self.db.batch().durability(sync.then_some(PersistMode::SyncData));
        for change in changes {
            match change {
                Change::Put(key, value) => batch.insert(&self.log, key, value),
                Change::Remove(key) => batch.remove(&self.log, key),
            }
        }
        batch.commit().map_err(plain)
    }

    fn tidy(&self) -> io::Result<()> {
        self.log.rotate_memtable_and_wait().map_err(plain)?;
        self.log.major_compact().map_err(plain)
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.log.get(key).map_err(plain)?.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<()> {
        for pair in self.log.range(from..to) {
            let (key, value) = pair.into_inner().map_err(plain)?;
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod simulated {
    //! A disk in memory whose machine can lose its power.

    use super::*;
    use parking_lot::Mutex;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[derive(Default)]
    struct Content {
        durable: BTreeMap<Vec<u8>, Vec<u8>>,
        unsynced: Vec<Vec<Change>>,
        failing: bool,
        syncs: usize,
    }

    #[derive(Clone, Default)]
    pub(crate) struct Simulated(Arc<Mutex<Content>>);

    impl Simulated {
        /// From now on every write fails.
        pub(crate) fn fail(&self) {
            self.0.lock().failing = true;
        }

        /// Everything that was not synced is gone; the disk works again.
        pub(crate) fn lose_power(&self) {
            let mut content = self.0.lock();
            content.unsynced.clear();
            content.failing = false;
        }

        /// Whether any value holds the text.
        pub(crate) fn holds(&self, text: &str) -> bool {
            let holds = |value: &Vec<u8>| value.windows(text.len()).any(|part| part == text.as_bytes());
            self.0.lock().view().values().any(holds)
        }

        pub(crate) fn syncs(&self) -> usize {
            self.0.lock().syncs
        }
    }

    impl Content {
        fn flush(&mut self) {
            for change in self.unsynced.drain(..).flatten() {
                match change {
                    Change::Put(key, value) => drop(self.durable.insert(key, value)),
                    Change::Remove(key) => drop(self.durable.remove(&key)),
                }
            }
        }

        fn view(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
            let mut view = self.durable.clone();
            for change in self.unsynced.iter().flatten() {
                match change {
                    Change::Put(key, value) => drop(view.insert(key.clone(), value.clone())),
                    Change::Remove(key) => drop(view.remove(key)),
                }
            }
            view
        }
    }

    impl Medium for Simulated {
        fn write(&self, batch: Vec<Change>, sync: bool) -> io::Result<()> {
            let mut content = self.0.lock();
            if content.failing {
                return Err(io::Error::other("simulated failure"));
            }
            content.unsynced.push(batch);
            if sync {
                content.syncs += 1;
                content.flush();
            }
            Ok(())
        }

        fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.lock().view().get(key).cloned())
        }

        fn scan(
            &self,
            from: &[u8],
            to: &[u8],
            visit: &mut dyn FnMut(&[u8], &[u8]) -> io::Result<ControlFlow<()>>,
        ) -> io::Result<()> {
            for (key, value) in self.0.lock().view().range(from.to_vec()..to.to_vec()) {
                if visit(key, value)?.is_break() {
                    break;
                }
            }
            Ok(())
        }
    }
}
