//! Which pods go first when there are too many.
//!
//! Documented with ReplicaSet, "Scaling a ReplicaSet" and "Pod deletion cost". Times are compared by their
//! order of magnitude (KEP-2185), ties by uid, so that pods of about one age go in no particular order.

use crate::pods::PodView;
use jiff::Timestamp;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

/// The `count` pods to delete. `related` are all pods of the same owner's owner: of two pods alike, the
/// one on the node with more of these goes first.
#[must_use]
pub fn to_delete(
    pods: Vec<Arc<PodView>>,
    related: &[Arc<PodView>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<PodView>> {
    if count >= pods.len() {
        return pods;
    }
    let mut pods = ranked(pods, related, now);
    pods.truncate(count);
    pods
}

/// The pods in the order in which they would be deleted.
#[must_use]
pub fn ranked(mut pods: Vec<Arc<PodView>>, related: &[Arc<PodView>], now: Timestamp) -> Vec<Arc<PodView>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| p.is_active()) {
        *on_node.entry(&pod.spec.node_name).or_default() += 1;
    }
    let crowd = |pod: &PodView| on_node.get(pod.spec.node_name.as_str()).copied().unwrap_or(0);
    pods.sort_by(|a, b| compare(a, b, crowd(a), crowd(b), now));
    pods
}

/// `Less`: the first goes first.
fn compare(a: &PodView, b: &PodView, crowd_a: usize, crowd_b: usize, now: Timestamp) -> Ordering {
    (!a.spec.node_name.is_empty())
        .cmp(&!b.spec.node_name.is_empty())
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| a.deletion_cost().cmp(&b.deletion_cost()))
        .then_with(|| crowd_b.cmp(&crowd_a))
        .then_with(|| match (a.is_ready(), b.is_ready()) {
            (true, true) => younger(a, b, a.ready_since(), b.ready_since(), now),
            _ => Ordering::Equal,
        })
        .then_with(|| most_restarts(b).cmp(&most_restarts(a)))
        .then_with(|| {
            let created = |p: &PodView| p.metadata.creation_timestamp.as_ref().map(|t| t.0);
            younger(a, b, created(a), created(b), now)
        })
}

fn phase(pod: &PodView) -> u8 {
    match pod.status.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn most_restarts(pod: &PodView) -> i32 {
    pod.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0)
}

fn younger(
    a: &PodView,
    b: &PodView,
    at: Option<Timestamp>,
    bt: Option<Timestamp>,
    now: Timestamp,
) -> Ordering {
    if at == bt {
        return Ordering::Equal;
    }
    let (Some(at), Some(bt)) = (at, bt) else {
        // No time counts as the youngest.
        return at.is_some().cmp(&bt.is_some());
    };
    magnitude(now, at).cmp(&magnitude(now, bt)).then_with(|| a.uid().cmp(b.uid()))
}

/// The order of magnitude (base 2) of an age in nanoseconds.
fn magnitude(now: Timestamp, then: Timestamp) -> i32 {
    let age = now.as_nanosecond() - then.as_nanosecond();
    if age <= 0 { -1 } else { i32::try_from(age.ilog2()).unwrap_or(i32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::meta::Time;
    use krate_api::types::core::v1::PodCondition;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str) -> PodView {
        let mut pod = PodView::default();
        pod.metadata.name = name.to_owned();
        pod.metadata.uid = name.to_owned();
        pod.metadata.creation_timestamp = Some(Time(at(0)));
        pod.spec.node_name = "n1".to_owned();
        pod.status.phase = "Running".to_owned();
        pod.status.conditions = vec![PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(at(10))),
            ..PodCondition::default()
        }];
        pod
    }

    fn first(pods: Vec<PodView>) -> String {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        to_delete(pods.clone(), &pods, 1, at(100_000))[0].name().to_owned()
    }

    fn with(name: &str, change: impl FnOnce(&mut PodView)) -> PodView {
        let mut pod = pod(name);
        change(&mut pod);
        pod
    }

    #[test]
    fn each_rule_decides_before_the_next() {
        let cheap = |p: &mut PodView| {
            p.metadata.annotations.insert(crate::pods::DELETION_COST.to_owned(), "-5".to_owned());
        };
        let unassigned = with("x", |p| p.spec.node_name.clear());
        let pending = with("y", |p| p.status.phase = "Pending".to_owned());
        let unready = with("z", |p| p.status.conditions[0].status = "False".to_owned());
        assert_eq!(first(vec![pending.clone(), pod("a"), unassigned]), "x");
        assert_eq!(first(vec![unready.clone(), pod("a"), pending]), "y");
        assert_eq!(first(vec![with("c", cheap), pod("a"), unready]), "z");
        assert_eq!(first(vec![pod("a"), with("c", cheap)]), "c");
    }

    #[test]
    fn crowded_nodes_then_young_then_restarted_pods_go_first() {
        let alone = with("a", |p| p.spec.node_name = "n2".to_owned());
        assert_eq!(first(vec![alone, pod("b"), pod("c")]), "b");
        let young = with("y", |p| p.status.conditions[0].last_transition_time = Some(Time(at(99_000))));
        assert_eq!(first(vec![pod("a"), young]), "y");
        let same_age = with("z", |p| p.status.conditions[0].last_transition_time = Some(Time(at(11))));
        assert_eq!(first(vec![same_age, pod("a")]), "a", "about one age: by uid");
        let restarted = with("r", |p| {
            p.status.container_statuses =
                vec![crate::pods::ContainerStatusView { restart_count: 3, ..Default::default() }];
        });
        assert_eq!(first(vec![pod("a"), restarted]), "r");
    }
}
