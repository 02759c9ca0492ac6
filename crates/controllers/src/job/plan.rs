//! What a Job needs next: its status, the pods to free, to end and to make. Pure.
//!
//! Each finished pod is counted once: its uid is first noted in `uncountedTerminatedPods` (a success of an
//! Indexed Job in `completedIndexes`), then its finalizer is taken off, and when the cache shows it off the
//! uid moves into the counter. A pod therefore cannot go before it is noted, nor be noted after it was
//! counted. [`tally`](super::tally) reads the pods, [`manage`](super::manage) chooses which to make and to end.

use super::backoff::{self, Backoff};
use super::manage;
use super::policy::{self, Verdict};
use super::tally::Tally;
use crate::pods::PodView;
use jiff::{SignedDuration, Timestamp};
use krate_api::meta::Time;
use krate_api::types::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use std::sync::Arc;
use std::time::Duration;

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Pods made or deleted in one reconcile, and uids that may wait in the status.
pub const BURST: usize = 500;

#[derive(Debug, Default)]
pub struct Plan {
    pub status: JobStatus,
    /// Pods whose finalizer may go once the status is written.
    pub free: Vec<Arc<PodView>>,
    pub delete: Vec<Arc<PodView>>,
    /// The pods to delete count for nothing: their finalizer goes first.
    pub uncounted: bool,
    pub create: Vec<NewPod>,
    pub backoff: Backoff,
    /// When to look again although nothing changes.
    pub after: Option<Duration>,
    pub events: Vec<Told>,
}

/// An event to record.
#[derive(Debug, PartialEq)]
pub struct Told {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

/// A pod to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewPod {
    /// The index of Indexed Jobs.
    pub index: Option<u32>,
    /// With a limit per index: failures of its index so far, counted and ignored ones.
    pub failures: Option<(u32, u32)>,
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

/// What a Job is planned from.
pub struct Observed<'a> {
    pub job: &'a Job,
    /// All pods that it manages.
    pub pods: &'a [Arc<PodView>],
    /// What was remembered of failures.
    pub backoff: Backoff,
    /// The caches show everything that was asked for.
    pub settled: bool,
    pub now: Timestamp,
}

/// How it is about to end.
pub struct Ending {
    pub failed: bool,
    reason: String,
    message: String,
    /// Decided just now, and not written yet.
    fresh: bool,
}

/// The Job as the plan works on it.
pub struct Work<'a> {
    pub spec: &'a JobSpec,
    pub deleting: bool,
    pub settled: bool,
    pub now: Timestamp,
    pub tally: Tally<'a>,
    pub plan: Plan,
}

#[must_use]
pub fn plan(observed: Observed) -> Plan {
    static NONE: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    let Observed { job, pods, backoff, settled, now } = observed;
    let mut status = job.status.clone().unwrap_or_default();
    if is_finished(job) {
        let free = pods.iter().filter(|p| is_tracked(p)).cloned().collect();
        return Plan { status, free, ..Plan::default() };
    }
    status.uncounted_terminated_pods.get_or_insert_default();
    let spec = job.spec.as_ref().unwrap_or(&NONE);
    let tally = Tally::of(spec, &status, pods);
    let mut work = Work {
        spec,
        deleting: job.metadata.deletion_timestamp.is_some(),
        settled,
        now,
        tally,
        plan: Plan { status, backoff, ..Plan::default() },
    };
    work.remember();
    work.start_or_resume();
    let mut ending = work.ending();
    if ending.is_some() {
        work.plan.delete = work.tally.active.iter().map(|p| (*p).clone()).collect();
    } else if settled && !work.deleting {
        manage::manage(&mut work);
        ending = work.completion();
        if ending.is_none() {
            work.suspend();
        }
    }
    work.count(ending.as_ref());
    if let Some(ending) = ending {
        work.end(&ending);
    }
    work.plan
}

impl Work<'_> {
    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub fn again(&mut self, after: Duration) {
        self.plan.after = Some(self.plan.after.map_or(after, |a| a.min(after)));
    }

    /// Takes newly ended pods into the memory that spaces new attempts.
    fn remember(&mut self) {
        let tracked: Vec<&Arc<PodView>> = self.tally.pods.iter().filter(|p| is_tracked(p)).collect();
        let seen = std::mem::take(&mut self.plan.backoff.seen);
        let (mut succeeded, mut failed) = (vec![], vec![]);
        for pod in tracked {
            let (good, bad) = (pod.status.phase == "Succeeded", self.tally.has_failed(pod));
            if !good && !bad {
                continue;
            }
            self.plan.backoff.seen.insert(pod.uid().to_owned());
            if !seen.contains(pod.uid()) && !self.tally.is_noted(pod) {
                let list = if good { &mut succeeded } else { &mut failed };
                list.push(backoff::ended(pod, self.now));
            }
        }
        self.plan.backoff.remember(&succeeded, &failed);
    }

    /// The time that it has been active begins anew when it is resumed.
    fn start_or_resume(&mut self) {
        if self.is_suspended() {
            return;
        }
        if condition(&self.plan.status, "Suspended").is_some() {
            self.say("Suspended", "False", "JobResumed", "Job resumed");
            self.tell(false, "Resumed", "Job resumed");
            self.plan.status.start_time = Some(Time(self.now));
        }
        self.plan.status.start_time.get_or_insert(Time(self.now));
    }

    /// While it is suspended it has not begun.
    fn suspend(&mut self) {
        if self.is_suspended() {
            self.plan.status.start_time = None;
        }
        if self.is_suspended() && condition(&self.plan.status, "Suspended").is_none() {
            self.say("Suspended", "True", "JobSuspended", "Job suspended");
            self.tell(false, "Suspended", "Job suspended");
        }
    }

    /// Whether and why it ends, in the order in which the reasons count.
    fn ending(&mut self) -> Option<Ending> {
        let known = |failed: bool, c: &JobCondition| Ending {
            failed,
            reason: c.reason.clone().unwrap_or_default(),
            message: c.message.clone().unwrap_or_default(),
            fresh: false,
        };
        let status = &self.plan.status;
        if let Some(success) = condition(status, "SuccessCriteriaMet") {
            return Some(known(false, success));
        }
        if let Some(failure) = condition(status, "FailureTarget") {
            return Some(known(true, failure));
        }
        let fresh = |failed, reason: &str, message: String| {
            let reason = reason.to_owned();
            Some(Ending { failed, reason, message, fresh: true })
        };
        if let Some(message) = self.failed_by_policy() {
            return fresh(true, "PodFailurePolicy", message);
        }
        if let Some((reason, message)) = self.over_limit().or_else(|| self.failed_by_indexes()) {
            return fresh(true, reason, message.to_owned());
        }
        let policy = self.spec.success_policy.as_ref().filter(|_| self.tally.indexed);
        let message = policy::is_enough(policy, &self.tally.succeeded_indexes, self.tally.completions())?;
        fresh(false, "SuccessPolicy", message)
    }

    fn failed_by_policy(&self) -> Option<String> {
        self.spec.pod_failure_policy.as_ref()?;
        self.tally.pods.iter().filter(|p| self.tally.has_failed(p)).find_map(|pod| {
            match self.tally.verdict(pod) {
                Verdict::FailJob(message) => Some(message),
                _ => None,
            }
        })
    }

    fn over_limit(&mut self) -> Option<(&'static str, &'static str)> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts: i64 = match self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
            Some("OnFailure") => {
                let alive = self.tally.pods.iter().filter(|p| !p.is_finished());
                alive.map(|p| p.restarts()).sum()
            }
            _ => 0,
        };
        if self.tally.failed(&self.plan.status) > i64::from(limit) || restarts >= i64::from(limit.max(1)) {
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

    fn failed_by_indexes(&self) -> Option<(&'static str, &'static str)> {
        let failed = self.tally.failed_indexes.as_ref()?.count();
        let most = self.spec.max_failed_indexes.map(|n| usize::try_from(n).unwrap_or(0));
        if most.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", message));
        }
        let all = failed + self.tally.succeeded_indexes.count() >= self.tally.completions() as usize;
        (failed > 0 && all).then_some(("FailedIndexes", "Job has failed indexes"))
    }

    /// Whether it has reached what it is for and nothing runs any more.
    fn completion(&self) -> Option<Ending> {
        let succeeded = self.tally.succeeded(&self.plan.status);
        let reached = match self.spec.completions {
            None => succeeded > 0,
            Some(wanted) => succeeded >= i64::from(wanted),
        };
        (reached && self.tally.active.is_empty() && self.plan.create.is_empty()).then(|| Ending {
            failed: false,
            reason: "CompletionsReached".to_owned(),
            message: "Reached expected number of succeeded pods".to_owned(),
            fresh: true,
        })
    }

    /// Brings the counters up to date, and notes what has ended since.
    fn count(&mut self, ending: Option<&Ending>) {
        let deleting = self.deleting;
        self.tally.settle(&mut self.plan.status);
        let free = self.tally.note(&mut self.plan.status, ending.map(|e| e.failed), deleting);
        self.plan.free = free;
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let active = count(self.tally.active.len());
        let ready = count(self.tally.active.iter().filter(|p| p.is_ready()).count());
        let status = &mut self.plan.status;
        status.active = Some(active).filter(|n| *n > 0);
        status.ready = Some(ready);
        status.terminating = Some(count(self.tally.terminating));
    }

    /// Says that it is to end, and how it ended when nothing runs any more and all is counted.
    fn end(&mut self, ending: &Ending) {
        let Ending { failed, reason, message, fresh } = ending;
        if *fresh {
            let interim = if *failed { "FailureTarget" } else { "SuccessCriteriaMet" };
            return self.say(interim, "True", reason, message);
        }
        let uncounted = self.plan.status.uncounted_terminated_pods.as_ref();
        let open = uncounted.is_some_and(|u| u.succeeded.is_some() || u.failed.is_some());
        let tracked = self.tally.pods.iter().any(|p| is_tracked(p));
        let running = !self.tally.active.is_empty() || self.tally.terminating > 0;
        if open || tracked || running || !self.settled {
            return;
        }
        self.plan.status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
        // One that ends while it is suspended: what has ended has begun.
        self.plan.status.start_time.get_or_insert(Time(self.now));
        if *failed {
            self.say("Failed", "True", reason, message);
            return self.tell(true, reason, message);
        }
        self.say("Complete", "True", reason, message);
        self.plan.status.completion_time = Some(Time(self.now));
        if self.spec.completions.is_some_and(|n| self.plan.status.succeeded.unwrap_or(0) > n) {
            let message = "Too many succeeded pods running after completion count reached";
            self.tell(true, "TooManySucceededPods", message);
        }
        self.tell(false, "Completed", "Job completed");
    }

    fn tell(&mut self, warning: bool, reason: &str, message: &str) {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        self.plan.events.push(Told { warning, reason, message });
    }

    /// Sets a condition.
    fn say(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        let new = JobCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
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
