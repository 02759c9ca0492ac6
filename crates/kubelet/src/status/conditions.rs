//! The conditions that the kubelet keeps in a pod's status.

use super::Inputs;
use crate::spec;
use crate::sync::restart;
use krate_api::types::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

pub const READY_TO_START: &str = "PodReadyToStartContainers";
pub const INITIALIZED: &str = "Initialized";
pub const READY: &str = "Ready";
pub const CONTAINERS_READY: &str = "ContainersReady";
/// Written by others too: it is added, never taken away.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
pub const SCHEDULED: &str = "PodScheduled";
pub const RESIZE_PENDING: &str = "PodResizePending";
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
pub const ALL_RESTARTING: &str = "AllContainersRestarting";

/// The types that the kubelet writes; every other condition is somebody else's and stays.
pub const OWNED: [&str; 8] = [
    READY_TO_START,
    INITIALIZED,
    READY,
    CONTAINERS_READY,
    SCHEDULED,
    RESIZE_PENDING,
    RESIZE_IN_PROGRESS,
    ALL_RESTARTING,
];

/// A condition's status, reason and message.
type Verdict = Result<Option<&'static str>, (&'static str, String)>;

/// The kubelet's conditions for the statuses and the phase in `status`. Times are filled in by [`merge`].
pub fn compute(inputs: &Inputs<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let sandbox = inputs
        .runtime
        .ready_sandbox()
        .filter(|s| spec::is_host_network(inputs.pod) || !s.network.ip.is_empty());
    let network = if sandbox.is_some() { Ok(None) } else { Err(("", String::new())) };
    let containers = containers_ready(inputs.pod, status);
    let ready = containers.clone().and_then(|_| gates(inputs.pod, inputs.old));
    let mut all = vec![
        condition(inputs.pod, READY_TO_START, network),
        condition(inputs.pod, INITIALIZED, initialized(inputs.pod, status)),
        condition(inputs.pod, READY, ready),
        condition(inputs.pod, CONTAINERS_READY, containers),
        condition(inputs.pod, SCHEDULED, Ok(None)),
    ];
    all.extend(resize(inputs));
    all.extend(restarting(inputs, status));
    all.extend(disruption(inputs));
    all
}

/// The node itself ends the pod for the sake of others.
fn disruption(inputs: &Inputs<'_>) -> Option<PodCondition> {
    let verdict = inputs.verdict.filter(|v| v.evicted.is_some())?;
    Some(PodCondition {
        type_: DISRUPTION_TARGET.to_owned(),
        status: "True".to_owned(),
        reason: Some("TerminationByKubelet".to_owned()),
        message: Some(verdict.disruption.as_ref().unwrap_or(&verdict.message).clone()),
        observed_generation: inputs.pod.metadata.generation,
        ..Default::default()
    })
}

/// Conditions that are there only while a resize is.
fn resize(inputs: &Inputs<'_>) -> Vec<PodCondition> {
    let (pod, resize) = (inputs.pod, &inputs.resize);
    if inputs.ending {
        return Vec::new();
    }
    let say = |type_: &str, reason: Option<&str>, message: Option<&str>| PodCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: reason.map(str::to_owned),
        message: message.map(str::to_owned),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    };
    let pending = resize.pending.map(|p| say(RESIZE_PENDING, Some(p.reason), Some(&p.message)));
    let going = (!resize.given.is_settled(pod, inputs.runtime))
        .then(|| say(RESIZE_IN_PROGRESS, resize.error.map(|_| "Error"), resize.error));
    pending.into_iter().chain(going).collect()
}

/// Only pods that may restart as a whole have it.
fn restarting(inputs: &Inputs<'_>, status: &PodStatus) -> Option<PodCondition> {
    if !restart::can_restart_all(inputs.pod) {
        return None;
    }
    let verdict = match (status.phase.as_deref(), inputs.restarting) {
        (Some("Succeeded"), _) => Err(("PodCompleted", String::new())),
        (Some("Failed"), _) => Err(("PodFailed", String::new())),
        (_, Some(message)) => Ok((Some("ContainerExited"), message)),
        (_, None) => Err(("", String::new())),
    };
    let message = verdict.as_ref().ok().map(|(_, message)| (*message).to_owned());
    let told = condition(inputs.pod, ALL_RESTARTING, verdict.map(|(reason, _)| reason));
    Some(PodCondition { message, ..told })
}

fn condition(pod: &Pod, type_: &str, verdict: Verdict) -> PodCondition {
    let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let (status, reason, message) = match &verdict {
        Ok(reason) => ("True", reason.and_then(some), None),
        Err((reason, message)) => ("False", some(reason), some(message)),
    };
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason,
        message,
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// Names in `wanted` without a status, and those whose status does not pass.
fn sift<'a>(
    wanted: impl Iterator<Item = &'a str>,
    statuses: &[ContainerStatus],
    passes: impl Fn(&ContainerStatus) -> bool,
) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut unknown, mut failing) = (Vec::new(), Vec::new());
    for name in wanted {
        match statuses.iter().find(|s| s.name == name) {
            None => unknown.push(name),
            Some(status) if !passes(status) => failing.push(name),
            Some(_) => {}
        }
    }
    (unknown, failing)
}

fn sentence(unknown: &[&str], failing: &[&str], what: &str) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !failing.is_empty() {
        parts.push(format!("containers with {what} status: [{}]", failing.join(" ")));
    }
    parts.join(", ")
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Verdict {
    let Some(regular) = &status.container_statuses else {
        return Err(("UnknownContainerStatuses", String::new()));
    };
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_restartable_init(c));
    let (mut unknown, mut unready) = sift(sidecars.map(|c| c.name.as_str()), init, |s| s.ready);
    let (more_unknown, more_unready) =
        sift(spec::containers(pod).iter().map(|c| c.name.as_str()), regular, |s| s.ready);
    unknown.extend(more_unknown);
    unready.extend(more_unready);
    match status.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => return Err(("PodCompleted", String::new())),
        Some("Failed") if unknown.is_empty() => return Err(("PodFailed", String::new())),
        _ => {}
    }
    let message = sentence(&unknown, &unready, "unready");
    if message.is_empty() { Ok(None) } else { Err(("ContainersNotReady", message)) }
}

/// Whether every readiness gate of the pod is open.
fn gates(pod: &Pod, status: &PodStatus) -> Verdict {
    let mut closed = Vec::new();
    for gate in spec::spec(pod).readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match status.conditions.iter().flatten().find(|c| c.type_ == *name) {
            None => closed
                .push(format!("corresponding condition of pod readiness gate \"{name}\" does not exist.")),
            Some(c) if c.status != "True" => closed.push(format!(
                "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                c.status
            )),
            Some(_) => {}
        }
    }
    if closed.is_empty() { Ok(None) } else { Err(("ReadinessGatesNotReady", closed.join(", "))) }
}

fn initialized(pod: &Pod, status: &PodStatus) -> Verdict {
    let init = spec::init_containers(pod);
    if init.is_empty() {
        return Ok(None);
    }
    let Some(statuses) = &status.init_container_statuses else {
        return Err(("UnknownContainerStatuses", String::new()));
    };
    let sidecar = |name: &str| init.iter().any(|c| c.name == name && spec::is_restartable_init(c));
    let (unknown, incomplete) = sift(init.iter().map(|c| c.name.as_str()), statuses, |s| {
        if sidecar(&s.name) { s.started == Some(true) } else { s.ready }
    });
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Ok(Some("PodCompleted"));
    }
    let begun = status.container_statuses.iter().flatten().any(|s| {
        s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    });
    let message = sentence(&unknown, &incomplete, "incomplete");
    if begun || message.is_empty() { Ok(None) } else { Err(("ContainersNotInitialized", message)) }
}

/// Puts fresh conditions among the present ones: the time of a transition is kept while the status stays,
/// and conditions of others are kept as they are.
pub fn merge(fresh: &mut Vec<PodCondition>, present: &[PodCondition], now: krate_base::Timestamp) {
    for condition in fresh.iter_mut() {
        let before = present.iter().find(|c| c.type_ == condition.type_);
        let same = before.filter(|b| b.status == condition.status);
        condition.last_transition_time =
            same.and_then(|b| b.last_transition_time.clone()).or(Some(krate_api::meta::Time(now)));
    }
    let others = present.iter().filter(|c| !OWNED.contains(&c.type_.as_str()));
    let others: Vec<PodCondition> =
        others.filter(|c| fresh.iter().all(|f| f.type_ != c.type_)).cloned().collect();
    fresh.extend(others);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::build::*;
    use crate::spec::build::*;
    use crate::status::tests::Case;
    use krate_api::types::core::v1::PodReadinessGate;

    fn get(case: &Case, type_: &str) -> (String, String, String) {
        let found = case.compute().conditions.unwrap().into_iter().find(|c| c.type_ == type_).unwrap();
        (found.status, found.reason.unwrap_or_default(), found.message.unwrap_or_default())
    }

    fn text(a: &str, b: &str, c: &str) -> (String, String, String) {
        (a.into(), b.into(), c.into())
    }

    #[test]
    fn a_pod_that_starts() {
        let case = Case::new(pod("web"), vec![]);
        let unready = text("False", "ContainersNotReady", "containers with unready status: [web]");
        assert_eq!(get(&case, READY), unready);
        assert_eq!(get(&case, CONTAINERS_READY), unready);
        assert_eq!(get(&case, INITIALIZED), text("True", "", ""));
        assert_eq!(get(&case, SCHEDULED), text("True", "", ""));
        assert_eq!(get(&Case::new(pod("web"), vec![running("web", 0)]), READY), text("True", "", ""));
    }

    #[test]
    fn init_containers_that_have_not_ended() {
        let pod = edit(pod("web"), |s| s.init_containers = Some(vec![container("a"), container("b")]));
        let case = Case::new(pod, vec![exited("a", 0, 0)]);
        let wanted = text("False", "ContainersNotInitialized", "containers with incomplete status: [b]");
        assert_eq!(get(&case, INITIALIZED), wanted);
    }

    #[test]
    fn a_pod_that_is_over() {
        let never = edit(pod("web"), |s| s.restart_policy = Some("Never".into()));
        assert_eq!(
            get(&Case::new(never.clone(), vec![exited("web", 0, 0)]), READY),
            text("False", "PodCompleted", "")
        );
        assert_eq!(get(&Case::new(never, vec![exited("web", 0, 1)]), READY), text("False", "PodFailed", ""));
    }

    #[test]
    fn readiness_gates() {
        let gated = edit(pod("web"), |s| {
            s.readiness_gates = Some(vec![PodReadinessGate { condition_type: "x.io/up".into() }]);
        });
        let mut case = Case::new(gated, vec![running("web", 0)]);
        let message = "corresponding condition of pod readiness gate \"x.io/up\" does not exist.";
        assert_eq!(get(&case, READY), text("False", "ReadinessGatesNotReady", message));
        case.old.conditions =
            Some(vec![PodCondition { type_: "x.io/up".into(), status: "True".into(), ..Default::default() }]);
        assert_eq!(get(&case, READY), text("True", "", ""));
        assert_eq!(get(&case, "x.io/up"), text("True", "", ""));
    }

    #[test]
    fn the_time_of_a_transition_stays_while_the_status_does() {
        let mut case = Case::new(pod("web"), vec![running("web", 0)]);
        let first = case.compute();
        case.old = first.clone();
        case.now = krate_base::Timestamp::from_second(9_999).unwrap();
        assert_eq!(case.compute().conditions, first.conditions);
    }
}
