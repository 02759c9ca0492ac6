//! Jobs on a whole control plane with hollow nodes, in virtual time.

mod common;

use common::{cluster, events, names, template};
use krate_api::meta::{DeleteOptions, LabelSelector};
use krate_api::types::batch::v1::{
    Job, JobSpec, JobStatus, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};
use krate_api::types::core::v1::Pod;
use krate_client::{Informer, PatchKind};
use krate_testing::{Component, ControlPlane, Odds, Play};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const INDEX: &str = "batch.kubernetes.io/job-completion-index";

fn job(name: &str, change: impl FnOnce(&mut JobSpec)) -> Job {
    let mut job = Job::default();
    job.metadata.name = Some(name.to_owned());
    job.metadata.namespace = Some("default".to_owned());
    let spec = job.spec.get_or_insert_default();
    spec.template = template(name);
    spec.template.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());
    change(spec);
    job
}

fn indexed(name: &str, completions: i32, change: impl FnOnce(&mut JobSpec)) -> Job {
    job(name, |spec| {
        spec.completion_mode = Some("Indexed".to_owned());
        spec.completions = Some(completions);
        spec.parallelism = Some(completions);
        change(spec);
    })
}

fn exits(code: i32) -> Play {
    Play::exits(Duration::from_secs(2), code)
}

fn index_of(pod: &Pod) -> u32 {
    pod.metadata.annotations.as_ref().and_then(|a| a.get(INDEX)).map_or(0, |n| n.parse().unwrap())
}

fn has(job: &Job, kind: &str, reason: &str) -> bool {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == kind && c.status == "True" && c.reason.as_deref() == Some(reason))
}

/// Waits until the Job has ended so; every Job that ends has said before what it is about to do.
async fn ended(cluster: &ControlPlane, name: &str, kind: &str, reason: &str) -> JobStatus {
    let job = cluster.until("default", name, |j: Option<&Job>| j.is_some_and(|j| has(j, kind, reason))).await;
    let job = job.unwrap();
    let interim = if kind == "Failed" { "FailureTarget" } else { "SuccessCriteriaMet" };
    assert!(has(&job, interim, reason), "{:#?}", job.status);
    let status = job.status.clone().unwrap();
    assert_eq!((status.active, status.terminating), (None, Some(0)));
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    assert!(uncounted.succeeded.is_none() && uncounted.failed.is_none());
    cluster
        .until_all(|pods: &Informer<Pod>| {
            pods.list().iter().all(|p| p.metadata.finalizers.as_ref().is_none_or(Vec::is_empty))
        })
        .await;
    status
}

async fn patch(cluster: &ControlPlane, name: &str, patch: &str) {
    cluster.of::<Job>().patch("default", name, PatchKind::Merge, patch.to_owned()).await.unwrap();
}

async fn pods(cluster: &ControlPlane, count: usize) {
    cluster
        .until_all(|pods: &Informer<Pod>| {
            let running = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            let pods = pods.list();
            common::living(&pods).into_iter().filter(|p| running(p)).count() == count
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn it_runs_to_its_completions_never_wider_than_allowed() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.stage.script(|_| exits(0));
    let wide = cluster
        .always(|pods: &Informer<Pod>| {
            let all = pods.list();
            let ended = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
            let running = all.iter().filter(|p| !ended(p)).count();
            if running > 3 { Err(format!("{running} at once")) } else { Ok(()) }
        })
        .await;
    let many = job("many", |spec| (spec.completions, spec.parallelism) = (Some(10), Some(3)));
    cluster.of::<Job>().create(many).await.unwrap();
    let status = ended(&cluster, "many", "Complete", "CompletionsReached").await;
    assert_eq!((status.succeeded, status.failed, status.ready), (Some(10), None, Some(0)));
    assert!(status.completion_time.is_some() && status.start_time.is_some());
    wide.check();
    assert!(events(&cluster).await.iter().any(|e| e == "Job/many Completed: Job completed"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_pod_is_counted_once_however_often_the_controllers_die() {
    let (cluster, _nodes) = cluster(2).await;
    // Every third pod fails.
    let seen = Arc::new(Mutex::new(BTreeMap::<String, i32>::new()));
    let plays = seen.clone();
    cluster.stage.script(move |pod| {
        let mut seen = plays.lock().unwrap();
        let next = seen.len();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        exits(*seen.entry(uid).or_insert_with(|| i32::from(next.is_multiple_of(3))))
    });
    let grows = Arc::new(Mutex::new((0, 0)));
    let counters = cluster
        .always(move |jobs: &Informer<Job>| {
            let Some(status) = jobs.get("default/sum").and_then(|j| j.status.clone()) else { return Ok(()) };
            let now = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
            let mut last = grows.lock().unwrap();
            let before = std::mem::replace(&mut *last, now);
            if now.0 < before.0 || now.1 < before.1 {
                Err(format!("{before:?} became {now:?}"))
            } else {
                Ok(())
            }
        })
        .await;
    let many = job("sum", |spec| {
        (spec.completions, spec.parallelism, spec.backoff_limit) = (Some(20), Some(5), Some(1000));
    });
    cluster.of::<Job>().create(many).await.unwrap();
    for pause in [1, 2, 3, 5, 8, 13, 21, 34, 40, 55] {
        cluster.pass(pause).await;
        cluster.restart(Component::Controllers).await.unwrap();
    }
    let status = ended(&cluster, "sum", "Complete", "CompletionsReached").await;
    counters.check();
    let codes = seen.lock().unwrap().clone();
    let ended = cluster.of::<Pod>().list("default", Default::default()).await.unwrap();
    let phase = |wanted: &str| {
        let is = |p: &&Arc<Pod>| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(wanted);
        i32::try_from(ended.items.iter().filter(is).count()).unwrap()
    };
    assert_eq!((status.succeeded, status.failed), (Some(20), Some(phase("Failed"))), "{codes:?}");
    assert_eq!(phase("Succeeded"), 20);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_comes_through_a_bad_day() {
    for seed in [3, 4] {
        let cluster = ControlPlane::in_virtual_time(seed).await.unwrap();
        let _nodes =
            [cluster.hollow_node("node-1").await.unwrap(), cluster.hollow_node("node-2").await.unwrap()];
        cluster.stage.script(|pod| exits(i32::from(pod.metadata.name.as_ref().unwrap().ends_with('x'))));
        cluster.faults.everywhere(Odds::rough());
        let rough = indexed("rough", 12, |spec| {
            (spec.parallelism, spec.backoff_limit_per_index) = (Some(4), Some(5));
        });
        cluster.of::<Job>().create(rough).await.unwrap();
        let status = ended(&cluster, "rough", "Complete", "CompletionsReached").await;
        assert_eq!((status.completed_indexes.as_deref(), status.succeeded), (Some("0-11"), Some(12)));
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_spaced_ever_wider_until_the_limit() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| exits(1));
    let start = cluster.clock.now();
    cluster.of::<Job>().create(job("bad", |spec| spec.backoff_limit = Some(3))).await.unwrap();
    let status = ended(&cluster, "bad", "Failed", "BackoffLimitExceeded").await;
    assert_eq!((status.failed, status.succeeded), (Some(4), None));
    let took = cluster.clock.now().duration_since(start).as_secs();
    assert!((70..=110).contains(&took), "10 + 20 + 40 seconds of pauses, not {took}");
    let told = events(&cluster).await;
    let text = "Job/bad BackoffLimitExceeded: Job has reached the specified backoff limit";
    assert!(told.iter().any(|e| e == text), "{told:#?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restarts_in_place_count_towards_the_limit() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| exits(1));
    let bad = job("bad", |spec| {
        spec.backoff_limit = Some(2);
        spec.template.spec.as_mut().unwrap().restart_policy = Some("OnFailure".to_owned());
    });
    cluster.of::<Job>().create(bad).await.unwrap();
    ended(&cluster, "bad", "Failed", "BackoffLimitExceeded").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_index_has_its_own_limit() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.stage.script(|pod| exits(i32::try_from(index_of(pod) % 2).unwrap()));
    cluster
        .of::<Job>()
        .create(indexed("odd", 4, |spec| spec.backoff_limit_per_index = Some(1)))
        .await
        .unwrap();
    let status = ended(&cluster, "odd", "Failed", "FailedIndexes").await;
    assert_eq!(status.completed_indexes.as_deref(), Some("0,2"));
    assert_eq!(status.failed_indexes.as_deref(), Some("1,3"));
    assert_eq!((status.succeeded, status.failed), (Some(2), Some(4)));
    let pods = cluster.of::<Pod>().list("default", Default::default()).await.unwrap();
    let counts = |p: &Arc<Pod>| {
        let annotations = p.metadata.annotations.clone().unwrap_or_default();
        (index_of(p), annotations["batch.kubernetes.io/job-index-failure-count"].clone())
    };
    let mut counts: Vec<_> = pods.items.iter().map(counts).collect();
    counts.sort();
    let wanted = [(0, "0"), (1, "0"), (1, "1"), (2, "0"), (3, "0"), (3, "1")];
    assert_eq!(counts, wanted.map(|(n, count)| (n, count.to_owned())));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn too_many_failed_indexes_end_it_at_once() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.stage.script(|pod| match index_of(pod) {
        0 | 1 => exits(1),
        _ => Play::default(),
    });
    let most = indexed("most", 5, |spec| {
        (spec.backoff_limit_per_index, spec.max_failed_indexes) = (Some(0), Some(1));
    });
    cluster.of::<Job>().create(most).await.unwrap();
    let status = ended(&cluster, "most", "Failed", "MaxFailedIndexesExceeded").await;
    assert_eq!(status.failed_indexes.as_deref(), Some("0,1"));
    cluster.stop().await;
}

fn on_code(action: &str, code: i32) -> PodFailurePolicyRule {
    PodFailurePolicyRule {
        action: action.to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: None,
            operator: "In".to_owned(),
            values: vec![code],
        }),
        on_pod_conditions: None,
    }
}

#[tokio::test(start_paused = true)]
async fn an_exit_code_fails_the_job_early() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|pod| if index_of(pod) == 1 { exits(42) } else { Play::default() });
    let early = indexed("early", 3, |spec| {
        spec.pod_failure_policy = Some(PodFailurePolicy { rules: vec![on_code("FailJob", 42)] });
    });
    cluster.of::<Job>().create(early).await.unwrap();
    ended(&cluster, "early", "Failed", "PodFailurePolicy").await;
    let job = cluster.of::<Job>().get("default", "early").await.unwrap();
    let failed = job.status.as_ref().unwrap().conditions.iter().flatten().find(|c| c.type_ == "Failed");
    let message = failed.unwrap().message.clone().unwrap();
    assert!(message.starts_with("Container main for pod default/early-1-"), "{message}");
    assert!(message.ends_with(" failed with exit code 42 matching FailJob rule at index 0"), "{message}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_exit_code_fails_its_index_without_another_try() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|pod| exits(if index_of(pod) == 0 { 3 } else { 0 }));
    let one = indexed("one", 2, |spec| {
        spec.backoff_limit_per_index = Some(5);
        spec.pod_failure_policy = Some(PodFailurePolicy { rules: vec![on_code("FailIndex", 3)] });
    });
    cluster.of::<Job>().create(one).await.unwrap();
    let status = ended(&cluster, "one", "Failed", "FailedIndexes").await;
    assert_eq!((status.failed_indexes.as_deref(), status.failed), (Some("0"), Some(1)));
    assert_eq!(names::<Pod>(&cluster, "default").await.len(), 2);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disruption_is_no_failure_when_the_policy_says_so() {
    let (cluster, _nodes) = cluster(2).await;
    let ignore = indexed("calm", 2, |spec| {
        spec.backoff_limit = Some(0);
        let condition =
            PodFailurePolicyOnPodConditionsPattern { type_: "DisruptionTarget".to_owned(), status: None };
        spec.pod_failure_policy = Some(PodFailurePolicy {
            rules: vec![PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![condition]),
            }],
        });
    });
    cluster.of::<Job>().create(ignore).await.unwrap();
    pods(&cluster, 2).await;
    for pod in names::<Pod>(&cluster, "default").await {
        cluster.of::<Pod>().evict("default", &pod, None).await.unwrap();
    }
    cluster
        .until_all(|all: &Informer<Pod>| {
            let all = all.list();
            let living = common::living(&all);
            living.len() == 2 && living.iter().all(|p| common::is_ready(p))
        })
        .await;
    cluster.stage.script(|_| exits(0));
    let status = ended(&cluster, "calm", "Complete", "CompletionsReached").await;
    assert_eq!((status.succeeded, status.failed), (Some(2), None));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn some_indexes_can_be_enough() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|pod| if index_of(pod) < 2 { exits(0) } else { Play::default() });
    for (name, indexes, count) in [("named", Some("0-1"), None), ("number", None, Some(2))] {
        let enough = indexed(name, 5, |spec| {
            spec.success_policy = Some(SuccessPolicy {
                rules: vec![SuccessPolicyRule {
                    succeeded_indexes: indexes.map(str::to_owned),
                    succeeded_count: count,
                }],
            });
        });
        cluster.of::<Job>().create(enough).await.unwrap();
        let status = ended(&cluster, name, "Complete", "SuccessPolicy").await;
        assert_eq!((status.completed_indexes.as_deref(), status.succeeded), (Some("0,1"), Some(2)));
        assert_eq!(status.failed, None, "those that were still running have not failed");
        let why = status.conditions.unwrap()[0].message.clone();
        assert_eq!(why.as_deref(), Some("Matched rules at index 0"));
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn suspending_takes_its_pods_away_and_resuming_begins_its_time_anew() {
    let (cluster, _nodes) = cluster(1).await;
    let slow = job("slow", |spec| {
        (spec.completions, spec.parallelism) = (Some(2), Some(2));
        spec.active_deadline_seconds = Some(100);
    });
    cluster.of::<Job>().create(slow).await.unwrap();
    pods(&cluster, 2).await;
    cluster.pass(60).await;
    patch(&cluster, "slow", r#"{"spec":{"suspend":true}}"#).await;
    cluster.until_all(|pods: &Informer<Pod>| pods.is_empty()).await;
    let quiet = |j: Option<&Job>| j.is_some_and(|j| has(j, "Suspended", "JobSuspended"));
    let job = cluster.until("default", "slow", quiet).await.unwrap();
    assert_eq!(job.status.as_ref().unwrap().failed, None);
    cluster.pass(600).await;
    // Where its pods go may be changed while none of them runs.
    patch(
        &cluster,
        "slow",
        r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node-1"}}}}}"#,
    )
    .await;
    cluster.stage.script(|_| exits(0));
    patch(&cluster, "slow", r#"{"spec":{"suspend":false}}"#).await;
    let status = ended(&cluster, "slow", "Complete", "CompletionsReached").await;
    assert_eq!((status.succeeded, status.failed), (Some(2), None));
    let told = events(&cluster).await;
    for event in ["Suspended: Job suspended", "Resumed: Job resumed"] {
        assert!(told.iter().any(|e| e == &format!("Job/slow {event}")), "{told:#?}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn its_deadline_counts_what_it_takes_away_as_failed() {
    let (cluster, _nodes) = cluster(1).await;
    let stop = Duration::from_secs(7);
    cluster.stage.script(move |_| Play { stop, ..Play::default() });
    let late = job("late", |spec| {
        (spec.completions, spec.parallelism) = (Some(3), Some(3));
        spec.active_deadline_seconds = Some(30);
    });
    cluster.of::<Job>().create(late).await.unwrap();
    let status = ended(&cluster, "late", "Failed", "DeadlineExceeded").await;
    assert_eq!(status.failed, Some(3));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_on_its_way_out_is_replaced_at_once_or_only_when_it_has_ended() {
    let (cluster, _nodes) = cluster(1).await;
    let stop = Duration::from_secs(20);
    cluster.stage.script(move |_| Play { stop, ..Play::default() });
    for (name, policy, at_once) in [("soon", "TerminatingOrFailed", true), ("later", "Failed", false)] {
        let one = job(name, |spec| spec.pod_replacement_policy = Some(policy.to_owned()));
        cluster.of::<Job>().create(one).await.unwrap();
        pods(&cluster, 1).await;
        let pod = names::<Pod>(&cluster, "default").await[0].clone();
        cluster.of::<Pod>().delete("default", &pod, DeleteOptions::default()).await.unwrap();
        let leaves = |j: Option<&Job>| {
            let status = j.and_then(|j| j.status.clone()).unwrap_or_default();
            status.terminating == Some(1)
        };
        cluster.until("default", name, leaves).await;
        cluster.pass(15).await;
        let both = names::<Pod>(&cluster, "default").await.len() == 2;
        assert_eq!(both, at_once, "{policy}");
        if at_once {
            pods(&cluster, 1).await;
        } else {
            // It has ended well when it was asked to, so there is nothing to replace.
            ended(&cluster, name, "Complete", "CompletionsReached").await;
        }
        cluster.of::<Job>().delete("default", name, background()).await.unwrap();
        cluster.until_all(|pods: &Informer<Pod>| pods.is_empty()).await;
    }
    cluster.stop().await;
}

fn background() -> DeleteOptions {
    DeleteOptions { propagation_policy: Some("Background".to_owned()), ..DeleteOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_grows_and_shrinks() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<Job>().create(indexed("wave", 2, |_| {})).await.unwrap();
    pods(&cluster, 2).await;
    patch(&cluster, "wave", r#"{"spec":{"completions":5,"parallelism":5}}"#).await;
    pods(&cluster, 5).await;
    patch(&cluster, "wave", r#"{"spec":{"completions":3,"parallelism":3}}"#).await;
    pods(&cluster, 3).await;
    let all = cluster.of::<Pod>().list("default", Default::default()).await.unwrap();
    let left: BTreeSet<u32> =
        all.items.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).map(|p| index_of(p)).collect();
    assert_eq!(left, [0, 1, 2].into());
    let hosts = all.items.iter().map(|p| p.spec.as_ref().unwrap().hostname.clone().unwrap());
    assert!(hosts.into_iter().all(|h| h.starts_with("wave-")));
    cluster.stage.script(|_| exits(0));
    let status = ended(&cluster, "wave", "Complete", "CompletionsReached").await;
    assert_eq!((status.completed_indexes.as_deref(), status.failed), (Some("0-2"), None));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_are_adopted_and_strangers_released() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Job>().create(job("pi", |spec| spec.parallelism = Some(2))).await.unwrap();
    pods(&cluster, 2).await;
    let pod = names::<Pod>(&cluster, "default").await[0].clone();
    let free = r#"{"metadata":{"ownerReferences":null}}"#.to_owned();
    cluster.of::<Pod>().patch("default", &pod, PatchKind::Merge, free).await.unwrap();
    let owned = |p: Option<&Pod>| {
        p.is_some_and(|p| p.metadata.owner_references.as_ref().is_some_and(|o| !o.is_empty()))
    };
    cluster.until("default", &pod, owned).await;
    let strange = r#"{"metadata":{"labels":null}}"#.to_owned();
    cluster.of::<Pod>().patch("default", &pod, PatchKind::Merge, strange).await.unwrap();
    let free = |p: Option<&Pod>| {
        p.is_some_and(|p| {
            p.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
                && p.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
        })
    };
    cluster.until("default", &pod, free).await;
    pods(&cluster, 3).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_manager_is_left_alone() {
    let (cluster, _nodes) = cluster(1).await;
    let other = job("other", |spec| spec.managed_by = Some("example.com/queue".to_owned()));
    cluster.of::<Job>().create(other).await.unwrap();
    cluster.pass(600).await;
    assert!(names::<Pod>(&cluster, "default").await.is_empty());
    let job = cluster.of::<Job>().get("default", "other").await.unwrap();
    assert_eq!(job.status.clone().unwrap_or_default(), JobStatus::default());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_goes_when_its_time_is_over() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| exits(0));
    cluster
        .of::<Job>()
        .create(job("brief", |spec| spec.ttl_seconds_after_finished = Some(60)))
        .await
        .unwrap();
    ended(&cluster, "brief", "Complete", "CompletionsReached").await;
    cluster.pass(50).await;
    assert!(cluster.of::<Job>().get_opt("default", "brief").await.unwrap().is_some());
    cluster.until("default", "brief", |j: Option<&Job>| j.is_none()).await;
    cluster.until_all(|pods: &Informer<Pod>| pods.is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_selector_of_ones_own_must_be_asked_for() {
    let (cluster, _nodes) = cluster(1).await;
    let own = job("own", |spec| {
        spec.selector = Some(LabelSelector {
            match_labels: Some([("app".to_owned(), "own".to_owned())].into()),
            ..LabelSelector::default()
        });
    });
    let mut manual = own.clone();
    manual.spec.as_mut().unwrap().manual_selector = Some(true);
    let refused = cluster.of::<Job>().create(own).await.unwrap_err();
    assert!(refused.message().contains("`selector` not auto-generated"), "{refused}");
    manual.metadata.name = Some("manual".to_owned());
    cluster.stage.script(|_| exits(0));
    cluster.of::<Job>().create(manual).await.unwrap();
    ended(&cluster, "manual", "Complete", "CompletionsReached").await;
    cluster.stop().await;
}
