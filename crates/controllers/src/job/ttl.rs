//! Removes finished Jobs `ttlSecondsAfterFinished` after their end, with their pods.

use super::plan::{condition, is_finished};
use crate::env::{Env, synced, wake_due};
use crate::meta;
use jiff::{SignedDuration, Timestamp};
use krate_api::Status;
use krate_api::meta::DeleteOptions;
use krate_api::types::batch::v1::Job;
use krate_client::api::delete_uid;
use krate_client::{Api, Outcome, Queue};

const ACCOUNT: &str = "ttl-after-finished-controller";

const DELETION: &str = "ttl_after_finished_controller_job_deletion_duration_seconds";
const HELP: &str = "The time it took to delete the job since it became eligible for deletion";
const SECONDS: &[f64] = &[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];

pub fn start(env: &Env) {
    let jobs = env.informers.of::<Job>();
    let queue: Queue = env.queue("ttl_jobs_to_delete");
    wake_due(&jobs, &queue, |job| time_of_death(job).is_some());
    let (api, clock): (Api<Job>, _) = (env.api(ACCOUNT), env.clock.clone());
    let metrics = env.metrics.clone();
    env.run(&queue, 5, synced!(jobs), move |key: String| {
        let (api, clock, jobs, metrics) = (api.clone(), clock.clone(), jobs.clone(), metrics.clone());
        async move {
            let Some(death) = jobs.get(&key).and_then(|job| time_of_death(&job)) else {
                return Ok(Outcome::Done);
            };
            let left = death.duration_since(clock.now());
            if left > SignedDuration::ZERO {
                return Ok(Outcome::After(left.unsigned_abs()));
            }
            // The cache may be behind: its time may have been prolonged.
            let (namespace, name) = krate_api::object::split_key(&key);
            let Some(live) = api.get_opt(namespace, name).await? else { return Ok(Outcome::Done) };
            if time_of_death(&live).is_some_and(|death| death <= clock.now()) {
                let options = DeleteOptions {
                    propagation_policy: Some("Foreground".to_owned()),
                    ..delete_uid(meta::uid(&live.metadata))
                };
                let gone = |s: Status| if s.is_not_found() { Ok(()) } else { Err(s) };
                api.delete(namespace, name, options).await.or_else(gone)?;
                let took = clock.now().duration_since(death).as_secs_f64();
                metrics.observe(DELETION, HELP, SECONDS, vec![], took);
            }
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

/// When a finished Job is to go.
fn time_of_death(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if !is_finished(job) || job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = job.status.as_ref()?;
    let end = condition(status, "Complete").or_else(|| condition(status, "Failed"))?;
    let at = end.last_transition_time.as_ref()?.0;
    at.checked_add(SignedDuration::from_secs(i64::from(ttl))).ok()
}
