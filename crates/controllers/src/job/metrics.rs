//! What is counted of Jobs, under the original's names. It observes and decides nothing.

use super::indexes::Indexes;
use super::plan::condition;
use super::policy;
use crate::pods::PodView;
use krate_api::types::batch::v1::{Job, JobStatus};
use krate_base::metrics::Metrics;
use std::time::Duration;

const SECONDS: &[f64] = &[
    0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768,
    65.536,
];

#[derive(Clone)]
pub struct Counts(Metrics);

type Labels<'a> = &'a [(&'static str, &'a str)];

impl Counts {
    pub fn new(metrics: &Metrics) -> Self {
        Self(metrics.clone())
    }

    fn add(&self, name: &'static str, help: &'static str, labels: Labels<'_>, by: usize) {
        if by > 0 {
            let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
            #[expect(clippy::cast_precision_loss, reason = "counts of pods")]
            self.0.add(name, help, labels, by as f64);
        }
    }

    /// A Job that somebody else manages has come.
    pub fn external(&self, manager: &str) {
        let help = "The number of Jobs managed by an external controller";
        let name = "job_controller_jobs_by_external_controller_total";
        self.add(name, help, &[("controller_name", manager)], 1);
    }

    /// A reconcile is over. `action` is what it did to pods.
    pub fn synced(&self, job: &Job, action: &'static str, good: bool, took: Duration) {
        let labels = [
            ("completion_mode", mode(job)),
            ("result", if good { "success" } else { "error" }),
            ("action", action),
        ];
        self.add("job_controller_job_syncs_total", "The number of job syncs", &labels, 1);
        let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let help = "The time it took to sync a job";
        self.0.observe("job_controller_job_sync_duration_seconds", help, SECONDS, labels, took.as_secs_f64());
    }

    /// Another status was written: the pods and indexes that it counts more, and whether the Job has ended.
    pub fn written(&self, job: &Job, new: &JobStatus) {
        let none = JobStatus::default();
        let old = job.status.as_ref().unwrap_or(&none);
        let more = |count: fn(&JobStatus) -> Option<i32>| {
            usize::try_from(count(new).unwrap_or(0) - count(old).unwrap_or(0)).unwrap_or(0)
        };
        let (succeeded, failed) = (more(|s| s.succeeded), more(|s| s.failed));
        for (result, pods) in [("succeeded", succeeded), ("failed", failed)] {
            let help = "The number of finished Pods that are fully tracked";
            let labels = [("completion_mode", mode(job)), ("result", result)];
            self.add("job_controller_job_pods_finished_total", help, &labels, pods);
        }
        if mode(job) == "Indexed" {
            self.indexes(job, succeeded, failed_indexes(new).saturating_sub(failed_indexes(old)));
        }
        for (kind, result) in [("Complete", "succeeded"), ("Failed", "failed")] {
            let Some(how) = condition(new, kind).filter(|_| condition(old, kind).is_none()) else { continue };
            let reason = how.reason.as_deref().unwrap_or_default();
            let labels = [("completion_mode", mode(job)), ("result", result), ("reason", reason)];
            self.add("job_controller_jobs_finished_total", "The number of finished jobs", &labels, 1);
        }
    }

    fn indexes(&self, job: &Job, succeeded: usize, failed: usize) {
        let per_index = job.spec.as_ref().is_some_and(|s| s.backoff_limit_per_index.is_some());
        let limit = if per_index { "perIndex" } else { "global" };
        for (status, indexes) in [("succeeded", succeeded), ("failed", failed)] {
            let help = "The number of finished indexes.";
            let labels = [("status", status), ("backoffLimit", limit)];
            self.add("job_controller_job_finished_indexes_total", help, &labels, indexes);
        }
    }

    /// A pod that has ended was counted and let go; one that failed by a rule of the Job's policy.
    pub fn freed(&self, job: &Job, pod: &PodView) {
        let policy = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref());
        if pod.status.phase == "Failed"
            && let Some(action) = policy::action(policy, pod)
        {
            let help = "The number of failed Pods handled by failure policy";
            let name = "job_controller_pod_failures_handled_by_failure_policy_total";
            self.add(name, help, &[("action", action)], 1);
        }
    }

    /// Pods were made, or could not be.
    pub fn created(&self, job: &Job, status: &JobStatus, succeeded: usize, failed: usize) {
        let only_failed =
            job.spec.as_ref().and_then(|s| s.pod_replacement_policy.as_deref()) == Some("Failed");
        let waiting = status.uncounted_terminated_pods.as_ref().is_some_and(|u| u.failed.is_some());
        let has_failed = waiting || status.failed.unwrap_or(0) > 0;
        let reason = match has_failed {
            true if only_failed => "recreate_failed",
            true => "recreate_terminating_or_failed",
            false if status.terminating.unwrap_or(0) > 0 => "recreate_terminating_or_failed",
            false => "new",
        };
        for (result, pods) in [("succeeded", succeeded), ("failed", failed)] {
            let help = "The number of Pods created by the Job controller labelled with a reason for the Pod creation";
            let labels = [("reason", reason), ("status", result)];
            self.add("job_controller_job_pods_creation_total", help, &labels, pods);
        }
    }

    /// A pod has ended with our finalizer on it (`add`), or an ended one has lost it (`delete`).
    pub fn tracked(&self, event: &'static str) {
        let help = "The number of terminated pods that have the finalizer batch.kubernetes.io/job-tracking";
        let name = "job_controller_terminated_pods_tracking_finalizer_total";
        self.add(name, help, &[("event", event)], 1);
    }
}

fn mode(job: &Job) -> &'static str {
    let mode = job.spec.as_ref().and_then(|s| s.completion_mode.as_deref());
    if mode == Some("Indexed") { "Indexed" } else { "NonIndexed" }
}

fn failed_indexes(status: &JobStatus) -> usize {
    status.failed_indexes.as_deref().map_or(0, |text| Indexes::parse(text, u32::MAX).count())
}
