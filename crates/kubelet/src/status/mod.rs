//! The status of a pod as the API shows it, computed from what the runtime knows.
//!
//! Pure. The publisher (which writes it) is in [`publish`].

pub mod conditions;
pub mod containers;
pub mod phase;

use crate::observed::PodRuntime;
use crate::probe::Results;
use crate::resize::{Given, Pending};
use crate::spec::{self, Role, qos};
use krate_api::meta::Time;
use krate_api::types::core::v1::{HostIP, Pod, PodIP, PodStatus};
use krate_base::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

impl Waiting {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// Why the kubelet itself ended a pod (`status.reason` and `status.message`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
    /// The node needs what the pod uses: the seconds that its containers get.
    pub evicted: Option<i64>,
    /// What the condition `DisruptionTarget` says of it, where that is not the message.
    pub disruption: Option<String>,
    /// The node never took the pod: of its containers there is nothing to tell.
    pub rejected: bool,
}

/// Everything that a status follows from.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    /// The status published last.
    pub old: &'a PodStatus,
    pub runtime: &'a PodRuntime,
    pub probes: &'a Results,
    /// By container name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// The containers that start again whatever their policy says.
    pub forced: &'a BTreeSet<String>,
    /// All containers are being ended to start again, for this reason.
    pub restarting: Option<&'a str>,
    pub node_ips: &'a [IpAddr],
    pub now: Timestamp,
    /// Nothing will be started any more.
    pub ending: bool,
    /// Nothing runs any more either.
    pub ended: bool,
    /// The kubelet ended it (deadline, eviction): it has failed, whatever its containers did.
    pub verdict: Option<&'a Verdict>,
    pub resize: Resize<'a>,
}

/// How far a resize has come.
#[derive(Clone, Copy)]
pub struct Resize<'a> {
    pub given: &'a Given,
    pub pending: Option<&'a Pending>,
    pub error: Option<&'a str>,
}

/// Nanoseconds since the epoch as the API's time, in whole seconds; `None` for "not yet".
pub fn time(nanos: i64) -> Option<Time> {
    if nanos <= 0 {
        return None;
    }
    Timestamp::from_second(nanos.div_euclid(1_000_000_000)).ok().map(Time)
}

/// Computes the status.
pub fn compute(inputs: &Inputs<'_>) -> PodStatus {
    let (pod, old) = (inputs.pod, inputs.old);
    let some = |list: Vec<_>| Some(list).filter(|l: &Vec<_>| !l.is_empty());
    let init = containers::statuses(
        inputs,
        Role::Init,
        spec::init_containers(pod),
        old.init_container_statuses.as_ref(),
    );
    let regular =
        containers::statuses(inputs, Role::Regular, spec::containers(pod), old.container_statuses.as_ref());
    let ephemeral = spec::ephemeral_containers(pod);
    let ephemeral =
        containers::statuses(inputs, Role::Ephemeral, &ephemeral, old.ephemeral_container_statuses.as_ref());
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        phase: Some(phase_of(inputs, &init, &regular)),
        reason: old.reason.clone(),
        message: old.message.clone(),
        container_statuses: some(regular),
        init_container_statuses: some(init),
        ephemeral_container_statuses: some(ephemeral),
        qos_class: Some(qos::class(pod).as_str().to_owned()),
        start_time: old.start_time.clone().or(Some(Time(inputs.now))),
        // What others write stays.
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        resize: old.resize.clone(),
        resources: spec::spec(pod)
            .resources
            .as_ref()
            .map(|own| inputs.resize.given.pod.as_ref().unwrap_or(own).clone()),
        allocated_resources: spec::spec(pod).resources.as_ref().and_then(|own| own.requests.clone()),
        extended_resource_claim_status: old.extended_resource_claim_status.clone(),
        ..Default::default()
    };
    if let Some(verdict) = inputs.verdict {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
    }
    if inputs.ended {
        end(&mut status);
    }
    if inputs.verdict.is_some_and(|verdict| verdict.rejected) {
        status.container_statuses = None;
        status.init_container_statuses = None;
        status.ephemeral_container_statuses = None;
    }
    addresses(inputs, &mut status);
    let mut fresh = conditions::compute(inputs, &status);
    conditions::merge(&mut fresh, old.conditions.as_deref().unwrap_or_default(), inputs.now);
    status.conditions = Some(fresh);
    status
}

fn phase_of(
    inputs: &Inputs<'_>,
    init: &[krate_api::types::core::v1::ContainerStatus],
    regular: &[krate_api::types::core::v1::ContainerStatus],
) -> String {
    // A pod that has run its course never runs again, and one that ran is never pending again.
    let old = inputs.old.phase.as_deref().unwrap_or_default();
    if matches!(old, "Succeeded" | "Failed") {
        return old.to_owned();
    }
    if inputs.verdict.is_some() {
        return "Failed".to_owned();
    }
    let phase = phase::phase(inputs.pod, init, regular, inputs.ended, inputs.forced);
    if old == "Running" && phase == "Pending" && inputs.ending { old.to_owned() } else { phase.to_owned() }
}

/// The last status of a pod of which nothing runs any more.
fn end(status: &mut PodStatus) {
    let begun = |s: &krate_api::types::core::v1::ContainerStatus| {
        s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    };
    let all = status.container_statuses.iter().flatten();
    let initialized = all.clone().any(begun);
    let lists = [&mut status.container_statuses, &mut status.init_container_statuses];
    for (list, regular) in lists.into_iter().zip([true, false]) {
        for container in list.iter_mut().flatten() {
            if (regular && initialized) || container.state.as_ref().is_some_and(|s| s.running.is_some()) {
                containers::end_unknown(container);
            }
            container.started = Some(false);
            container.ready &= !regular;
        }
    }
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        status.phase = Some("Failed".to_owned());
    }
}

fn addresses(inputs: &Inputs<'_>, status: &mut PodStatus) {
    let node: Vec<String> = inputs.node_ips.iter().map(ToString::to_string).collect();
    status.host_ip = node.first().cloned();
    status.host_ips =
        Some(node.iter().map(|ip| HostIP { ip: ip.clone() }).collect::<Vec<_>>()).filter(|l| !l.is_empty());
    let mut own = inputs.runtime.ips();
    if own.is_empty() && spec::is_host_network(inputs.pod) {
        own = node;
    }
    if own.is_empty() {
        // The address of a pod whose sandbox is down stays in its status until there is another.
        status.pod_ip = inputs.old.pod_ip.clone();
        status.pod_ips = inputs.old.pod_ips.clone();
        return;
    }
    status.pod_ip = own.first().cloned();
    status.pod_ips = Some(own.into_iter().map(|ip| PodIP { ip }).collect());
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::observed::Observed;
    use crate::observed::build::*;
    use crate::spec::build::*;

    /// A status computation in the making.
    pub struct Case {
        pub pod: Pod,
        pub old: PodStatus,
        pub runtime: PodRuntime,
        pub probes: Results,
        pub waiting: BTreeMap<String, Waiting>,
        pub forced: BTreeSet<String>,
        pub restarting: Option<String>,
        pub now: Timestamp,
        pub ending: bool,
        pub ended: bool,
        pub verdict: Option<Verdict>,
        pub given: Given,
        pub pending: Option<Pending>,
    }

    impl Case {
        pub fn new(pod: Pod, containers: Vec<Observed>) -> Self {
            Self {
                pod,
                old: PodStatus::default(),
                runtime: pod_runtime(containers),
                probes: Results::default(),
                waiting: BTreeMap::new(),
                forced: BTreeSet::new(),
                restarting: None,
                now: Timestamp::from_second(5_000).unwrap(),
                ending: false,
                ended: false,
                verdict: None,
                given: Given::default(),
                pending: None,
            }
        }

        pub fn compute(&self) -> PodStatus {
            compute(&Inputs {
                pod: &self.pod,
                old: &self.old,
                runtime: &self.runtime,
                probes: &self.probes,
                waiting: &self.waiting,
                forced: &self.forced,
                restarting: self.restarting.as_deref(),
                node_ips: &["192.0.2.1".parse().unwrap()],
                now: self.now,
                ending: self.ending,
                ended: self.ended,
                verdict: self.verdict.as_ref(),
                resize: Resize { given: &self.given, pending: self.pending.as_ref(), error: None },
            })
        }
    }

    #[test]
    fn addresses_stay_when_the_sandbox_is_down() {
        let mut case = Case::new(pod("web"), vec![running("web", 0)]);
        case.old = case.compute();
        assert_eq!(case.old.pod_ip.as_deref(), Some("10.0.0.2"));
        assert_eq!(case.old.host_ip.as_deref(), Some("192.0.2.1"));
        case.runtime.sandboxes.clear();
        assert_eq!(case.compute().pod_ip.as_deref(), Some("10.0.0.2"));
    }

    #[test]
    fn a_computation_is_stable() {
        let mut case = Case::new(pod("web"), vec![running("web", 1), exited("web", 0, 1)]);
        case.old = case.compute();
        assert_eq!(case.compute(), case.old);
    }

    #[test]
    fn a_terminal_phase_is_final() {
        let mut case = Case::new(pod("web"), vec![running("web", 0)]);
        case.old.phase = Some("Failed".into());
        assert_eq!(case.compute().phase.as_deref(), Some("Failed"));
    }

    #[test]
    fn a_deadline_fails_the_pod() {
        let mut case = Case::new(pod("web"), vec![running("web", 0)]);
        case.verdict = Some(Verdict {
            reason: "DeadlineExceeded".into(),
            message: "late".into(),
            evicted: None,
            disruption: None,
            rejected: false,
        });
        let status = case.compute();
        assert_eq!(
            (status.phase.as_deref(), status.reason.as_deref()),
            (Some("Failed"), Some("DeadlineExceeded"))
        );
    }

    #[test]
    fn what_vanished_of_an_ended_pod_ended_unknown() {
        let mut case = Case::new(pod("web"), vec![running("web", 0)]);
        case.old = case.compute();
        case.runtime.containers.clear();
        (case.ending, case.ended) = (true, true);
        let status = case.compute();
        let state = status.container_statuses.unwrap().remove(0).state.unwrap();
        assert_eq!(state.terminated.unwrap().reason.as_deref(), Some("ContainerStatusUnknown"));
        assert_eq!(status.phase.as_deref(), Some("Failed"));
    }
}
