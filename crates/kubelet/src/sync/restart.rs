//! Whether a container that does not run is to be started (again).

use crate::observed::{Observed, PodRuntime};
use crate::spec::{self, Role};
use krate_api::types::core::v1::{Container, ContainerRestartRule, Pod};
use krate_runtime::cri::ContainerState;

/// What happens to a container that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Always,
    OnFailure,
    Never,
}

/// The policy that counts for a container: its own, else the pod's. An init container that succeeded is
/// done, whatever the pod's policy.
pub fn policy(pod: &Pod, role: Role, container: &Container) -> Policy {
    let own = container.restart_policy.as_deref();
    match (role, own.unwrap_or_else(|| spec::restart_policy(pod))) {
        (Role::Ephemeral, _) | (_, "Never") => Policy::Never,
        (Role::Init, "Always") if own.is_none() => Policy::OnFailure,
        (_, "OnFailure") => Policy::OnFailure,
        _ => Policy::Always,
    }
}

/// The rule's action by which a container's end restarts all containers of its pod (KEP-5532).
const RESTART_ALL: &str = "RestartAllContainers";

/// The first rule of a container that is about `exit_code`.
fn rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        if codes.operator == "NotIn" { !listed } else { listed }
    })
}

/// Whether a container that ended with `exit_code` is started again, by its rules or else its policy.
pub fn after_exit(pod: &Pod, role: Role, container: &Container, exit_code: i32) -> bool {
    if rule(container, exit_code).is_some_and(|rule| rule.action.starts_with("Restart")) {
        return true;
    }
    match policy(pod, role, container) {
        Policy::Always => true,
        Policy::OnFailure => exit_code != 0,
        Policy::Never => false,
    }
}

/// Whether the end of some container may restart all.
pub fn can_restart_all(pod: &Pod) -> bool {
    let rules = |c: &Container| c.restart_policy_rules.iter().flatten().any(|r| r.action == RESTART_ALL);
    spec::init_containers(pod).iter().chain(spec::containers(pod)).any(rules)
}

/// The container whose end asks for a restart of all.
pub fn source<'a>(pod: &'a Pod, runtime: &'a PodRuntime) -> Option<(&'a Container, &'a Observed)> {
    let all = spec::init_containers(pod).iter().chain(spec::containers(pod));
    all.filter_map(|container| Some((container, runtime.latest(&container.name)?))).find(|(container, o)| {
        o.has_exited() && rule(container, o.status.exit_code).is_some_and(|rule| rule.action == RESTART_ALL)
    })
}

/// Whether a container is to be started, given its newest attempt. A pod that is being deleted starts
/// nothing.
pub fn should_start(pod: &Pod, role: Role, container: &Container, latest: Option<&Observed>) -> bool {
    if spec::is_deleting(pod) {
        return false;
    }
    let Some(latest) = latest else { return true };
    match latest.status.state {
        ContainerState::Running => false,
        ContainerState::Created | ContainerState::Unknown => role != Role::Ephemeral,
        ContainerState::Exited => after_exit(pod, role, container, latest.status.exit_code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::build::*;
    use crate::spec::build::*;
    use krate_api::types::core::v1::{ContainerRestartRule, ContainerRestartRuleOnExitCodes};

    fn with_policy(policy: &str) -> Pod {
        edit(pod("web"), |s| s.restart_policy = Some(policy.into()))
    }

    #[test]
    fn policies() {
        let c = container("web");
        let starts = |policy: &str, role, code| {
            should_start(&with_policy(policy), role, &c, Some(&exited("web", 0, code)))
        };
        for (policy, role, on_success, on_failure) in [
            ("Always", Role::Regular, true, true),
            ("OnFailure", Role::Regular, false, true),
            ("Never", Role::Regular, false, false),
            ("Always", Role::Init, false, true),
            ("Never", Role::Init, false, false),
            ("Always", Role::Ephemeral, false, false),
        ] {
            let got = (starts(policy, role, 0), starts(policy, role, 1));
            assert_eq!(got, (on_success, on_failure), "{policy} {role:?}");
        }
        assert!(!should_start(&pod("web"), Role::Regular, &c, Some(&running("web", 0))));
        assert!(should_start(&with_policy("Never"), Role::Regular, &c, None));
    }

    #[test]
    fn a_rule_decides_before_the_policy() {
        let mut c = container("web");
        c.restart_policy = Some("Never".into());
        c.restart_policy_rules = Some(vec![ContainerRestartRule {
            action: "Restart".into(),
            exit_codes: Some(ContainerRestartRuleOnExitCodes {
                operator: "In".into(),
                values: Some(vec![42]),
            }),
        }]);
        assert!(after_exit(&pod("web"), Role::Regular, &c, 42));
        assert!(!after_exit(&pod("web"), Role::Regular, &c, 1));
    }

    #[test]
    fn a_sidecar_always_starts_again() {
        assert!(after_exit(&with_policy("Never"), Role::Init, &sidecar("s"), 0));
    }
}
