//! The one who writes: makes groups of transactions durable and then visible, and drops old history.
//!
//! Only one thread is in here at a time. After the disk has failed once nothing is written any more: what
//! a failed sync left behind is unknown, and only opening the store again finds out.

use super::Core;
use super::medium::{Change, Medium};
use super::plan::{Garbage, Plan, Spaces};
use super::record::{META, META_COMPACTED, Record, SpaceId, key as disk_key, meta_key, split_key};
use crate::{Committed, Error, Key, Revision, Txn};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How many dead versions are removed from the disk between two groups of commits.
const SWEEP: usize = 1_000;
/// How many records are looked at between two groups of commits for whether their seal is the present one.
const RESEAL: usize = 1_000;

pub(crate) struct Writer {
    pub medium: Option<Arc<dyn Medium>>,
    pub spaces: Spaces,
    /// Dead versions in the order in which they died.
    pub garbage: VecDeque<Garbage>,
    pub garbage_bytes: usize,
    /// Where the rewriting of records under the present seal goes on, and how many were rewritten.
    pub resealing: Option<(Vec<u8>, usize)>,
    /// What the disk said when it failed.
    pub failed: Option<String>,
}

impl Writer {
    /// Commits a group with one sync. Answers in the order of the transactions; all of them are durable
    /// and visible, or refused, when this returns.
    pub(crate) fn group(&mut self, core: &Core, txns: Vec<Txn>) -> Vec<Result<Committed, Error>> {
        let now = core.clock.now().as_microsecond();
        let state = core.state.read();
        let vault = self.medium.is_some().then_some(&core.vault);
        let mut plan = Plan::new(&state, &mut self.spaces, vault, now);
        let mut answers: Vec<_> = txns.into_iter().map(|txn| plan.add(txn)).collect();
        let Plan { revision, changes, events, garbage, deadlines, .. } = plan;
        drop(state);
        if let Err(error) = self.write(changes, true) {
            let text = error.to_string();
            answers.iter_mut().for_each(|answer| *answer = Err(io::Error::other(text.clone()).into()));
            return answers;
        }
        self.garbage_bytes += garbage.iter().map(|dead| dead.bytes).sum::<usize>();
        self.garbage.extend(garbage);
        if events.is_empty() {
            return answers;
        }
        let mut signals = Vec::new();
        let mut state = core.state.write();
        for (event, id) in events {
            let space = event.entry.key.space.clone();
            state.apply(event, id, core.bounds);
            let signal = &state.space_mut(&space).signal;
            if !signals.iter().any(|known| Arc::ptr_eq(known, signal)) {
                signals.push(signal.clone());
            }
        }
        state.revision = revision;
        drop(state);
        signals.iter().for_each(|signal| signal.notify_waiters());
        note(core, now, revision, deadlines);
        self.bound_history(core);
        answers
    }

    /// Drops history before `upto`: reads older than that fail from now on. The disk is swept later.
    pub(crate) fn compact(&mut self, core: &Core, upto: Revision) -> Result<(), Error> {
        let (revision, compacted) = {
            let state = core.state.read();
            (state.revision, state.compacted)
        };
        if upto > revision {
            return Err(Error::Future { asked: upto, current: revision });
        }
        if upto <= compacted {
            return Ok(());
        }
        self.write(vec![Change::Put(meta_key(META_COMPACTED), upto.to_be_bytes().to_vec())], false)?;
        let mut state = core.state.write();
        state.compacted = upto;
        state.spaces.values_mut().for_each(|space| space.ring.trim(upto));
        Ok(())
    }

    /// Removes some of what compaction has let go from the disk. True while there is more.
    pub(crate) fn sweep(&mut self, core: &Core) -> bool {
        if self.failed.is_some() || self.medium.is_none() {
            return false;
        }
        let compacted = core.state.read().compacted;
        let dead = self.garbage.iter().take(SWEEP).take_while(|dead| dead.superseded <= compacted).count();
        if dead == 0 {
            return false;
        }
        let removals = self.garbage.drain(..dead).map(|dead| {
            self.garbage_bytes -= dead.bytes;
            Change::Remove(disk_key(dead.space, dead.revision, &dead.path))
        });
        let removals = removals.collect();
        self.write(removals, false).is_ok()
    }

    /// Rewrites some records under the present seal. The answer is `Some` when all are done: how many were.
    pub(crate) fn reseal(&mut self, core: &Core) -> Option<io::Result<usize>> {
        let (from, done) = self.resealing.take()?;
        let Some(medium) = self.medium.clone() else { return Some(Ok(0)) };
        let names: HashMap<SpaceId, Arc<str>> =
            self.spaces.ids.iter().map(|(name, id)| (*id, name.clone())).collect();
        let step = reseal_step(&*medium, core, &names, &from);
        let (changes, next) = match step {
            Ok(step) => step,
            Err(error) => return Some(Err(error)),
        };
        let done = done + changes.len();
        if let Err(error) = self.write(changes, next.is_none()) {
            return Some(Err(error));
        }
        match next {
            Some(next) => {
                self.resealing = Some((next, done));
                None
            }
            None => Some(medium.tidy().map(|()| done)),
        }
    }

    /// Compacts when history has outgrown its bytes, down to three quarters of them.
    fn bound_history(&mut self, core: &Core) {
        if self.garbage_bytes <= core.history_bytes {
            return;
        }
        let (mut left, mut upto) = (self.garbage_bytes, 0);
        for dead in &self.garbage {
            if left <= core.history_bytes / 4 * 3 {
                break;
            }
            left -= dead.bytes;
            upto = dead.superseded;
        }
        if let Err(error) = self.compact(core, upto) {
            tracing::warn!(%error, "could not compact the store's history");
        }
    }

    fn write(&mut self, changes: Vec<Change>, sync: bool) -> io::Result<()> {
        if let Some(failure) = &self.failed {
            return Err(io::Error::other(format!(
                "the disk failed earlier ({failure}); nothing is written until the store is opened again"
            )));
        }
        let Some(medium) = &self.medium else { return Ok(()) };
        if changes.is_empty() {
            return Ok(());
        }
        medium.write(changes, sync).inspect_err(|error| {
            tracing::error!(%error, "the store's disk failed; it takes no more writes");
            self.failed = Some(error.to_string());
        })
    }
}

/// The records from `from` on that need another seal, and where to go on.
fn reseal_step(
    medium: &dyn Medium,
    core: &Core,
    names: &HashMap<SpaceId, Arc<str>>,
    from: &[u8],
) -> io::Result<(Vec<Change>, Option<Vec<u8>>)> {
    let (mut changes, mut next, mut seen) = (Vec::new(), None, 0);
    medium.scan(from, &[0xff; 5], &mut |disk, value| {
        if seen == RESEAL {
            next = Some(disk.to_vec());
            return Ok(ControlFlow::Break(()));
        }
        seen += 1;
        let (id, _, path) = split_key(disk)?;
        if let Some(space) = names.get(&id) {
            let key = Key { space: space.clone(), path: path.into() };
            let fresh = Record::resealed(value, &key, &core.vault)?;
            changes.extend(fresh.map(|fresh| Change::Put(disk.to_vec(), fresh)));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((changes, next))
}

/// Where the rewriting of all records begins.
pub(crate) fn first_record() -> Vec<u8> {
    disk_key(META + 1, 0, "")
}

/// Puts on the agenda what follows from a group.
fn note(core: &Core, now: i64, revision: Revision, deadlines: Vec<(i64, Key, Revision)>) {
    let mut agenda = core.agenda.lock();
    let mut sooner = agenda.mark(now, revision);
    for (at, key, modified) in deadlines {
        sooner |= agenda.expire(at, key, modified);
    }
    drop(agenda);
    if sooner {
        core.keeper.notify_one();
    }
}
