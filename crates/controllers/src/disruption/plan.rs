//! What a disruption budget's status says. Pure.

use crate::pods::PodView;
use crate::portion::of_total;
use jiff::{SignedDuration, Timestamp};
use krate_api::meta::{Condition, Time};
use krate_api::types::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An eviction that was allowed and has led to no deletion by then is taken back.
pub const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
/// The condition, and its reasons.
const ALLOWED: &str = "DisruptionAllowed";

/// What is to be written, and when to look again.
#[derive(Debug)]
pub struct Plan {
    pub status: PodDisruptionBudgetStatus,
    pub after: Option<Duration>,
    /// Pods that were to be evicted and were not.
    pub not_deleted: Vec<Arc<PodView>>,
}

/// Whether the number of pods that there should be must be asked of those who manage them.
#[must_use]
pub fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// Plans for a budget and the pods that it selects. `expected`: how many pods there should be.
#[must_use]
pub fn plan(budget: &PodDisruptionBudget, pods: &[Arc<PodView>], expected: i32, now: Timestamp) -> Plan {
    let spec = budget.spec.clone().unwrap_or_default();
    let desired = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (expected - of_total(Some(most), expected, true)).max(0),
        (None, least) => of_total(least.as_ref(), expected, true),
    };
    let old = budget.status.clone().unwrap_or_default();
    let (disrupted, next, not_deleted) = disrupted(&old, pods, now);
    let healthy = |p: &&Arc<PodView>| !p.is_deleting() && p.is_ready() && !disrupted.contains_key(p.name());
    let healthy = i32::try_from(pods.iter().filter(healthy).count()).unwrap_or(i32::MAX);
    // Without any pod it is closed, so that the first ones are safe before this is computed again.
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions,
    };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    say(&mut status, allowed > 0, reason, "", now);
    Plan { status, after: next, not_deleted }
}

/// The status when the numbers could not be had: nothing may go.
#[must_use]
pub fn closed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.current_healthy.get_or_insert(0);
    status.desired_healthy.get_or_insert(0);
    status.expected_pods.get_or_insert(0);
    say(&mut status, false, "SyncFailed", why, now);
    status
}

fn say(status: &mut PodDisruptionBudgetStatus, holds: bool, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let value = if holds { "True" } else { "False" };
    let old = conditions.iter().position(|c| c.type_ == ALLOWED);
    let since = old.map(|at| &conditions[at]).filter(|c| c.status == value);
    let new = Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.map_or(Time(now), |c| c.last_transition_time.clone()),
        observed_generation: status.observed_generation,
    };
    match old {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
}

type Disrupted = BTreeMap<String, Time>;

/// The evictions that are still to be seen as deletions; when the first is given up; those given up now.
fn disrupted(
    old: &PodDisruptionBudgetStatus,
    pods: &[Arc<PodView>],
    now: Timestamp,
) -> (Disrupted, Option<Duration>, Vec<Arc<PodView>>) {
    let (mut kept, mut next, mut late) = (Disrupted::new(), None::<Duration>, vec![]);
    let told = old.disrupted_pods.iter().flatten();
    let told: BTreeMap<&str, &Time> = told.map(|(name, at)| (name.as_str(), at)).collect();
    for pod in pods.iter().filter(|p| !p.is_deleting()) {
        let Some(at) = told.get(pod.name()) else { continue };
        let left = DELETION_TIMEOUT - now.duration_since(at.0);
        if left <= SignedDuration::ZERO {
            late.push(pod.clone());
            continue;
        }
        kept.insert(pod.name().to_owned(), (*at).clone());
        let left = left.unsigned_abs();
        next = Some(next.map_or(left, |n| n.min(left)));
    }
    (kept, next, late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use krate_api::types::core::v1::PodCondition;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str, ready: bool) -> Arc<PodView> {
        let mut pod = PodView::default();
        pod.metadata.name = name.to_owned();
        pod.status.conditions = vec![PodCondition {
            type_: "Ready".to_owned(),
            status: if ready { "True" } else { "False" }.to_owned(),
            ..PodCondition::default()
        }];
        Arc::new(pod)
    }

    fn budget(least: Option<IntOrString>, most: Option<IntOrString>) -> PodDisruptionBudget {
        let spec = PodDisruptionBudgetSpec {
            min_available: least,
            max_unavailable: most,
            ..PodDisruptionBudgetSpec::default()
        };
        PodDisruptionBudget { spec: Some(spec), ..PodDisruptionBudget::default() }
    }

    fn numbers(budget: &PodDisruptionBudget, ready: usize, expected: i32) -> (i32, i32, i32) {
        let pods: Vec<_> = (0..ready).map(|n| pod(&format!("p{n}"), true)).collect();
        let s = plan(budget, &pods, expected, at(100)).status;
        (s.current_healthy.unwrap(), s.desired_healthy.unwrap(), s.disruptions_allowed.unwrap())
    }

    #[test]
    fn numbers_and_percentages() {
        let (int, percent) = (IntOrString::Int, |p: &str| IntOrString::String(p.to_owned()));
        assert_eq!(numbers(&budget(Some(int(2)), None), 3, 3), (3, 2, 1));
        assert_eq!(numbers(&budget(Some(percent("50%")), None), 5, 5), (5, 3, 2));
        assert_eq!(numbers(&budget(None, Some(int(1))), 3, 4), (3, 3, 0));
        assert_eq!(numbers(&budget(None, Some(percent("30%"))), 10, 10), (10, 7, 3));
        assert_eq!(numbers(&budget(None, Some(percent("100%"))), 2, 2), (2, 0, 2));
        assert_eq!(numbers(&budget(Some(int(0)), None), 0, 0), (0, 0, 0), "closed without pods");
        assert!(needs_scale(budget(None, Some(int(1))).spec.as_ref().unwrap()));
        assert!(!needs_scale(budget(Some(int(1)), None).spec.as_ref().unwrap()));
    }

    #[test]
    fn an_eviction_that_comes_to_nothing_is_forgotten() {
        let mut budget = budget(Some(IntOrString::Int(1)), None);
        let told = [("a".to_owned(), Time(at(100))), ("gone".to_owned(), Time(at(100)))];
        budget.status.get_or_insert_default().disrupted_pods = Some(told.into());
        let pods = [pod("a", true), pod("b", true)];
        let soon = plan(&budget, &pods, 2, at(160));
        assert_eq!(soon.status.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!((soon.status.current_healthy, soon.after), (Some(1), Some(Duration::from_secs(60))));
        let late = plan(&budget, &pods, 2, at(221));
        assert_eq!((late.status.disrupted_pods, late.status.current_healthy), (None, Some(2)));
        assert_eq!(late.not_deleted.len(), 1);
    }

    #[test]
    fn its_condition_keeps_its_time_while_it_holds() {
        let mut budget = budget(Some(IntOrString::Int(1)), None);
        let pods = [pod("a", true), pod("b", true)];
        budget.status = Some(plan(&budget, &pods, 2, at(100)).status);
        let again = plan(&budget, &pods, 2, at(200)).status;
        assert_eq!(Some(&again), budget.status.as_ref());
        let less = plan(&budget, &pods[..1], 1, at(300)).status;
        let condition = &less.conditions.unwrap()[0];
        assert_eq!(
            (condition.reason.as_str(), condition.last_transition_time.0),
            ("InsufficientPods", at(300))
        );
    }
}
