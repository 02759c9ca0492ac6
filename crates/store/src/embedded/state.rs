//! What readers see: the present of every space in memory, and the ring of its newest events.
//!
//! Pure data behind one lock. A commit becomes visible in all of its spaces at once; nothing here waits,
//! and nothing here touches the disk.

use super::record::SpaceId;
use crate::{Entry, Error, Event, ListQuery, Revision};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::Notify;

/// Memory that an event costs beside its bytes, roughly: mostly the caller's note of its entry.
const EVENT_OVERHEAD: usize = 1_024;

/// The versions of changed keys as they were at some earlier revision; `None` is "absent then".
pub(crate) type Overlay = BTreeMap<Arc<str>, Option<Arc<Entry>>>;

/// How much of the newest history a space keeps in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingBounds {
    pub bytes: usize,
    pub events: usize,
}

/// Everything that readers see.
#[derive(Default)]
pub(crate) struct State {
    pub revision: Revision,
    /// Reads at a revision older than this fail.
    pub compacted: Revision,
    pub spaces: HashMap<Arc<str>, Space>,
}

/// One space.
#[derive(Default)]
pub(crate) struct Space {
    /// Number on the disk, 0 until the space has been written.
    pub id: SpaceId,
    pub live: BTreeMap<Arc<str>, Arc<Entry>>,
    pub ring: Ring,
    /// Woken when the ring grows.
    pub signal: Arc<Notify>,
}

/// The newest events of a space: all of those after `start`.
#[derive(Default)]
pub(crate) struct Ring {
    pub start: Revision,
    events: VecDeque<(Arc<Event>, usize)>,
    bytes: usize,
}

impl Ring {
    pub(crate) fn push(&mut self, event: Arc<Event>, bounds: RingBounds) {
        let base = event.previous.as_ref().filter(|previous| previous.modified <= self.start);
        let cost = EVENT_OVERHEAD + event.entry.value.len() + base.map_or(0, |entry| entry.value.len());
        self.bytes += cost;
        self.events.push_back((event, cost));
        while self.events.len() > 1 && (self.events.len() > bounds.events || self.bytes > bounds.bytes) {
            self.pop();
        }
    }

    /// Forgets the events up to a revision.
    pub(crate) fn trim(&mut self, upto: Revision) {
        while self.events.front().is_some_and(|(event, _)| event.revision <= upto) {
            self.pop();
        }
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to_fit();
        }
    }

    fn pop(&mut self) {
        if let Some((event, cost)) = self.events.pop_front() {
            self.bytes -= cost;
            self.start = event.revision;
        }
    }

    /// The events after a revision that is not before [`Ring::start`].
    pub(crate) fn after(&self, revision: Revision) -> impl Iterator<Item = &Arc<Event>> {
        let first = self.events.partition_point(|(event, _)| event.revision <= revision);
        self.events.range(first..).map(|(event, _)| event)
    }

    /// The revision of the newest event, or where the ring begins.
    pub(crate) fn newest(&self) -> Revision {
        self.events.back().map_or(self.start, |(event, _)| event.revision)
    }
}

impl State {
    /// Whether a revision can be read.
    pub(crate) fn check(&self, at: Revision) -> Result<(), Error> {
        if at > self.revision {
            return Err(Error::Future { asked: at, current: self.revision });
        }
        if at < self.compacted {
            return Err(Error::Compacted { asked: at, oldest: self.compacted });
        }
        Ok(())
    }

    /// The space, made if it is new.
    pub(crate) fn space_mut(&mut self, name: &Arc<str>) -> &mut Space {
        self.spaces.entry(name.clone()).or_default()
    }

    /// Makes one event visible (the revision is set by the caller, for a whole group at once).
    pub(crate) fn apply(&mut self, event: Arc<Event>, id: SpaceId, bounds: RingBounds) {
        let key = &event.entry.key;
        let space = self.space_mut(&key.space);
        space.id = id;
        if event.deleted {
            space.live.remove(&key.path);
        } else {
            space.live.insert(key.path.clone(), event.entry.clone());
        }
        space.ring.push(event, bounds);
    }
}

impl Space {
    /// Completes `overlay` so that it shows the space at `at`, which is not before the ring's start.
    /// What is already in the overlay is older and stays.
    pub(crate) fn rewind(&self, at: Revision, overlay: &mut Overlay) {
        for event in self.ring.after(at) {
            overlay.entry(event.entry.key.path.clone()).or_insert_with(|| event.previous.clone());
        }
    }

    /// A page of the present changed by an overlay: the entries, and how many more there are.
    pub(crate) fn page(&self, overlay: &Overlay, query: &ListQuery) -> (Vec<Arc<Entry>>, usize) {
        if overlay.is_empty() && query.limit > 0 && query.prefix.is_empty() && query.after.is_none() {
            let entries: Vec<_> = self.live.values().take(query.limit).cloned().collect();
            let remaining = self.live.len() - entries.len();
            return (entries, remaining);
        }
        let after = query.after.as_deref().filter(|after| *after >= query.prefix.as_str());
        let from = after.map_or(Bound::Included(query.prefix.as_str()), Bound::Excluded);
        let within = |path: &Arc<str>| path.starts_with(query.prefix.as_str());
        let live = self.live.range::<str, _>((from, Bound::Unbounded)).take_while(|(path, _)| within(path));
        if overlay.is_empty() {
            return cut(live.map(|(_, entry)| entry), query.limit);
        }
        let over = overlay.range::<str, _>((from, Bound::Unbounded)).take_while(|(path, _)| within(path));
        cut(Merged { live: live.peekable(), over: over.peekable() }, query.limit)
    }

    /// The entry of one path under an overlay.
    pub(crate) fn entry(&self, overlay: &Overlay, path: &str) -> Option<Arc<Entry>> {
        overlay.get(path).cloned().unwrap_or_else(|| self.live.get(path).cloned())
    }
}

/// The first `limit` entries (0: all) and the number of the others.
fn cut<'a>(mut entries: impl Iterator<Item = &'a Arc<Entry>>, limit: usize) -> (Vec<Arc<Entry>>, usize) {
    if limit == 0 {
        return (entries.cloned().collect(), 0);
    }
    let page: Vec<_> = entries.by_ref().take(limit).cloned().collect();
    (page, entries.count())
}

/// Two sorted runs as one; the overlay wins, and its absences hide.
struct Merged<L: Iterator, O: Iterator> {
    live: Peekable<L>,
    over: Peekable<O>,
}

impl<'a, L, O> Iterator for Merged<L, O>
where
    L: Iterator<Item = (&'a Arc<str>, &'a Arc<Entry>)>,
    O: Iterator<Item = (&'a Arc<str>, &'a Option<Arc<Entry>>)>,
{
    type Item = &'a Arc<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((path, _)) = self.over.peek() else {
                return self.live.next().map(|(_, entry)| entry);
            };
            if let Some((_, entry)) = self.live.next_if(|(live, _)| live < path) {
                return Some(entry);
            }
            self.live.next_if(|(live, _)| live == path);
            if let Some((_, Some(entry))) = self.over.next() {
                return Some(entry);
            }
        }
    }
}
