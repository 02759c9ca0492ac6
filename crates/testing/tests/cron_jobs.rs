//! CronJobs on a whole control plane with hollow nodes, in virtual time. The calendar begins on Friday
//! 2027-01-15 at 08:00 UTC, in minute 30,000,000 of the epoch.

mod common;

use common::{cluster, events, names, template};
use krate_api::types::batch::v1::{CronJob, CronJobStatus, Job};
use krate_client::{Informer, PatchKind};
use krate_testing::{Component, ControlPlane, Odds, Play};
use std::time::Duration;

fn cron(name: &str, schedule: &str) -> CronJob {
    let mut cron = CronJob::default();
    cron.metadata.name = Some(name.to_owned());
    cron.metadata.namespace = Some("default".to_owned());
    cron.spec.schedule = schedule.to_owned();
    let spec = cron.spec.job_template.spec.get_or_insert_default();
    spec.template = template(name);
    spec.template.spec.as_mut().unwrap().restart_policy = Some("OnFailure".to_owned());
    cron
}

async fn status(cluster: &ControlPlane, name: &str) -> CronJobStatus {
    cluster.of::<CronJob>().get("default", name).await.unwrap().status.clone().unwrap_or_default()
}

async fn told(cluster: &ControlPlane, text: &str) -> bool {
    events(cluster).await.iter().any(|e| e == text)
}

#[tokio::test(start_paused = true)]
async fn jobs_run_side_by_side_when_they_may() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<CronJob>().create(cron("tick", "*/1 * * * ?")).await.unwrap();
    cluster.until_all(|jobs: &Informer<Job>| jobs.len() == 2).await;
    assert_eq!(names::<Job>(&cluster, "default").await, ["tick-30000001", "tick-30000002"]);
    cluster
        .until("default", "tick", |c: Option<&CronJob>| {
            c.and_then(|c| c.status.clone()).is_some_and(|s| s.active.is_some_and(|a| a.len() == 2))
        })
        .await;
    assert!(told(&cluster, "CronJob/tick SuccessfulCreate: Created job tick-30000001").await);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_when_the_next_must_wait() {
    let (cluster, _nodes) = cluster(1).await;
    let mut one = cron("one", "* * * * *");
    one.spec.concurrency_policy = Some("Forbid".to_owned());
    cluster.of::<CronJob>().create(one).await.unwrap();
    cluster.pass(300).await;
    assert_eq!(names::<Job>(&cluster, "default").await, ["one-30000001"]);
    let text = "CronJob/one JobAlreadyActive: Not starting job because prior execution is running and \
                concurrency policy is Forbid";
    assert!(told(&cluster, text).await);
    // When it ends, the last time that was missed is served.
    cluster.stage.script(|_| Play::exits(Duration::from_secs(5), 0));
    cluster.until_all(|jobs: &Informer<Job>| jobs.len() > 1).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_beside_another_while_the_caches_are_behind() {
    let (cluster, _nodes) = cluster(1).await;
    let mut one = cron("one", "* * * * *");
    one.spec.concurrency_policy = Some("Forbid".to_owned());
    cluster.of::<CronJob>().create(one).await.unwrap();
    cluster.pass(30).await;
    // The caches hear neither of the first Job nor of the status that lists it.
    cluster.faults.of("kube-controller-manager", Odds { refuse: 1_000, ..Odds::default() });
    cluster.faults.cut_watches("kube-controller-manager");
    cluster.pass(150).await;
    assert_eq!(names::<Job>(&cluster, "default").await, ["one-30000001"]);
    cluster.faults.heal();
    cluster.pass(120).await;
    assert_eq!(names::<Job>(&cluster, "default").await, ["one-30000001"]);
    assert_eq!(status(&cluster, "one").await.active.unwrap().len(), 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_new_one_replaces_the_old() {
    let (cluster, _nodes) = cluster(1).await;
    let mut replace = cron("swap", "* * * * *");
    replace.spec.concurrency_policy = Some("Replace".to_owned());
    cluster.of::<CronJob>().create(replace).await.unwrap();
    let single = cluster
        .always(|crons: &Informer<CronJob>| {
            let active = crons.get("default/swap").and_then(|c| c.status.clone()?.active);
            let active = active.map_or(0, |a| a.len());
            if active > 1 { Err(format!("{active} at once")) } else { Ok(()) }
        })
        .await;
    cluster.pass(200).await;
    assert_eq!(names::<Job>(&cluster, "default").await, ["swap-30000003"]);
    single.check();
    assert!(told(&cluster, "CronJob/swap SuccessfulDelete: Deleted job swap-30000001").await);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn histories_are_kept_short_and_successes_are_told() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| Play::exits(Duration::from_secs(5), 0));
    let mut brief = cron("brief", "* * * * *");
    brief.spec.successful_jobs_history_limit = Some(2);
    cluster.of::<CronJob>().create(brief).await.unwrap();
    cluster.pass(330).await;
    assert_eq!(names::<Job>(&cluster, "default").await, ["brief-30000004", "brief-30000005"]);
    let status = status(&cluster, "brief").await;
    assert_eq!(status.active, None);
    assert!(status.last_successful_time.unwrap().0 > status.last_schedule_time.unwrap().0);
    assert!(
        told(
            &cluster,
            "CronJob/brief SawCompletedJob: Saw completed job: brief-30000001, condition: Complete"
        )
        .await
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_while_it_is_suspended() {
    let (cluster, _nodes) = cluster(1).await;
    let mut still = cron("still", "* * * * *");
    still.spec.suspend = Some(true);
    cluster.of::<CronJob>().create(still).await.unwrap();
    cluster.pass(600).await;
    assert!(names::<Job>(&cluster, "default").await.is_empty());
    let patch = r#"{"spec":{"suspend":false}}"#.to_owned();
    cluster.of::<CronJob>().patch("default", "still", PatchKind::Merge, patch).await.unwrap();
    cluster.until_all(|jobs: &Informer<Job>| !jobs.is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_of_another_place() {
    let (cluster, _nodes) = cluster(1).await;
    let mut tokyo = cron("tokyo", "30 17 * * *");
    tokyo.spec.time_zone = Some("Asia/Tokyo".to_owned());
    cluster.of::<CronJob>().create(tokyo).await.unwrap();
    cluster.pass(29 * 60).await;
    assert!(names::<Job>(&cluster, "default").await.is_empty());
    cluster.pass(2 * 60).await;
    let job = cluster.of::<Job>().get("default", "tokyo-30000030").await.unwrap();
    let when = job.metadata.annotations.clone().unwrap();
    assert_eq!(when["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2027-01-15T17:30:00+09:00");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn times_missed_while_nobody_watched_lead_to_one_job() {
    let (cluster, _nodes) = cluster(1).await;
    let mut late = cron("late", "0 * * * *");
    late.spec.starting_deadline_seconds = Some(30);
    cluster.of::<CronJob>().create(late).await.unwrap();
    cluster.of::<CronJob>().create(cron("tick", "* * * * *")).await.unwrap();
    cluster.kill(Component::Controllers).await;
    cluster.pass(3 * 3600 + 600).await;
    cluster.revive(Component::Controllers).await.unwrap();
    cluster.pass(30).await;
    assert_eq!(names::<Job>(&cluster, "default").await, ["tick-30000190"]);
    let all = events(&cluster).await;
    assert!(
        all.iter().any(|e| e.starts_with("CronJob/tick TooManyMissedTimes: too many missed start times."))
    );
    cluster.pass(3600).await;
    assert!(names::<Job>(&cluster, "default").await.contains(&"late-30000240".to_owned()));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_somebody_made_of_it_is_followed() {
    let (cluster, _nodes) = cluster(1).await;
    let made = cluster.of::<CronJob>().create(cron("yearly", "@yearly")).await.unwrap();
    let mut job = Job { spec: made.spec.job_template.spec.clone(), ..Job::default() };
    job.metadata.name = Some("by-hand".to_owned());
    job.metadata.namespace = Some("default".to_owned());
    job.metadata.owner_references = Some(vec![krate_api::meta::OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "CronJob".to_owned(),
        name: "yearly".to_owned(),
        uid: made.metadata.uid.clone().unwrap(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    cluster.stage.script(|_| Play::exits(Duration::from_secs(5), 0));
    cluster.of::<Job>().create(job).await.unwrap();
    let done = |c: Option<&CronJob>| {
        c.and_then(|c| c.status.clone())
            .is_some_and(|s| s.last_successful_time.is_some() && s.active.is_none())
    };
    cluster.until("default", "yearly", done).await;
    let text =
        "CronJob/yearly UnexpectedJob: Saw a job that the controller did not create or forgot: by-hand";
    assert!(told(&cluster, text).await);
    cluster.stop().await;
}
