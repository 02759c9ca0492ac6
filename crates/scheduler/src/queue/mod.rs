//! The pods that wait to be scheduled.
//!
//! * **active**: to be tried now, the most important first;
//! * **backoff**: tried and refused a short while ago; the pause doubles from [`BACKOFF_FIRST`] to
//!   [`BACKOFF_MAX`] with each attempt. When nothing is active, a pod whose event came is not held back.
//!   Pauses that end within one [`WINDOW`] end together, and the most important pod is first;
//! * **unschedulable**: fits nowhere until something happens ([`Event`]) that one of the plugins that
//!   refused it says may help, or until [`FLUSH_AFTER`] has passed;
//! * **gated**: not to be tried at all until its gates are lifted.
//!
//! Pure: time is an argument. The queue's bound is the number of pods that exist.

mod event;

pub use event::{Event, Events, Hint, StorageKind};

use crate::framework::{Plugin, Reason};
use crate::profile::Profile;
use crate::view::PodView;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause after the first failed attempt.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause after a failed attempt.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Pauses end at whole multiples of this.
pub const WINDOW: Duration = Duration::from_secs(1);
/// After this long a pod is tried again even if nothing happened.
pub const FLUSH_AFTER: Duration = Duration::from_secs(5 * 60);

/// A pod that waits, and its story so far.
#[derive(Clone)]
pub struct Waiting {
    pub pod: Arc<PodView>,
    pub profile: Arc<Profile>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was first seen, and when it came into the part of the queue where it is.
    pub first: Instant,
    pub since: Instant,
    /// Plugins that refused it at its last attempt; empty after an error.
    pub refused_by: BTreeSet<&'static str>,
    /// Its failed attempt failed for a reason outside of the cluster's state.
    pub failed: bool,
    seq: u64,
}

/// Where a pod waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Active,
    Backoff,
    Unschedulable,
    Gated,
}

impl Place {
    /// The name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Backoff => "backoff",
            Self::Unschedulable => "unschedulable",
            Self::Gated => "gated",
        }
    }
}

/// The order of the active pods.
struct Rank(Arc<PodView>, Arc<Profile>, Instant, u64);

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let sorter = self.1.plugins.iter().find_map(|(plugin, _)| plugin.compare(&self.0, &other.0));
        let by_plugin = sorter.unwrap_or(Ordering::Equal);
        by_plugin.then(self.2.cmp(&other.2)).then(self.3.cmp(&other.3))
    }
}
impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Rank {}

impl Waiting {
    fn rank(&self) -> Rank {
        Rank(self.pod.clone(), self.profile.clone(), self.since, self.seq)
    }

    fn backoff(&self) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(16);
        BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX)
    }

    /// Until when it must not be tried again.
    fn until(&self) -> Instant {
        if self.attempts == 0 { self.since } else { self.since + self.backoff() }
    }

    /// As [`Waiting::until`], at the end of its window.
    fn window(&self, origin: Instant) -> Instant {
        let windows = (self.until() - origin).as_nanos().div_ceil(WINDOW.as_nanos());
        origin + WINDOW.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX))
    }

    fn plugin(&self, name: &str) -> Option<&Arc<dyn Plugin>> {
        self.profile.plugins.iter().map(|(plugin, _)| plugin).find(|plugin| plugin.name() == name)
    }

    /// Whether an event may help.
    fn is_helped(&self, event: &Event) -> bool {
        if self.refused_by.is_empty() || matches!(event, Event::Unknown) {
            return true;
        }
        let kinds = event.kinds();
        self.refused_by.iter().filter_map(|name| self.plugin(name)).any(|plugin| {
            plugin.interests().intersects(kinds) && plugin.hint(&self.pod, event) == Hint::Queue
        })
    }
}

#[derive(Default)]
pub struct Queue {
    pods: HashMap<Arc<str>, (Waiting, Place)>,
    active: BTreeMap<Rank, Arc<str>>,
    backoff: BTreeMap<(Instant, Rank), Arc<str>>,
    /// Where the windows begin: when the first pod came.
    origin: Option<Instant>,
    unschedulable: BTreeSet<(Instant, Arc<str>)>,
    seq: u64,
    /// Events that came while the pod that was last taken was being tried need no memory: the cluster's
    /// state changes only between attempts.
    arrivals: Vec<(&'static str, Place)>,
}

impl Queue {
    /// A pod that nobody has tried yet. Says why it is gated, if it is.
    pub fn add(&mut self, pod: Arc<PodView>, profile: Arc<Profile>, now: Instant) -> Result<(), Reason> {
        self.remove(&pod.uid);
        self.origin.get_or_insert(now);
        let waiting = Waiting {
            pod,
            profile,
            attempts: 0,
            first: now,
            since: now,
            refused_by: BTreeSet::new(),
            failed: false,
            seq: 0,
        };
        self.enqueue(waiting, now, "PodAdd")
    }

    /// A waiting pod has changed. A change that may help it makes it active again.
    pub fn update(&mut self, new: Arc<PodView>, now: Instant) -> Result<(), Reason> {
        let Some((mut waiting, place)) = self.take(&new.uid) else { return Ok(()) };
        let old = std::mem::replace(&mut waiting.pod, new.clone());
        let event = Event::ItselfChanged { old, new };
        match place {
            Place::Active => self.enqueue(waiting, now, "PodUpdate"),
            Place::Gated => self.enqueue(waiting, now, "PodUpdate"),
            Place::Unschedulable if !waiting.refused_by.is_empty() && waiting.is_helped(&event) => {
                self.release(waiting, now, event.label())
            }
            Place::Backoff | Place::Unschedulable => {
                self.put(waiting, place);
                Ok(())
            }
        }
    }

    /// The pod is gone, or bound.
    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
    }

    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Arc<PodView>> {
        self.pods.get(uid).map(|(waiting, _)| &waiting.pod)
    }

    /// The pod to try next; its attempts are counted. When nothing is active, one that an event has
    /// already helped need not wait for its pause to end.
    pub fn pop(&mut self) -> Option<Waiting> {
        let early = || self.backoff.values().find(|uid| !self.pods[*uid].0.failed);
        let uid = self.active.first_key_value().map(|(_, uid)| uid).or_else(early)?.clone();
        let (mut waiting, _) = self.take(&uid)?;
        waiting.attempts += 1;
        Some(waiting)
    }

    /// A tried pod fits nowhere: it waits for an event.
    pub fn refuse(&mut self, mut waiting: Waiting, refused_by: BTreeSet<&'static str>, now: Instant) {
        waiting.refused_by = refused_by;
        waiting.failed = false;
        waiting.since = now;
        self.arrivals.push(("ScheduleAttemptFailure", Place::Unschedulable));
        self.put(waiting, Place::Unschedulable);
    }

    /// A tried pod could not be handled for a reason outside of the cluster's state: it is tried again
    /// after its pause.
    pub fn retry(&mut self, mut waiting: Waiting, now: Instant) {
        waiting.refused_by.clear();
        waiting.failed = true;
        waiting.since = now;
        self.arrivals.push(("ScheduleAttemptFailure", Place::Backoff));
        self.put(waiting, Place::Backoff);
    }

    /// Something happened: moves the pods that it may help. Returns how many.
    pub fn happened(&mut self, event: &Event, now: Instant) -> usize {
        let helped = |(_, uid): &&(Instant, Arc<str>)| self.pods[uid].0.is_helped(event);
        let helped: Vec<_> = self.unschedulable.iter().filter(helped).map(|(_, uid)| uid.clone()).collect();
        for uid in &helped {
            if let Some((waiting, _)) = self.take(uid) {
                // a gate that closes here is found again by the one who lists gated pods
                let _ = self.release(waiting, now, event.label());
            }
        }
        helped.len()
    }

    /// Moves what has waited long enough. Returns when there is something to move next.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        let ended = |((until, _), uid): (&(Instant, Rank), &Arc<str>)| (*until <= now).then(|| uid.clone());
        while let Some(uid) = self.backoff.first_key_value().and_then(ended) {
            if let Some((waiting, _)) = self.take(&uid) {
                let _ = self.enqueue(waiting, now, "BackoffComplete");
            }
        }
        while let Some((_, uid)) =
            self.unschedulable.first().cloned().filter(|(since, _)| *since + FLUSH_AFTER <= now)
        {
            if let Some((waiting, _)) = self.take(&uid) {
                let _ = self.release(waiting, now, "UnschedulableTimeout");
            }
        }
        let backoff = self.backoff.first_key_value().map(|((until, _), _)| *until);
        let flush = self.unschedulable.first().map(|(since, _)| *since + FLUSH_AFTER);
        backoff.into_iter().chain(flush).min()
    }

    /// How many pods wait in a place.
    #[must_use]
    pub fn count(&self, place: Place) -> usize {
        match place {
            Place::Active => self.active.len(),
            Place::Backoff => self.backoff.len(),
            Place::Unschedulable => self.unschedulable.len(),
            Place::Gated => {
                self.pods.len() - self.active.len() - self.backoff.len() - self.unschedulable.len()
            }
        }
    }

    /// The arrivals since the last call, for metrics: by which event, at which place.
    pub fn arrivals(&mut self) -> Vec<(&'static str, Place)> {
        std::mem::take(&mut self.arrivals)
    }

    /// To the active pods, or back to where pauses are waited for.
    fn release(&mut self, waiting: Waiting, now: Instant, event: &'static str) -> Result<(), Reason> {
        if waiting.until() <= now {
            return self.enqueue(waiting, now, event);
        }
        self.arrivals.push((event, Place::Backoff));
        self.put(waiting, Place::Backoff);
        Ok(())
    }

    /// To the active pods, unless it is gated.
    fn enqueue(&mut self, mut waiting: Waiting, now: Instant, event: &'static str) -> Result<(), Reason> {
        waiting.since = now;
        let open = waiting.profile.plugins.iter().try_for_each(|(p, _)| p.pre_enqueue(&waiting.pod));
        let place = if open.is_ok() { Place::Active } else { Place::Gated };
        self.arrivals.push((event, place));
        self.put(waiting, place);
        open
    }

    /// The place among those whose pauses have not ended.
    fn pause(&self, waiting: &Waiting) -> (Instant, Rank) {
        (waiting.window(self.origin.unwrap_or(waiting.first)), waiting.rank())
    }

    fn put(&mut self, mut waiting: Waiting, place: Place) {
        self.seq += 1;
        waiting.seq = self.seq;
        let uid = waiting.pod.uid.clone();
        match place {
            Place::Active => drop(self.active.insert(waiting.rank(), uid.clone())),
            Place::Backoff => drop(self.backoff.insert(self.pause(&waiting), uid.clone())),
            Place::Unschedulable => drop(self.unschedulable.insert((waiting.since, uid.clone()))),
            Place::Gated => {}
        }
        self.pods.insert(uid, (waiting, place));
    }

    fn take(&mut self, uid: &str) -> Option<(Waiting, Place)> {
        let (uid, (waiting, place)) = self.pods.remove_entry(uid)?;
        match place {
            Place::Active => drop(self.active.remove(&waiting.rank())),
            Place::Backoff => drop(self.backoff.remove(&self.pause(&waiting))),
            Place::Unschedulable => drop(self.unschedulable.remove(&(waiting.since, uid))),
            Place::Gated => {}
        }
        Some((waiting, place))
    }
}

#[cfg(test)]
mod tests;
