//! Room for critical pods: which others have to go when the node has too little for one. Pure.
//!
//! The scheduler does not place static pods and the like, so that the node itself makes room for what it cannot be
//! without. As few as possible go, those that asked for nothing before those that asked for something, and of one
//! class those whose requests come closest to what is missing.

use crate::admit;
use crate::eviction::rank::is_critical;
use crate::spec::{self, qos, resources};
use crate::status::Verdict;
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::types::core::v1::Pod;
use std::collections::BTreeMap;

/// Reason of the pod's status and of the event.
pub const REASON: &str = "Preempting";
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
const DISRUPTION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// What is missing, by resource.
type Missing = BTreeMap<String, i64>;

/// What a pod is told that has to go.
pub fn verdict(pod: &Pod) -> Verdict {
    Verdict {
        reason: REASON.to_owned(),
        message: MESSAGE.to_owned(),
        evicted: Some(spec::grace_seconds(pod)),
        disruption: Some(DISRUPTION.to_owned()),
        ..Verdict::default()
    }
}

/// The uids of the pods that have to go for `pod`; none if it is not critical, or if it would not fit even then.
pub fn victims(pod: &Pod, others: &[&Pod], allocatable: &BTreeMap<String, Quantity>) -> Option<Vec<String>> {
    if !is_critical(pod) {
        return None;
    }
    let missing = admit::shortages(pod, others, allocatable);
    let mut classes: [Vec<&Pod>; 3] = Default::default();
    for other in others.iter().filter(|other| yields(other, pod)) {
        let class = match qos::class(other) {
            qos::Class::BestEffort => 0,
            qos::Class::Burstable => 1,
            qos::Class::Guaranteed => 2,
        };
        classes[class].push(other);
    }
    let [best_effort, burstable, guaranteed] = classes;
    let all = [&best_effort[..], &burstable, &guaranteed].concat();
    if !less(missing.clone(), &all).is_empty() {
        return None;
    }
    // Of each class only as many go as the classes below it cannot make up for.
    let below = [&best_effort[..], &burstable].concat();
    let mut going = closest(less(missing.clone(), &below), guaranteed);
    let rest = less(missing.clone(), &[&best_effort[..], &going].concat());
    going.extend(closest(rest, burstable));
    let rest = less(missing, &going);
    going.extend(closest(rest, best_effort));
    Some(going.iter().map(|p| spec::uid(p).to_owned()).collect())
}

/// Whether a pod has to make room for another.
fn yields(pod: &Pod, by: &Pod) -> bool {
    let priority = |pod: &Pod| spec::spec(pod).priority;
    !is_critical(pod) || priority(by).zip(priority(pod)).is_some_and(|(by, own)| by > own)
}

/// What a pod frees of a resource when it goes.
fn freed(pod: &Pod, resource: &str) -> i64 {
    if resource == "pods" { 1 } else { resources::pod_request(pod, resource) }
}

/// What is still missing when these pods have gone.
fn less(mut missing: Missing, going: &[&Pod]) -> Missing {
    missing.retain(|name, amount| {
        *amount -= going.iter().map(|pod| freed(pod, name)).sum::<i64>();
        *amount > 0
    });
    missing
}

/// As many of the pods as free what is missing, each time the one that comes closest to it.
fn closest(mut missing: Missing, mut pods: Vec<&Pod>) -> Vec<&Pod> {
    let mut going = Vec::new();
    while !missing.is_empty() {
        let nearest = (0..pods.len()).min_by(|a, b| {
            let (a, b) = (pods[*a], pods[*b]);
            let asked = |pod| missing.keys().map(|name| freed(pod, name)).collect::<Vec<_>>();
            distance(&missing, a).total_cmp(&distance(&missing, b)).then_with(|| asked(a).cmp(&asked(b)))
        });
        let Some(nearest) = nearest else { break };
        let pod = pods.swap_remove(nearest);
        missing = less(missing, &[pod]);
        going.push(pod);
    }
    going
}

/// How far a pod's requests are from what is missing: the squares of the parts that it does not make up for.
fn distance(missing: &Missing, pod: &Pod) -> f64 {
    let part = |(name, amount): (&String, &i64)| {
        let left = (*amount - freed(pod, name)).max(0);
        (left as f64 / *amount as f64).powi(2)
    };
    missing.iter().map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build;
    use krate_api::types::core::v1::ResourceRequirements;

    fn amounts(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
        list.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect()
    }

    fn pod(name: &str, cpu: &str, priority: i32) -> Pod {
        build::edit(build::pod(name), |s| {
            s.priority = Some(priority);
            if !cpu.is_empty() {
                s.containers[0].resources = Some(ResourceRequirements {
                    requests: Some(amounts(&[("cpu", cpu)])),
                    ..Default::default()
                });
            }
        })
    }

    fn going(cpu: &str, priority: i32, others: &[&Pod]) -> Option<Vec<String>> {
        victims(&pod("critical", cpu, priority), others, &amounts(&[("cpu", "2"), ("pods", "4")]))
    }

    const CRITICAL: i32 = 2_000_000_000;

    #[test]
    fn the_closest_goes_and_nobody_more() {
        let (small, big, none) = (pod("small", "500m", 0), pod("big", "1500m", 0), pod("none", "", 0));
        let others = [&small, &big, &none];
        assert_eq!(going("400m", CRITICAL, &others), Some(vec!["uid-small".into()]));
        assert_eq!(going("1200m", CRITICAL, &others), Some(vec!["uid-big".into()]));
        let both = going("2", CRITICAL, &others).unwrap();
        assert_eq!(both.len(), 2, "{both:?}");
    }

    #[test]
    fn only_critical_pods_make_room_and_only_if_that_helps() {
        let (small, rival) = (pod("small", "500m", 0), pod("rival", "1500m", CRITICAL + 1));
        assert_eq!(going("1", 5, &[&small]), None);
        assert_eq!(going("1", CRITICAL, &[&small, &rival]), None);
        assert_eq!(going("1", CRITICAL + 2, &[&small, &rival]), Some(vec!["uid-rival".into()]));
    }

    #[test]
    fn a_full_node_loses_one_that_asked_for_nothing() {
        let (some, none) = (pod("some", "100m", 0), pod("none", "", 0));
        let fillers = [pod("a", "100m", 0), pod("b", "100m", 0)];
        let others = [&some, &none, &fillers[0], &fillers[1]];
        assert_eq!(going("100m", CRITICAL, &others), Some(vec!["uid-none".into()]));
    }
}
