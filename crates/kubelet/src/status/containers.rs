//! The status of each container, from what the runtime knows and what was published before.

use super::{Inputs, time};
use crate::observed::Observed;
use crate::spec::{self, Role};
use crate::sync::restart;
use krate_api::types::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, ResourceRequirements, VolumeMountStatus,
};
use krate_runtime::cri;

/// The scheme of container ids, as `status.containerStatuses[].containerID` has it before `://`.
pub const RUNTIME_NAME: &str = "krate";
/// The container ran, and nobody can say how it ended.
pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
pub const CREATING: &str = "ContainerCreating";
pub const INITIALIZING: &str = "PodInitializing";
const LOST: &str = "The container could not be located when the pod was terminated";
const KILLED: i32 = 137;

/// Statuses of the containers in `list`, in the order in which they are published.
pub fn statuses(
    inputs: &Inputs<'_>,
    role: Role,
    list: &[Container],
    old: Option<&Vec<ContainerStatus>>,
) -> Vec<ContainerStatus> {
    let mut out: Vec<ContainerStatus> = list
        .iter()
        .map(|container| {
            let before = old.into_iter().flatten().find(|s| s.name == container.name);
            one(inputs, role, container, before)
        })
        .collect();
    if role != Role::Init {
        out.sort_by(|a, b| a.name.cmp(&b.name));
    }
    out
}

fn one(
    inputs: &Inputs<'_>,
    role: Role,
    container: &Container,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut attempts = inputs.runtime.containers.iter().filter(|c| c.name() == container.name);
    let mut status = match attempts.next() {
        Some(newest) => {
            let mut status = of_attempt(inputs, role, container, newest, old);
            status.last_state = last_state(newest, attempts.next(), old);
            status
        }
        None => of_none(inputs, role, container, old),
    };
    // A container that cannot be started now waits, and says for what.
    let latest = inputs.runtime.latest(&container.name);
    let succeeded_init = role == Role::Init
        && !spec::is_restartable_init(container)
        && latest.is_some_and(|o| o.has_exited() && o.status.exit_code == 0);
    let forced = inputs.forced.contains(&container.name) && !inputs.ending;
    if !inputs.ending
        && !succeeded_init
        && (forced || restart::should_start(inputs.pod, role, container, latest))
        && let Some(waiting) = inputs.waiting.get(&container.name)
    {
        if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            status.last_state = status.state.take();
        }
        status.state = Some(waiting_for(&waiting.reason, &waiting.message));
    } else if forced
        && !restart::can_restart_all(inputs.pod)
        && !restart::should_start(inputs.pod, role, container, latest)
    {
        // Of what never restarts the API takes no other state after an end (unless a rule restarts all): between two
        // attempts it is said to run.
        let running = old.and_then(|s| s.state.as_ref()).filter(|s| s.running.is_some());
        if let (Some(running), Some(_)) = (running, status.state.as_ref().and_then(|s| s.terminated.as_ref()))
        {
            status.state = Some(running.clone());
        }
    }
    status.started = Some(status.started.unwrap_or(false));
    // The original shows an empty last state rather than none.
    status.last_state.get_or_insert_default();
    status
}

/// State before the newest attempt: the attempt before it, if the runtime still has it, else what was
/// published when it was the newest.
fn last_state(
    newest: &Observed,
    before: Option<&Observed>,
    old: Option<&ContainerStatus>,
) -> Option<ContainerState> {
    if let Some(before) = before {
        return Some(state_of(before));
    }
    let old = old?;
    let id = container_id(newest.id());
    if old.container_id.as_deref() == Some(&id) {
        return old.last_state.clone().filter(|s| *s != ContainerState::default());
    }
    let ended = old.state.clone().filter(|s| s.terminated.is_some());
    ended.or_else(|| old.last_state.clone()).filter(|s| *s != ContainerState::default())
}

/// The status of a container of which the runtime has no attempt.
fn of_none(
    inputs: &Inputs<'_>,
    role: Role,
    container: &Container,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let ended = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.terminated.is_some());
    if let Some(old) = old.filter(|s| ended(s)) {
        return ContainerStatus { ready: old.ready && role == Role::Init, ..old.clone() };
    }
    let initializing = role != Role::Ephemeral && !spec::init_containers(inputs.pod).is_empty();
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting_for(if initializing { INITIALIZING } else { CREATING }, "")),
        volume_mounts: mount_statuses(container),
        ..Default::default()
    };
    let Some(old) = old else { return status };
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    let ran = old.state.as_ref().is_some_and(|s| s.running.is_some());
    if ran && status.last_state.as_ref().is_none_or(|s| s.terminated.is_none()) {
        status.last_state = Some(lost(old));
        if !spec::is_deleting(inputs.pod) {
            status.restart_count += 1;
        }
    } else if !ran && old.container_id.is_some() {
        // It had ended and waited for its turn; what starts is the attempt after that.
        status.restart_count += 1;
    }
    status
}

/// The end of a container that was seen running and is gone.
fn lost(old: &ContainerStatus) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some(STATUS_UNKNOWN.to_owned()),
            message: Some(LOST.to_owned()),
            exit_code: KILLED,
            container_id: old.container_id.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Says of a container that has no end that it ended unknown, for a pod that is over.
pub fn end_unknown(status: &mut ContainerStatus) {
    if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        return;
    }
    status.state = Some(lost(status));
    status.ready = false;
    status.started = Some(false);
}

fn of_attempt(
    inputs: &Inputs<'_>,
    role: Role,
    container: &Container,
    observed: &Observed,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let cri = &observed.status;
    let mut state = state_of(observed);
    if cri.state == cri::ContainerState::Unknown
        && let Some(old) = old.filter(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()))
    {
        state = lost(old);
    }
    let running = state.running.is_some();
    let (started, ready) = inputs.probes.verdict(container, observed.id());
    let init_done = role == Role::Init && state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    let plain_init = role == Role::Init && !spec::is_restartable_init(container);
    ContainerStatus {
        name: container.name.clone(),
        container_id: Some(container_id(observed.id())),
        image: first([
            &cri.image.user_specified_image,
            &cri.image.image,
            container.image.as_ref().unwrap_or(&String::new()),
        ]),
        image_id: first([&cri.image_ref, &cri.image_id]),
        restart_count: i32::try_from(observed.restart_count()).unwrap_or(i32::MAX),
        ready: if plain_init { init_done } else { running && ready && role != Role::Ephemeral },
        started: Some(running && started),
        state: Some(state),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|r| r.requests.clone())
            .filter(|r| !r.is_empty()),
        resources: Some(ResourceRequirements {
            claims: None,
            ..inputs
                .resize
                .given
                .of(observed.id())
                .or(container.resources.as_ref())
                .cloned()
                .unwrap_or_default()
        }),
        user: cri.user.as_ref().map(user),
        volume_mounts: mount_statuses(container),
        ..Default::default()
    }
}

fn first<const N: usize>(candidates: [&String; N]) -> String {
    candidates.into_iter().find(|s| !s.is_empty()).cloned().unwrap_or_default()
}

pub fn container_id(id: &str) -> String {
    format!("{RUNTIME_NAME}://{id}")
}

fn state_of(observed: &Observed) -> ContainerState {
    let cri = &observed.status;
    let mut state = ContainerState::default();
    match cri.state {
        cri::ContainerState::Running => {
            state.running = Some(ContainerStateRunning { started_at: time(cri.started_at) });
        }
        cri::ContainerState::Exited => {
            let text = |s: &String| (!s.is_empty()).then(|| s.clone());
            state.terminated = Some(ContainerStateTerminated {
                container_id: Some(container_id(&cri.id)),
                exit_code: cri.exit_code,
                reason: text(&cri.reason),
                message: text(&cri.message),
                started_at: time(cri.started_at).or_else(|| time(cri.created_at)),
                finished_at: time(cri.finished_at),
                signal: None,
            });
        }
        cri::ContainerState::Created | cri::ContainerState::Unknown => {
            state.waiting = Some(ContainerStateWaiting::default());
        }
    }
    state
}

fn waiting_for(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..Default::default()
    }
}

fn user(from: &cri::LinuxContainerUser) -> ContainerUser {
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: from.uid,
            gid: from.gid,
            supplemental_groups: Some(from.supplemental_groups.clone()).filter(|g| !g.is_empty()),
        }),
    }
}

fn mount_statuses(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let status = |mount: &krate_api::types::core::v1::VolumeMount| VolumeMountStatus {
        mount_path: mount.mount_path.clone(),
        name: mount.name.clone(),
        read_only: mount.read_only,
        recursive_read_only: (mount.read_only == Some(true)).then(|| {
            let wanted = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
            if wanted { "Enabled" } else { "Disabled" }.to_owned()
        }),
        volume_status: None,
    };
    Some(mounts.iter().map(status).collect::<Vec<_>>()).filter(|m| !m.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::build::*;
    use crate::spec::build::*;
    use crate::status::Waiting;
    use crate::status::tests::Case;

    fn regular(case: &Case) -> ContainerStatus {
        case.compute().container_statuses.unwrap().remove(0)
    }

    fn reason(state: &Option<ContainerState>) -> &str {
        let state = state.as_ref().unwrap();
        let waiting = state.waiting.as_ref().and_then(|w| w.reason.as_deref());
        waiting.or(state.terminated.as_ref().and_then(|t| t.reason.as_deref())).unwrap_or("")
    }

    #[test]
    fn a_new_container_is_being_created() {
        let status = regular(&Case::new(pod("web"), vec![]));
        assert_eq!(reason(&status.state), "ContainerCreating");
        assert_eq!((status.ready, status.started), (false, Some(false)));
        let with_init = edit(pod("web"), |s| s.init_containers = Some(vec![container("a")]));
        let case = Case::new(with_init, vec![]);
        assert_eq!(reason(&regular(&case).state), "PodInitializing");
        let first = case.compute().init_container_statuses.unwrap().remove(0);
        assert_eq!(reason(&first.state), "PodInitializing");
    }

    #[test]
    fn a_running_container() {
        let status = regular(&Case::new(pod("web"), vec![running("web", 0)]));
        assert_eq!((status.ready, status.started), (true, Some(true)));
        assert_eq!(status.container_id.as_deref(), Some("krate://web-0"));
        assert!(status.state.unwrap().running.is_some());
        assert_eq!(status.last_state, Some(ContainerState::default()));
    }

    #[test]
    fn a_crash_loop_waits_and_shows_the_last_end() {
        let mut case = Case::new(pod("web"), vec![exited("web", 1, 3), exited("web", 0, 2)]);
        let plain = regular(&case);
        assert_eq!(reason(&plain.state), "Error");
        assert_eq!(plain.last_state.unwrap().terminated.unwrap().exit_code, 2);
        case.waiting.insert("web".into(), Waiting::new("CrashLoopBackOff", "back-off 10s"));
        let status = regular(&case);
        assert_eq!(reason(&status.state), "CrashLoopBackOff");
        assert_eq!(status.restart_count, 1);
        assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 3);
    }

    #[test]
    fn the_last_state_survives_the_removal_of_the_old_container() {
        let mut case = Case::new(pod("web"), vec![exited("web", 0, 2)]);
        case.old = case.compute();
        case.runtime = pod_runtime(vec![running("web", 1)]);
        let status = regular(&case);
        assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 2);
        case.old = case.compute();
        assert_eq!(regular(&case).last_state.unwrap().terminated.unwrap().exit_code, 2);
    }

    #[test]
    fn a_container_that_vanished_ended_unknown() {
        let mut case = Case::new(pod("web"), vec![running("web", 0)]);
        case.old = case.compute();
        case.runtime.containers.clear();
        let status = regular(&case);
        assert_eq!(reason(&status.last_state), STATUS_UNKNOWN);
        assert_eq!(status.restart_count, 1);
    }

    #[test]
    fn probes_decide_started_and_ready() {
        let probed = edit(pod("web"), |s| {
            s.containers[0].startup_probe = Some(Default::default());
            s.containers[0].readiness_probe = Some(Default::default());
        });
        let mut case = Case::new(probed, vec![running("web", 0)]);
        let verdict = |case: &Case| {
            let status = regular(case);
            (status.started.unwrap(), status.ready)
        };
        assert_eq!(verdict(&case), (false, false));
        case.probes.startup.insert("web-0".into(), true);
        assert_eq!(verdict(&case), (true, false));
        case.probes.readiness.insert("web-0".into(), true);
        assert_eq!(verdict(&case), (true, true));
    }

    #[test]
    fn init_statuses_keep_the_order_and_regular_ones_are_sorted() {
        let pod = edit(pod("web"), |s| {
            s.init_containers = Some(vec![container("z"), container("a")]);
            s.containers = vec![container("web"), container("app")];
        });
        let status = Case::new(pod, vec![exited("z", 0, 0)]).compute();
        let names = |list: Option<Vec<ContainerStatus>>| -> Vec<String> {
            list.unwrap().into_iter().map(|s| s.name).collect()
        };
        assert!(status.init_container_statuses.as_ref().unwrap()[0].ready);
        assert_eq!(names(status.init_container_statuses), ["z", "a"]);
        assert_eq!(names(status.container_statuses), ["app", "web"]);
    }
}
