//! The quality-of-service class of a pod and the out-of-memory score that follows from it.

use super::resources::{self, Amounts, equal, is_zero};
use super::{Role, containers, init_containers, is_restartable_init, spec};
use krate_api::types::core::v1::{Container, Pod, ResourceRequirements};

/// The classes, best protected first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

const COUNTED: [&str; 2] = ["cpu", "memory"];
const GUARANTEED_SCORE: i64 = -997;
const BEST_EFFORT_SCORE: i64 = 1000;
/// Priority from which a pod is critical to its node.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// The class of a pod. It never changes during the pod's life, so a class in the status decides.
pub fn class(pod: &Pod) -> Class {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => Class::Guaranteed,
        Some("Burstable") => Class::Burstable,
        Some("BestEffort") => Class::BestEffort,
        _ => compute(pod),
    }
}

/// The class as it follows from the specification.
pub fn compute(pod: &Pod) -> Class {
    if let Some(own) = spec(pod).resources.as_ref().filter(|r| any_amount(r)) {
        return class_of(std::iter::once(Some(own)));
    }
    let all = init_containers(pod).iter().chain(containers(pod));
    class_of(all.map(|c| c.resources.as_ref()))
}

fn any_amount(resources: &ResourceRequirements) -> bool {
    COUNTED.iter().any(|name| resources::request(Some(resources), name).is_some_and(|q| !is_zero(q)))
}

fn class_of<'a>(all: impl Iterator<Item = Option<&'a ResourceRequirements>>) -> Class {
    let (mut any, mut guaranteed) = (false, true);
    for resources in all {
        any |= resources.is_some_and(any_amount);
        guaranteed &= COUNTED.iter().all(|name| is_fixed(resources, name));
    }
    match (any, guaranteed) {
        (false, _) => Class::BestEffort,
        (true, true) => Class::Guaranteed,
        (true, false) => Class::Burstable,
    }
}

/// Whether the limit is set and the request, if any, is the same.
fn is_fixed(resources: Option<&ResourceRequirements>, name: &str) -> bool {
    let get = |amounts: Option<&Amounts>| amounts.and_then(|a| a.get(name)).filter(|q| !is_zero(q)).cloned();
    let limit = get(resources.and_then(|r| r.limits.as_ref()));
    let request = get(resources.and_then(|r| r.requests.as_ref()));
    match (limit, request) {
        (Some(limit), Some(request)) => equal(&limit, &request),
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// The score that the kernel adds when it looks for a process to kill: the more memory of the node a
/// container requests, the lower. `memory_capacity` is the node's, in bytes.
pub fn oom_score_adj(pod: &Pod, role: Role, container: &Container, memory_capacity: i64) -> i64 {
    if spec(pod).priority.is_some_and(|p| p >= CRITICAL_PRIORITY) {
        return GUARANTEED_SCORE;
    }
    match class(pod) {
        Class::Guaranteed => GUARANTEED_SCORE,
        Class::BestEffort => BEST_EFFORT_SCORE,
        Class::Burstable => {
            let own = burstable_score(container, memory_capacity);
            if role == Role::Init && is_restartable_init(container) {
                // A sidecar is never killed before the containers that it serves.
                let least = containers(pod).iter().map(|c| burstable_score(c, memory_capacity)).min();
                return own.min(least.unwrap_or(own));
            }
            own
        }
    }
}

fn burstable_score(container: &Container, memory_capacity: i64) -> i64 {
    let request = resources::request(container.resources.as_ref(), "memory").map_or(0, resources::value);
    let share = 1000i128 * i128::from(request) / i128::from(memory_capacity.max(1));
    let score = 1000 - i64::try_from(share).unwrap_or(1000);
    // Between the two other classes, whatever the request.
    score.clamp(1000 + GUARANTEED_SCORE, BEST_EFFORT_SCORE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::*;
    use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn amounts(list: &[(&str, &str)]) -> Option<Amounts> {
        Some(list.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect())
    }

    fn with(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Pod {
        edit(pod("web"), |s| {
            s.containers[0].resources = Some(ResourceRequirements {
                requests: amounts(requests),
                limits: amounts(limits),
                ..Default::default()
            });
        })
    }

    #[test]
    fn classes() {
        let full = [("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(class(&with(&full, &full)), Class::Guaranteed);
        assert_eq!(class(&with(&[], &full)), Class::Guaranteed);
        assert_eq!(class(&with(&[("cpu", "500m")], &full)), Class::Burstable);
        assert_eq!(class(&with(&[("memory", "1Mi")], &[])), Class::Burstable);
        assert_eq!(class(&pod("web")), Class::BestEffort);
    }

    #[test]
    fn scores() {
        let score = |pod: &Pod| oom_score_adj(pod, Role::Regular, &containers(pod)[0], 1 << 30);
        assert_eq!(score(&pod("web")), 1000);
        assert_eq!(score(&with(&[("memory", "512Mi")], &[])), 500);
        assert_eq!(score(&with(&[("memory", "1Ki")], &[])), 999);
        assert_eq!(score(&with(&[("memory", "1Gi")], &[])), 3);
    }
}
