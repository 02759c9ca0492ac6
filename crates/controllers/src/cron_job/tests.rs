//! CronJobs on the in-memory API.

use crate::world::{World, named, template};
use krate_api::types::batch::v1::{CronJob, Job};
use krate_api::{Reason, Status};

fn cron(name: &str, schedule: &str) -> CronJob {
    let mut cron = CronJob::default();
    named(&mut cron, name);
    cron.spec.schedule = schedule.to_owned();
    cron.spec.concurrency_policy = Some("Allow".to_owned());
    let spec = cron.spec.job_template.spec.get_or_insert_default();
    spec.template = template(name, "busybox");
    cron
}

fn world() -> World {
    World::new(&[super::start])
}

fn put(w: &World, cron: &CronJob) {
    let mut cron = cron.clone();
    cron.metadata.creation_timestamp = Some(krate_api::meta::Time(w.context.clock.now_seconds()));
    w.fake.put(&cron);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_made_at_each_minute_and_carries_its_time() {
    let w = world();
    put(&w, &cron("tick", "* * * * *"));
    w.pass(59).await;
    assert!(w.names::<Job>().is_empty());
    w.pass(62).await;
    // 2027-01-15T08:01:00Z is minute 30000001 of the epoch.
    assert_eq!(w.names::<Job>(), ["tick-30000001", "tick-30000002"]);
    let job = w.fake.get::<Job>("default", "tick-30000001").unwrap();
    let annotations = job.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2027-01-15T08:01:00Z");
    let status = w.fake.get::<CronJob>("default", "tick").unwrap().status.clone().unwrap();
    assert_eq!(status.active.unwrap().len(), 2);
    assert!(w.events().iter().any(|e| e == "SuccessfulCreate Created job tick-30000001"));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_made_but_not_told_is_taken_up() {
    let w = world();
    let mut refusals = 1;
    w.fake.fail(move |r| {
        let now = r.plural == "cronjobs" && r.subresource == "status" && refusals > 0;
        refusals -= i32::from(now);
        now.then(|| Status::failure(Reason::ServiceUnavailable, "the server is away"))
    });
    put(&w, &cron("tick", "* * * * *"));
    w.pass(70).await;
    assert_eq!(w.names::<Job>(), ["tick-30000001"]);
    let status = w.fake.get::<CronJob>("default", "tick").unwrap().status.clone().unwrap();
    assert_eq!(status.active.unwrap()[0].name.as_deref(), Some("tick-30000001"));
    assert!(status.last_schedule_time.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_not_told_forbids_the_next_one_too() {
    let w = world();
    let healthy = tokio::time::Instant::now() + std::time::Duration::from_secs(125);
    w.fake.fail(move |r| {
        let status = r.plural == "cronjobs" && r.subresource == "status";
        let now = status && tokio::time::Instant::now() < healthy;
        now.then(|| Status::failure(Reason::ServiceUnavailable, "the server is away"))
    });
    let mut forbids = cron("tick", "* * * * *");
    forbids.spec.concurrency_policy = Some("Forbid".to_owned());
    put(&w, &forbids);
    w.pass(250).await;
    assert_eq!(w.names::<Job>(), ["tick-30000001"]);
    let status = w.fake.get::<CronJob>("default", "tick").unwrap().status.clone().unwrap();
    assert_eq!(status.active.unwrap()[0].name.as_deref(), Some("tick-30000001"));
    assert!(!w.events().iter().any(|e| e.starts_with("UnexpectedJob")));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_or_written_between_its_times() {
    let w = world();
    put(&w, &cron("yearly", "@yearly"));
    w.settle().await;
    let _ = w.fake.take_writes();
    w.pass(24 * 3600).await;
    assert_eq!(w.fake.take_writes(), Vec::<String>::new());
}
