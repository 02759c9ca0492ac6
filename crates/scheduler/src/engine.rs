//! The scheduler without I/O: takes what changed in the cluster, and decides about one pod at a time.
//!
//! What it decides counts for the next decision at once. Whoever carries the decisions out reports back
//! what failed ([`Engine::failed`]).

use crate::budgets::{Budget, Budgets};
use crate::cluster::Cluster;
use crate::cycle::{Attempt, Found};
use crate::diagnosis::Diagnosis;
use crate::framework::{Permission, Plight, PostFilterResult, Reason};
use crate::memo::Memos;
use crate::nominated::Nominated;
use crate::profile::Profile;
use crate::queue::{Event, Place, Queue, StorageKind, Waiting};
use crate::table::Slot;
use crate::view::{NodeView, PodView};
use krate_api::labels::Labels;
use krate_base::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is to be done about a pod.
pub enum Decision {
    /// Bind it to the node; it counts there already.
    Bind { waiting: Waiting, node: Arc<str>, patience: Option<Duration> },
    /// Say that it fits nowhere (or that something refused it), and make room if there is to be room.
    Refuse { pod: Arc<PodView>, message: String, room: PostFilterResult, clear_nomination: bool },
    /// It is being deleted and will not be tried.
    Skip(Arc<PodView>),
}

/// A pod that must wait for its gates.
pub struct Gated {
    pub pod: Arc<PodView>,
    pub reason: Reason,
}

pub struct Engine {
    profiles: BTreeMap<String, Arc<Profile>>,
    pub cluster: Cluster,
    pub queue: Queue,
    nominated: Nominated,
    budgets: Budgets,
    memos: Memos,
    /// Where in the order of nodes the next search begins.
    start: usize,
    rng: Rng,
}

impl Engine {
    #[must_use]
    pub fn new(profiles: BTreeMap<String, Arc<Profile>>, rng: Rng) -> Self {
        Self {
            profiles,
            cluster: Cluster::default(),
            queue: Queue::default(),
            nominated: Nominated::default(),
            budgets: Budgets::default(),
            memos: Memos::default(),
            start: 0,
            rng,
        }
    }

    /// A node came, changed or went.
    pub fn node(&mut self, old: Option<Arc<NodeView>>, new: Option<Arc<NodeView>>, now: Instant) {
        let event = match (old, new) {
            (Some(old), Some(new)) if old == new => return,
            (Some(old), Some(new)) => Event::NodeChanged { old, new },
            (None, Some(new)) => Event::NodeAdded(new),
            (Some(old), None) => {
                self.cluster.table.remove_node(&old.name);
                Event::NodeDeleted
            }
            (None, None) => return,
        };
        if let Event::NodeAdded(node) | Event::NodeChanged { new: node, .. } = &event {
            self.cluster.table.set_node(node.clone());
        }
        self.queue.happened(&event, now);
    }

    pub fn namespace(&mut self, name: &str, labels: Option<Labels>, now: Instant) {
        self.cluster.table.set_namespace(name, labels);
        self.queue.happened(&Event::NamespaceChanged, now);
    }

    /// A claim, a volume or a class came, changed or went; plugins see it already.
    pub fn storage(&mut self, kind: StorageKind, key: String, now: Instant) {
        self.queue.happened(&Event::Storage { kind, key }, now);
    }

    pub fn budget(&mut self, key: String, budget: Option<Arc<Budget>>) {
        match budget {
            Some(budget) => drop(self.budgets.0.insert(key, budget)),
            None => drop(self.budgets.0.remove(&key)),
        }
    }

    /// A pod came, changed or went. Says so if it has to wait for gates.
    pub fn pod(
        &mut self,
        old: Option<Arc<PodView>>,
        new: Option<Arc<PodView>>,
        now: Instant,
    ) -> Option<Gated> {
        match (old, new) {
            (Some(old), Some(new)) if old.uid != new.uid => {
                self.gone(&old, now);
                self.changed(None, new, now)
            }
            (old, Some(new)) => self.changed(old, new, now),
            (Some(old), None) => {
                self.gone(&old, now);
                None
            }
            (None, None) => None,
        }
    }

    fn gone(&mut self, old: &Arc<PodView>, now: Instant) {
        self.queue.remove(&old.uid);
        let was_nominated = self.nominated.node_of(&old.uid).is_some();
        self.nominated.remove(&old.uid);
        let placed = self.cluster.remove(&old.uid);
        if let Some(pod) = placed.or_else(|| was_nominated.then(|| old.clone())) {
            self.queue.happened(&Event::PodDeleted(pod), now);
        }
    }

    fn changed(&mut self, old: Option<Arc<PodView>>, new: Arc<PodView>, now: Instant) -> Option<Gated> {
        if new.ended {
            self.gone(&new, now);
            return None;
        }
        if new.is_assigned() {
            self.bound(old, new, now);
            return None;
        }
        let profile = self.profiles.get(&new.scheduler).cloned();
        let Some(profile) = profile else {
            self.queue.remove(&new.uid);
            return None;
        };
        self.nomination(old.as_deref(), &new);
        if self.cluster.is_assumed(&new.uid) {
            return None;
        }
        let entered = if self.queue.contains(&new.uid) {
            self.queue.update(new.clone(), now)
        } else {
            self.queue.add(new.clone(), profile, now)
        };
        entered.err().map(|reason| Gated { pod: new, reason })
    }

    fn bound(&mut self, old: Option<Arc<PodView>>, new: Arc<PodView>, now: Instant) {
        self.queue.remove(&new.uid);
        self.nominated.remove(&new.uid);
        let was_bound = self.cluster.node_of(&new.uid).is_some() && !self.cluster.is_assumed(&new.uid);
        self.cluster.set(new.clone());
        let event = match old.filter(|_| was_bound) {
            Some(old) => Event::PodChanged { old, new },
            None => Event::PodAssigned(new),
        };
        self.queue.happened(&event, now);
    }

    fn nomination(&mut self, old: Option<&PodView>, new: &Arc<PodView>) {
        match &new.nominated {
            Some(node) => self.nominated.set(new.clone(), node.clone()),
            None if old.is_some_and(|old| old.nominated.is_some()) => self.nominated.remove(&new.uid),
            // we may know of a nomination before the API does
            None => {
                if let Some(node) = self.nominated.node_of(&new.uid).cloned() {
                    self.nominated.set(new.clone(), node);
                }
            }
        }
    }

    /// Decides about the next pod; `None` when none is to be tried now. The second value is when to ask
    /// again if nothing happens before.
    pub fn step(&mut self, now: Instant) -> (Option<Decision>, Option<Instant>) {
        let next = self.queue.tick(now);
        let Some(waiting) = self.queue.pop() else { return (None, next) };
        (Some(self.decide(waiting, now)), next)
    }

    fn decide(&mut self, waiting: Waiting, now: Instant) -> Decision {
        let pod = waiting.pod.clone();
        if pod.deleting {
            return Decision::Skip(pod);
        }
        self.cluster.table.settle();
        let (slot, diagnosis, room) = self.search(&waiting);
        let Some(slot) = slot else { return self.refuse(waiting, diagnosis, room, now) };
        let node = self.cluster.table.node(slot).view.name.clone();
        match self.reserve(&waiting, &node) {
            Ok(patience) => {
                self.nominated.remove(&pod.uid);
                self.cluster.assume(pod, node.clone());
                Decision::Bind { waiting, node, patience }
            }
            Err((plugin, reason)) => {
                let diagnosis = Diagnosis {
                    nodes: self.cluster.table.len(),
                    rejection: Some(crate::framework::Unfit::for_now(reason)),
                    plugins: [plugin].into(),
                    ..Diagnosis::default()
                };
                self.refuse(waiting, diagnosis, PostFilterResult::default(), now)
            }
        }
    }

    /// Looks for the best node; without one, for a way to make room.
    fn search(&mut self, waiting: &Waiting) -> (Option<Slot>, Diagnosis, PostFilterResult) {
        let (pod, table) = (&*waiting.pod, &self.cluster.table);
        let attempt = match Attempt::new(&waiting.profile, table, pod, &self.nominated) {
            Ok(attempt) => attempt,
            Err(diagnosis) => return (None, diagnosis, PostFilterResult::default()),
        };
        let mut memo = Some(self.memos.of(pod.signature, table.epoch()));
        let nominated = self.nominated.node_of(&pod.uid).and_then(|node| table.slot(node));
        if let Some(slot) = nominated
            && attempt.judge(slot, memo.as_deref_mut()).is_ok()
        {
            return (Some(slot), Diagnosis::default(), PostFilterResult::default());
        }
        let Found { fitting, mut diagnosis } = attempt.find(memo.as_deref_mut(), &mut self.start);
        if let Some(slot) = attempt.choose(&fitting, memo, &self.rng) {
            return (Some(slot), Diagnosis::default(), PostFilterResult::default());
        }
        let mut room = PostFilterResult::default();
        if !table.is_empty() {
            let plight = Plight {
                pod,
                diagnosis: &diagnosis,
                attempt: &attempt,
                rng: &self.rng,
                budgets: &self.budgets,
            };
            let mut plugins = waiting.profile.plugins.iter();
            room = plugins.find_map(|(plugin, _)| plugin.post_filter(&plight)).unwrap_or_default();
            diagnosis.refused_room(&room.message);
        }
        (None, diagnosis, room)
    }

    /// Reserves with every plugin and asks whether to wait; takes everything back when one refuses.
    fn reserve(&self, waiting: &Waiting, node: &str) -> Result<Option<Duration>, (&'static str, Reason)> {
        let (pod, plugins) = (&*waiting.pod, &waiting.profile.plugins);
        let mut patience: Option<Duration> = None;
        let asked = plugins
            .iter()
            .try_for_each(|(plugin, _)| plugin.reserve(pod, node).map_err(|reason| (plugin.name(), reason)));
        let permitted = asked.and_then(|()| {
            plugins.iter().try_for_each(|(plugin, _)| match plugin.permit(pod, node) {
                Permission::Allow => Ok(()),
                Permission::Wait(time) => {
                    patience = Some(patience.map_or(time, |before| before.min(time)));
                    Ok(())
                }
                Permission::Reject(reason) => Err((plugin.name(), reason)),
            })
        });
        if permitted.is_err() {
            plugins.iter().rev().for_each(|(plugin, _)| plugin.unreserve(pod, node));
        }
        permitted.map(|()| patience)
    }

    fn refuse(
        &mut self,
        waiting: Waiting,
        diagnosis: Diagnosis,
        room: PostFilterResult,
        now: Instant,
    ) -> Decision {
        let pod = waiting.pod.clone();
        let had = self.nominated.node_of(&pod.uid).is_some() || pod.nominated.is_some();
        if let Some(node) = &room.nominate {
            for other in self.nominated.below(node, pod.priority) {
                self.nominated.remove(&other.uid);
            }
            self.nominated.set(pod.clone(), node.clone());
        } else if had {
            self.nominated.remove(&pod.uid);
        }
        let clear_nomination = had && room.nominate.is_none();
        let message = diagnosis.message();
        self.queue.refuse(waiting, diagnosis.plugins, now);
        Decision::Refuse { pod, message, room, clear_nomination }
    }

    /// A decision could not be carried out: the pod counts nowhere and is tried again after a pause.
    pub fn failed(&mut self, waiting: Waiting, node: &str, now: Instant) {
        for (plugin, _) in waiting.profile.plugins.iter().rev() {
            plugin.unreserve(&waiting.pod, node);
        }
        let pod = waiting.pod.clone();
        if self.cluster.forget(&pod.uid) {
            self.queue.retry(waiting, now);
            self.queue.happened(&Event::PodDeleted(pod), now);
        }
    }

    /// Number of waiting pods by place.
    #[must_use]
    pub fn pending(&self) -> [(Place, usize); 4] {
        [Place::Active, Place::Backoff, Place::Unschedulable, Place::Gated]
            .map(|place| (place, self.queue.count(place)))
    }
}

#[cfg(test)]
mod tests;
