//! Which finished Jobs of a CronJob are too many. Pure.

use crate::job::plan::{condition, is_finished};
use crate::meta;
use krate_api::types::batch::v1::{CronJobSpec, Job};
use std::sync::Arc;

/// The Jobs to remove: the oldest of those that succeeded and of those that failed, beyond each one's limit.
#[must_use]
pub fn surplus(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let good = |job: &Arc<Job>| job.status.as_ref().is_some_and(|s| condition(s, "Complete").is_some());
    let (succeeded, failed): (Vec<_>, Vec<_>) =
        jobs.iter().filter(|j| is_finished(j)).cloned().partition(good);
    let mut surplus = oldest(succeeded, spec.successful_jobs_history_limit);
    surplus.extend(oldest(failed, spec.failed_jobs_history_limit));
    surplus.retain(|job| job.metadata.deletion_timestamp.is_none());
    surplus
}

fn oldest(mut jobs: Vec<Arc<Job>>, limit: Option<i32>) -> Vec<Arc<Job>> {
    let Some(limit) = limit else { return vec![] };
    let started = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    // What never started counts as the newest.
    jobs.sort_by_key(|job| (started(job).is_none(), started(job), meta::name(&job.metadata).to_owned()));
    let count = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    jobs.truncate(count);
    jobs
}
