//! The phase of a pod: one word made from the states of its containers.

use crate::spec::{self, Role};
use crate::sync::restart;
use krate_api::types::core::v1::{Container, ContainerState, ContainerStatus, Pod};
use std::collections::BTreeSet;

#[derive(Default)]
struct Counts {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
    unknown: usize,
    /// Of the stopped, those that start again.
    coming_back: usize,
}

/// The phase, given fresh container statuses. `ended` says that nothing of the pod runs any more and
/// nothing will be started; the containers in `forced` were stopped to start again, whatever the policy.
pub fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    ended: bool,
    forced: &BTreeSet<String>,
) -> &'static str {
    let (pending_init, failed_init) = init_progress(pod, init, regular);
    if failed_init {
        return "Failed";
    }
    let counts = count(pod, regular, forced);
    if pending_init && !ended {
        return "Pending";
    }
    if counts.waiting > 0 && !ended {
        return "Pending";
    }
    if counts.running > 0 && counts.unknown == 0 {
        return "Running";
    }
    if counts.running == 0 && counts.stopped > 0 && counts.unknown == 0 {
        return if counts.coming_back > 0 && !ended {
            "Running"
        } else if counts.stopped == counts.succeeded {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    "Pending"
}

/// Whether initialization goes on, and whether it failed for good.
fn init_progress(pod: &Pod, init: &[ContainerStatus], regular: &[ContainerStatus]) -> (bool, bool) {
    let begun = regular.iter().any(|s| has_run(s.state.as_ref()) || has_run(s.last_state.as_ref()));
    if begun {
        return (false, false);
    }
    let (mut pending, mut failed) = (false, false);
    for container in spec::init_containers(pod) {
        let status = init.iter().find(|s| s.name == container.name);
        if spec::is_restartable_init(container) {
            pending |= status.is_none_or(|s| s.started != Some(true));
            continue;
        }
        match status.and_then(end_of) {
            Some(0) => {}
            Some(code) => {
                failed |= !restart::after_exit(pod, Role::Init, container, code);
                pending = true;
            }
            None => pending = true,
        }
    }
    (pending, failed)
}

fn has_run(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
}

/// The exit code of a container that is stopped, waiting for its restart or not.
fn end_of(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?;
    if state.running.is_some() {
        return None;
    }
    let ended = state.terminated.as_ref().or(status.last_state.as_ref().and_then(|s| s.terminated.as_ref()));
    ended.map(|t| t.exit_code)
}

fn count(pod: &Pod, regular: &[ContainerStatus], forced: &BTreeSet<String>) -> Counts {
    let mut counts = Counts::default();
    for container in spec::containers(pod) {
        let status = regular.iter().find(|s| s.name == container.name);
        let Some(state) = status.and_then(|s| s.state.as_ref()) else {
            counts.unknown += 1;
            continue;
        };
        if state.running.is_some() {
            counts.running += 1;
        } else if let Some(ended) = &state.terminated {
            counts.stopped += 1;
            counts.succeeded += usize::from(ended.exit_code == 0);
            let again = forced.contains(&container.name) || comes_back(pod, container, ended.exit_code);
            counts.coming_back += usize::from(again);
        } else if status.and_then(end_of).is_some() {
            // It waits for its restart.
            counts.stopped += 1;
            counts.coming_back += 1;
        } else {
            counts.waiting += 1;
        }
    }
    counts
}

fn comes_back(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    restart::after_exit(pod, Role::Regular, container, exit_code)
}

#[cfg(test)]
mod tests {
    use crate::observed::build::*;
    use crate::spec::build::*;
    use crate::status::Waiting;
    use crate::status::tests::Case;
    use krate_api::types::core::v1::Pod;

    fn two(policy: &str) -> Pod {
        edit(pod("web"), |s| {
            s.containers = vec![container("a"), container("b")];
            s.restart_policy = Some(policy.into());
        })
    }

    fn phase(case: &Case) -> String {
        case.compute().phase.unwrap()
    }

    #[test]
    fn phases() {
        let cases = [
            ("Always", vec![], "Pending"),
            ("Always", vec![running("a", 0)], "Pending"),
            ("Always", vec![running("a", 0), running("b", 0)], "Running"),
            ("Always", vec![running("a", 0), exited("b", 0, 1)], "Running"),
            ("Always", vec![exited("a", 0, 0), exited("b", 0, 0)], "Running"),
            ("OnFailure", vec![exited("a", 0, 0), exited("b", 0, 1)], "Running"),
            ("OnFailure", vec![exited("a", 0, 0), exited("b", 0, 0)], "Succeeded"),
            ("Never", vec![exited("a", 0, 0), exited("b", 0, 1)], "Failed"),
            ("Never", vec![running("a", 0), exited("b", 0, 1)], "Running"),
            ("Never", vec![exited("a", 0, 0), exited("b", 0, 0)], "Succeeded"),
        ];
        for (policy, containers, wanted) in cases {
            let label =
                format!("{policy} {:?}", containers.iter().map(|c| c.id().to_owned()).collect::<Vec<_>>());
            assert_eq!(phase(&Case::new(two(policy), containers)), wanted, "{label}");
        }
    }

    #[test]
    fn a_pod_whose_container_is_replaced_goes_on() {
        let mut case = Case::new(two("Never"), vec![exited("a", 0, 137), exited("b", 0, 0)]);
        assert_eq!(phase(&case), "Failed");
        case.forced.insert("a".into());
        assert_eq!(phase(&case), "Running");
        case.runtime = Case::new(two("Never"), vec![running("a", 0), running("b", 0)]).runtime;
        case.old = case.compute();
        case.runtime = Case::new(two("Never"), vec![exited("a", 0, 137), running("b", 0)]).runtime;
        let status = case.compute();
        let state = status.container_statuses.unwrap().swap_remove(0).state.unwrap();
        assert!(state.running.is_some() && state.terminated.is_none());
        case.waiting.insert("a".into(), Waiting::new("ErrImagePull", "no"));
        let status = case.compute();
        let a = status.container_statuses.unwrap().swap_remove(0);
        assert!(a.state.unwrap().waiting.is_some() && a.last_state.unwrap().terminated.is_some());
    }

    #[test]
    fn a_crash_loop_is_running() {
        let mut case = Case::new(pod("web"), vec![exited("web", 0, 1)]);
        case.waiting.insert("web".into(), Waiting::new("CrashLoopBackOff", "back-off"));
        assert_eq!(phase(&case), "Running");
    }

    #[test]
    fn initialization_is_pending_until_it_fails_for_good() {
        let pod = |policy: &str| {
            edit(pod("web"), |s| {
                s.init_containers = Some(vec![container("i")]);
                s.restart_policy = Some(policy.into());
            })
        };
        assert_eq!(phase(&Case::new(pod("Always"), vec![running("i", 0)])), "Pending");
        assert_eq!(phase(&Case::new(pod("Always"), vec![exited("i", 0, 1)])), "Pending");
        assert_eq!(phase(&Case::new(pod("Never"), vec![exited("i", 0, 1)])), "Failed");
        assert_eq!(phase(&Case::new(pod("Always"), vec![running("web", 0)])), "Running");
    }

    #[test]
    fn a_stopped_pod_has_failed_if_a_container_did() {
        let mut case = Case::new(two("Always"), vec![exited("a", 0, 0), exited("b", 0, 137)]);
        case.ending = true;
        case.ended = true;
        assert_eq!(phase(&case), "Failed");
    }
}
