//! What a whole control plane does around the workloads: nodes that get lost, garbage, namespaces,
//! endpoints, scheduling, jobs; with hollow nodes, in virtual time.

mod common;

use common::{cluster, deployment, events, is_ready, living, names, pod, pod_condition, spec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use krate_api::types::batch::v1::Job;
use krate_api::types::core::v1::{
    ConfigMap, Namespace, Node, Pod, Service, ServiceAccount, ServicePort, Taint, Toleration,
};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_client::{Informer, PatchKind};
use krate_testing::{ControlPlane, Play, Shape};
use std::time::Duration;

async fn ready_pods(cluster: &ControlPlane, count: usize) {
    let all = |pods: &Informer<Pod>| {
        let pods = pods.list();
        pods.len() == count && living(&pods).iter().filter(|p| is_ready(p)).count() == count
    };
    cluster.until_all(all).await;
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_lost_node_come_up_on_the_other() {
    let (cluster, nodes) = cluster(2).await;
    cluster.of::<Deployment>().create(deployment("web", 4)).await.unwrap();
    ready_pods(&cluster, 4).await;
    let pods = cluster.of::<Pod>().list("default", Default::default()).await.unwrap().items;
    let lost: Vec<String> =
        pods.iter().filter(|p| node_of(p) == "node-1").filter_map(|p| p.metadata.name.clone()).collect();
    assert_eq!(lost.len(), 2, "the scheduler spreads them");
    nodes[0].vanish().await;
    let left = tokio::time::Instant::now();
    let unknown = |node: Option<&Node>| {
        let status = node.and_then(|n| n.status.clone()).unwrap_or_default();
        status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "Unknown")
    };
    cluster.until("", "node-1", unknown).await;
    let silent = left.elapsed();
    assert!(silent >= Duration::from_secs(40) && silent <= Duration::from_secs(60), "{silent:?}");
    let tainted = |node: Option<&Node>| {
        let taints = node.and_then(|n| n.spec.as_ref()?.taints.clone()).unwrap_or_default();
        let has = |effect: &str| {
            taints.iter().any(|t| t.key == "node.kubernetes.io/unreachable" && t.effect == effect)
        };
        has("NoSchedule") && has("NoExecute")
    };
    cluster.until("", "node-1", tainted).await;
    let unready = |name: &String| {
        let key = format!("default/{name}");
        move |pods: &Informer<Pod>| pods.get(&key).is_some_and(|p| !is_ready(&p))
    };
    for name in &lost {
        cluster.until_all(unready(name)).await;
    }
    let replaced = |pods: &Informer<Pod>| {
        let pods = pods.list();
        living(&pods).iter().filter(|p| node_of(p) == "node-2" && is_ready(p)).count() == 4
    };
    cluster.until_all(replaced).await;
    let waited = left.elapsed() - silent;
    assert!(waited >= Duration::from_secs(300) && waited <= Duration::from_secs(320), "{waited:?}");
    let pods = names::<Pod>(&cluster, "default").await;
    assert!(lost.iter().all(|name| pods.contains(name)), "nobody said that the lost pods have ended");
    nodes[0].come_back();
    cluster
        .until_all(|pods: &Informer<Pod>| {
            pods.len() == 4 && pods.list().iter().all(|p| node_of(p) == "node-2")
        })
        .await;
    let clean = |node: Option<&Node>| {
        node.is_some_and(|n| n.spec.as_ref().is_none_or(|s| s.taints.as_ref().is_none_or(Vec::is_empty)))
    };
    cluster.until("", "node-1", clean).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_gets_its_accounts_and_is_emptied_before_it_goes() {
    let (cluster, _nodes) = cluster(1).await;
    let mut team = Namespace::default();
    team.metadata.name = Some("team".to_owned());
    cluster.of::<Namespace>().create(team).await.unwrap();
    cluster.until("team", "default", |a: Option<&ServiceAccount>| a.is_some()).await;
    let full = |c: Option<&ConfigMap>| {
        c.is_some_and(|c| c.data.as_ref().is_some_and(|d| d["ca.crt"].starts_with("-----BEGIN CERTIFICATE")))
    };
    cluster.until("team", "kube-root-ca.crt", full).await;
    let mut web = deployment("web", 2);
    web.metadata.namespace = Some("team".to_owned());
    cluster.of::<Deployment>().create(web).await.unwrap();
    ready_pods(&cluster, 2).await;
    cluster.of::<Namespace>().delete("", "team", DeleteOptions::default()).await.unwrap();
    let late = pod("late");
    let late = Pod {
        metadata: krate_api::meta::ObjectMeta { namespace: Some("team".to_owned()), ..late.metadata },
        ..late
    };
    let refused = cluster.of::<Pod>().create(late).await.unwrap_err();
    assert!(refused.message().contains("because it is being terminated"), "{}", refused.message());
    cluster.until("", "team", |n: Option<&Namespace>| n.is_none()).await;
    assert!(names::<Pod>(&cluster, "team").await.is_empty());
    assert!(names::<ReplicaSet>(&cluster, "team").await.is_empty());
    assert!(names::<ConfigMap>(&cluster, "team").await.is_empty());
    cluster.stop().await;
}

async fn delete_web(cluster: &ControlPlane, policy: &str) {
    let options = DeleteOptions { propagation_policy: Some(policy.to_owned()), ..DeleteOptions::default() };
    cluster.of::<Deployment>().delete("default", "web", options).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn foreground_deletion_takes_the_owner_last() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| Play { stop: Duration::from_secs(7), ..Play::default() });
    cluster.of::<Deployment>().create(deployment("web", 2)).await.unwrap();
    ready_pods(&cluster, 2).await;
    let owners = cluster.informers.of::<Deployment>();
    owners.synced().await;
    delete_web(&cluster, "Foreground").await;
    cluster.pass(3).await;
    let web = cluster.of::<Deployment>().get("default", "web").await.unwrap();
    assert_eq!(web.metadata.finalizers.as_deref().unwrap(), ["foregroundDeletion"]);
    assert_eq!(names::<Pod>(&cluster, "default").await.len(), 2, "they take their time");
    cluster.until("default", "web", |d: Option<&Deployment>| d.is_none()).await;
    assert!(names::<ReplicaSet>(&cluster, "default").await.is_empty());
    assert!(names::<Pod>(&cluster, "default").await.is_empty());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn background_deletion_takes_the_owner_first() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Deployment>().create(deployment("web", 2)).await.unwrap();
    ready_pods(&cluster, 2).await;
    delete_web(&cluster, "Background").await;
    let gone = cluster.of::<Deployment>().get_opt("default", "web").await.unwrap();
    assert!(gone.is_none());
    cluster.until_all(|pods: &Informer<Pod>| pods.is_empty()).await;
    cluster.until_all(|sets: &Informer<ReplicaSet>| sets.is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoint_slices_follow_readiness() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<Deployment>().create(deployment("web", 2)).await.unwrap();
    ready_pods(&cluster, 2).await;
    let mut service = Service::default();
    service.metadata.name = Some("web".to_owned());
    service.metadata.namespace = Some("default".to_owned());
    let service_spec = service.spec.get_or_insert_default();
    service_spec.selector = Some([("app".to_owned(), "web".to_owned())].into());
    service_spec.ports =
        Some(vec![ServicePort { port: 80, target_port: Some(IntOrString::Int(8080)), ..Default::default() }]);
    cluster.of::<Service>().create(service).await.unwrap();
    let ready = |count: usize| {
        move |slices: &Informer<EndpointSlice>| {
            let slices = slices.list();
            let mine = slices.iter().filter(|s| {
                s.metadata
                    .labels
                    .as_ref()
                    .is_some_and(|l| l.get("kubernetes.io/service-name").is_some_and(|n| n == "web"))
            });
            let all = mine.flat_map(|s| s.endpoints.iter());
            all.flatten().filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true))).count()
                == count
        }
    };
    cluster.until_all(ready(2)).await;
    let first = names::<Pod>(&cluster, "default").await[0].clone();
    cluster.set_ready("default", &first, false).await.unwrap();
    cluster.until_all(ready(1)).await;
    cluster.set_ready("default", &first, true).await.unwrap();
    cluster.until_all(ready(2)).await;
    cluster.of::<Pod>().delete("default", &first, DeleteOptions::default()).await.unwrap();
    ready_pods(&cluster, 2).await;
    cluster.until_all(ready(2)).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_scheduler_places_by_rules_and_says_why_it_cannot() {
    let (cluster, _nodes) = cluster(2).await;
    let shape = Shape::default().label("disk", "ssd").with("cpu", "1");
    let _ssd = cluster.hollow_node_of("ssd", shape).await.unwrap();
    let taint = Taint { key: "only".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    let set_taint = |node: &mut Node| {
        node.spec.get_or_insert_default().taints = Some(vec![taint.clone()]);
        true
    };
    cluster.of::<Node>().modify("", "ssd", set_taint).await.unwrap();
    let mut picky = pod("picky");
    picky.spec.as_mut().unwrap().node_selector = Some([("disk".to_owned(), "ssd".to_owned())].into());
    cluster.of::<Pod>().create(picky.clone()).await.unwrap();
    let refused = |pod: Option<&Pod>| {
        pod.and_then(|p| pod_condition(p, "PodScheduled")).is_some_and(|c| c.status == "False")
    };
    let stuck = cluster.until("default", "picky", refused).await.unwrap();
    let condition = pod_condition(&stuck, "PodScheduled").unwrap();
    assert_eq!(condition.reason.as_deref(), Some("Unschedulable"));
    let message = condition.message.clone().unwrap();
    assert!(message.starts_with("0/3 nodes are available: "), "{message}");
    assert!(
        message.contains("1 node(s) had untolerated taint(s)")
            || message.contains("1 node(s) had untolerated taint {only: }"),
        "{message}"
    );
    assert!(message.contains("2 node(s) didn't match Pod's node affinity/selector"), "{message}");
    cluster.pass(5).await;
    let told = events(&cluster).await;
    assert!(told.contains(&format!("Pod/picky FailedScheduling: {message}")), "{told:#?}");
    // A pod that tolerates the taint and asks for more than there is.
    let mut big = picky.clone();
    big.metadata.name = Some("big".to_owned());
    let big_spec = big.spec.as_mut().unwrap();
    big_spec.tolerations = Some(vec![Toleration {
        key: Some("only".to_owned()),
        operator: Some("Exists".to_owned()),
        ..Default::default()
    }]);
    let requests = [("cpu".to_owned(), Quantity("2".to_owned()))].into();
    big_spec.containers[0].resources.get_or_insert_default().requests = Some(requests);
    cluster.of::<Pod>().create(big).await.unwrap();
    let stuck = cluster.until("default", "big", refused).await.unwrap();
    let message = pod_condition(&stuck, "PodScheduled").unwrap().message.clone().unwrap();
    assert!(message.contains("1 Insufficient cpu"), "{message}");
    // The taint goes: the first pod is placed without anybody touching it.
    let clear = |node: &mut Node| {
        node.spec.get_or_insert_default().taints = None;
        true
    };
    cluster.of::<Node>().modify("", "ssd", clear).await.unwrap();
    let runs = cluster.until("default", "picky", |p: Option<&Pod>| p.is_some_and(is_ready)).await.unwrap();
    assert_eq!(node_of(&runs), "ssd");
    cluster.stop().await;
}

fn job(name: &str, backoff: i32) -> Job {
    let mut job = Job::default();
    job.metadata.name = Some(name.to_owned());
    job.metadata.namespace = Some("default".to_owned());
    let job_spec = job.spec.get_or_insert_default();
    job_spec.backoff_limit = Some(backoff);
    job_spec.template.spec = Some(spec("work:1"));
    job_spec.template.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());
    job
}

fn ended(kind: &'static str) -> impl Fn(Option<&Job>) -> bool {
    move |job| {
        let status = job.and_then(|j| j.status.clone()).unwrap_or_default();
        status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_to_its_end() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| Play::exits(Duration::from_secs(20), 0));
    let mut work = job("work", 6);
    work.spec.as_mut().unwrap().completions = Some(3);
    work.spec.as_mut().unwrap().parallelism = Some(2);
    cluster.of::<Job>().create(work).await.unwrap();
    let two = cluster
        .always(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let active =
                |p: &&&Pod| !matches!(p.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded"));
            let count = living(&pods).iter().filter(active).count();
            if count > 2 { Err(format!("{count} active")) } else { Ok(()) }
        })
        .await;
    let done = cluster.until("default", "work", ended("Complete")).await.unwrap();
    two.check();
    let status = done.status.clone().unwrap();
    assert_eq!((status.succeeded, status.failed.unwrap_or(0)), (Some(3), 0));
    assert!(status.completion_time.is_some());
    assert_eq!(names::<Pod>(&cluster, "default").await.len(), 3, "finished pods stay");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_too_often_is_given_up() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.stage.script(|_| Play::exits(Duration::from_secs(1), 3));
    cluster.of::<Job>().create(job("bad", 2)).await.unwrap();
    let failed = cluster.until("default", "bad", ended("Failed")).await.unwrap();
    let status = failed.status.clone().unwrap();
    assert_eq!(status.failed, Some(3), "the first and two more");
    let reason = status.conditions.iter().flatten().find(|c| c.type_ == "Failed").unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("BackoffLimitExceeded"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_exits_is_started_again_with_back_off() {
    let (cluster, _nodes) = cluster(1).await;
    cluster.of::<Pod>().create(pod("web")).await.unwrap();
    cluster.until("default", "web", |p: Option<&Pod>| p.is_some_and(is_ready)).await;
    let restarts = |p: Option<&Pod>| {
        p.and_then(|p| p.status.as_ref()?.container_statuses.as_ref()?.first().map(|c| c.restart_count))
            .unwrap_or(0)
    };
    cluster.exit("default", "web", 1).await.unwrap();
    cluster.until("default", "web", move |p: Option<&Pod>| restarts(p) == 1 && p.is_some_and(is_ready)).await;
    let before = tokio::time::Instant::now();
    cluster.exit("default", "web", 1).await.unwrap();
    let waiting = |p: Option<&Pod>| {
        let state = p.and_then(|p| p.status.as_ref()?.container_statuses.as_ref()?.first()?.state.clone());
        state.and_then(|s| s.waiting).is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff"))
    };
    cluster.until("default", "web", waiting).await;
    cluster.until("default", "web", move |p: Option<&Pod>| restarts(p) == 2 && p.is_some_and(is_ready)).await;
    assert!(before.elapsed() >= Duration::from_secs(9));
    cluster
        .of::<Pod>()
        .patch("default", "web", PatchKind::Merge, r#"{"metadata":{"labels":{"a":"b"}}}"#)
        .await
        .unwrap();
    cluster.of::<Pod>().delete("default", "web", DeleteOptions::default()).await.unwrap();
    cluster.until("default", "web", |p: Option<&Pod>| p.is_none()).await;
    cluster.stop().await;
}
