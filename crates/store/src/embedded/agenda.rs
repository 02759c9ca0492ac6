//! What the store has to do later: keys that expire, history that grows old. Pure data.

use crate::{Key, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Into how many parts the retention time is cut: history is kept for the retention and at most one part
/// longer.
const PARTS: i64 = 12;
/// Shortest part, so that a tiny retention does not mean a mark per commit.
const SHORTEST_PART_US: i64 = 1_000;

/// Times are microseconds since 1970 on the store's clock.
pub(crate) struct Agenda {
    retention: i64,
    part: i64,
    /// When, and the version that is to be deleted then.
    deadlines: BTreeSet<(i64, Key, Revision)>,
    /// The newest revision committed in each part of the time.
    marks: BTreeMap<i64, Revision>,
    /// The last part whose revisions are no longer kept at hand.
    cool: i64,
}

impl Agenda {
    pub(crate) fn new(retention: Duration) -> Self {
        let retention = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX / 4);
        let part = (retention / PARTS).max(SHORTEST_PART_US);
        Self { retention, part, deadlines: BTreeSet::new(), marks: BTreeMap::new(), cool: i64::MIN }
    }

    /// Remembers that a version is to be deleted at a time. True if it is now the first to be.
    pub(crate) fn expire(&mut self, at: i64, key: Key, modified: Revision) -> bool {
        let first = self.deadlines.first().is_none_or(|(first, ..)| at < *first);
        self.deadlines.insert((at, key, modified));
        first
    }

    /// Remembers that a revision was committed at a time. True if nothing was to grow cool before.
    pub(crate) fn mark(&mut self, time: i64, revision: Revision) -> bool {
        let first = self.warm().next().is_none();
        // a clock that was set back must not make later revisions look older than earlier ones
        let newest = self.marks.last_key_value().map_or(i64::MIN, |(part, _)| *part);
        let mark = self.marks.entry((time / self.part).max(newest)).or_default();
        *mark = revision.max(*mark);
        first
    }

    /// The next instant at which there is something to do.
    pub(crate) fn next(&self) -> Option<i64> {
        let expiry = self.deadlines.first().map(|(at, ..)| *at);
        let aged = self.marks.first_key_value().map(|(part, _)| self.aged_at(*part));
        let cooled = self.warm().next().map(|(part, _)| self.cool_at(*part));
        expiry.into_iter().chain(aged).chain(cooled).min()
    }

    /// The newest revision that has just grown so old that few will ask for it: a quarter of the retention.
    pub(crate) fn cooled(&mut self, now: i64) -> Option<Revision> {
        let over = self.warm().take_while(|(part, _)| self.cool_at(**part) <= now).last();
        let (part, revision) = over.map(|(part, revision)| (*part, *revision))?;
        self.cool = part;
        Some(revision)
    }

    fn warm(&self) -> impl Iterator<Item = (&i64, &Revision)> {
        self.marks.range(self.cool.saturating_add(1)..)
    }

    fn cool_at(&self, part: i64) -> i64 {
        part.saturating_add(1).saturating_mul(self.part).saturating_add(self.retention / 4)
    }

    /// Takes up to `limit` versions whose time has come.
    pub(crate) fn expired(&mut self, now: i64, limit: usize) -> Vec<(Key, Revision)> {
        let mut due = Vec::new();
        while due.len() < limit && self.deadlines.first().is_some_and(|(at, ..)| *at <= now) {
            due.extend(self.deadlines.pop_first().map(|(_, key, modified)| (key, modified)));
        }
        due
    }

    /// Takes the newest revision whose retention is over.
    pub(crate) fn aged(&mut self, now: i64) -> Option<Revision> {
        let mut newest = None;
        while let Some(mark) = self.marks.first_entry() {
            if (*mark.key() + 1).saturating_mul(self.part).saturating_add(self.retention) > now {
                break;
            }
            newest = Some(mark.remove());
        }
        newest
    }

    fn aged_at(&self, part: i64) -> i64 {
        (part + 1).saturating_mul(self.part).saturating_add(self.retention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn history_grows_old_part_by_part() {
        let mut agenda = Agenda::new(Duration::from_secs(3600));
        assert!(agenda.mark(10, 1));
        assert!(!agenda.mark(20, 2));
        assert!(!agenda.mark(HOUR / 2, 3));
        assert_eq!(agenda.cooled(HOUR), Some(3));
        assert_eq!(agenda.next(), Some(HOUR + HOUR / 12));
        assert_eq!(agenda.aged(HOUR), None);
        assert_eq!(agenda.aged(HOUR + HOUR / 12), Some(2));
        assert_eq!(agenda.aged(3 * HOUR), Some(3));
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn a_part_grows_cool_before_it_grows_old() {
        const PART: i64 = HOUR / 12;
        let mut agenda = Agenda::new(Duration::from_secs(3600));
        assert!(agenda.mark(10, 1));
        assert!(!agenda.mark(PART + 10, 2));
        assert_eq!(agenda.next(), Some(4 * PART));
        assert_eq!(agenda.cooled(4 * PART - 1), None);
        assert_eq!(agenda.cooled(4 * PART), Some(1));
        assert_eq!(agenda.cooled(4 * PART), None);
        assert_eq!(agenda.cooled(9 * PART), Some(2));
        assert_eq!(agenda.next(), Some(HOUR + PART), "nothing but its age is left");
        assert!(agenda.mark(9 * PART, 3), "there was nothing warm");
        assert_eq!(agenda.cooled(13 * PART - 1), None);
        assert_eq!(agenda.cooled(13 * PART), Some(3));
    }

    #[test]
    fn a_clock_set_back_does_not_reorder_revisions() {
        let mut agenda = Agenda::new(Duration::from_secs(3600));
        agenda.mark(5 * HOUR, 1);
        agenda.mark(HOUR, 2);
        assert_eq!(agenda.aged(3 * HOUR), None);
        assert_eq!(agenda.aged(7 * HOUR), Some(2));
    }

    #[test]
    fn the_first_deadline_is_the_one_to_wake_for() {
        let mut agenda = Agenda::new(Duration::from_secs(3600));
        assert!(agenda.expire(50, Key::new("events", "a"), 1));
        assert!(!agenda.expire(60, Key::new("events", "b"), 2));
        assert!(agenda.expire(40, Key::new("events", "c"), 3));
        assert_eq!(agenda.next(), Some(40));
        let due: Vec<_> = agenda.expired(55, 10).into_iter().map(|(_, modified)| modified).collect();
        assert_eq!(due, [3, 1]);
    }
}
