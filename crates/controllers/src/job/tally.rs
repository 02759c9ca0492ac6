//! A Job's pods, told apart: what runs, what has ended and is not counted yet, which indexes are done. Pure.

use super::backoff;
use super::indexes::Indexes;
use super::plan::{BURST, is_tracked};
use super::policy::{self, Verdict};
use crate::pods::{COMPLETION_INDEX, PodView};
use krate_api::types::batch::v1::{JobSpec, JobStatus, UncountedTerminatedPods};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub struct Tally<'a> {
    spec: &'a JobSpec,
    pub indexed: bool,
    pub pods: &'a [Arc<PodView>],
    /// Neither finished nor being deleted.
    pub active: Vec<&'a Arc<PodView>>,
    /// How many are on their way out.
    pub terminating: usize,
    noted_succeeded: BTreeSet<String>,
    noted_failed: BTreeSet<String>,
    /// Indexes that have succeeded, those included that the status does not tell yet.
    pub succeeded_indexes: Indexes,
    /// Indexes that have failed for good, with a limit per index.
    pub failed_indexes: Option<Indexes>,
    /// By index, the failed pod that stays until another stands in for it: it alone knows how often the
    /// index has failed.
    pub delayed: BTreeMap<u32, &'a Arc<PodView>>,
}

impl<'a> Tally<'a> {
    #[must_use]
    pub fn of(spec: &'a JobSpec, status: &JobStatus, pods: &'a [Arc<PodView>]) -> Self {
        let uids = |list: fn(&UncountedTerminatedPods) -> &Option<Vec<String>>| -> BTreeSet<String> {
            let noted = status.uncounted_terminated_pods.as_ref();
            noted.and_then(|u| list(u).as_ref()).into_iter().flatten().cloned().collect()
        };
        let mut tally = Self {
            spec,
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
            pods,
            active: pods.iter().filter(|p| p.is_active()).collect(),
            terminating: pods.iter().filter(|p| p.is_deleting() && !p.is_finished()).count(),
            noted_succeeded: uids(|u| &u.succeeded),
            noted_failed: uids(|u| &u.failed),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            delayed: BTreeMap::new(),
        };
        if tally.indexed {
            tally.read_indexes(status);
        }
        tally
    }

    fn read_indexes(&mut self, status: &JobStatus) {
        let limit = self.completions();
        let known = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or(""), limit);
        let tracked = || self.pods.iter().filter(|p| is_tracked(p));
        let succeeded = tracked().filter(|p| p.status.phase == "Succeeded").filter_map(|p| self.index(p));
        let succeeded: Indexes = succeeded.collect();
        let Some(most) = self.spec.backoff_limit_per_index else {
            self.succeeded_indexes = known(&status.completed_indexes).union(&succeeded);
            return;
        };
        let most = u32::try_from(most).unwrap_or(0);
        let failed = tracked().filter(|p| self.has_failed(p) && self.fails_index(p, most));
        let failed: Indexes = failed.filter_map(|p| self.index(p)).collect();
        self.succeeded_indexes = known(&status.completed_indexes).union(&succeeded);
        let failed = known(&status.failed_indexes).union(&failed);
        self.delayed = self.delayed(&failed);
        self.failed_indexes = Some(failed);
    }

    fn fails_index(&self, pod: &PodView, most: u32) -> bool {
        match self.verdict(pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            Verdict::Count | Verdict::FailJob(_) => backoff::index_failures(pod) >= most,
        }
    }

    fn delayed(&self, failed: &Indexes) -> BTreeMap<u32, &'a Arc<PodView>> {
        let active: BTreeSet<u32> = self.active.iter().filter_map(|p| self.index(p)).collect();
        let mut delayed: BTreeMap<u32, &Arc<PodView>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|p| is_tracked(p) && self.has_failed(p)) {
            let Some(index) = self.index(pod) else { continue };
            if active.contains(&index) || failed.contains(index) || self.succeeded_indexes.contains(index) {
                continue;
            }
            let last = delayed.entry(index).or_insert(pod);
            if backoff::absolute_failures(last) < backoff::absolute_failures(pod) {
                *last = pod;
            }
        }
        delayed
    }

    pub fn completions(&self) -> u32 {
        u32::try_from(self.spec.completions.unwrap_or(0)).unwrap_or(0)
    }

    /// Pods that are replaced only when they have really failed, not already when they are on their way.
    pub fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    /// The index of a pod, if the Job has it.
    pub fn index(&self, pod: &PodView) -> Option<u32> {
        let index = pod.metadata.annotations.get(COMPLETION_INDEX)?.parse().ok()?;
        (index < self.completions()).then_some(index)
    }

    pub fn has_failed(&self, pod: &PodView) -> bool {
        pod.status.phase == "Failed"
            || (!self.replaces_failed_only() && pod.is_deleting() && pod.status.phase != "Succeeded")
    }

    pub fn verdict(&self, pod: &PodView) -> Verdict {
        // The policy speaks of pods that have ended, not of those on their way.
        let policy = self.spec.pod_failure_policy.as_ref().filter(|_| pod.status.phase == "Failed");
        policy::judge(policy, pod)
    }

    pub fn is_noted(&self, pod: &PodView) -> bool {
        self.noted_failed.contains(pod.uid()) || self.noted_succeeded.contains(pod.uid())
    }

    /// A pod that counts: of an Indexed Job only those with an index.
    fn counts(&self, pod: &PodView) -> bool {
        is_tracked(pod) && !self.is_noted(pod) && (!self.indexed || self.index(pod).is_some())
    }

    /// Pods that have succeeded, those included that are not counted yet.
    pub fn succeeded(&self, status: &JobStatus) -> i64 {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        if self.indexed {
            return count(self.succeeded_indexes.count());
        }
        let new = self.pods.iter().filter(|p| p.status.phase == "Succeeded" && self.counts(p)).count();
        i64::from(status.succeeded.unwrap_or(0)) + count(self.noted_succeeded.len() + new)
    }

    /// Pods that have failed and count, those included that are not counted yet.
    pub fn failed(&self, status: &JobStatus) -> i64 {
        let new = self.pods.iter().filter(|p| self.has_failed(p) && self.counts(p));
        let new = new.filter(|p| self.verdict(p) != Verdict::Ignore).count();
        i64::from(status.failed.unwrap_or(0))
            + i64::try_from(self.noted_failed.len() + new).unwrap_or(i64::MAX)
    }

    /// Uids whose pods are free, or gone, move into the counters.
    pub fn settle(&self, status: &mut JobStatus) {
        let tracked: BTreeSet<&str> = self.pods.iter().filter(|p| is_tracked(p)).map(|p| p.uid()).collect();
        let Some(uncounted) = &mut status.uncounted_terminated_pods else { return };
        let count = |uids: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
            let list = uids.get_or_insert_default();
            let before = list.len();
            list.retain(|uid| tracked.contains(uid.as_str()));
            let settled = i32::try_from(before - list.len()).unwrap_or(i32::MAX);
            if settled > 0 {
                *counter = Some(counter.unwrap_or(0).saturating_add(settled));
            }
            if list.is_empty() {
                *uids = None;
            }
        };
        count(&mut uncounted.succeeded, &mut status.succeeded);
        count(&mut uncounted.failed, &mut status.failed);
    }

    /// Notes the pods that have ended since; returns those that may go when the status is written.
    /// `ending`: the Job ends, by failure or not. One that fails takes everything that runs with it.
    pub fn note(&self, status: &mut JobStatus, ending: Option<bool>, deleting: bool) -> Vec<Arc<PodView>> {
        let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let waiting = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        let mut room = BURST.saturating_sub(waiting(&uncounted.succeeded) + waiting(&uncounted.failed));
        let mut free = vec![];
        for pod in self.pods.iter().filter(|p| is_tracked(p)) {
            let (succeeded, failed) = (pod.status.phase == "Succeeded", self.has_failed(pod));
            let may_go = deleting || ending.is_some() || succeeded || (failed && !self.is_delayed(pod));
            if !may_go || (room == 0 && !self.is_noted(pod)) {
                continue;
            }
            free.push(pod.clone());
            if self.is_noted(pod) {
                continue;
            }
            let list = match (succeeded, failed || ending == Some(true)) {
                // The set of indexes counts by itself.
                (true, _) if self.indexed => continue,
                (true, _) => &mut uncounted.succeeded,
                (false, true) if self.counts(pod) && self.verdict(pod) != Verdict::Ignore => {
                    &mut uncounted.failed
                }
                (false, _) => continue,
            };
            list.get_or_insert_default().push(pod.uid().to_owned());
            room -= 1;
        }
        status.uncounted_terminated_pods = Some(uncounted);
        self.tell_indexes(status);
        free
    }

    fn is_delayed(&self, pod: &PodView) -> bool {
        let index = self.index(pod).and_then(|index| self.delayed.get(&index));
        index.is_some_and(|delayed| delayed.uid() == pod.uid())
    }

    fn tell_indexes(&self, status: &mut JobStatus) {
        if !self.indexed {
            return;
        }
        status.completed_indexes = Some(self.succeeded_indexes.to_string()).filter(|t| !t.is_empty());
        let count = i32::try_from(self.succeeded_indexes.count()).unwrap_or(i32::MAX);
        status.succeeded = Some(count).filter(|c| *c > 0);
        status.failed_indexes = self.failed_indexes.as_ref().map(Indexes::to_string);
    }
}
