//! Jobs on the in-memory API.

use crate::world::{World, named, selector, template};
use krate_api::types::batch::v1::{Job, JobStatus};
use krate_api::types::core::v1::Pod;
use std::sync::Arc;

fn world() -> World {
    World::new(&[super::start, super::ttl::start, crate::garbage::start])
}

fn job(name: &str, completions: Option<i32>, parallelism: i32) -> Job {
    let mut job = Job::default();
    named(&mut job, name);
    let spec = job.spec.get_or_insert_default();
    spec.completions = completions;
    spec.parallelism = Some(parallelism);
    spec.backoff_limit = Some(6);
    spec.selector = Some(selector(name));
    spec.template = template(name, "busybox");
    spec.template.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());
    job
}

fn status(w: &World, name: &str) -> JobStatus {
    w.fake.get::<Job>("default", name).unwrap().status.clone().unwrap_or_default()
}

fn conditions(w: &World, name: &str) -> Vec<String> {
    let all = status(w, name).conditions.unwrap_or_default();
    all.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason.as_deref().unwrap_or(""))).collect()
}

fn running(w: &World) -> Vec<Arc<Pod>> {
    let phase = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
    w.fake
        .list::<Pod>()
        .into_iter()
        .filter(|p| {
            p.metadata.deletion_timestamp.is_none() && !["Succeeded", "Failed"].contains(&phase(p).as_str())
        })
        .collect()
}

/// Ends the pods that run, in this phase.
async fn end_all(w: &World, phase: &str) {
    for pod in running(w) {
        let mut pod = (*pod).clone();
        pod.spec.get_or_insert_default().node_name = Some("node-1".to_owned());
        pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        w.fake.put(&pod);
    }
    w.settle().await;
}

#[tokio::test(start_paused = true)]
async fn runs_to_its_completions_and_counts_each_pod_once() {
    let w = world();
    w.fake.put(&job("pi", Some(5), 2));
    w.settle().await;
    assert_eq!(status(&w, "pi").active, Some(2));
    for _ in 0..3 {
        assert!(running(&w).len() <= 2);
        end_all(&w, "Succeeded").await;
    }
    let s = status(&w, "pi");
    assert_eq!((s.succeeded, s.failed, s.active), (Some(5), None, None));
    assert_eq!(
        conditions(&w, "pi"),
        ["SuccessCriteriaMet=True CompletionsReached", "Complete=True CompletionsReached"]
    );
    assert!(s.completion_time.is_some() && s.start_time.is_some());
    assert_eq!(w.names::<Pod>().len(), 5);
    assert!(w.fake.list::<Pod>().iter().all(|p| p.metadata.finalizers.iter().flatten().next().is_none()));
    assert!(w.events().iter().any(|e| e == "Completed Job completed"));
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    assert_eq!(w.fake.take_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn failures_are_spaced_and_end_it_at_the_limit() {
    let w = world();
    let mut j = job("bad", Some(1), 1);
    j.spec.as_mut().unwrap().backoff_limit = Some(2);
    w.fake.put(&j);
    w.settle().await;
    end_all(&w, "Failed").await;
    assert!(running(&w).is_empty(), "it waits ten seconds");
    w.pass(6).await;
    assert_eq!(running(&w).len(), 1);
    end_all(&w, "Failed").await;
    w.pass(10).await;
    assert!(running(&w).is_empty(), "and then twenty");
    w.pass(6).await;
    end_all(&w, "Failed").await;
    assert_eq!(status(&w, "bad").failed, Some(3));
    assert_eq!(
        conditions(&w, "bad"),
        ["FailureTarget=True BackoffLimitExceeded", "Failed=True BackoffLimitExceeded"]
    );
    assert!(
        w.events().iter().any(|e| e == "BackoffLimitExceeded Job has reached the specified backoff limit")
    );
    w.pass(3600).await;
    assert_eq!(w.names::<Pod>().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn its_deadline_ends_what_runs() {
    let w = world();
    let mut j = job("slow", Some(1), 1);
    j.spec.as_mut().unwrap().active_deadline_seconds = Some(60);
    w.fake.put(&j);
    w.settle().await;
    w.run_pods();
    w.pass(50).await;
    assert_eq!(running(&w).len(), 1);
    w.pass(10).await;
    assert_eq!(conditions(&w, "slow"), ["FailureTarget=True DeadlineExceeded"], "its pod still ends");
    w.finish_deletions();
    w.settle().await;
    assert_eq!(conditions(&w, "slow").last().unwrap(), "Failed=True DeadlineExceeded");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_jobs_is_counted() {
    let w = world();
    w.fake.put(&job("pi", Some(1), 1));
    let mut other = job("theirs", Some(1), 1);
    other.spec.as_mut().unwrap().managed_by = Some("example.com/other".to_owned());
    w.fake.put(&other);
    w.settle().await;
    end_all(&w, "Succeeded").await;
    let told = w.env.metrics.render();
    for line in [
        r#"job_controller_jobs_finished_total{completion_mode="NonIndexed",result="succeeded",reason="CompletionsReached"} 1"#,
        r#"job_controller_job_pods_finished_total{completion_mode="NonIndexed",result="succeeded"} 1"#,
        r#"job_controller_job_pods_creation_total{reason="new",status="succeeded"} 1"#,
        r#"job_controller_terminated_pods_tracking_finalizer_total{event="add"} 1"#,
        r#"job_controller_terminated_pods_tracking_finalizer_total{event="delete"} 1"#,
        r#"job_controller_jobs_by_external_controller_total{controller_name="example.com/other"} 1"#,
        r#"job_controller_job_syncs_total{completion_mode="NonIndexed",result="success",action="pods_created"} 1"#,
    ] {
        assert!(told.contains(line), "{line} in\n{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_has_no_pods_until_it_is_resumed() {
    let w = world();
    w.fake.put(&job("pi", Some(1), 1));
    w.settle().await;
    let suspend = |to: bool| {
        move |j: &mut Job| {
            j.spec.as_mut().unwrap().suspend = Some(to);
            true
        }
    };
    w.api::<Job>().modify("default", "pi", suspend(true)).await.unwrap();
    w.settle().await;
    assert!(running(&w).is_empty());
    assert_eq!(conditions(&w, "pi"), ["Suspended=True JobSuspended"]);
    assert_eq!(status(&w, "pi").start_time, None, "its time does not run");
    let before = w.env.clock.now_seconds();
    assert_eq!(status(&w, "pi").failed, None, "pods that are taken away have not failed");
    w.api::<Job>().modify("default", "pi", suspend(false)).await.unwrap();
    w.pass(30).await;
    assert_eq!(conditions(&w, "pi"), ["Suspended=False JobResumed"]);
    assert!(status(&w, "pi").start_time.is_some_and(|t| t.0 >= before), "its time begins anew");
    assert_eq!(running(&w).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn indexed_jobs_run_each_index() {
    let w = world();
    let mut j = job("shard", Some(3), 3);
    j.spec.as_mut().unwrap().completion_mode = Some("Indexed".to_owned());
    w.fake.put(&j);
    w.settle().await;
    let hosts: Vec<_> =
        running(&w).iter().map(|p| p.spec.as_ref().unwrap().hostname.clone().unwrap()).collect();
    assert_eq!(hosts, ["shard-0", "shard-1", "shard-2"]);
    let mut second = (*running(&w)[1]).clone();
    second.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
    w.fake.put(&second);
    w.settle().await;
    assert_eq!(status(&w, "shard").completed_indexes.as_deref(), Some("1"));
    end_all(&w, "Succeeded").await;
    let s = status(&w, "shard");
    assert_eq!((s.completed_indexes.as_deref(), s.succeeded), (Some("0-2"), Some(3)));
    assert_eq!(conditions(&w, "shard").last().unwrap(), "Complete=True CompletionsReached");
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_goes_with_its_pods_when_its_time_is_over() {
    let w = world();
    let mut j = job("pi", Some(1), 1);
    j.spec.as_mut().unwrap().ttl_seconds_after_finished = Some(100);
    w.fake.put(&j);
    w.settle().await;
    end_all(&w, "Succeeded").await;
    w.pass(80).await;
    assert_eq!(w.names::<Job>(), ["pi"]);
    w.pass(30).await;
    assert!(w.names::<Job>().is_empty());
    assert!(w.names::<Pod>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_job_that_is_gone_are_let_go() {
    let w = world();
    w.fake.put(&job("pi", Some(1), 1));
    w.settle().await;
    assert_eq!(w.names::<Pod>().len(), 1);
    w.api::<Job>().delete("default", "pi", Default::default()).await.unwrap();
    w.settle().await;
    assert!(w.names::<Pod>().is_empty());
}
