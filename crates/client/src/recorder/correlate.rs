//! What becomes of an event beside those before it: written, counted into an earlier one, combined with
//! similar ones, or cut. Pure but for tokio's clock.
//!
//! The numbers are those of client-go's correlator.

use crate::queue::Bucket;
use krate_api::types::core::v1::{Event, ObjectReference};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::Duration;
use tokio::time::Instant;

/// Events of one source about one object at once.
const BURST: f64 = 25.0;
/// Events of one source about one object a second, after the burst.
const RATE: f64 = 1.0 / 300.0;
/// Similar events (all alike but the message) within [`SIMILAR_WITHIN`] before they are combined.
const SIMILAR: usize = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// Entries in each of the memories.
const REMEMBERED: usize = 4096;

/// An event that is to be written.
pub(super) struct Write {
    pub(super) event: Event,
    /// It was written before under its name: only count, time and message change.
    pub(super) repeats: bool,
    key: Likeness,
}

/// What alike events have in common, as a hash: the texts would be most of what the memories hold.
type Likeness = u64;

#[derive(Default)]
pub(super) struct Correlator {
    hasher: RandomState,
    budgets: Memory<Bucket>,
    similar: Memory<Similar>,
    written: Memory<Written>,
}

struct Similar {
    messages: HashSet<Likeness>,
    last: Instant,
}

struct Written {
    name: String,
    first: Option<krate_api::meta::Time>,
    count: i32,
}

impl Correlator {
    pub(super) fn correlate(&mut self, mut event: Event) -> Option<Write> {
        let now = Instant::now();
        let about = self.hasher.hash_one(about(&event));
        let group = self.hasher.hash_one((about, &event.type_, &event.reason));
        let message = self.hasher.hash_one(&event.message);
        let mut key = self.hasher.hash_one((group, message));
        if self.are_many(group, message, now) {
            let message = event.message.unwrap_or_default();
            event.message = Some(format!("(combined from similar events): {message}"));
            key = group;
        }
        let repeats = match self.written.get(key) {
            Some(before) => {
                event.metadata.name = Some(before.name.clone());
                event.first_timestamp = before.first.clone();
                before.count = before.count.saturating_add(1);
                event.count = Some(before.count);
                true
            }
            None => false,
        };
        let budget = self.budgets.entry(about, || Bucket { tokens: BURST, at: None });
        budget.try_take(now, RATE, BURST).then_some(Write { event, repeats, key })
    }

    /// The event was stored under this name.
    pub(super) fn written(&mut self, write: &Write, name: String) {
        let entry = self.written.entry(write.key, || Written { name: String::new(), first: None, count: 1 });
        entry.name = name;
        entry.first = write.event.first_timestamp.clone();
    }

    fn are_many(&mut self, group: Likeness, message: Likeness, now: Instant) -> bool {
        let similar = self.similar.entry(group, || Similar { messages: HashSet::new(), last: now });
        if now - similar.last > SIMILAR_WITHIN {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR {
            similar.messages.insert(message);
        }
        similar.messages.len() >= SIMILAR
    }
}

fn about(event: &Event) -> impl Hash {
    let ObjectReference { kind, namespace, name, uid, api_version, field_path, .. } = &event.involved_object;
    let source = event.source.as_ref().map(|s| (&s.component, &s.host));
    (source, api_version, kind, namespace, name, uid, field_path)
}

/// A map that forgets what was used longest ago.
struct Memory<V> {
    entries: HashMap<Likeness, (u64, V)>,
    order: BTreeMap<u64, Likeness>,
    tick: u64,
}

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), tick: 0 }
    }
}

impl<V> Memory<V> {
    fn get(&mut self, key: Likeness) -> Option<&mut V> {
        self.tick += 1;
        let (used, value) = self.entries.get_mut(&key)?;
        self.order.remove(used);
        *used = self.tick;
        self.order.insert(self.tick, key);
        Some(value)
    }

    fn entry(&mut self, key: Likeness, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            if self.entries.len() >= REMEMBERED
                && let Some((_, oldest)) = self.order.pop_first()
            {
                self.entries.remove(&oldest);
            }
            self.entries.insert(key, (0, make()));
        }
        self.get(key).expect("the entry was just made sure of")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = Memory::default();
        for n in 0..=REMEMBERED as u64 {
            memory.entry(n, || n);
            memory.get(0);
        }
        assert_eq!(memory.entries.len(), REMEMBERED);
        assert!(memory.get(0).is_some());
        assert!(memory.get(1).is_none());
    }
}
