//! CronJobs: a Job at each time of a schedule.
//!
//! Each reconcile follows the Jobs that run, starts at most one, removes old ones beyond the history limits,
//! and sleeps until the next time of the schedule. When that is, [`schedule`] says.

mod history;
mod schedule;
#[cfg(test)]
mod tests;

use crate::env::{Env, synced};
use crate::job::plan::{condition, is_finished};
use crate::meta;
use jiff::{SignedDuration, Timestamp};
use krate_api::meta::{DeleteOptions, Time};
use krate_api::types::batch::v1::{CronJob, CronJobStatus, Job};
use krate_api::{Kind as _, Object as _, Status};
use krate_base::Clock;
use krate_base::metrics::Metrics;
use krate_client::api::delete_uid;
use krate_client::recorder::{Reference, reference};
use krate_client::{Api, Index, Informer, Outcome, Queue, Recorder};
use schedule::Fault;
use std::sync::Arc;

const ACCOUNT: &str = "cronjob-controller";
const WORKERS: usize = 5;
/// When a Job was due, in its annotations.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Times in events, as Go's RFC1123Z.
const RFC_1123: &str = "%a, %d %b %Y %H:%M:%S %z";

const SKEW: &str = "cronjob_controller_job_creation_skew_duration_seconds";
const SKEW_HELP: &str =
    "Time between when a cronjob is scheduled to be run, and when the corresponding job is created";
const SKEWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

struct Controller {
    api: Api<CronJob>,
    job_api: Api<Job>,
    crons: Informer<CronJob>,
    by_owner: Index<Job>,
    recorder: Recorder,
    clock: Clock,
    metrics: Metrics,
    queue: Queue,
}

/// A CronJob while it is reconciled.
struct Run {
    cron: CronJob,
    status: CronJobStatus,
    about: Reference,
    now: Timestamp,
}

pub fn start(env: &Env) {
    let (crons, jobs) = (env.informers.of::<CronJob>(), env.informers.of::<Job>());
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        job_api: env.api(ACCOUNT),
        crons: crons.clone(),
        by_owner: jobs.index("cron job", |job: &Job| {
            let owner = meta::controller_of(&job.metadata).filter(|o| meta::refers_to::<CronJob>(o));
            owner.map(|o| o.uid.clone()).into_iter().collect()
        }),
        recorder: env.recorder(ACCOUNT, ACCOUNT),
        clock: env.clock.clone(),
        metrics: env.metrics.clone(),
        queue: env.queue("cronjob"),
    });
    let queue = controller.queue.clone();
    crons.subscribe(move |old, new| {
        if let Some(cron) = new.or(old) {
            queue.add(meta::key(&cron.metadata));
        }
    });
    let queue = controller.queue.clone();
    jobs.subscribe(move |old, new| {
        for job in [old, new].into_iter().flatten() {
            let owner = meta::controller_of(&job.metadata).filter(|o| meta::refers_to::<CronJob>(o));
            if let Some(owner) = owner {
                queue.add(krate_api::object::key(meta::namespace(&job.metadata), &owner.name));
            }
        }
    });
    let queue = controller.queue.clone();
    env.run(&queue, WORKERS, synced!(crons, jobs), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(cron) = self.crons.get(key) else { return Ok(Outcome::Done) };
        let jobs = self.by_owner.get(meta::uid(&cron.metadata));
        let mut run = Run {
            status: cron.status.clone().unwrap_or_default(),
            about: reference(&*cron),
            now: self.clock.now(),
            cron: (*cron).clone(),
        };
        self.follow(&mut run, &jobs).await?;
        let next = self.start_due(&mut run).await;
        self.clean_up(&mut run, &jobs).await?;
        // What was started must be told even when something else went wrong.
        if run.cron.status.as_ref() != Some(&run.status) {
            run.cron.status = Some(run.status);
            self.api.update_status(run.cron).await?;
        }
        Ok(next?.map_or(Outcome::Done, Outcome::After))
    }

    /// Brings the list of running Jobs up to date.
    async fn follow(&self, run: &mut Run, jobs: &[Arc<Job>]) -> Result<(), Status> {
        for job in jobs {
            let (uid, name) = (meta::uid(&job.metadata), meta::name(&job.metadata));
            let listed = run.is_active(uid);
            if !listed && !is_finished(job) {
                // The cache of CronJobs may be behind that of Jobs.
                let (namespace, own) = (meta::namespace(&run.cron.metadata), meta::name(&run.cron.metadata));
                let live = self.api.get(namespace, own).await?;
                if meta::uid(&live.metadata) == meta::uid(&run.cron.metadata) {
                    run.cron = (*live).clone();
                    run.status = live.status.clone().unwrap_or_default();
                }
                if !run.is_active(uid) {
                    self.take_up(run, job);
                }
            } else if listed && is_finished(job) {
                run.forget(uid);
                let kind = if is_complete(job) { "Complete" } else { "Failed" };
                let text = format!("Saw completed job: {name}, condition: {kind}");
                self.recorder.normal(&run.about, "SawCompletedJob", text);
            }
            if is_complete(job) {
                let at = job.status.as_ref().and_then(|s| s.completion_time.clone());
                if at.as_ref().map(|t| t.0) > run.status.last_successful_time.as_ref().map(|t| t.0) {
                    run.status.last_successful_time = at;
                }
            }
        }
        for lost in run.status.active.clone().into_iter().flatten() {
            let uid = lost.uid.unwrap_or_default();
            if jobs.iter().any(|job| meta::uid(&job.metadata) == uid) {
                continue;
            }
            let (namespace, name) = (lost.namespace.unwrap_or_default(), lost.name.unwrap_or_default());
            // Only the API itself says for sure that it is gone.
            if self.job_api.get_opt(&namespace, &name).await?.is_none() {
                let text = format!("Active job went missing: {name}");
                self.recorder.normal(&run.about, "MissingJob", text);
                run.forget(&uid);
            }
        }
        Ok(())
    }

    /// A Job that is not listed: one that was started here, and then the status could not be written, is listed now,
    /// or another would be started beside it.
    fn take_up(&self, run: &mut Run, job: &Job) {
        let started = job.metadata.annotations.as_ref().and_then(|notes| notes.get(SCHEDULED));
        let Some(at) = started.and_then(|at| at.parse::<Timestamp>().ok()) else {
            let name = meta::name(&job.metadata);
            let text = format!("Saw a job that the controller did not create or forgot: {name}");
            return self.recorder.warning(&run.about, "UnexpectedJob", text);
        };
        run.status.active.get_or_insert_default().push(reference(job));
        let last = &mut run.status.last_schedule_time;
        if last.as_ref().is_none_or(|last| last.0 < at) {
            *last = Some(Time(at));
        }
    }

    /// Starts a Job if one is due; says how long until the next is.
    async fn start_due(&self, run: &mut Run) -> Result<Option<std::time::Duration>, Status> {
        let spec = &run.cron.spec;
        if run.cron.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
            return Ok(None);
        }
        let due = match schedule::due(&run.cron, run.now) {
            Ok(due) => due,
            Err(fault) => {
                self.tell_fault(run, &fault);
                return Ok(None);
            }
        };
        if spec.time_zone.is_none() && spec.schedule.contains("TZ") {
            let text = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            self.recorder.warning(&run.about, "UnsupportedSchedule", text);
        }
        if due.too_many {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.recorder.warning(&run.about, "TooManyMissedTimes", text.to_owned());
        }
        if let Some(at) = due.last {
            self.start(run, at).await?;
        }
        Ok(due.next.map(|next| next.duration_since(run.now).max(SignedDuration::ZERO).unsigned_abs()))
    }

    fn tell_fault(&self, run: &Run, fault: &Fault) {
        let spec = &run.cron.spec;
        let (reason, text) = match fault {
            Fault::Zone(why) => {
                let zone = spec.time_zone.as_deref().unwrap_or_default();
                ("UnknownTimeZone", format!("invalid timeZone: {zone:?}: {why}"))
            }
            Fault::Schedule(why) => {
                ("UnparseableSchedule", format!("unparseable schedule: {:?} : {why}", spec.schedule))
            }
            Fault::Never => ("InvalidSchedule", format!("invalid schedule: {} : {fault}", spec.schedule)),
        };
        self.recorder.warning(&run.about, reason, text);
    }

    /// Starts the Job of a time, unless that is past, done, or not allowed now.
    async fn start(&self, run: &mut Run, at: Timestamp) -> Result<(), Status> {
        let deadline = run.cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if deadline.is_some_and(|deadline| run.now.duration_since(at) > deadline) {
            let when = at.to_zoned(jiff::tz::TimeZone::UTC).strftime(RFC_1123).to_string();
            let text = format!("Missed scheduled time to start a job: {when}");
            self.recorder.warning(&run.about, "MissSchedule", text);
            return Ok(());
        }
        let Some(job) = job_of(&run.cron, at) else { return Ok(()) };
        let running = run.status.active.iter().flatten();
        let known = running.into_iter().any(|a| a.name.as_deref() == Some(meta::name(&job.metadata)));
        if known || run.status.last_schedule_time.as_ref().is_some_and(|t| t.0 == at) {
            return Ok(());
        }
        if run.cron.spec.concurrency_policy.as_deref() != Some("Allow") {
            self.is_current(run).await?;
        }
        let running = run.status.active.clone().unwrap_or_default();
        match run.cron.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !running.is_empty() => {
                let text =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.normal(&run.about, "JobAlreadyActive", text.to_owned());
                return Ok(());
            }
            Some("Replace") => {
                for old in running {
                    let (name, uid) = (old.name.unwrap_or_default(), old.uid.unwrap_or_default());
                    self.remove(run, &name, &uid).await?;
                }
            }
            _ => {}
        }
        self.create(run, job, at).await
    }

    /// Where Jobs may not run side by side, what runs has to be known for sure: a cache that is behind is waited for.
    async fn is_current(&self, run: &Run) -> Result<(), Status> {
        let meta = &run.cron.metadata;
        let live = self.api.get(meta::namespace(meta), meta::name(meta)).await?;
        if live.metadata.resource_version == meta.resource_version {
            return Ok(());
        }
        Err(Status::modified(CronJob::GROUP, CronJob::PLURAL, meta::name(meta)))
    }

    async fn create(&self, run: &mut Run, job: Job, at: Timestamp) -> Result<(), Status> {
        let (namespace, name) =
            (meta::namespace(&job.metadata).to_owned(), meta::name(&job.metadata).to_owned());
        let made = match self.job_api.create(job).await {
            Ok(made) => {
                let late = self.clock.now().duration_since(at).as_secs_f64();
                self.metrics.observe(SKEW, SKEW_HELP, SKEWS, vec![], late);
                self.recorder.normal(&run.about, "SuccessfulCreate", format!("Created job {name}"));
                made
            }
            // Made before, and then the status could not be written; or somebody else's.
            Err(status) if status.is_already_exists() => {
                let found = self.job_api.get(&namespace, &name).await?;
                let ours = meta::controller_of(&found.metadata)
                    .is_some_and(|owner| owner.uid == meta::uid(&run.cron.metadata));
                if !ours || run.is_active(meta::uid(&found.metadata)) {
                    return Ok(());
                }
                found
            }
            Err(status) if meta::namespace_is_terminating(&status) => return Ok(()),
            Err(status) => {
                self.recorder.warning(&run.about, "FailedCreate", format!("Error creating job: {status}"));
                return Err(status);
            }
        };
        if !is_finished(&made) {
            run.status.active.get_or_insert_default().push(reference(&*made));
        }
        run.status.last_schedule_time = Some(Time(at));
        Ok(())
    }

    /// Removes finished Jobs beyond the limits.
    async fn clean_up(&self, run: &mut Run, jobs: &[Arc<Job>]) -> Result<(), Status> {
        if run.cron.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        for job in history::surplus(&run.cron.spec, jobs) {
            let (name, uid) = (meta::name(&job.metadata), meta::uid(&job.metadata));
            self.remove(run, name, uid).await?;
        }
        Ok(())
    }

    /// Deletes a Job with its pods.
    async fn remove(&self, run: &mut Run, name: &str, uid: &str) -> Result<(), Status> {
        let options = DeleteOptions { propagation_policy: Some("Background".to_owned()), ..delete_uid(uid) };
        match self.job_api.delete(meta::namespace(&run.cron.metadata), name, options).await {
            Ok(()) => {
                self.recorder.normal(&run.about, "SuccessfulDelete", format!("Deleted job {name}"));
            }
            Err(status) if status.is_not_found() => {}
            Err(status) => {
                self.recorder.warning(&run.about, "FailedDelete", format!("Deleted job: {status}"));
                return Err(status);
            }
        }
        run.forget(uid);
        Ok(())
    }
}

impl Run {
    fn is_active(&self, uid: &str) -> bool {
        self.status.active.iter().flatten().any(|a| a.uid.as_deref() == Some(uid))
    }

    fn forget(&mut self, uid: &str) {
        let Some(active) = &mut self.status.active else { return };
        active.retain(|a| a.uid.as_deref() != Some(uid));
        if active.is_empty() {
            self.status.active = None;
        }
    }
}

fn is_complete(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| condition(s, "Complete").is_some())
}

/// The Job of a time. Its name says the time, so that the same time cannot be served twice.
fn job_of(cron: &CronJob, at: Timestamp) -> Option<Job> {
    let template = &cron.spec.job_template;
    let from = template.metadata.clone().unwrap_or_default();
    let mut job = Job { spec: template.spec.clone(), ..Job::default() };
    let meta_of = job.meta_mut();
    meta_of.name = Some(format!("{}-{}", meta::name(&cron.metadata), at.as_second() / 60));
    meta_of.namespace.clone_from(&cron.metadata.namespace);
    meta_of.labels = from.labels;
    let mut annotations = from.annotations.unwrap_or_default();
    let zoned = at.to_zoned(schedule::zone(cron).ok()?);
    let utc = zoned.offset() == jiff::tz::Offset::UTC;
    let form = if utc { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    annotations.insert(SCHEDULED.to_owned(), zoned.strftime(form).to_string());
    meta_of.annotations = Some(annotations);
    meta_of.owner_references = Some(vec![meta::controller_reference(cron)]);
    Some(job)
}
