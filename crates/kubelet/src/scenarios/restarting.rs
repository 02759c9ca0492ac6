//! A pod whose containers all restart because one of them ended with an exit code of its rule.

use super::*;
use krate_api::types::core::v1::ContainerRestartRule;

/// A pod that never restarts, but for its container `watcher`, whose exit code 88 restarts all.
fn watched() -> Pod {
    let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}});
    let rule: ContainerRestartRule = serde_json::from_value(rule).unwrap();
    with("web", |spec| {
        let mut watcher = build::container("watcher");
        watcher.restart_policy = Some("Never".into());
        watcher.restart_policy_rules = Some(vec![rule]);
        spec.init_containers = Some(vec![build::container("a")]);
        spec.containers.push(watcher);
        spec.restart_policy = Some("Never".into());
    })
}

fn counts(pod: &Pod) -> [i32; 3] {
    ["a", "web", "watcher"].map(|name| status(pod, name).restart_count)
}

fn restarting(pod: &Pod) -> (String, String) {
    let mut all = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let found = all.find(|c| c.type_ == "AllContainersRestarting").cloned().unwrap_or_default();
    (found.status, found.message.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn all_containers_start_again_in_their_sandbox() {
    let world = World::new();
    world.runtime.end_at_start("a", 0);
    world.put(watched());
    let before = world.ready("web").await;
    assert_eq!(restarting(&before), ("False".to_owned(), String::new()));
    world.runtime.make_stubborn("web");
    let _ = world.runtime.calls();
    world.runtime.exit("watcher", 88);
    let pod = world.until("web", "restarting", |pod| restarting(pod).0 == "True").await;
    assert_eq!(restarting(&pod).1, "Container watcher exited with code 88, triggering pod restart");
    let pod =
        world.until("web", "back", |pod| counts(pod) == [1; 3] && condition(pod, "Ready") == "True").await;
    assert_eq!(restarting(&pod).0, "False");
    assert_eq!(crate::spec::phase(&pod), "Running");
    let address = |pod: &Pod| pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap();
    assert_eq!(address(&pod), address(&before));
    let ended = status(&pod, "watcher").last_state.unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 88);
    let ended = status(&pod, "web").last_state.unwrap().terminated.unwrap();
    assert_ne!(
        ended.reason.as_deref(),
        Some("ContainerStatusUnknown"),
        "what was killed is known to have ended"
    );
    let did: Vec<String> =
        world.runtime.calls().into_iter().filter(|c| c.starts_with("st") || c.starts_with("run")).collect();
    assert_eq!(did, ["stop web 2s", "start a", "start web", "start watcher"]);
}

#[tokio::test(start_paused = true)]
async fn the_one_that_asks_again_and_again_backs_off() {
    let world = World::new();
    world.runtime.end_at_start("a", 0);
    world.put(watched());
    world.ready("web").await;
    world.runtime.exit("watcher", 88);
    world.until("web", "back", |pod| counts(pod) == [1; 3] && condition(pod, "Ready") == "True").await;
    world.runtime.exit("watcher", 88);
    let pod = world.until("web", "waiting", |pod| waits_for(pod, "watcher", "CrashLoopBackOff")).await;
    assert!(status(&pod, "web").state.unwrap().running.is_some(), "the others go on meanwhile");
    world.until("web", "back", |pod| counts(pod) == [2; 3] && condition(pod, "Ready") == "True").await;
}

#[tokio::test(start_paused = true)]
async fn another_kubelet_goes_on_with_it() {
    let mut world = World::new();
    world.runtime.end_at_start("a", 0);
    world.put(watched());
    world.ready("web").await;
    world.runtime.make_stubborn("web");
    world.runtime.exit("watcher", 88);
    world.until("web", "restarting", |pod| restarting(pod).0 == "True").await;
    world.stop().await;
    world.start();
    world.until("web", "back", |pod| counts(pod) == [1; 3] && condition(pod, "Ready") == "True").await;
}

#[tokio::test(start_paused = true)]
async fn an_init_container_that_fails_then_ends_a_pod_that_never_restarts() {
    let world = World::new();
    world.runtime.end_at_start("a", 0);
    world.put(watched());
    world.ready("web").await;
    world.runtime.end_at_start("a", 1);
    world.runtime.exit("watcher", 88);
    let pod = world.phase("web", "Failed").await;
    assert_eq!(restarting(&pod).0, "False");
}
