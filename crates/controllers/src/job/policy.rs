//! A Job's policies: what a failed pod means for it (KEP-3329), and which indexes are enough (KEP-3998). Pure.

use super::indexes::Indexes;
use crate::pods::{ContainerStatusView, PodView};
use krate_api::types::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy,
};

/// What the failure of a pod leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the back-off limit; a rule may say so, and none needs to.
    Count,
    /// It counts for nothing: another pod is made.
    Ignore,
    /// Its index has failed, whatever its limit.
    FailIndex,
    /// The whole Job has failed, and why.
    FailJob(String),
}

/// Judges a failed pod by the first rule that matches it.
#[must_use]
pub fn judge(policy: Option<&PodFailurePolicy>, pod: &PodView) -> Verdict {
    let rules = policy.map(|p| p.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        if let Some(cause) = matches(rule, pod) {
            return match rule.action.as_str() {
                "Ignore" => Verdict::Ignore,
                "FailIndex" => Verdict::FailIndex,
                "FailJob" => Verdict::FailJob(format!("{cause} matching FailJob rule at index {index}")),
                _ => Verdict::Count,
            };
        }
    }
    Verdict::Count
}

/// The action of the first rule that matches a failed pod.
#[must_use]
pub fn action<'a>(policy: Option<&'a PodFailurePolicy>, pod: &PodView) -> Option<&'a str> {
    let rule = policy?.rules.iter().find(|rule| matches(rule, pod).is_some())?;
    Some(rule.action.as_str())
}

/// What of the pod matches the rule.
fn matches(rule: &PodFailurePolicyRule, pod: &PodView) -> Option<String> {
    let (namespace, name) = (pod.namespace(), pod.name());
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = exit(codes, pod)?;
        return Some(format!(
            "Container {container} for pod {namespace}/{name} failed with exit code {code}"
        ));
    }
    let condition = rule.on_pod_conditions.iter().flatten().find(|wanted| has(pod, wanted))?;
    Some(format!("Pod {namespace}/{name} has condition {}", condition.type_))
}

fn has(pod: &PodView, wanted: &PodFailurePolicyOnPodConditionsPattern) -> bool {
    let status = wanted.status.as_deref().unwrap_or("True");
    pod.condition(&wanted.type_).is_some_and(|c| c.status == status)
}

/// The first container that ended with a code that the rule is about. Success is never a failure's cause.
fn exit<'a>(codes: &PodFailurePolicyOnExitCodesRequirement, pod: &'a PodView) -> Option<(&'a str, i32)> {
    let meant = |c: &&ContainerStatusView| codes.container_name.as_ref().is_none_or(|n| *n == c.name);
    let all = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    all.filter(meant).find_map(|container| {
        let code = container.state.terminated.as_ref()?.exit_code;
        let listed = codes.values.contains(&code);
        let fits = if codes.operator == "In" { listed } else { !listed };
        (code != 0 && fits).then_some((container.name.as_str(), code))
    })
}

/// Whether the indexes that succeeded are enough, and by which rule.
#[must_use]
pub fn is_enough(policy: Option<&SuccessPolicy>, succeeded: &Indexes, completions: u32) -> Option<String> {
    let met = policy?.rules.iter().position(|rule| {
        let count = rule.succeeded_count.map(|n| usize::try_from(n).unwrap_or(0));
        match &rule.succeeded_indexes {
            Some(text) => {
                let named = Indexes::parse(text, completions);
                named.common(succeeded) >= count.unwrap_or(named.count())
            }
            None => count.is_some_and(|count| succeeded.count() >= count),
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::TerminatedView;
    use krate_api::types::batch::v1::SuccessPolicyRule;
    use krate_api::types::core::v1::PodCondition;

    fn pod(codes: &[(&str, i32)]) -> PodView {
        let mut pod = PodView::default();
        (pod.metadata.namespace, pod.metadata.name) = ("default".to_owned(), "p".to_owned());
        pod.status.container_statuses = codes
            .iter()
            .map(|(name, code)| {
                let mut status = ContainerStatusView { name: (*name).to_owned(), ..Default::default() };
                status.state.terminated = Some(TerminatedView { exit_code: *code, finished_at: None });
                status
            })
            .collect();
        pod
    }

    fn on_codes(
        action: &str,
        operator: &str,
        values: &[i32],
        container: Option<&str>,
    ) -> PodFailurePolicyRule {
        PodFailurePolicyRule {
            action: action.to_owned(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                container_name: container.map(str::to_owned),
                operator: operator.to_owned(),
                values: values.to_vec(),
            }),
            on_pod_conditions: None,
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let disrupted = PodFailurePolicyRule {
            action: "Ignore".to_owned(),
            on_exit_codes: None,
            on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                type_: "DisruptionTarget".to_owned(),
                status: None,
            }]),
        };
        let policy = PodFailurePolicy {
            rules: vec![
                disrupted,
                on_codes("FailJob", "In", &[42], Some("main")),
                on_codes("FailIndex", "In", &[7], None),
                on_codes("Count", "NotIn", &[9], None),
            ],
        };
        let judge = |pod: &PodView| judge(Some(&policy), pod);
        let why =
            "Container main for pod default/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&pod(&[("main", 42)])), Verdict::FailJob(why.to_owned()));
        assert_eq!(judge(&pod(&[("side", 42)])), Verdict::Count);
        assert_eq!(judge(&pod(&[("side", 0), ("main", 7)])), Verdict::FailIndex);
        assert_eq!(judge(&pod(&[("main", 9)])), Verdict::Count, "no rule matches");
        let mut evicted = pod(&[("main", 42)]);
        evicted.status.conditions = vec![PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        }];
        assert_eq!(judge(&evicted), Verdict::Ignore);
    }

    #[test]
    fn a_rule_of_success_names_indexes_or_a_number_or_both() {
        let rule = |indexes: Option<&str>, count: Option<i32>| SuccessPolicy {
            rules: vec![SuccessPolicyRule {
                succeeded_indexes: indexes.map(str::to_owned),
                succeeded_count: count,
            }],
        };
        let done: Indexes = [0, 2].into_iter().collect();
        let met = |policy: SuccessPolicy| is_enough(Some(&policy), &done, 10);
        assert_eq!(met(rule(Some("0,2"), None)).unwrap(), "Matched rules at index 0");
        assert_eq!(met(rule(Some("0-2"), None)), None);
        assert!(met(rule(Some("0-2"), Some(2))).is_some());
        assert!(met(rule(Some("1-5"), Some(2))).is_none());
        assert!(met(rule(None, Some(2))).is_some());
        assert!(met(rule(None, Some(3))).is_none());
    }
}
