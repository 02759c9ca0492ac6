//! What the node sets aside for a pod that asks for other amounts than it was given.

use super::{resizable, same, with_resources};
use crate::admit;
use crate::spec::{self, resources};
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::types::core::v1::{ContainerStatus, Pod, ResourceRequirements};
use std::collections::BTreeMap;

/// Why a resize has to wait: the reason and message of the condition `PodResizePending`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub reason: &'static str,
    pub message: String,
}

/// The node could never give it.
pub const INFEASIBLE: &str = "Infeasible";
/// The node cannot give it now; it may when others leave.
pub const DEFERRED: &str = "Deferred";

/// Whether two versions of a pod ask for the same.
pub fn asks_the_same(a: &Pod, b: &Pod) -> bool {
    let of =
        |pod: &Pod| resizable(pod).map(|c| (c.name.clone(), c.resources.clone())).collect::<BTreeMap<_, _>>();
    let (of_a, of_b) = (of(a), of(b));
    same(spec::spec(a).resources.as_ref(), spec::spec(b).resources.as_ref())
        && of_a.iter().all(|(name, r)| same(r.as_ref(), of_b.get(name).and_then(|r| r.as_ref())))
}

/// The pod with the amounts of an earlier version of it.
pub fn with_amounts_of(pod: &Pod, earlier: &Pod) -> Pod {
    let of = |name: &str| resizable(earlier).find(|c| c.name == name).map(|c| c.resources.clone());
    with_resources(pod, spec::spec(earlier).resources.clone(), |name| of(name).map(Option::unwrap_or_default))
}

/// The pod with what its published status says that it was given: how a restarted kubelet finds it again.
pub fn as_published(pod: &Pod) -> Pod {
    let Some(status) = pod.status.as_ref() else { return pod.clone() };
    let all = || status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let own = match &status.allocated_resources {
        Some(requests) => Some(ResourceRequirements {
            requests: Some(requests.clone()),
            ..status.resources.clone().or_else(|| spec::spec(pod).resources.clone()).unwrap_or_default()
        }),
        None => spec::spec(pod).resources.clone(),
    };
    with_resources(pod, own, |name| all().find(|s| s.name == name).and_then(of_status))
}

fn of_status(status: &ContainerStatus) -> Option<ResourceRequirements> {
    let given = status.resources.clone()?;
    let requests = status.allocated_resources.clone().or(given.requests);
    Some(ResourceRequirements { requests, limits: given.limits, claims: given.claims })
}

/// Whether the node can give what the pod asks for, beside what `others` have been given.
pub fn judge<'a>(
    asked: &Pod,
    others: impl Iterator<Item = &'a Pod>,
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<(), Pending> {
    for name in super::RESIZABLE {
        let requested = resources::pod_request(asked, name);
        let Some(capacity) = allocatable.get(name).map(|q| resources::amount(name, q)) else { continue };
        if requested > capacity {
            let message = format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            );
            return Err(Pending { reason: INFEASIBLE, message });
        }
    }
    match admit::lacking(asked, &others.collect::<Vec<_>>(), allocatable, &super::RESIZABLE) {
        Some(verdict) => Err(Pending { reason: DEFERRED, message: verdict.message }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build;

    fn q(text: &str) -> Quantity {
        Quantity(text.into())
    }

    fn asking(name: &str, cpu: &str) -> Pod {
        build::edit(build::pod(name), |s| {
            s.containers[0].resources = Some(ResourceRequirements {
                requests: Some([("cpu".to_owned(), q(cpu))].into()),
                ..Default::default()
            });
        })
    }

    #[test]
    fn too_much_for_ever_and_too_much_for_now() {
        let node = BTreeMap::from([("cpu".to_owned(), q("2"))]);
        let other = asking("b", "1500m");
        let say = |cpu: &str| {
            judge(&asking("a", cpu), [&other].into_iter(), &node).map_err(|p| (p.reason, p.message))
        };
        assert_eq!(say("500m"), Ok(()));
        assert_eq!(
            say("1"),
            Err((
                DEFERRED,
                "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000".into()
            ))
        );
        assert_eq!(
            say("3"),
            Err((
                INFEASIBLE,
                "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000".into()
            ))
        );
    }

    #[test]
    fn what_was_given_is_found_again_in_the_status() {
        let mut pod = asking("a", "2");
        pod.status.get_or_insert_default().container_statuses = Some(vec![ContainerStatus {
            name: "web".into(),
            allocated_resources: Some([("cpu".to_owned(), q("1"))].into()),
            resources: Some(ResourceRequirements::default()),
            ..Default::default()
        }]);
        assert!(asks_the_same(&as_published(&pod), &asking("a", "1")));
        assert!(!asks_the_same(&as_published(&pod), &pod));
        assert!(asks_the_same(&with_amounts_of(&pod, &asking("a", "1")), &asking("a", "1000m")));
    }
}
