//! The whole kubelet against an API in memory and a runtime that runs nothing, in virtual time.

mod restarting;

use crate::eviction;
use crate::fake::FakeRuntime;
use crate::paths::Paths;
use crate::spec::build;
use crate::volumes::mount::Recorded;
use crate::{Config, Kubelet};
use krate_api::Kind as _;
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::meta::DeleteOptions;
use krate_api::types::core::v1::{
    ConfigMap, Container, ContainerResizePolicy, ContainerState, ContainerStatus, EmptyDirVolumeSource,
    Event, Node, Pod, PodSecurityContext, PodSpec, Probe, ResourceRequirements, Secret, Sysctl, Volume,
};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Timestamp};
use krate_client::Api;
use krate_client::testing::Fake;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

struct World {
    api: Fake,
    runtime: FakeRuntime,
    clock: Clock,
    dir: tempfile::TempDir,
    eviction: eviction::Config,
    kubelet: Option<(Shutdown, tokio::task::JoinHandle<()>)>,
}

impl World {
    fn new() -> Self {
        // What the machine of the test runs out of is not its business.
        Self::with_thresholds("")
    }

    fn with_thresholds(text: &str) -> Self {
        let thresholds = eviction::threshold::parse(text).unwrap();
        let eviction = eviction::Config { thresholds, ..Default::default() };
        let clock = Clock::starting_at(Timestamp::from_second(1_800_000_000).unwrap());
        let api = Fake::new(clock.clone(), Rng::from_seed(1));
        let runtime = FakeRuntime::new(clock.clone());
        let mut world =
            Self { api, runtime, clock, dir: tempfile::tempdir().unwrap(), eviction, kubelet: None };
        world.start();
        world
    }

    fn start(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let runtime = Arc::new(self.runtime.clone());
        let config = Config {
            node_name: "n1".into(),
            node_ips: vec!["192.0.2.1".parse().unwrap()],
            labels: Default::default(),
            max_pods: 110,
            capacity: [("cpu".to_owned(), "4".to_owned())].into(),
            reserved: Default::default(),
            eviction: self.eviction.clone(),
            image_garbage: None,
            log_limits: Default::default(),
            transport: self.api.transport(),
            runtime: runtime.clone(),
            images: runtime.clone(),
            streams: runtime,
            mounter: Arc::new(Recorded::default()),
            clock: self.clock.clone(),
            rng: Rng::from_seed(2),
            metrics: Metrics::default(),
            paths: Paths { root: path("kubelet"), pod_logs: path("logs"), container_logs: path("links") },
            volume_folder: path("volumes"),
            static_pods: Some(path("manifests")),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            cgroup_parent: "/krate/n1".into(),
            resolv_conf: path("resolv.conf"),
            hosts_file: path("hosts"),
            server: None,
        };
        let shutdown = Shutdown::new();
        let run = Kubelet::new(config).run(shutdown.clone());
        self.kubelet = Some((shutdown, tokio::spawn(async move { run.await.unwrap() })));
    }

    async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.kubelet.take() {
            shutdown.cancel();
            task.await.unwrap();
        }
    }

    fn put(&self, pod: Pod) {
        self.api.put(&build::edit(pod, |s| s.node_name = Some("n1".into())));
    }

    fn pod(&self, name: &str) -> Option<Arc<Pod>> {
        self.api.get::<Pod>("default", name)
    }

    /// Waits (in virtual time) until the pod is as wanted.
    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        for _ in 0..40_000 {
            if let Some(pod) = self.pod(name).filter(|pod| wanted(pod)) {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let status = self.pod(name).map(|pod| pod.to_value()["status"].to_string());
        panic!("{name} never was {what}; it is {}", status.unwrap_or_else(|| "gone".into()));
    }

    async fn until_gone(&self, name: &str) {
        for _ in 0..40_000 {
            if self.pod(name).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} is still there");
    }

    async fn phase(&self, name: &str, phase: &str) -> Arc<Pod> {
        self.until(name, phase, |pod| crate::spec::phase(pod) == phase).await
    }

    async fn ready(&self, name: &str) -> Arc<Pod> {
        self.until(name, "ready", |pod| condition(pod, "Ready") == "True").await
    }

    async fn delete(&self, name: &str, grace: Option<i64>) {
        let api: Api<Pod> = Api::new(self.api.transport());
        let options = DeleteOptions { grace_period_seconds: grace, ..Default::default() };
        api.delete("default", name, options).await.unwrap();
    }

    fn messages(&self) -> Vec<String> {
        let event = |e: Arc<Event>| {
            format!("{} {}", e.reason.clone().unwrap_or_default(), e.message.clone().unwrap_or_default())
        };
        self.api.list::<Event>().into_iter().map(event).collect()
    }

    async fn event(&self, text: &str) {
        for _ in 0..10_000 {
            if self.messages().iter().any(|m| m.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no event says {text:?}; there are {:#?}", self.messages());
    }
}

fn condition(pod: &Pod, type_: &str) -> String {
    let all = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    all.filter(|c| c.type_ == type_).map(|c| c.status.clone()).next().unwrap_or_default()
}

fn status(pod: &Pod, container: &str) -> ContainerStatus {
    let status = pod.status.clone().unwrap_or_default();
    let all = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
    all.into_iter().find(|s| s.name == container).unwrap_or_default()
}

fn waits_for(pod: &Pod, container: &str, reason: &str) -> bool {
    let state: Option<ContainerState> = status(pod, container).state;
    state.and_then(|s| s.waiting).and_then(|w| w.reason).as_deref() == Some(reason)
}

fn message(pod: &Pod, container: &str) -> String {
    status(pod, container).state.and_then(|s| s.waiting).and_then(|w| w.message).unwrap_or_default()
}

fn with(name: &str, change: impl FnOnce(&mut PodSpec)) -> Pod {
    build::edit(build::pod(name), change)
}

fn exec(command: &str) -> Probe {
    let value = json!({"exec": {"command": [command]}, "periodSeconds": 2, "failureThreshold": 2});
    serde_json::from_value(value).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_is_deleted() {
    let world = World::new();
    world.put(build::pod("web"));
    let pod = world.ready("web").await;
    assert_eq!(crate::spec::phase(&pod), "Running");
    let shown = pod.status.clone().unwrap();
    assert!(shown.pod_ip.is_some() && shown.host_ip.as_deref() == Some("192.0.2.1"));
    assert_eq!(world.runtime.calls(), ["run web", "create web", "start web"]);
    world.event("Container created").await;
    world.event("Started Container started").await;
    let (_, config) = world.runtime.running("web").unwrap();
    assert!(config.mounts.iter().any(|m| m.container_path == "/etc/hosts"));
    world.delete("web", None).await;
    world.until_gone("web").await;
    assert_eq!(world.runtime.count(), (0, 0));
    assert!(world.runtime.calls().contains(&"stop web 30s".to_owned()));
    assert!(!world.dir.path().join("kubelet/pods/uid-web").exists());
    world.event("Killing Stopping container web").await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off() {
    let world = World::new();
    world.runtime.end_at_start("web", 1);
    world.put(build::pod("web"));
    let pod = world.until("web", "in a crash loop", |p| waits_for(p, "web", "CrashLoopBackOff")).await;
    assert_eq!(message(&pod, "web"), "back-off 10s restarting failed container=web pod=web_default(uid-web)");
    let started = world.clock.now();
    let pod = world
        .until("web", "restarted five times", |p| {
            status(p, "web").restart_count == 5 && waits_for(p, "web", "CrashLoopBackOff")
        })
        .await;
    assert!(message(&pod, "web").starts_with("back-off 2m40s "), "{}", message(&pod, "web"));
    let waited = world.clock.now().duration_since(started).as_secs();
    assert!((150..=156).contains(&waited), "10 + 20 + 40 + 80 seconds, not {waited}");
    assert_eq!(crate::spec::phase(&pod), "Running");
    world.event("BackOff Back-off restarting failed container web in pod web_default(uid-web)").await;
    assert!(world.runtime.count().1 <= 2, "only the newest two attempts are kept");
}

#[tokio::test(start_paused = true)]
async fn a_job_pod_completes_and_stays() {
    let world = World::new();
    world.runtime.end_at_start("web", 0);
    world.put(with("job", |s| s.restart_policy = Some("Never".into())));
    let pod = world.phase("job", "Succeeded").await;
    assert_eq!(status(&pod, "web").state.unwrap().terminated.unwrap().reason.as_deref(), Some("Completed"));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(world.pod("job").is_some());
    assert_eq!(world.runtime.count(), (1, 1), "its log is kept");
    world.delete("job", None).await;
    world.until_gone("job").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.runtime.count(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_peers_know_by_name_stays_a_moment_after_its_end() {
    let world = World::new();
    let named = |name: &str| {
        with(name, |s| {
            s.restart_policy = Some("Never".into());
            (s.hostname, s.subdomain) = (Some(name.into()), Some("peers".into()));
            s.containers[0].name = name.into();
        })
    };
    for name in ["job-0", "job-1"] {
        world.put(named(name));
        world.ready(name).await;
    }
    let _ = world.runtime.calls();
    world.runtime.exit("job-0", 0);
    world.runtime.exit("job-1", 0);
    tokio::time::sleep(Duration::from_millis(1900)).await;
    let pod = world.pod("job-0").unwrap();
    assert_eq!(condition(&pod, "Ready"), "True", "its name is still answered");
    assert_eq!(world.runtime.calls(), Vec::<String>::new(), "and so is its address");
    // A deletion does not wait.
    world.delete("job-1", None).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(world.pod("job-1").is_none());
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(world.phase("job-0", "Succeeded").await.metadata.name, pod.metadata.name);
    assert!(world.runtime.calls().iter().any(|c| c.starts_with("stop-sandbox")));
}

#[tokio::test(start_paused = true)]
async fn init_containers_come_first() {
    let world = World::new();
    world.runtime.end_at_start("a", 0);
    world.put(with("web", |s| {
        s.init_containers = Some(vec![build::container("a"), build::sidecar("s")]);
    }));
    let pod = world.ready("web").await;
    let starts: Vec<String> = world.runtime.calls().into_iter().filter(|c| c.starts_with("start")).collect();
    assert_eq!(starts, ["start a", "start s", "start web"]);
    assert_eq!(condition(&pod, "Initialized"), "True");
    world.delete("web", None).await;
    world.until_gone("web").await;
    let stops: Vec<String> = world.runtime.calls().into_iter().filter(|c| c.starts_with("stop ")).collect();
    assert_eq!(stops[0], "stop web 30s");
    assert!(stops[1].starts_with("stop s"), "{stops:?}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_pulled_and_failures_are_waited_with() {
    let world = World::new();
    world.runtime.break_image("r.io/app:1", "connection refused");
    world.put(with("web", |s| s.containers[0].image = Some("r.io/app:1".into())));
    let pod = world.until("web", "failing to pull", |p| waits_for(p, "web", "ErrImagePull")).await;
    assert_eq!(message(&pod, "web"), "connection refused");
    world.event("Failed Failed to pull image \"r.io/app:1\": connection refused").await;
    let pod = world.until("web", "waiting", |p| waits_for(p, "web", "ImagePullBackOff")).await;
    assert!(
        message(&pod, "web")
            .starts_with("Back-off pulling image \"r.io/app:1\": ErrImagePull: connection refused")
    );
    world.event("BackOff Back-off pulling image \"r.io/app:1\"").await;
    world.runtime.mend_image("r.io/app:1");
    world.ready("web").await;
    world.event("Successfully pulled image \"r.io/app:1\" in ").await;
}

#[tokio::test(start_paused = true)]
async fn the_image_of_a_volume_is_pulled_as_its_policy_says() {
    let world = World::new();
    world.runtime.break_image("r.io/model:1", "connection refused");
    world.put(with("web", |s| {
        let volumes = json!([{"name": "m", "image": {"reference": "r.io/model:1", "pullPolicy": "Always"}},
                             {"name": "other", "image": {"reference": "r.io/other:1"}}]);
        s.volumes = Some(serde_json::from_value(volumes).unwrap());
        let mounts = json!([{"name": "m", "mountPath": "/m"}]);
        s.containers[0].volume_mounts = Some(serde_json::from_value(mounts).unwrap());
    }));
    let pod = world.until("web", "failing to pull", |p| waits_for(p, "web", "ErrImagePull")).await;
    assert_eq!(message(&pod, "web"), "connection refused");
    world.until("web", "waiting", |p| waits_for(p, "web", "ImagePullBackOff")).await;
    world.runtime.mend_image("r.io/model:1");
    world.ready("web").await;
    world.event("Successfully pulled image \"r.io/model:1\" in ").await;
    let pulled = world.runtime.pulls();
    assert!(pulled.iter().all(|(image, _)| image == "r.io/model:1"), "only what is mounted: {pulled:?}");
}

#[tokio::test(start_paused = true)]
async fn policy_never_and_invalid_names() {
    let world = World::new();
    world.put(with("never", |s| {
        s.containers[0].image = Some("none:1".into());
        s.containers[0].image_pull_policy = Some("Never".into());
    }));
    world.put(with("bad", |s| s.containers[0].image = Some("Not An Image".into())));
    let pod = world.until("never", "refused", |p| waits_for(p, "web", "ErrImageNeverPull")).await;
    assert_eq!(message(&pod, "web"), "Container image \"none:1\" is not present with pull policy of Never");
    world.until("bad", "refused", |p| waits_for(p, "web", "InvalidImageName")).await;
    assert!(world.runtime.pulls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_holds_up_the_container_until_it_comes() {
    let world = World::new();
    let env = json!([{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
    world.put(with("web", |s| s.containers[0].env = Some(serde_json::from_value(env).unwrap())));
    let pod = world.until("web", "waiting", |p| waits_for(p, "web", "CreateContainerConfigError")).await;
    assert_eq!(message(&pod, "web"), "secret \"s\" not found");
    world.event("Failed Error: secret \"s\" not found").await;
    let secret = json!({"metadata": {"name": "s", "namespace": "default"}, "data": {"k": "cHc="}});
    world.api.put(&Secret::from_value(secret).unwrap());
    world.ready("web").await;
    let (_, config) = world.runtime.running("web").unwrap();
    assert!(config.envs.iter().any(|e| e.key == "P" && e.value == b"pw"));
}

#[tokio::test(start_paused = true)]
async fn a_config_map_volume_follows_its_source() {
    let world = World::new();
    let map = |value: &str| {
        let map = json!({"metadata": {"name": "m", "namespace": "default"}, "data": {"k": value}});
        ConfigMap::from_value(map).unwrap()
    };
    let volumes = json!([{"name": "v", "configMap": {"name": "m"}}]);
    let mounts = json!([{"name": "v", "mountPath": "/etc/m"}]);
    world.put(with("web", |s| {
        s.volumes = Some(serde_json::from_value(volumes).unwrap());
        s.containers[0].volume_mounts = Some(serde_json::from_value(mounts).unwrap());
    }));
    world.event("FailedMount MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found").await;
    world.api.put(&map("1"));
    world.ready("web").await;
    let (id, config) = world.runtime.running("web").unwrap();
    let path = config.mounts.iter().find(|m| m.container_path == "/etc/m").unwrap().host_path.clone();
    let read = || std::fs::read_to_string(format!("{path}/k")).unwrap();
    assert_eq!(read(), "1");
    world.api.put(&map("2"));
    for _ in 0..1000 {
        if read() == "2" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(read(), "2");
    assert_eq!(world.runtime.running("web").unwrap().0, id, "nothing was restarted");
}

#[tokio::test(start_paused = true)]
async fn liveness_restarts_and_readiness_only_shows() {
    let world = World::new();
    world.runtime.answer("alive", 0, "");
    world.runtime.answer("ready", 1, "not yet");
    world.put(with("web", |s| {
        s.containers[0].liveness_probe = Some(exec("alive"));
        s.containers[0].readiness_probe = Some(exec("ready"));
    }));
    world.phase("web", "Running").await;
    world.event("Unhealthy Readiness probe failed: not yet").await;
    assert_eq!(condition(&world.pod("web").unwrap(), "Ready"), "False");
    world.runtime.answer("ready", 0, "");
    world.ready("web").await;
    world.runtime.answer("alive", 1, "dead");
    let pod = world.until("web", "restarted", |p| status(p, "web").restart_count == 1).await;
    world.event("Killing Container web failed liveness probe, will be restarted").await;
    assert_eq!(status(&pod, "web").last_state.unwrap().terminated.unwrap().exit_code, 143);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_a_probe_stopped_starts_again_however_it_ended() {
    let world = World::new();
    world.runtime.answer("alive", 1, "dead");
    world.runtime.end_well("web");
    world.put(with("web", |s| {
        s.restart_policy = Some("OnFailure".into());
        s.containers[0].liveness_probe = Some(exec("alive"));
    }));
    let pod = world.until("web", "restarted", |p| status(p, "web").restart_count == 1).await;
    assert_eq!(status(&pod, "web").last_state.unwrap().terminated.unwrap().exit_code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_goes_before_the_others() {
    let world = World::new();
    world.runtime.answer("started", 1, "");
    world.put(with("web", |s| {
        s.containers[0].startup_probe = Some(Probe { failure_threshold: Some(5), ..exec("started") });
        s.containers[0].readiness_probe = Some(exec("ready"));
    }));
    world.phase("web", "Running").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!world.runtime.calls().iter().any(|c| c == "exec web ready"));
    assert_eq!(status(&world.pod("web").unwrap(), "web").started, Some(false));
    world.runtime.answer("started", 0, "");
    world.ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn hooks_and_the_grace_period() {
    let world = World::new();
    world.runtime.make_stubborn("web");
    world.put(with("web", |s| {
        s.termination_grace_period_seconds = Some(20);
        let lifecycle =
            json!({"postStart": {"exec": {"command": ["hello"]}}, "preStop": {"sleep": {"seconds": 5}}});
        s.containers[0].lifecycle = Some(serde_json::from_value(lifecycle).unwrap());
    }));
    world.ready("web").await;
    assert!(world.runtime.calls().contains(&"exec web hello".to_owned()));
    let begun = world.clock.now();
    world.delete("web", Some(20)).await;
    world.until_gone("web").await;
    let took = world.clock.now().duration_since(begun).as_secs();
    assert!((19..=21).contains(&took), "{took}");
    assert!(world.runtime.calls().contains(&"stop web 15s".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_second_deletion_hurries() {
    let world = World::new();
    world.runtime.make_stubborn("web");
    world.put(build::pod("web"));
    world.ready("web").await;
    world.delete("web", Some(600)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = world.clock.now();
    world.delete("web", Some(0)).await;
    for _ in 0..10_000 {
        if world.runtime.count() == (0, 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.runtime.count(), (0, 0));
    assert!(world.clock.now().duration_since(begun).as_secs() < 35);
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_restarts_the_container() {
    let world = World::new();
    world.runtime.answer("hello", 3, "no");
    world.put(with("web", |s| {
        let lifecycle = json!({"postStart": {"exec": {"command": ["hello"]}}});
        s.containers[0].lifecycle = Some(serde_json::from_value(lifecycle).unwrap());
    }));
    world.event("FailedPostStartHook PostStartHook failed").await;
    world.until("web", "restarted", |p| status(p, "web").restart_count >= 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_image_restarts_only_its_container() {
    let world = World::new();
    let two = |image: &str| {
        with("web", |s| {
            s.containers =
                vec![Container { image: Some(image.into()), ..build::container("a") }, build::container("b")];
        })
    };
    world.put(two("nginx:1"));
    world.ready("web").await;
    let b = world.runtime.running("b").unwrap().0;
    let present = (*world.pod("web").unwrap()).clone();
    world
        .api
        .put(&Pod { spec: build::edit(two("nginx:2"), |s| s.node_name = Some("n1".into())).spec, ..present });
    world.until("web", "restarted", |p| status(p, "a").restart_count == 1 && status(p, "a").ready).await;
    assert_eq!(world.runtime.running("b").unwrap().0, b);
    world.event("Killing Container a definition changed, will be restarted").await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_image_restarts_even_what_never_restarts() {
    let world = World::new();
    let one = |image: &str| {
        with("web", |s| {
            s.restart_policy = Some("Never".into());
            s.containers = vec![Container { image: Some(image.into()), ..build::container("web") }];
        })
    };
    world.put(one("nginx:1"));
    world.ready("web").await;
    let present = (*world.pod("web").unwrap()).clone();
    world
        .api
        .put(&Pod { spec: build::edit(one("nginx:2"), |s| s.node_name = Some("n1".into())).spec, ..present });
    let pod = world
        .until("web", "restarted", |p| status(p, "web").restart_count == 1 && status(p, "web").ready)
        .await;
    assert_eq!(pod.status.clone().unwrap().phase.as_deref(), Some("Running"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_is_made_again() {
    let world = World::new();
    world.put(build::pod("web"));
    let first = world.ready("web").await.status.clone().unwrap().pod_ip;
    world.runtime.kill_sandboxes();
    let pod = world
        .until("web", "up again", |p| status(p, "web").restart_count == 1 && condition(p, "Ready") == "True")
        .await;
    assert_ne!(pod.status.clone().unwrap().pod_ip, first);
    world.event("SandboxChanged Pod sandbox changed, it will be killed and re-created.").await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_as_asked_is_not_made() {
    let world = World::new();
    world.put(with("users", |s| s.host_users = Some(false)));
    world
        .event(
            "FailedCreatePodSandBox Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does \
             not support user namespaces",
        )
        .await;
    let long = "a".repeat(40);
    world.put(with("long", |s| {
        s.set_hostname_as_fqdn = Some(true);
        s.hostname = Some(long.clone());
        s.subdomain = Some("sub".into());
    }));
    let full = format!("{long}.sub.default.svc.cluster.local");
    let text = format!(
        "FailedCreatePodSandBox Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster \
         domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
        full.len()
    );
    world.event(&text).await;
    for pod in ["users", "long"] {
        assert_eq!(world.pod(pod).unwrap().status.clone().unwrap().phase.as_deref(), Some("Pending"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_pod() {
    let world = World::new();
    world.put(with("web", |s| s.active_deadline_seconds = Some(30)));
    world.ready("web").await;
    let pod = world.phase("web", "Failed").await;
    let shown = pod.status.clone().unwrap();
    assert_eq!(shown.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(
        shown.message.as_deref(),
        Some("Pod was active on the node longer than the specified deadline")
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_rejected() {
    let world = World::new();
    world.put(with("big", |s| {
        s.containers[0].resources = Some(serde_json::from_value(json!({"requests": {"cpu": "5"}})).unwrap());
    }));
    let pod = world.phase("big", "Failed").await;
    let shown = pod.status.clone().unwrap();
    assert_eq!(shown.reason.as_deref(), Some("OutOfcpu"));
    assert_eq!(
        shown.message.as_deref(),
        Some(
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 5000, used: 0, capacity: 4000"
        )
    );
    assert_eq!(world.runtime.count(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_kubelet_changes_nothing() {
    let mut world = World::new();
    world.put(with("web", |s| {
        s.containers[0].readiness_probe = Some(exec("ready"));
        s.restart_policy = Some("Always".into());
    }));
    world.ready("web").await;
    world.runtime.exit("web", 1);
    let before = world
        .until("web", "restarted", |p| status(p, "web").restart_count == 1 && status(p, "web").ready)
        .await;
    world.stop().await;
    let _ = world.runtime.calls();
    let _ = world.api.take_writes();
    world.start();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = world.pod("web").unwrap();
    assert_eq!(after.status, before.status);
    assert!(world.runtime.calls().iter().all(|c| c.starts_with("exec")), "{:?}", world.runtime.calls());
    let writes = world.api.take_writes();
    assert!(!writes.iter().any(|w| w.contains("pods")), "{writes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_vanished_meanwhile_is_ended() {
    let mut world = World::new();
    world.put(build::pod("web"));
    world.put(build::pod("stays"));
    world.ready("web").await;
    world.ready("stays").await;
    world.stop().await;
    world.api.remove::<Pod>("default", "web");
    world.start();
    for _ in 0..10_000 {
        if world.runtime.count() == (1, 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.runtime.count(), (1, 1));
    assert_eq!(condition(&world.pod("stays").unwrap(), "Ready"), "True");
    assert!(!world.dir.path().join("kubelet/pods/uid-web").exists());
}

#[tokio::test(start_paused = true)]
async fn containers_go_on_while_the_api_is_away() {
    let world = World::new();
    world.put(build::pod("web"));
    world.ready("web").await;
    world.api.fail(|_| Some(krate_api::Status::failure(krate_api::Reason::ServiceUnavailable, "away")));
    world.runtime.exit("web", 1);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(world.runtime.running("web").is_some(), "it was started again without the API");
    world.api.heal();
    world.until("web", "shown as restarted", |p| status(p, "web").restart_count == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_has_a_mirror() {
    let world = World::new();
    let node = Node {
        metadata: krate_api::meta::ObjectMeta { name: Some("n1".into()), ..Default::default() },
        ..Default::default()
    };
    world.api.put(&node);
    let manifests = world.dir.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd}\nspec:\n  containers:\n  - {name: c, image: 'nginx:1'}\n";
    // Written elsewhere and moved: what an editor does, and one event.
    std::fs::write(world.dir.path().join("x"), text).unwrap();
    std::fs::rename(world.dir.path().join("x"), manifests.join("etcd.yaml")).unwrap();
    let mirror = world.ready("etcd-n1").await;
    assert!(crate::spec::is_mirror(&mirror));
    assert_eq!(mirror.metadata.owner_references.as_ref().unwrap()[0].kind, "Node");
    // Deleting the mirror changes nothing but the mirror.
    let id = world.runtime.running("c").unwrap().0;
    world.api.remove::<Pod>("default", "etcd-n1");
    world.ready("etcd-n1").await;
    assert_eq!(world.runtime.running("c").unwrap().0, id);
    std::fs::remove_file(manifests.join("etcd.yaml")).unwrap();
    world.until_gone("etcd-n1").await;
    for _ in 0..1000 {
        if world.runtime.count() == (0, 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.runtime.count(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn pull_secrets_are_used() {
    let world = World::new();
    let config = r#"{"auths":{"r.io":{"username":"u","password":"p"}}}"#;
    let secret = json!({"metadata": {"name": "reg", "namespace": "default"}, "type": "kubernetes.io/dockerconfigjson"});
    let mut secret = Secret::from_value(secret).unwrap();
    secret.data =
        Some([(".dockerconfigjson".to_owned(), krate_api::k8s_openapi::ByteString(config.into()))].into());
    world.api.put(&secret);
    world.put(with("web", |s| {
        s.containers[0].image = Some("r.io/app:1".into());
        s.image_pull_secrets = Some(serde_json::from_value(json!([{"name": "reg"}])).unwrap());
    }));
    world.ready("web").await;
    let (image, auth) = world.runtime.pulls().remove(0);
    assert_eq!((image.as_str(), auth.unwrap().username.as_str()), ("r.io/app:1", "u"));
}

fn amounts(cpu: &str, memory: &str) -> ResourceRequirements {
    let q = |text: &str| Quantity(text.into());
    let list = || Some([("cpu".to_owned(), q(cpu)), ("memory".to_owned(), q(memory))].into());
    ResourceRequirements { requests: list(), limits: list(), ..Default::default() }
}

fn with_amounts(cpu: &str, memory: &str) -> Pod {
    build::edit(build::pod("web"), |s| s.containers[0].resources = Some(amounts(cpu, memory)))
}

fn reason(pod: &Pod, type_: &str) -> String {
    let all = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    all.filter(|c| c.type_ == type_).filter_map(|c| c.reason.clone()).next().unwrap_or_default()
}

fn respecify(world: &World, name: &str, change: impl FnOnce(&mut PodSpec)) {
    let mut pod = (*world.pod(name).unwrap()).clone();
    pod.metadata.generation = Some(pod.metadata.generation.unwrap_or(1) + 1);
    world.api.put(&build::edit(pod, change));
}

#[tokio::test(start_paused = true)]
async fn a_resize_changes_the_running_container() {
    let world = World::new();
    world.put(with_amounts("1", "64Mi"));
    let before = world.ready("web").await;
    let has = |pod: &Pod, cpu: &str| {
        let s = status(pod, "web");
        let limits = s.resources.unwrap_or_default().limits.unwrap_or_default();
        limits.get("cpu").is_some_and(|q| q.0 == cpu)
            && s.allocated_resources.unwrap_or_default().get("cpu").is_some_and(|q| q.0 == cpu)
    };
    assert!(has(&before, "1"));
    respecify(&world, "web", |s| s.containers[0].resources = Some(amounts("2", "64Mi")));
    let after = world
        .until("web", "resized", |pod| has(pod, "2") && condition(pod, "PodResizeInProgress").is_empty())
        .await;
    assert_eq!(status(&after, "web").restart_count, 0);
    assert_eq!(after.status.as_ref().unwrap().observed_generation, Some(2));
    let given = world.runtime.running("web").unwrap().1.linux.resources.unwrap();
    assert_eq!((given.cpu_quota, given.cpu_shares), (200_000, 2048));
    world.event("ResizeCompleted").await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_waits_for_room_and_is_told_when_there_never_is_any() {
    let mut world = World::new();
    world.put(with_amounts("1", "64Mi"));
    let other = build::edit(build::pod("other"), |s| s.containers[0].resources = Some(amounts("2", "64Mi")));
    world.put(other);
    world.ready("web").await;
    world.ready("other").await;
    respecify(&world, "web", |s| s.containers[0].resources = Some(amounts("9", "64Mi")));
    world.until("web", "infeasible", |pod| reason(pod, "PodResizePending") == "Infeasible").await;
    respecify(&world, "web", |s| s.containers[0].resources = Some(amounts("3", "64Mi")));
    let pod = world.until("web", "deferred", |pod| reason(pod, "PodResizePending") == "Deferred").await;
    let allocated = status(&pod, "web").allocated_resources.unwrap();
    assert_eq!(allocated["cpu"].0, "1", "what waits is not given");
    // A restarted kubelet goes on waiting, with what was given.
    world.stop().await;
    world.start();
    world.delete("other", Some(0)).await;
    let pod = world
        .until("web", "resized", |pod| {
            status(pod, "web").allocated_resources.is_some_and(|a| a["cpu"].0 == "3")
                && condition(pod, "PodResizePending").is_empty()
        })
        .await;
    assert_eq!(status(&pod, "web").restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_resize_restarts_the_container_that_asks_for_it() {
    let world = World::new();
    let policy =
        ContainerResizePolicy { resource_name: "memory".into(), restart_policy: "RestartContainer".into() };
    let never = |s: &mut PodSpec| {
        s.restart_policy = Some("Never".into());
        s.containers[0].resize_policy = Some(vec![policy]);
    };
    world.put(build::edit(with_amounts("1", "64Mi"), never));
    world.ready("web").await;
    respecify(&world, "web", |s| s.containers[0].resources = Some(amounts("1", "128Mi")));
    let pod = world
        .until("web", "restarted", |pod| {
            status(pod, "web").restart_count == 1 && condition(pod, "PodResizeInProgress").is_empty()
        })
        .await;
    assert_eq!(status(&pod, "web").resources.unwrap().limits.unwrap()["memory"].0, "128Mi");
    world.event("Container web resize requires restart").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_short_of_memory_evicts_one_pod_and_says_so() {
    // No machine has all of its memory left.
    let world = World::with_thresholds("memory.available<100%");
    // It asks for no memory: nothing of it may be given away.
    let cpu = ResourceRequirements {
        requests: Some([("cpu".to_owned(), Quantity("1".into()))].into()),
        ..Default::default()
    };
    world.put(build::edit(build::pod("web"), |s| s.containers[0].resources = Some(cpu)));
    let pod = world.phase("web", "Failed").await;
    let status = pod.status.clone().unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert!(
        status.message.unwrap().starts_with("The node was low on resource: memory. Threshold quantity: ")
    );
    assert_eq!(reason(&pod, "DisruptionTarget"), "TerminationByKubelet");
    world.event("Evicted The node was low on resource: memory").await;
    // A pod that asks for nothing is not even begun with.
    world.put(build::pod("late"));
    let late = world.phase("late", "Failed").await;
    let message = late.status.as_ref().unwrap().message.clone().unwrap();
    assert_eq!(message, "Pod was rejected: The node had condition: [MemoryPressure]. ");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_volume_grows_beyond_its_limit_is_evicted() {
    let world = World::new();
    world.put(build::edit(build::pod("web"), |s| {
        s.volumes = Some(vec![Volume {
            name: "data".into(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("1Mi".into())),
                ..Default::default()
            }),
            ..Default::default()
        }]);
    }));
    world.ready("web").await;
    let folder = world.dir.path().join("kubelet/pods/uid-web/volumes/kubernetes.io~empty-dir/data");
    std::fs::write(folder.join("big"), vec![1; 2 << 20]).unwrap();
    let pod = world.phase("web", "Failed").await;
    let status = pod.status.clone().unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(status.message.unwrap(), "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". ");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_imported_starts_the_pod_that_must_not_pull() {
    let world = World::new();
    world.put(build::edit(build::pod("web"), |s| {
        s.containers[0].image = Some("app:dev".into());
        s.containers[0].image_pull_policy = Some("Never".into());
    }));
    let never = |pod: &Pod| {
        let waiting = status(pod, "web").state.and_then(|s| s.waiting);
        waiting.is_some_and(|w| w.reason.as_deref() == Some("ErrImageNeverPull"))
    };
    world.until("web", "without image", never).await;
    world.runtime.import("app:dev");
    world.ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_an_unsafe_setting_of_the_kernel_is_refused() {
    let world = World::new();
    world.put(build::edit(build::pod("web"), |s| {
        s.security_context = Some(PodSecurityContext {
            sysctls: Some(vec![Sysctl { name: "kernel.msgmax".into(), value: "1".into() }]),
            ..Default::default()
        });
    }));
    let pod = world.phase("web", "Failed").await;
    assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("SysctlForbidden"));
}
