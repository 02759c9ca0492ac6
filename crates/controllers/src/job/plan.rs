//! What a Job needs next: its status, the pods to free, to end and to make. Pure.
//!
//! Each finished pod is counted once: its uid is first noted in `uncountedTerminatedPods`, then its
//! finalizer is taken off, and when the cache shows it off the uid moves into the counter. A pod therefore
//! cannot go before it is noted, nor be noted after it was counted.

use super::indexes;
use crate::pods::{COMPLETION_INDEX, PodView};
use jiff::{SignedDuration, Timestamp};
use krate_api::meta::Time;
use krate_api::types::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Pods noted, made or deleted in one reconcile.
const BURST: usize = 500;
/// Pause after the first failure of a pod; doubles with each, up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(600);

/// Failures since the last success, to space new attempts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    pub failures: u32,
    pub last: Option<Timestamp>,
}

impl Backoff {
    /// How long until the next pod may be made.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        let last = self.last.filter(|_| self.failures > 0)?;
        let times = 1i32.checked_shl((self.failures - 1).min(10)).unwrap_or(i32::MAX);
        let pause = BACKOFF_FIRST.saturating_mul(times).min(BACKOFF_MAX);
        let left = pause - now.duration_since(last);
        (left > SignedDuration::ZERO).then(|| left.unsigned_abs())
    }
}

#[derive(Debug, Default)]
pub struct Plan {
    pub status: JobStatus,
    /// Pods whose finalizer may go once the status is written.
    pub free: Vec<Arc<PodView>>,
    pub delete: Vec<Arc<PodView>>,
    /// One pod each; the index of Indexed Jobs.
    pub create: Vec<Option<u32>>,
    pub backoff: Backoff,
    /// When to look again although nothing changes.
    pub after: Option<Duration>,
    /// Events to record: whether a warning, reason, message.
    pub events: Vec<(bool, &'static str, String)>,
}

#[must_use]
pub fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// It has ended, well or not.
#[must_use]
pub fn is_finished(job: &Job) -> bool {
    let is = |kind| job.status.as_ref().is_some_and(|s| condition(s, kind).is_some());
    is("Complete") || is("Failed")
}

#[must_use]
pub fn is_tracked(pod: &PodView) -> bool {
    pod.metadata.finalizers.iter().any(|f| f == FINALIZER)
}

/// The Job as the plan works on it.
struct Work<'a> {
    spec: &'a JobSpec,
    deleting: bool,
    pods: &'a [Arc<PodView>],
    now: Timestamp,
    plan: Plan,
}

/// Plans. `pods` are all pods that the Job manages; `backoff` what was remembered of failures.
#[must_use]
pub fn plan(job: &Job, pods: &[Arc<PodView>], backoff: Backoff, now: Timestamp) -> Plan {
    static NONE: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    let mut work = Work {
        spec: job.spec.as_ref().unwrap_or(&NONE),
        deleting: job.metadata.deletion_timestamp.is_some(),
        pods,
        now,
        plan: Plan { status: job.status.clone().unwrap_or_default(), backoff, ..Plan::default() },
    };
    if is_finished(job) {
        work.plan.free = pods.iter().filter(|p| is_tracked(p)).cloned().collect();
        return work.plan;
    }
    work.settle();
    work.note_finished();
    work.count_living();
    work.suspend_or_start();
    work.judge();
    if work.is_ending() {
        work.end();
    } else if !work.deleting && !work.is_suspended() {
        work.manage();
    } else if work.is_suspended() {
        work.plan.delete = work.active().cloned().collect();
    }
    work.plan
}

impl Work<'_> {
    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn completions(&self) -> Option<i32> {
        self.spec.completions
    }

    /// Pods that are replaced only when they have really failed, not already when they are on their way.
    fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    fn active(&self) -> impl Iterator<Item = &Arc<PodView>> {
        self.pods.iter().filter(|p| p.is_active())
    }

    fn index(&self, pod: &PodView) -> Option<u32> {
        let index = pod.metadata.annotations.get(COMPLETION_INDEX)?.parse().ok()?;
        (index < u32::try_from(self.completions().unwrap_or(0)).unwrap_or(0)).then_some(index)
    }

    fn has_failed(&self, pod: &PodView) -> bool {
        pod.status.phase == "Failed"
            || (!self.replaces_failed_only() && pod.is_deleting() && pod.status.phase != "Succeeded")
    }

    /// Uids whose pods are free, or gone, move into the counters.
    fn settle(&mut self) {
        let tracked: BTreeSet<&str> = self.pods.iter().filter(|p| is_tracked(p)).map(|p| p.uid()).collect();
        let status = &mut self.plan.status;
        let Some(uncounted) = &mut status.uncounted_terminated_pods else { return };
        let count = |uids: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
            let list = uids.get_or_insert_default();
            let before = list.len();
            list.retain(|uid| tracked.contains(uid.as_str()));
            let settled = i32::try_from(before - list.len()).unwrap_or(i32::MAX);
            if settled > 0 {
                *counter = Some(counter.unwrap_or(0) + settled);
            }
            if list.is_empty() {
                *uids = None;
            }
        };
        count(&mut uncounted.succeeded, &mut status.succeeded);
        count(&mut uncounted.failed, &mut status.failed);
    }

    /// Notes the pods that have ended since.
    fn note_finished(&mut self) {
        let mut uncounted = self.plan.status.uncounted_terminated_pods.take().unwrap_or_default();
        let limit = u32::try_from(self.completions().unwrap_or(0)).unwrap_or(0);
        let text = self.plan.status.completed_indexes.clone().unwrap_or_default();
        let mut completed = indexes::parse(&text, limit);
        for pod in self.pods.iter().filter(|p| is_tracked(p)).take(BURST) {
            let (succeeded, failed) = (pod.status.phase == "Succeeded", self.has_failed(pod));
            if !succeeded && !failed {
                continue;
            }
            let index = self.index(pod);
            let list = if succeeded { &mut uncounted.succeeded } else { &mut uncounted.failed };
            let list = list.get_or_insert_default();
            if succeeded && self.is_indexed() {
                // The set of indexes counts by itself.
                completed.extend(index);
            } else if !list.iter().any(|uid| uid == pod.uid()) {
                list.push(pod.uid().to_owned());
                remember(&mut self.plan.backoff, pod, succeeded, self.now);
            }
            self.plan.free.push(pod.clone());
        }
        for list in [&mut uncounted.succeeded, &mut uncounted.failed] {
            if list.as_ref().is_some_and(Vec::is_empty) {
                *list = None;
            }
        }
        if self.is_indexed() {
            let text = indexes::format(&completed);
            self.plan.status.completed_indexes = Some(text).filter(|t| !t.is_empty());
            let count = i32::try_from(completed.len()).unwrap_or(i32::MAX);
            self.plan.status.succeeded = Some(count).filter(|c| *c > 0);
        }
        self.plan.status.uncounted_terminated_pods = Some(uncounted);
    }

    fn count_living(&mut self) {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let active = count(self.active().count());
        let ready = count(self.active().filter(|p| p.is_ready()).count());
        let terminating = count(self.terminating());
        let status = &mut self.plan.status;
        status.active = Some(active).filter(|n| *n > 0);
        status.ready = Some(ready);
        status.terminating = Some(terminating);
    }

    fn terminating(&self) -> usize {
        self.pods.iter().filter(|p| p.is_deleting() && !p.is_finished()).count()
    }

    fn succeeded(&self) -> i32 {
        let status = &self.plan.status;
        status.succeeded.unwrap_or(0) + if self.is_indexed() { 0 } else { noted(status, |u| &u.succeeded) }
    }

    fn failed(&self) -> i32 {
        let status = &self.plan.status;
        status.failed.unwrap_or(0) + noted(status, |u| &u.failed)
    }

    fn suspend_or_start(&mut self) {
        let was = condition(&self.plan.status, "Suspended").is_some();
        if self.is_suspended() && !was {
            self.say("Suspended", "True", "JobSuspended", "Job suspended".to_owned());
            self.plan.status.start_time = None;
            self.plan.events.push((false, "Suspended", "Job suspended".to_owned()));
        } else if !self.is_suspended() {
            if was {
                self.say("Suspended", "False", "JobResumed", "Job resumed".to_owned());
                self.plan.events.push((false, "Resumed", "Job resumed".to_owned()));
            }
            if self.plan.status.start_time.is_none() {
                self.plan.status.start_time = Some(Time(self.now));
            }
        }
    }

    fn is_ending(&self) -> bool {
        let status = &self.plan.status;
        condition(status, "FailureTarget").is_some() || condition(status, "SuccessCriteriaMet").is_some()
    }

    /// Whether it has failed or succeeded.
    fn judge(&mut self) {
        if self.is_ending() {
            return;
        }
        if let Some((reason, message)) = self.failure() {
            self.say("FailureTarget", "True", reason, message.to_owned());
            return;
        }
        let (succeeded, active) = (self.succeeded(), self.active().count());
        let complete = match self.completions() {
            // Whoever finishes first tells that there is nothing more to do; the others finish theirs.
            None => succeeded > 0 && active == 0 && self.terminating() == 0,
            Some(wanted) => succeeded >= wanted,
        };
        if complete && !self.is_suspended() {
            let message = "Reached expected number of succeeded pods".to_owned();
            self.say("SuccessCriteriaMet", "True", "CompletionsReached", message);
        }
    }

    fn failure(&mut self) -> Option<(&'static str, &'static str)> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts: i64 = match self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
            Some("OnFailure") => self.active().map(|p| p.restarts()).sum(),
            _ => 0,
        };
        let limit_of_restarts = i64::from(limit.max(1));
        if self.failed() > limit || restarts >= limit_of_restarts {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        let deadline = self.spec.active_deadline_seconds?;
        let started = self.plan.status.start_time.as_ref().filter(|_| !self.is_suspended())?;
        let left = SignedDuration::from_secs(deadline) - self.now.duration_since(started.0);
        if left <= SignedDuration::ZERO {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        self.again(left.unsigned_abs());
        None
    }

    fn again(&mut self, after: Duration) {
        self.plan.after = Some(self.plan.after.map_or(after, |a| a.min(after)));
    }

    /// Ends what still runs, and says how it ended when nothing runs any more and all is counted.
    fn end(&mut self) {
        self.plan.delete = self.active().cloned().collect();
        let uncounted = noted(&self.plan.status, |u| &u.succeeded) + noted(&self.plan.status, |u| &u.failed);
        let tracked = self.pods.iter().any(|p| is_tracked(p));
        if !self.plan.delete.is_empty() || self.terminating() > 0 || uncounted > 0 || tracked {
            return;
        }
        let status = &self.plan.status;
        let (kind, why) = match condition(status, "FailureTarget") {
            Some(failure) => ("Failed", failure.clone()),
            None => match condition(status, "SuccessCriteriaMet") {
                Some(success) => ("Complete", success.clone()),
                None => return,
            },
        };
        let reason = why.reason.clone().unwrap_or_default();
        let message = why.message.unwrap_or_default();
        self.say(kind, "True", &reason, message.clone());
        self.plan.status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
        if kind == "Complete" {
            self.plan.status.completion_time = Some(Time(self.now));
            self.plan.events.push((false, "Completed", "Job completed".to_owned()));
        } else {
            let reason =
                if reason == "DeadlineExceeded" { "DeadlineExceeded" } else { "BackoffLimitExceeded" };
            self.plan.events.push((true, reason, message));
        }
    }

    /// Makes pods that are missing, ends those that are too many.
    fn manage(&mut self) {
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let active: Vec<Arc<PodView>> = self.active().cloned().collect();
        let count = i32::try_from(active.len()).unwrap_or(i32::MAX);
        let wanted = match self.completions() {
            None if self.succeeded() > 0 => count.min(parallelism),
            None => parallelism,
            Some(completions) => (completions - self.succeeded()).clamp(0, parallelism),
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let (used, doubles) = self.indexes_in_use(&active);
        let excess = (active.len() - doubles.len()).saturating_sub(wanted);
        self.plan.delete = doubles;
        let spare = active.iter().filter(|p| !self.plan.delete.iter().any(|d| d.uid() == p.uid()));
        // Pods that have done least go first.
        let mut spare: Vec<_> = spare.cloned().collect();
        spare.sort_by_key(|p| {
            (p.is_ready(), p.status.phase == "Running", std::cmp::Reverse(p.metadata.created()))
        });
        self.plan.delete.extend(spare.into_iter().take(excess));
        let mut living = active.len() - self.plan.delete.len();
        if self.replaces_failed_only() {
            living += self.terminating();
        }
        let missing = wanted.saturating_sub(living).min(BURST);
        if missing == 0 || !self.plan.delete.is_empty() {
            return;
        }
        if let Some(left) = self.plan.backoff.left(self.now) {
            return self.again(left);
        }
        self.plan.create = if self.is_indexed() {
            let text = self.plan.status.completed_indexes.clone().unwrap_or_default();
            let all = u32::try_from(self.completions().unwrap_or(0)).unwrap_or(0);
            let done = indexes::parse(&text, all);
            (0..all).filter(|n| !done.contains(n) && !used.contains(n)).take(missing).map(Some).collect()
        } else {
            vec![None; missing]
        };
    }

    /// The indexes that living pods have, and the pods that are second of their index or have none.
    fn indexes_in_use(&self, active: &[Arc<PodView>]) -> (BTreeSet<u32>, Vec<Arc<PodView>>) {
        let (mut used, mut doubles) = (BTreeSet::new(), vec![]);
        if self.is_indexed() {
            for pod in active {
                if !self.index(pod).is_some_and(|index| used.insert(index)) {
                    doubles.push(pod.clone());
                }
            }
        }
        (used, doubles)
    }

    /// Sets a condition.
    fn say(&mut self, kind: &str, value: &str, reason: &str, message: String) {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        let new = JobCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(old) if old.status == value => {}
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    }
}

fn noted(status: &JobStatus, list: impl Fn(&UncountedTerminatedPods) -> &Option<Vec<String>>) -> i32 {
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let count = uncounted.and_then(|u| list(u).as_ref().map(Vec::len)).unwrap_or(0);
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Remembers how a pod ended, for the pause before the next.
fn remember(backoff: &mut Backoff, pod: &PodView, succeeded: bool, now: Timestamp) {
    if succeeded {
        *backoff = Backoff::default();
        return;
    }
    let ended = pod.status.container_statuses.iter().filter_map(|c| c.state.terminated.as_ref());
    let at = ended.filter_map(|t| t.finished_at.as_ref().map(|t| t.0)).max().unwrap_or(now);
    backoff.failures = backoff.failures.saturating_add(1);
    backoff.last = backoff.last.max(Some(at));
}
