//! What a hollow kubelet does with a pod, as a pure function of the pod, its script and the time.
//!
//! All memory is in the pod's own status, so that a node that comes back goes on where it was.

use super::play::{Exits, Play};
use krate_api::meta::Time;
use krate_api::types::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use krate_base::Timestamp;
use std::time::Duration;

/// First pause between two runs of a container, after the first restart; it doubles each time.
const BACKOFF_FIRST: i64 = 10;
/// Longest pause between two runs.
const BACKOFF_MAX: i64 = 300;

/// What is to be done with a pod now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The status to write, if it is not the present one.
    pub status: Option<PodStatus>,
    /// Nothing of it runs any more and it was asked to go: remove it.
    pub remove: bool,
    /// Look again after this time at the latest.
    pub again: Option<Duration>,
}

/// Addresses that a pod gets.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub pod: String,
    pub host: String,
}

/// What a pod's containers are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Creating,
    Running { since: i64 },
    Backoff { until: i64, code: i32, finished: i64 },
    Ended { code: i32, started: i64, finished: i64 },
}

/// Decides.
#[must_use]
pub fn plan(pod: &Pod, play: &Play, addresses: &Addresses, now: Timestamp) -> Plan {
    let now = now.as_second();
    let Some(spec) = &pod.spec else { return Plan::default() };
    let old = pod.status.clone().unwrap_or_default();
    let leaving = leaving(pod, play);
    if matches!(old.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Plan { remove: leaving.is_some(), ..Plan::default() };
    }
    let start = old.start_time.as_ref().map_or(now, |t| t.0.as_second());
    let mut restarts = restarts(&old);
    let mut stand = stand(&old, spec, play, start, &mut restarts, now);
    if let Some(at) = leaving.filter(|at| *at <= now) {
        stand = end(stand, 0, at.max(start));
    }
    let deadline = spec.active_deadline_seconds.map(|s| start + s);
    let late = deadline.is_some_and(|at| at <= now) && !matches!(stand, Stand::Ended { .. });
    if late {
        stand = end(stand, 137, now);
    }
    let mut status = describe(pod, spec, play, addresses, stand, restarts, now);
    status.start_time = Some(time(start));
    if late {
        status.phase = Some("Failed".to_owned());
        status.reason = Some("DeadlineExceeded".to_owned());
        status.message = Some("Pod was active on the node longer than the specified deadline".to_owned());
    }
    let next = [next(stand, play, restarts, start), leaving, deadline];
    let again = next.into_iter().flatten().filter(|at| *at > now).min();
    let ended = matches!(stand, Stand::Ended { .. });
    Plan {
        status: (status != old).then_some(status),
        remove: false,
        again: again.filter(|_| !ended).map(|at| Duration::from_secs(at.abs_diff(now))),
    }
}

/// When the pod's containers will have ended because it was deleted.
fn leaving(pod: &Pod, play: &Play) -> Option<i64> {
    let at = pod.metadata.deletion_timestamp.as_ref()?.0.as_second();
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    Some(at - grace + seconds(play.stop).min(grace))
}

fn restarts(status: &PodStatus) -> i32 {
    status.container_statuses.iter().flatten().map(|c| c.restart_count).max().unwrap_or(0)
}

/// Follows the containers from what the status says to what is now.
fn stand(old: &PodStatus, spec: &PodSpec, play: &Play, start: i64, restarts: &mut i32, now: i64) -> Stand {
    let mut stand = recorded(old, *restarts);
    // Each turn is one change of state; time that has passed may hold several.
    for _ in 0..64 {
        let changed = match stand {
            Stand::Creating if now >= start + seconds(play.start) => Stand::Running { since: now },
            Stand::Running { since } => match exit(play, *restarts, since).filter(|(at, _)| *at <= now) {
                Some((at, code)) => ended(spec, code, since, at, *restarts),
                None => return stand,
            },
            Stand::Backoff { until, .. } if until <= now => {
                *restarts += 1;
                Stand::Running { since: until.max(start) }
            }
            _ => return stand,
        };
        stand = changed;
    }
    stand
}

fn recorded(old: &PodStatus, restarts: i32) -> Stand {
    let Some(status) = old.container_statuses.iter().flatten().next() else { return Stand::Creating };
    let state = status.state.clone().unwrap_or_default();
    if let Some(running) = state.running {
        return Stand::Running { since: running.started_at.map_or(0, |t| t.0.as_second()) };
    }
    let last = status.last_state.clone().unwrap_or_default().terminated;
    match last.filter(|_| state.waiting.is_some()) {
        Some(last) => {
            let finished = last.finished_at.map_or(0, |t| t.0.as_second());
            Stand::Backoff { until: finished + backoff(restarts), code: last.exit_code, finished }
        }
        None => Stand::Creating,
    }
}

fn exit(play: &Play, restarts: i32, since: i64) -> Option<(i64, i32)> {
    match play.exits {
        Exits::Each { after, code } => Some((since + seconds(after), code)),
        Exits::Once { restarts: run, code } if run == restarts => Some((since, code)),
        _ => None,
    }
}

/// What comes after a run has ended.
fn ended(spec: &PodSpec, code: i32, started: i64, finished: i64, restarts: i32) -> Stand {
    let again = match spec.restart_policy.as_deref() {
        Some("Never") => false,
        Some("OnFailure") => code != 0,
        _ => true,
    };
    if again {
        return Stand::Backoff { until: finished + backoff(restarts), code, finished };
    }
    Stand::Ended { code, started, finished }
}

fn end(stand: Stand, code: i32, at: i64) -> Stand {
    match stand {
        Stand::Running { since } => Stand::Ended { code, started: since, finished: at.max(since) },
        Stand::Backoff { code, finished, .. } => Stand::Ended { code, started: finished, finished },
        Stand::Creating => Stand::Ended { code: 137, started: at, finished: at },
        Stand::Ended { .. } => stand,
    }
}

/// Seconds between the end of a run and the next: none before the first restart.
fn backoff(restarts: i32) -> i64 {
    match u32::try_from(restarts).unwrap_or(0) {
        0 => 0,
        n => BACKOFF_FIRST.saturating_mul(1 << (n - 1).min(5)).min(BACKOFF_MAX),
    }
}

fn next(stand: Stand, play: &Play, restarts: i32, start: i64) -> Option<i64> {
    match stand {
        Stand::Creating => Some(start + seconds(play.start)),
        Stand::Running { since } => exit(play, restarts, since).map(|(at, _)| at),
        Stand::Backoff { until, .. } => Some(until),
        Stand::Ended { .. } => None,
    }
}

fn describe(
    pod: &Pod,
    spec: &PodSpec,
    play: &Play,
    addresses: &Addresses,
    stand: Stand,
    restarts: i32,
    now: i64,
) -> PodStatus {
    let mut status = pod.status.clone().unwrap_or_default();
    let phase = match stand {
        Stand::Creating => "Pending",
        Stand::Running { .. } | Stand::Backoff { .. } => "Running",
        Stand::Ended { code: 0, .. } => "Succeeded",
        Stand::Ended { .. } => "Failed",
    };
    status.phase = Some(phase.to_owned());
    status.observed_generation = pod.metadata.generation;
    status.host_ip = Some(addresses.host.clone());
    status.host_ips = Some(vec![HostIP { ip: addresses.host.clone() }]);
    if stand != Stand::Creating {
        let ip = if spec.host_network == Some(true) { &addresses.host } else { &addresses.pod };
        let ip = status.pod_ip.get_or_insert_with(|| ip.clone()).clone();
        status.pod_ips = Some(vec![PodIP { ip }]);
    }
    let ready = matches!(stand, Stand::Running { .. }) && !play.unready;
    let list = |containers: &[Container]| -> Vec<ContainerStatus> {
        containers.iter().map(|c| container(c, pod, stand, restarts, ready)).collect()
    };
    status.container_statuses = Some(list(&spec.containers));
    status.init_container_statuses = spec
        .init_containers
        .as_ref()
        .map(|containers| containers.iter().map(|c| init(c, pod, stand, ready)).collect());
    conditions(&mut status, spec, pod, stand, ready, now);
    status
}

fn container(c: &Container, pod: &Pod, stand: Stand, restarts: i32, ready: bool) -> ContainerStatus {
    let running = matches!(stand, Stand::Running { .. });
    let image = c.image.clone().unwrap_or_default();
    let old =
        pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).find(|s| s.name == c.name);
    let id = format!("hollow://{}/{}/{restarts}", pod.metadata.uid.as_deref().unwrap_or_default(), c.name);
    let (state, last) = states(stand, old, &id);
    ContainerStatus {
        name: c.name.clone(),
        image_id: if stand == Stand::Creating { String::new() } else { image.clone() },
        image,
        container_id: (stand != Stand::Creating).then_some(id),
        ready,
        started: Some(running),
        restart_count: restarts,
        state: Some(state),
        last_state: Some(last),
        ..ContainerStatus::default()
    }
}

/// The present state, and the one of the run before.
fn states(stand: Stand, old: Option<&ContainerStatus>, id: &str) -> (ContainerState, ContainerState) {
    let before = old.and_then(|o| o.last_state.clone()).unwrap_or_default();
    match stand {
        Stand::Creating => (waiting("ContainerCreating", None), before),
        Stand::Running { since } => {
            let running = ContainerStateRunning { started_at: Some(time(since)) };
            let ended = old.and_then(|o| o.state.clone()).filter(|s| s.terminated.is_some());
            let state = ContainerState { running: Some(running), ..ContainerState::default() };
            (state, ended.unwrap_or(before))
        }
        Stand::Backoff { until, code, finished } => {
            let pause = until - finished;
            let message = format!("back-off {pause}s restarting failed container");
            let started = old.and_then(|o| o.state.clone()?.running?.started_at);
            let started = started.map_or(finished, |t| t.0.as_second());
            let last = match before.terminated.as_ref() {
                Some(last) if last.finished_at == Some(time(finished)) => before.clone(),
                _ => terminated(code, started, finished, id),
            };
            (waiting("CrashLoopBackOff", Some(message)), last)
        }
        Stand::Ended { code, started, finished } => (terminated(code, started, finished, id), before),
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(code: i32, started: i64, finished: i64, id: &str) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: code,
        reason: Some(if code == 0 { "Completed" } else { "Error" }.to_owned()),
        started_at: Some(time(started)),
        finished_at: Some(time(finished)),
        container_id: Some(id.to_owned()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn init(c: &Container, pod: &Pod, stand: Stand, ready: bool) -> ContainerStatus {
    if c.restart_policy.as_deref() == Some("Always") || stand == Stand::Creating {
        return container(c, pod, stand, 0, ready);
    }
    let at = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(0, |t| t.0.as_second());
    let mut status = container(c, pod, Stand::Ended { code: 0, started: at, finished: at }, 0, true);
    status.last_state = Some(ContainerState::default());
    status
}

fn conditions(status: &mut PodStatus, spec: &PodSpec, pod: &Pod, stand: Stand, ready: bool, now: i64) {
    let done = matches!(stand, Stand::Ended { code: 0, .. });
    let reason = if done { "PodCompleted" } else { "ContainersNotReady" };
    let names: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let message = (!done).then(|| format!("containers with unready status: [{}]", names.join(" ")));
    let unready = (reason, message);
    let gates = spec.readiness_gates.iter().flatten().all(|gate| {
        let held = status.conditions.iter().flatten().find(|c| c.type_ == gate.condition_type);
        held.is_some_and(|c| c.status == "True")
    });
    let closed = ("ReadinessGatesNotReady", None);
    let up = !matches!(stand, Stand::Creating | Stand::Ended { .. });
    let generation = pod.metadata.generation;
    let mut set = |name: &str, holds: bool, why: Option<(&str, Option<String>)>| {
        condition(status, name, holds, why.filter(|_| !holds), generation, now);
    };
    set("PodReadyToStartContainers", up, None);
    set("Initialized", true, None);
    set("Ready", ready && gates, Some(if ready { closed } else { unready.clone() }));
    set("ContainersReady", ready, Some(unready));
    set("PodScheduled", true, None);
}

fn condition(
    status: &mut PodStatus,
    name: &str,
    holds: bool,
    why: Option<(&str, Option<String>)>,
    generation: Option<i64>,
    now: i64,
) {
    let list = status.conditions.get_or_insert_default();
    let value = if holds { "True" } else { "False" };
    let at = list.iter().position(|c| c.type_ == name).unwrap_or_else(|| {
        list.push(PodCondition { type_: name.to_owned(), ..PodCondition::default() });
        list.len() - 1
    });
    let Some(slot) = list.get_mut(at) else { return };
    if slot.status != value {
        value.clone_into(&mut slot.status);
        slot.last_transition_time = Some(time(now));
    }
    slot.observed_generation = generation;
    (slot.reason, slot.message) = match why {
        Some((reason, message)) => (Some(reason.to_owned()), message),
        None => (None, None),
    };
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4)
}

fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str) -> Pod {
        let container = Container { name: "main".to_owned(), ..Container::default() };
        let spec = PodSpec {
            containers: vec![container],
            restart_policy: Some(policy.to_owned()),
            ..PodSpec::default()
        };
        Pod { spec: Some(spec), ..Pod::default() }
    }

    /// Plans at a second, and takes the plan's status over.
    fn step(pod: &mut Pod, play: &Play, second: i64) -> Plan {
        let addresses = Addresses { pod: "10.0.0.2".to_owned(), host: "127.64.0.1".to_owned() };
        let plan = plan(pod, play, &addresses, Timestamp::from_second(second).unwrap());
        if let Some(status) = &plan.status {
            pod.status = Some(status.clone());
        }
        plan
    }

    fn phase(pod: &Pod) -> &str {
        pod.status.as_ref().unwrap().phase.as_deref().unwrap()
    }

    #[test]
    fn a_written_status_needs_no_second_write() {
        let mut pod = pod("Always");
        assert!(step(&mut pod, &Play::default(), 100).status.is_some());
        assert_eq!(phase(&pod), "Running");
        assert_eq!(step(&mut pod, &Play::default(), 200), Plan::default());
    }

    #[test]
    fn it_starts_when_its_time_has_come() {
        let (mut pod, play) = (pod("Always"), Play { start: Duration::from_secs(5), ..Play::default() });
        assert_eq!(step(&mut pod, &play, 100).again, Some(Duration::from_secs(5)));
        assert_eq!(phase(&pod), "Pending");
        step(&mut pod, &play, 105);
        assert_eq!(phase(&pod), "Running");
    }

    #[test]
    fn what_ends_is_started_again_as_its_policy_says() {
        for (policy, code, wanted, restarts) in [
            ("Always", 0, "Running", 1),
            ("OnFailure", 1, "Running", 1),
            ("OnFailure", 0, "Succeeded", 0),
            ("Never", 0, "Succeeded", 0),
            ("Never", 2, "Failed", 0),
        ] {
            let (mut pod, play) = (pod(policy), Play::exits(Duration::from_secs(60), code));
            step(&mut pod, &play, 100);
            step(&mut pod, &play, 160);
            let status = pod.status.clone().unwrap();
            let counted = status.container_statuses.unwrap()[0].restart_count;
            assert_eq!((phase(&pod), counted), (wanted, restarts), "{policy} {code}");
        }
    }

    #[test]
    fn it_is_removed_after_it_has_ended_and_said_so() {
        let (mut pod, play) = (pod("Always"), Play { stop: Duration::from_secs(7), ..Play::default() });
        step(&mut pod, &play, 100);
        pod.metadata.deletion_grace_period_seconds = Some(30);
        pod.metadata.deletion_timestamp = Some(time(230));
        assert_eq!(step(&mut pod, &play, 200).again, Some(Duration::from_secs(7)));
        let last = step(&mut pod, &play, 207);
        assert!(!last.remove && last.status.is_some());
        assert!(step(&mut pod, &play, 207).remove);
    }
}
