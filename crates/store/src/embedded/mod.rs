//! The engine that ships: the present in memory, every commit on the disk before anyone learns of it.
//!
//! * Reads and lists of the present never touch the disk. Reads of the past come from the ring of a
//!   space's newest events, and from the disk when they are older than that: a ring is bounded in bytes, and
//!   keeps nothing longer than a minute or two.
//! * Commits that arrive while a sync is running form the next group and share the next sync. What is
//!   acknowledged is durable, and what is visible is durable.
//! * Without a folder everything is in memory only, and history is what the rings hold.
//!
//! It belongs to one process at a time, and never retries a disk that failed.

mod agenda;
mod keeper;
mod load;
mod medium;
mod past;
mod plan;
mod record;
mod rewrite;
mod state;
mod watch;
mod writer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use crate::{Committed, Entry, Error, Key, ListQuery, Page, Revision, Seal, Store, Txn, Watch};
use agenda::Agenda;
use async_trait::async_trait;
use krate_base::{Clock, Shutdown};
use medium::Medium;
use parking_lot::{Mutex, RwLock};
use past::Past;
use record::Vault;
use state::{Overlay, RingBounds, State};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use watch::Watcher;
use writer::Writer;

/// Most commits that wait for the disk; more callers wait for their turn to wait.
const QUEUE: usize = 4_096;
/// For how long old versions can be read, unless it is said: as long as kube-apiserver lets etcd keep them.
/// Clients (and the conformance suite) rely on it that a list's continue token expires.
const RETENTION: Duration = Duration::from_secs(300);
/// Most commits that share one sync.
const GROUP: usize = 1_024;

/// How a store is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder, made if absent; `None` keeps everything in memory.
    pub folder: Option<PathBuf>,
    pub clock: Clock,
    /// What changes values on their way to the disk.
    pub seal: Option<Arc<dyn Seal>>,
    /// For how long old versions can be read.
    pub retention: Duration,
    /// How many bytes of old versions are kept on the disk at most.
    pub history_bytes: usize,
    /// How many bytes of its newest events a space keeps in memory at most.
    pub ring_bytes: usize,
    /// How many of its newest events a space keeps in memory at most.
    pub ring_events: usize,
}

impl Options {
    /// Everything in memory, for tests and short-lived clusters.
    #[must_use]
    pub fn memory(clock: Clock) -> Self {
        Self {
            folder: None,
            clock,
            seal: None,
            retention: RETENTION,
            history_bytes: 128 << 20,
            ring_bytes: 8 << 20,
            ring_events: 16_384,
        }
    }

    /// On a folder.
    #[must_use]
    pub fn folder(folder: impl Into<PathBuf>, clock: Clock) -> Self {
        Self { folder: Some(folder.into()), ..Self::memory(clock) }
    }
}

/// The embedded store. Dropping it stops its task; [`Embedded::close`] also waits for the disk.
pub struct Embedded {
    core: Arc<Core>,
    shutdown: Shutdown,
    keeper: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// What the handle, the watchers and the keeper share.
pub(crate) struct Core {
    clock: Clock,
    bounds: RingBounds,
    history_bytes: usize,
    state: RwLock<State>,
    agenda: Mutex<Agenda>,
    /// Woken when something falls due earlier than was known.
    keeper: Notify,
    medium: RwLock<Option<Arc<dyn Medium>>>,
    vault: Vault,
    writer: Mutex<Writer>,
    queue: Mutex<Queue>,
    /// Set while the queue is locked, so that nothing is queued afterwards.
    closed: AtomicBool,
    room: Arc<Semaphore>,
    /// Those who wait until every record is under the present seal.
    resealers: Mutex<Vec<oneshot::Sender<Result<usize, Error>>>>,
    /// Woken when the queue has run empty.
    idle: Notify,
}

/// Commits on their way to the disk.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Somebody is carrying out jobs.
    busy: bool,
}

enum Job {
    Commit(Txn, oneshot::Sender<Result<Committed, Error>>, OwnedSemaphorePermit),
    Compact(Revision, oneshot::Sender<Result<(), Error>>),
    Reseal(oneshot::Sender<Result<usize, Error>>),
}

impl Embedded {
    /// Opens the store: at once in memory, and by reading the log of a folder. Call it inside a runtime.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let Some(folder) = options.folder.clone() else { return Self::on(None, options).await };
        let (vault, retention) = (Vault(options.seal.clone()), options.retention);
        let (medium, loaded, agenda) =
            off_runtime(move || Ok(rewrite::open(&folder, &vault, || Agenda::new(retention))?)).await?;
        Ok(Self::of(Some(medium), loaded, agenda, options))
    }

    async fn on(medium: Option<Arc<dyn Medium>>, options: Options) -> Result<Self, Error> {
        let mut agenda = Agenda::new(options.retention);
        let vault = Vault(options.seal.clone());
        let Some(disk) = medium.clone() else {
            return Ok(Self::of(None, load::Loaded::default(), agenda, options));
        };
        let (loaded, agenda) = off_runtime(move || {
            let loaded = load::load(&*disk, &vault, &mut agenda)?;
            Ok((loaded, agenda))
        })
        .await?;
        Ok(Self::of(medium, loaded, agenda, options))
    }

    fn of(medium: Option<Arc<dyn Medium>>, loaded: load::Loaded, agenda: Agenda, options: Options) -> Self {
        tracing::debug!(revision = loaded.state.revision, folder = ?options.folder, "store opened");
        let writer = Writer {
            medium: medium.clone(),
            spaces: loaded.spaces,
            garbage_bytes: loaded.garbage.iter().map(|dead| dead.bytes).sum(),
            garbage: loaded.garbage.into(),
            resealing: None,
            failed: None,
        };
        let core = Arc::new(Core {
            clock: options.clock,
            bounds: RingBounds { bytes: options.ring_bytes, events: options.ring_events },
            history_bytes: options.history_bytes,
            state: RwLock::new(loaded.state),
            agenda: Mutex::new(agenda),
            keeper: Notify::new(),
            medium: RwLock::new(medium),
            vault: Vault(options.seal),
            writer: Mutex::new(writer),
            queue: Mutex::default(),
            closed: AtomicBool::new(false),
            room: Arc::new(Semaphore::new(QUEUE)),
            resealers: Mutex::default(),
            idle: Notify::new(),
        });
        let shutdown = Shutdown::new();
        let keeper = tokio::spawn(keeper::run(core.clone(), shutdown.clone()));
        Self { core, shutdown, keeper: Mutex::new(Some(keeper)) }
    }

    /// Rewrites under the present seal whatever the disk keeps under another or none, history included, and
    /// returns when none is left: how many records were rewritten. Revisions and readers notice nothing, and
    /// commits go on meanwhile.
    pub async fn reseal(&self) -> Result<usize, Error> {
        if self.core.medium.read().is_none() {
            return Ok(0);
        }
        let (answer, answered) = oneshot::channel();
        self.core.submit(Job::Reseal(answer))?;
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// Refuses new work, finishes what was taken, and lets go of the folder. Watchers end with
    /// [`Error::Closed`].
    pub async fn close(&self) -> Result<(), Error> {
        self.refuse();
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::error!(%error, "the store's keeper ended badly");
        }
        self.core.drained().await;
        let core = self.core.clone();
        off_runtime(move || {
            core.writer.lock().medium = None;
            drop(core.medium.write().take());
            Ok(())
        })
        .await
    }

    fn refuse(&self) {
        {
            let _queue = self.core.queue.lock();
            self.core.closed.store(true, Ordering::Release);
        }
        self.shutdown.cancel();
        for space in self.core.state.read().spaces.values() {
            space.signal.notify_waiters();
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.refuse();
    }
}

/// Runs what blocks where it may block.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic.to_string()).into()))
}

impl Core {
    /// Leaves events up to a revision to the disk; without one they are all the history that there is.
    fn cool(&self, upto: Revision) {
        if self.medium.read().is_some() {
            self.state.write().spaces.values_mut().for_each(|space| space.ring.trim(upto));
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn medium(&self) -> Option<Arc<dyn Medium>> {
        self.medium.read().clone()
    }

    async fn commit(self: &Arc<Self>, txn: Txn) -> Result<Committed, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if self.medium.read().is_none() {
            let mut answers = self.writer.lock().group(self, vec![txn]);
            return answers.pop().unwrap_or(Err(Error::Closed));
        }
        let permit = self.room.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        self.submit(Job::Commit(txn, answer, permit))?;
        answered.await.unwrap_or(Err(Error::Closed))
    }

    async fn compact(self: &Arc<Self>, upto: Revision) -> Result<(), Error> {
        if self.medium.read().is_none() {
            return self.writer.lock().compact(self, upto);
        }
        let (answer, answered) = oneshot::channel();
        self.submit(Job::Compact(upto, answer))?;
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// Queues a job, and starts somebody to do it unless somebody is at it. A blocking task rather than a
    /// thread of our own: a paused clock then stands still while the disk works.
    fn submit(self: &Arc<Self>, job: Job) -> Result<(), Error> {
        let mut queue = self.queue.lock();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        queue.jobs.push_back(job);
        if !std::mem::replace(&mut queue.busy, true) {
            let core = self.clone();
            tokio::task::spawn_blocking(move || core.drain());
        }
        Ok(())
    }

    /// Carries out jobs, a group at a time, until there are none and nothing is left to sweep.
    fn drain(&self) {
        let _guard = EndBadly(self);
        let mut writer = self.writer.lock();
        loop {
            let jobs: Vec<Job> = {
                let mut queue = self.queue.lock();
                let group = queue.jobs.len().min(GROUP);
                queue.jobs.drain(..group).collect()
            };
            let idle = jobs.is_empty();
            self.carry_out(&mut writer, jobs);
            let resealing = self.reseal(&mut writer);
            if !writer.sweep(self) && !resealing && idle {
                let mut queue = self.queue.lock();
                if queue.jobs.is_empty() {
                    queue.busy = false;
                    self.idle.notify_waiters();
                    return;
                }
            }
        }
    }

    fn carry_out(&self, writer: &mut Writer, jobs: Vec<Job>) {
        let (mut txns, mut waiting) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        let mut compactions = Vec::new();
        for job in jobs {
            match job {
                Job::Commit(txn, answer, permit) => {
                    txns.push(txn);
                    waiting.push((answer, permit));
                }
                Job::Compact(upto, answer) => compactions.push((upto, answer)),
                Job::Reseal(answer) => {
                    // whoever waits already is answered when this, later, round is done
                    writer.resealing = Some((writer::first_record(), 0));
                    self.resealers.lock().push(answer);
                }
            }
        }
        if !txns.is_empty() {
            for ((answer, _), outcome) in waiting.into_iter().zip(writer.group(self, txns)) {
                // a caller that went away does not undo its commit
                let _ = answer.send(outcome);
            }
        }
        for (upto, answer) in compactions {
            let _ = answer.send(writer.compact(self, upto));
        }
    }

    /// Does some of the rewriting under the present seal. True while there is more.
    fn reseal(&self, writer: &mut Writer) -> bool {
        let Some(outcome) = writer.reseal(self) else { return writer.resealing.is_some() };
        let text = outcome.as_ref().err().map(ToString::to_string);
        for answer in self.resealers.lock().drain(..) {
            let told = match &text {
                Some(text) => Err(std::io::Error::other(text.clone()).into()),
                None => Ok(*outcome.as_ref().unwrap_or(&0)),
            };
            let _ = answer.send(told);
        }
        false
    }

    async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if !self.queue.lock().busy {
                return;
            }
            idle.await;
        }
    }

    /// The space as it was at `at`: calls `read` with it and the changes that lead back there.
    async fn at<T>(
        &self,
        space: &str,
        only: Option<&str>,
        at: Revision,
        read: impl FnOnce(&state::Space, &Overlay) -> T,
    ) -> Result<Option<T>, Error> {
        let (mut overlay, mut covered) = (Overlay::new(), at);
        loop {
            let (past, start) = {
                let state = self.state.read();
                state.check(at)?;
                let Some((name, present)) = state.spaces.get_key_value(space) else { return Ok(None) };
                if present.ring.start <= covered {
                    present.rewind(covered, &mut overlay);
                    return Ok(Some(read(present, &overlay)));
                }
                let start = present.ring.start;
                let medium = match self.medium() {
                    Some(medium) => medium,
                    None if self.is_closed() => return Err(Error::Closed),
                    None => return Err(Error::Compacted { asked: at, oldest: start }),
                };
                (Past { medium, vault: self.vault.clone(), id: present.id, space: name.clone() }, start)
            };
            let (after, only) = (covered, only.map(str::to_owned));
            for (path, entry) in off_runtime(move || past.overlay(after, start, only.as_deref())).await? {
                overlay.entry(path).or_insert(entry);
            }
            covered = start;
        }
    }
}

/// Closes the store when the one who writes panics, so that no caller waits for ever.
struct EndBadly<'a>(&'a Core);

impl Drop for EndBadly<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.0.queue.lock();
            self.0.closed.store(true, Ordering::Release);
            queue.busy = false;
            queue.jobs.clear();
            self.0.idle.notify_waiters();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn commit(&self, txn: Txn) -> Result<Committed, Error> {
        self.core.commit(txn).await
    }

    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<(Option<Arc<Entry>>, Revision), Error> {
        if let Some(at) = at {
            let read = |space: &state::Space, overlay: &Overlay| space.entry(overlay, &key.path);
            let found = self.core.at(&key.space, Some(&key.path), at, read).await?;
            return Ok((found.flatten(), at));
        }
        let state = self.core.state.read();
        let found = state.spaces.get(&key.space).and_then(|space| space.live.get(&key.path));
        Ok((found.cloned(), state.revision))
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        if let Some(at) = query.at {
            let read = |space: &state::Space, overlay: &Overlay| space.page(overlay, &query);
            let found = self.core.at(&query.space, None, at, read).await?;
            let (entries, remaining) = found.unwrap_or_default();
            return Ok(Page { entries, revision: at, remaining });
        }
        let state = self.core.state.read();
        let found = state.spaces.get(&query.space).map(|space| space.page(&Overlay::new(), &query));
        let (entries, remaining) = found.unwrap_or_default();
        Ok(Page { entries, revision: state.revision, remaining })
    }

    async fn watch(&self, space: &str, after: Revision) -> Result<Box<dyn Watch>, Error> {
        if self.core.is_closed() {
            return Err(Error::Closed);
        }
        Ok(Box::new(Watcher::new(self.core.clone(), space, after)?))
    }

    fn revision(&self) -> Revision {
        self.core.state.read().revision
    }

    async fn compact(&self, upto: Revision) -> Result<(), Error> {
        self.core.compact(upto).await
    }
}
