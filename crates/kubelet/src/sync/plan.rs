//! The plan for a pod that should run: which sandbox, which containers to start, which to stop.
//!
//! Pure. The order of things: a sandbox, then init containers one after another (sidecars among them keep
//! running), then the regular containers. A container that has to be replaced is stopped here; it is
//! started by a later plan, when the runtime says that it has ended.

use super::restart::{self, should_start};
use crate::observed::{Observed, PodRuntime};
use crate::probe::Results;
use crate::spec::{self, Role};
use krate_api::types::core::v1::{Container, Pod};
use krate_runtime::cri::{ContainerState, NamespaceMode};
use std::collections::BTreeSet;

/// Why a container is stopped; decides whether its grace is that of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Changed,
    Liveness,
    Startup,
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    pub id: String,
    pub name: String,
    pub cause: Cause,
    /// The sentence of the event `Killing`.
    pub message: String,
    /// It starts again however it ends.
    pub again: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub role: Role,
    pub container: Container,
}

/// What to do next. `end` excludes everything else: nothing runs and nothing is to be started any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The pod has run its course: stop what is left (sidecars, the sandbox).
    pub end: bool,
    /// Make a sandbox (after stopping the old one), as this attempt.
    pub new_sandbox: Option<u32>,
    /// The sandbox to start containers in.
    pub sandbox: Option<String>,
    pub start: Vec<Start>,
    pub stop: Vec<Stop>,
}

/// Makes the plan. `forced` names containers that were stopped to be replaced and start again whatever
/// their restart policy says.
pub fn plan(pod: &Pod, runtime: &PodRuntime, probes: &Results, forced: &BTreeSet<String>) -> Plan {
    match sandbox_of(pod, runtime) {
        Err(attempt) => without_sandbox(pod, runtime, attempt),
        Ok(sandbox) => within(pod, runtime, probes, forced, sandbox),
    }
}

/// The sandbox that serves, or the attempt that a new one would be.
fn sandbox_of<'a>(pod: &Pod, runtime: &'a PodRuntime) -> Result<&'a str, u32> {
    let Some(newest) = runtime.sandbox() else { return Err(0) };
    let on_host = spec::is_host_network(pod);
    let fits = runtime.ready_sandbox().is_some()
        && (newest.namespaces.network == NamespaceMode::Node) == on_host
        && (on_host || !newest.network.ip.is_empty());
    if fits { Ok(&newest.id) } else { Err(newest.metadata.attempt + 1) }
}

fn without_sandbox(pod: &Pod, runtime: &PodRuntime, attempt: u32) -> Plan {
    let wanted =
        |c: &&Container| should_start(pod, Role::Regular, c, ended(runtime.latest(&c.name)).as_ref());
    let any_wanted = spec::containers(pod).iter().any(|c| wanted(&c));
    let initialized = spec::containers(pod).iter().any(|c| runtime.latest(&c.name).is_some());
    // A pod whose policy is Never does not begin again once it ran; nor does one that has nothing to start.
    let over = attempt > 0
        && !runtime.containers.is_empty()
        && (!any_wanted && (initialized || init_is_hopeless(pod, runtime)));
    if over || spec::is_deleting(pod) {
        return Plan { end: true, ..Plan::default() };
    }
    Plan { new_sandbox: Some(attempt), ..Plan::default() }
}

/// A container whose sandbox is gone has ended, even if the runtime has not said so yet.
fn ended(latest: Option<&Observed>) -> Option<Observed> {
    let mut latest = latest.cloned()?;
    if latest.is_running() {
        latest.status.state = ContainerState::Exited;
        latest.status.exit_code = 137;
    }
    Some(latest)
}

fn init_is_hopeless(pod: &Pod, runtime: &PodRuntime) -> bool {
    spec::init_containers(pod).iter().any(|c| {
        ended(runtime.latest(&c.name)).is_some_and(|o| {
            o.status.exit_code != 0 && !restart::after_exit(pod, Role::Init, c, o.status.exit_code)
        })
    })
}

fn within(
    pod: &Pod,
    runtime: &PodRuntime,
    probes: &Results,
    forced: &BTreeSet<String>,
    sandbox: &str,
) -> Plan {
    let mut plan = Plan { sandbox: Some(sandbox.to_owned()), ..Plan::default() };
    for container in spec::ephemeral_containers(pod) {
        if runtime.latest(&container.name).is_none() && !spec::is_deleting(pod) {
            plan.start.push(Start { role: Role::Ephemeral, container });
        }
    }
    match initialize(pod, runtime, probes, sandbox, &mut plan) {
        Init::Failed => return Plan { end: true, sandbox: plan.sandbox, ..Plan::default() },
        Init::Going => return plan,
        Init::Done => {}
    }
    let mut keep = 0;
    for container in spec::containers(pod) {
        keep += usize::from(regular(pod, container, runtime, probes, forced, &mut plan));
    }
    if keep == 0 && !plan.start.iter().any(|s| s.role == Role::Regular) && plan.stop.is_empty() {
        return Plan { end: true, sandbox: plan.sandbox, ..Plan::default() };
    }
    plan
}

/// Plans for one regular container; whether it goes on running as it is.
fn regular(
    pod: &Pod,
    container: &Container,
    runtime: &PodRuntime,
    probes: &Results,
    forced: &BTreeSet<String>,
    plan: &mut Plan,
) -> bool {
    let latest = runtime.latest(&container.name);
    let Some(observed) = latest.filter(|o| o.is_running()) else {
        let forced = forced.contains(&container.name) && !spec::is_deleting(pod);
        if forced || should_start(pod, Role::Regular, container, latest) {
            stop_unknown(latest, plan);
            plan.start.push(Start { role: Role::Regular, container: container.clone() });
        }
        return false;
    };
    let (cause, what) = if observed.differs_from(container) {
        (Cause::Changed, "definition changed")
    } else if probes.failed_liveness(observed.id()) {
        (Cause::Liveness, "failed liveness probe")
    } else if probes.failed_startup(observed.id()) {
        (Cause::Startup, "failed startup probe")
    } else {
        return true;
    };
    let again =
        cause == Cause::Changed || restart::policy(pod, Role::Regular, container) != restart::Policy::Never;
    let tail = if again { ", will be restarted" } else { "" };
    let message = format!("Container {} {what}{tail}", container.name);
    plan.stop.push(Stop {
        id: observed.id().to_owned(),
        name: container.name.clone(),
        cause,
        message,
        again,
    });
    false
}

fn stop_unknown(latest: Option<&Observed>, plan: &mut Plan) {
    if let Some(observed) = latest.filter(|o| o.status.state == ContainerState::Unknown) {
        plan.stop.push(Stop {
            id: observed.id().to_owned(),
            name: observed.name().to_owned(),
            cause: Cause::Unknown,
            message: "Container is in \"unknown\" state, try killing it before restart".to_owned(),
            again: false,
        });
    }
}

enum Init {
    Done,
    Going,
    /// An init container failed for good.
    Failed,
}

/// Plans the init containers of the present sandbox.
///
/// The last one that was ever started in this sandbox tells how far initialization came; of those before
/// it only sidecars matter. A regular container in this sandbox says that initialization is over.
fn initialize(pod: &Pod, runtime: &PodRuntime, probes: &Results, sandbox: &str, plan: &mut Plan) -> Init {
    let all = spec::init_containers(pod);
    let observed = |c: &Container| runtime.latest_in(sandbox, &c.name);
    let over = spec::containers(pod).iter().any(|c| observed(c).is_some());
    let reached = if over { all.len() } else { all.iter().rposition(|c| observed(c).is_some()).unwrap_or(0) };
    for container in all.iter().take(reached) {
        if spec::is_restartable_init(container) {
            keep_sidecar(pod, container, observed(container), probes, plan);
        }
    }
    let Some(container) = all.get(reached) else { return Init::Done };
    match init_state(pod, container, observed(container), probes, plan) {
        Init::Done => match all.get(reached + 1) {
            Some(next) => {
                if !spec::is_deleting(pod) {
                    plan.start.push(Start { role: Role::Init, container: next.clone() });
                }
                Init::Going
            }
            None => Init::Done,
        },
        other => other,
    }
}

/// What the init container that initialization has reached needs.
fn init_state(
    pod: &Pod,
    c: &Container,
    latest: Option<&Observed>,
    probes: &Results,
    plan: &mut Plan,
) -> Init {
    if spec::is_restartable_init(c) {
        keep_sidecar(pod, c, latest, probes, plan);
        let started = latest
            .is_some_and(|o| o.is_running() && (c.startup_probe.is_none() || probes.passed_startup(o.id())));
        return if started { Init::Done } else { Init::Going };
    }
    match latest {
        Some(o) if o.is_running() => return Init::Going,
        Some(o) if o.has_exited() && o.status.exit_code == 0 => return Init::Done,
        Some(o) if o.has_exited() && !restart::after_exit(pod, Role::Init, c, o.status.exit_code) => {
            return Init::Failed;
        }
        _ => {}
    }
    if !spec::is_deleting(pod) {
        stop_unknown(latest, plan);
        plan.start.push(Start { role: Role::Init, container: c.clone() });
    }
    Init::Going
}

fn keep_sidecar(pod: &Pod, c: &Container, latest: Option<&Observed>, probes: &Results, plan: &mut Plan) {
    let Some(observed) = latest.filter(|o| o.is_running()) else {
        if should_start(pod, Role::Init, c, latest) {
            stop_unknown(latest, plan);
            plan.start.push(Start { role: Role::Init, container: c.clone() });
        }
        return;
    };
    let (cause, what) = if observed.differs_from(c) {
        (Cause::Changed, "definition changed, will be restarted")
    } else if probes.failed_startup(observed.id()) {
        (Cause::Startup, "failed startup probe")
    } else if probes.failed_liveness(observed.id()) {
        (Cause::Liveness, "failed liveness probe")
    } else {
        return;
    };
    let message = format!("Init container {} {what}", c.name);
    plan.stop.push(Stop { id: observed.id().to_owned(), name: c.name.clone(), cause, message, again: true });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::build::*;
    use crate::spec::build::*;
    use krate_runtime::cri::PodSandboxState;

    fn run(pod: &Pod, containers: Vec<Observed>) -> Plan {
        plan(pod, &pod_runtime(containers), &Results::default(), &BTreeSet::new())
    }

    fn starts(plan: &Plan) -> Vec<&str> {
        plan.start.iter().map(|s| s.container.name.as_str()).collect()
    }

    fn with_init(policy: &str, init: Vec<Container>) -> Pod {
        edit(pod("web"), |s| {
            s.restart_policy = Some(policy.into());
            s.init_containers = Some(init);
        })
    }

    #[test]
    fn a_new_pod_gets_a_sandbox_then_its_containers() {
        let empty = plan(&pod("web"), &PodRuntime::default(), &Results::default(), &BTreeSet::new());
        assert_eq!(empty, Plan { new_sandbox: Some(0), ..Plan::default() });
        assert_eq!(starts(&run(&pod("web"), vec![])), ["web"]);
        assert_eq!(run(&pod("web"), vec![running("web", 0)]).start, []);
    }

    #[test]
    fn a_dead_sandbox_is_replaced_unless_the_pod_is_over() {
        let mut runtime = pod_runtime(vec![exited("web", 0, 137)]);
        runtime.sandboxes[0].state = PodSandboxState::NotReady;
        let go = |pod: &Pod, runtime: &PodRuntime| plan(pod, runtime, &Results::default(), &BTreeSet::new());
        assert_eq!(go(&pod("web"), &runtime).new_sandbox, Some(1));
        assert!(go(&with_init("Never", vec![]), &runtime).end);
        runtime.containers = vec![exited("web", 0, 0)];
        assert!(go(&with_init("OnFailure", vec![]), &runtime).end);
        // No container ever ran: even a pod that never restarts gets another sandbox.
        runtime.containers.clear();
        assert_eq!(go(&with_init("Never", vec![]), &runtime).new_sandbox, Some(1));
    }

    #[test]
    fn init_containers_run_one_after_another() {
        let pod = with_init("Always", vec![container("a"), container("b")]);
        assert_eq!(starts(&run(&pod, vec![])), ["a"]);
        assert!(starts(&run(&pod, vec![running("a", 0)])).is_empty());
        assert_eq!(starts(&run(&pod, vec![exited("a", 0, 0)])), ["b"]);
        assert_eq!(starts(&run(&pod, vec![exited("a", 0, 0), exited("b", 0, 1)])), ["b"]);
        assert_eq!(starts(&run(&pod, vec![exited("a", 0, 0), exited("b", 0, 0)])), ["web"]);
        // Finished init containers may have been removed from the runtime.
        assert_eq!(starts(&run(&pod, vec![exited("b", 0, 0)])), ["web"]);
        assert!(starts(&run(&pod, vec![running("web", 0)])).is_empty());
    }

    #[test]
    fn a_failed_init_container_ends_a_pod_that_never_restarts() {
        let pod = with_init("Never", vec![container("a")]);
        assert!(run(&pod, vec![exited("a", 0, 1)]).end);
    }

    #[test]
    fn init_containers_of_an_older_sandbox_do_not_count() {
        let pod = with_init("Always", vec![container("a")]);
        let mut old = exited("a", 0, 0);
        old.sandbox = "older".into();
        assert_eq!(starts(&run(&pod, vec![old])), ["a"]);
    }

    #[test]
    fn a_sidecar_lets_the_next_begin_when_it_has_started() {
        let mut side = sidecar("s");
        let pod = with_init("Always", vec![side.clone(), container("b")]);
        assert_eq!(starts(&run(&pod, vec![running("s", 0)])), ["b"]);
        assert_eq!(starts(&run(&pod, vec![exited("s", 0, 0), running("b", 0)])), ["s"]);
        assert_eq!(starts(&run(&pod, vec![exited("s", 0, 0), running("web", 0)])), ["s"]);
        side.startup_probe = Some(Default::default());
        let pod = with_init("Always", vec![side, container("b")]);
        assert!(starts(&run(&pod, vec![running("s", 0)])).is_empty());
        let mut probes = Results::default();
        probes.startup.insert("s-0".into(), true);
        let plan = plan(&pod, &pod_runtime(vec![running("s", 0)]), &probes, &BTreeSet::new());
        assert_eq!(starts(&plan), ["b"]);
    }

    #[test]
    fn a_failed_liveness_probe_stops_the_container() {
        let mut probes = Results::default();
        probes.liveness.insert("web-0".into(), false);
        let runtime = pod_runtime(vec![running("web", 0)]);
        let got = plan(&pod("web"), &runtime, &probes, &BTreeSet::new());
        assert_eq!(got.stop[0].message, "Container web failed liveness probe, will be restarted");
        let never = with_init("Never", vec![]);
        let got = plan(&never, &runtime, &probes, &BTreeSet::new());
        assert_eq!(got.stop[0].message, "Container web failed liveness probe");
        assert!(!got.end);
    }

    #[test]
    fn a_changed_image_replaces_the_container_whatever_the_policy() {
        let pod = edit(with_init("Never", vec![]), |s| s.containers[0].image = Some("nginx:2".into()));
        let got = run(&pod, vec![running("web", 0)]);
        assert_eq!(got.stop[0].message, "Container web definition changed, will be restarted");
        let forced = BTreeSet::from(["web".to_owned()]);
        let got = plan(&pod, &pod_runtime(vec![exited("web", 0, 0)]), &Results::default(), &forced);
        assert_eq!(starts(&got), ["web"]);
    }

    #[test]
    fn a_pod_ends_when_nothing_is_left_to_run() {
        let pod = with_init("OnFailure", vec![sidecar("s")]);
        assert!(run(&pod, vec![running("s", 0), exited("web", 0, 0)]).end);
        assert!(!run(&pod, vec![running("s", 0), exited("web", 0, 1)]).end);
    }
}
