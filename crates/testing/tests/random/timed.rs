//! CronJobs in random scenarios; the calendar's jumps are chance's. At the end all are suspended, and must rest.

use crate::World;
use crate::end::{Scene, find};
use crate::user::{User, delete, lively, pick_mut, split};
use krate_api::types::batch::v1::{CronJob, Job};
use krate_api::{Kind, Status};
use krate_client::{Informer, PatchKind};
use krate_testing::{ControlPlane, Watchdog};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAMES: u64 = 2;
/// On jobs of which there is never more than one.
const ALONE: &str = "alone";

pub async fn step(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    match world.rng.below(5) {
        0..=2 => create(user, world).await,
        3 => {
            let Some((key, suspended)) = pick_mut(world, &mut user.timed) else { return Ok(None) };
            suspend(world, &key, !*suspended).await?;
            *suspended = !*suspended;
            Ok(Some(format!("cron job {key} is suspended: {suspended}")))
        }
        _ => {
            let Some((key, _)) = pick_mut(world, &mut user.timed) else { return Ok(None) };
            delete::<CronJob>(world, &key).await?;
            user.timed.remove(&key);
            Ok(Some(format!("delete cron job {key}")))
        }
    }
}

async fn create(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    let name = format!("tick-{}", world.rng.below(NAMES));
    let policy = ["Allow", "Forbid", "Replace"][usize::try_from(world.rng.below(3)).unwrap_or(0)];
    let mut object = CronJob::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "schedule": "* * * * *", "concurrencyPolicy": policy,
            "successfulJobsHistoryLimit": world.rng.below(3), "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"annotations": {}}, "spec": {"backoffLimit": 3}},
        },
    }))
    .unwrap();
    let jobs = &mut object.spec.job_template;
    if policy == "Forbid" {
        let notes = jobs.metadata.get_or_insert_default().annotations.get_or_insert_default();
        notes.insert(ALONE.to_owned(), "yes".to_owned());
    }
    let template = &mut jobs.spec.get_or_insert_default().template;
    *template = lively(world, &name);
    let notes = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    notes.insert("exit".to_owned(), (1 + world.rng.below(80)).to_string());
    template.spec.get_or_insert_default().restart_policy = Some("Never".to_owned());
    world.cluster.of::<CronJob>().create(object).await?;
    user.timed.insert(format!("default/{name}"), false);
    Ok(Some(format!("create cron job {name}, {policy}")))
}

async fn suspend(world: &World, key: &str, suspend: bool) -> Result<(), Status> {
    let (namespace, name) = split(key);
    let patch = json!({"spec": {"suspend": suspend}}).to_string();
    world.cluster.of::<CronJob>().patch(namespace, name, PatchKind::Merge, patch).await.map(drop)
}

/// Nothing is started any more.
pub async fn finish(user: &mut User, world: &World) {
    for (key, suspended) in &mut user.timed {
        suspend(world, key, true).await.unwrap();
        *suspended = true;
    }
}

pub async fn facts(cluster: &ControlPlane) -> Vec<(&'static str, Watchdog)> {
    vec![("concurrency", cluster.always(one_at_a_time).await)]
}

pub fn is_timed(job: &Job) -> bool {
    job.metadata.owner_references.iter().flatten().any(|o| o.kind == "CronJob")
}

fn over(job: &Job) -> Option<bool> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let of = |name: &str| conditions.iter().any(|c| c.type_ == name && c.status == "True");
    if of("Complete") { Some(true) } else { of("Failed").then_some(false) }
}

fn one_at_a_time(jobs: &Informer<Job>) -> Result<(), String> {
    let mut busy: BTreeMap<String, String> = BTreeMap::new();
    for job in jobs.list() {
        let alone = job.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(ALONE));
        if !alone || over(&job).is_some() || job.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = job.metadata.name.clone().unwrap_or_default();
        for owner in job.metadata.owner_references.iter().flatten() {
            if let Some(other) = busy.insert(owner.uid.clone(), name.clone()) {
                return Err(format!("{name} and {other} run at once"));
            }
        }
    }
    Ok(())
}

pub fn end(scene: &Scene, name: &str) -> Result<(), String> {
    let cron = find(&scene.timed, name)?;
    let active = cron.status.as_ref().and_then(|s| s.active.as_ref()).map_or(0, Vec::len);
    let uid = cron.metadata.uid.clone().unwrap_or_default();
    let mine = |j: &&Arc<Job>| j.metadata.owner_references.iter().flatten().any(|o| o.uid == uid);
    let ends: Vec<_> = scene.jobs.iter().filter(mine).map(|j| over(j)).collect();
    let count = |wanted: Option<bool>| ends.iter().filter(|end| **end == wanted).count();
    let (busy, good, bad) = (count(None), count(Some(true)), count(Some(false)));
    let limit = |limit: Option<i32>, usual| usize::try_from(limit.unwrap_or(usual)).unwrap_or(0);
    let most =
        (limit(cron.spec.successful_jobs_history_limit, 3), limit(cron.spec.failed_jobs_history_limit, 1));
    if active != 0 || busy != 0 || good > most.0 || bad > most.1 {
        return Err(format!("{active} active, {busy} unfinished, kept {:?} of {most:?}", (good, bad)));
    }
    Ok(())
}
