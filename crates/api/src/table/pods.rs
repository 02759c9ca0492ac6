//! Pods and pod templates.

use super::text::{NONE, age, containers, labels, name, since, text};
use super::{AGE, CONTAINERS, Column, IMAGES, NAME, Printer, print, string};
use crate::object::Object;
use crate::types::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodTemplate};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) const PRINTERS: &[Printer] = &[
    print!(Pod, POD, pod),
    print!(
        PodTemplate,
        &[
            NAME,
            Column { priority: 0, ..CONTAINERS },
            Column { priority: 0, ..IMAGES },
            string("Pod Labels", "Labels of the pods that are made from it."),
        ],
        |o, _| {
            let template = o.template.as_ref();
            let [names, images] = containers(template);
            let meta = template.and_then(|t| t.metadata.as_ref());
            vec![name(&o.metadata), names, images, json!(labels(meta.and_then(|m| m.labels.as_ref())))]
        }
    ),
];

const POD: &[Column] = &[
    NAME,
    string("Ready", "Containers that are ready, of those that the pod is made of."),
    string("Status", "What the pod is doing, or what keeps it from running."),
    string("Restarts", "How often its containers were restarted, and how long ago the last time."),
    AGE,
    string("IP", "Address of the pod.").wide(),
    string("Node", "Node that the pod was bound to.").wide(),
    string("Nominated Node", "Node where others are being preempted for the pod.").wide(),
    string("Readiness Gates", "Readiness gates that are passed, of all that the pod has.").wide(),
];

/// Conditions of the table's row.
pub(super) fn conditions(object: &dyn Object) -> Vec<Value> {
    let pod = (object.as_any() as &dyn std::any::Any).downcast_ref::<Pod>();
    let phase = pod.and_then(|p| p.status.as_ref()).and_then(|s| s.phase.as_deref());
    let (reason, message) = match phase {
        Some("Succeeded") => ("Succeeded", "The pod has completed successfully."),
        Some("Failed") => ("Failed", "The pod failed."),
        _ => return vec![],
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

fn restartable(container: Option<&Container>) -> bool {
    container.is_some_and(|c| c.restart_policy.as_deref() == Some("Always"))
}

/// What the statuses of the containers add up to.
#[derive(Default)]
struct Sum {
    ready: usize,
    restarts: i32,
    last_restart: Option<Timestamp>,
    reason: String,
}

impl Sum {
    fn count(&mut self, status: &ContainerStatus) {
        self.restarts += status.restart_count;
        let terminated = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        self.last_restart =
            self.last_restart.max(terminated.and_then(|t| t.finished_at.as_ref()).map(|t| t.0));
    }

    fn restarts_cell(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => format!("{} ({} ago)", self.restarts, since(last, now)),
            _ => self.restarts.to_string(),
        }
    }
}

/// `Error`, or what stands for a reason if there is none: `Signal:9`, `ExitCode:1`.
fn ended(terminated: &ContainerStateTerminated) -> String {
    match (text(terminated.reason.as_ref()), terminated.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn waiting_reason(status: &ContainerStatus) -> Option<&str> {
    let reason = status.state.as_ref()?.waiting.as_ref()?.reason.as_deref();
    reason.filter(|r| !r.is_empty())
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a crate::types::core::v1::PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind)
}

fn is_true(pod: &Pod, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| c.status == "True")
}

/// What an init container that has not done its part keeps the pod at; none if it has.
fn init_reason(status: &ContainerStatus, restartable: bool, index: usize, count: usize) -> Option<String> {
    let state = status.state.as_ref();
    if let Some(terminated) = state.and_then(|s| s.terminated.as_ref()) {
        if terminated.exit_code == 0 {
            return None;
        }
        if !(restartable && status.started == Some(true)) {
            return Some(format!("Init:{}", ended(terminated)));
        }
    }
    if restartable && status.started == Some(true) {
        return None;
    }
    let waiting = waiting_reason(status).filter(|r| *r != "PodInitializing");
    Some(waiting.map_or_else(|| format!("Init:{index}/{count}"), |reason| format!("Init:{reason}")))
}

/// Goes through the init containers: what is counted while they run, what of it stays, and whether one is
/// not done.
fn init_containers(pod: &Pod) -> (Sum, Sum, bool) {
    let specs = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let statuses = pod.status.as_ref().and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
    let (mut all, mut sidecars) = (Sum::default(), Sum::default());
    for (index, status) in statuses.iter().enumerate() {
        let restartable = restartable(specs.iter().find(|c| c.name == status.name));
        all.count(status);
        if restartable {
            sidecars.count(status);
        }
        if let Some(reason) = init_reason(status, restartable, index, specs.len()) {
            all.reason = reason;
            return (all, sidecars, true);
        }
        let ended = status.state.as_ref().is_some_and(|s| s.terminated.is_some());
        if restartable && status.ready && !ended {
            all.ready += 1;
            sidecars.ready += 1;
        }
    }
    (all, sidecars, false)
}

/// Goes through the containers, the last first, so that the first one's reason stays.
fn main_containers(pod: &Pod, mut sum: Sum) -> Sum {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let (mut running, mut error) = (false, String::new());
    for status in statuses.iter().rev() {
        sum.count(status);
        let state = status.state.as_ref();
        if let Some(reason) = waiting_reason(status) {
            reason.clone_into(&mut sum.reason);
        } else if let Some(terminated) = state.and_then(|s| s.terminated.as_ref()) {
            sum.reason = ended(terminated);
            if terminated.exit_code != 0 || terminated.signal.unwrap_or(0) != 0 {
                error.clone_from(&sum.reason);
            }
        } else if status.ready && state.is_some_and(|s| s.running.is_some()) {
            running = true;
            sum.ready += 1;
        }
    }
    if sum.reason == "Completed" && running {
        sum.reason = match (is_true(pod, "Ready"), error.is_empty()) {
            (true, _) => "Running".to_owned(),
            (false, false) => error,
            (false, true) => "NotReady".to_owned(),
        };
    }
    sum
}

fn summary(pod: &Pod) -> Sum {
    let status = pod.status.as_ref();
    let phase = text(status.and_then(|s| s.phase.as_ref()));
    let status_reason = status.and_then(|s| s.reason.as_ref());
    let mut reason = super::text::text_or(status_reason, phase).to_owned();
    if condition(pod, "PodScheduled").is_some_and(|c| c.reason.as_deref() == Some("SchedulingGated")) {
        reason = "SchedulingGated".to_owned();
    }
    let (mut init, mut sidecars, initializing) = init_containers(pod);
    if !initializing {
        init.reason = reason;
    }
    let mut sum = if !initializing || is_true(pod, "Initialized") {
        sidecars.reason = init.reason;
        main_containers(pod, sidecars)
    } else {
        init
    };
    if pod.metadata.deletion_timestamp.is_some() {
        if text(status_reason) == "NodeLost" {
            sum.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            sum.reason = "Terminating".to_owned();
        }
    }
    sum
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let passed = gates.iter().filter(|g| is_true(pod, &g.condition_type)).count();
    format!("{passed}/{}", gates.len())
}

fn pod(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let sum = summary(pod);
    let spec = pod.spec.as_ref();
    let sidecars = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let total =
        spec.map_or(0, |s| s.containers.len()) + sidecars.iter().filter(|c| restartable(Some(c))).count();
    let status = pod.status.as_ref();
    let first = status.and_then(|s| s.pod_ips.as_ref()).and_then(|ips| ips.first());
    let or_none = |text: Option<&String>| json!(super::text::text_or(text, NONE));
    vec![
        name(&pod.metadata),
        json!(format!("{}/{total}", sum.ready)),
        json!(sum.reason),
        json!(sum.restarts_cell(now)),
        age(&pod.metadata, now),
        or_none(first.map(|ip| &ip.ip)),
        or_none(spec.and_then(|s| s.node_name.as_ref())),
        or_none(status.and_then(|s| s.nominated_node_name.as_ref())),
        json!(readiness_gates(pod)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    /// Ready, status and restarts of a pod.
    fn cells(spec: Value, status: Value, deleting: bool) -> [String; 3] {
        let mut object = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status});
        if deleting {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:30:00Z");
        }
        let object = Pod::from_value(object).unwrap();
        let row = pod(&object, now());
        assert_eq!(row.len(), POD.len());
        [1, 2, 3].map(|i| row[i].as_str().unwrap().to_owned())
    }

    fn status(phase: &str, containers: Value) -> Value {
        json!({"phase": phase, "containerStatuses": containers})
    }

    fn container(state: Value, restarts: i32, ready: bool) -> Value {
        json!({"name": "c", "ready": ready, "restartCount": restarts, "state": state, "image": "", "imageID": ""})
    }

    #[test]
    fn the_status_says_what_the_pod_is_doing() {
        let one = json!({"containers": [{"name": "c"}]});
        let terminated =
            |reason: &str, code: i32| json!({"terminated": {"reason": reason, "exitCode": code}});
        for (phase, state, ready, deleting, want) in [
            ("Pending", json!({}), false, false, ["0/1", "Pending", "0"]),
            (
                "Pending",
                json!({"waiting": {"reason": "ContainerCreating"}}),
                false,
                false,
                ["0/1", "ContainerCreating", "0"],
            ),
            (
                "Pending",
                json!({"waiting": {"reason": "ImagePullBackOff"}}),
                false,
                false,
                ["0/1", "ImagePullBackOff", "0"],
            ),
            ("Running", json!({"running": {}}), true, false, ["1/1", "Running", "0"]),
            ("Running", json!({"running": {}}), false, false, ["0/1", "Running", "0"]),
            ("Succeeded", terminated("Completed", 0), false, false, ["0/1", "Completed", "0"]),
            ("Failed", terminated("Error", 1), false, false, ["0/1", "Error", "0"]),
            ("Failed", terminated("", 137), false, false, ["0/1", "ExitCode:137", "0"]),
            (
                "Failed",
                json!({"terminated": {"exitCode": 0, "signal": 9}}),
                false,
                false,
                ["0/1", "Signal:9", "0"],
            ),
            ("Running", json!({"running": {}}), true, true, ["1/1", "Terminating", "0"]),
            ("Succeeded", terminated("Completed", 0), false, true, ["0/1", "Completed", "0"]),
        ] {
            let got = cells(one.clone(), status(phase, json!([container(state, 0, ready)])), deleting);
            assert_eq!(got, want);
        }
    }

    #[test]
    fn restarts_say_how_long_ago_the_last_was() {
        let mut crashing = container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), 3, false);
        crashing["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}});
        let got = cells(json!({"containers": [{"name": "c"}]}), status("Running", json!([crashing])), false);
        assert_eq!(got, ["0/1", "CrashLoopBackOff", "3 (5m ago)"]);
    }

    #[test]
    fn init_containers_come_first() {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let init = |state: Value| json!({"name": "i", "ready": false, "restartCount": 2, "state": state, "image": "", "imageID": ""});
        for (state, want) in [
            (json!({"running": {}}), "Init:0/2"),
            (json!({"waiting": {"reason": "PodInitializing"}}), "Init:0/2"),
            (json!({"waiting": {"reason": "CrashLoopBackOff"}}), "Init:CrashLoopBackOff"),
            (json!({"terminated": {"exitCode": 1, "reason": "Error"}}), "Init:Error"),
            (json!({"terminated": {"exitCode": 3}}), "Init:ExitCode:3"),
        ] {
            let status = json!({"phase": "Pending", "initContainerStatuses": [init(state)],
                "containerStatuses": [container(json!({"waiting": {"reason": "PodInitializing"}}), 0, false)]});
            assert_eq!(cells(spec.clone(), status, false), ["0/1", want, "2"]);
        }
        let done = json!({"phase": "Pending", "initContainerStatuses": [init(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))],
            "containerStatuses": [container(json!({"waiting": {"reason": "PodInitializing"}}), 0, false)]});
        assert_eq!(cells(spec, done, false), ["0/1", "PodInitializing", "0"]);
    }

    #[test]
    fn sidecars_count_as_containers() {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let sidecar = json!({"name": "s", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}, "image": "", "imageID": ""});
        let status = json!({"phase": "Running", "initContainerStatuses": [sidecar],
            "containerStatuses": [container(json!({"running": {}}), 1, true)]});
        assert_eq!(cells(spec, status, false), ["2/2", "Running", "2"]);
    }

    #[test]
    fn a_pod_with_a_completed_container_runs_on() {
        let two = json!({"containers": [{"name": "c"}, {"name": "d"}]});
        let statuses = json!([
            container(json!({"terminated": {"reason": "Completed", "exitCode": 0}}), 0, false),
            container(json!({"running": {}}), 0, true)
        ]);
        assert_eq!(cells(two, status("Running", statuses), false), ["1/2", "NotReady", "0"]);
    }

    #[test]
    fn wide_cells_are_always_there() {
        let object =
            Pod::from_value(json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": []},
            "status": {"podIPs": [{"ip": "10.0.0.1"}]}}))
            .unwrap();
        let row = pod(&object, now());
        assert_eq!(
            row[4..],
            [json!("<unknown>"), json!("10.0.0.1"), json!("n1"), json!("<none>"), json!("<none>")]
        );
        let mut ended = Pod::default();
        ended.status.get_or_insert_default().phase = Some("Failed".into());
        assert_eq!(conditions(&ended)[0]["reason"], "Failed");
        assert!(conditions(&object).is_empty());
    }
}
