//! Whether the node can take one more pod: it may have been given to the node without the scheduler, or on
//! old news.

use crate::eviction::{Pressure, rank::is_critical};
use crate::spec::{self, qos, resources, sysctls};
use crate::status::Verdict;
use krate_api::behaviour::resources::is_extended;
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::types::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};

/// How the reasons of verdicts begin that say that the node has too little of something.
pub const OUT_OF: &str = "OutOf";

/// Why the pod cannot be taken beside `others`; `None` if it can.
pub fn judge<'a>(
    pod: &Pod,
    others: impl Iterator<Item = &'a Pod>,
    allocatable: &BTreeMap<String, Quantity>,
) -> Option<Verdict> {
    if let Some(message) = sysctls::forbidden(pod) {
        return Some(Verdict { reason: "SysctlForbidden".to_owned(), message, ..Verdict::default() });
    }
    let others: Vec<&Pod> = others.collect();
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if let Some(most) = allocatable.get("pods").map(resources::value).filter(|most| count + 1 > *most) {
        return Some(out_of("pods", 1, count, most));
    }
    // An extended resource that the node itself does not keep is given out by the scheduler alone.
    let own = |name: &String| allocatable.contains_key(name) || !is_extended(name);
    let names: BTreeSet<String> = requested_names(pod).into_iter().filter(own).collect();
    if let Some(verdict) =
        lacking(pod, &others, allocatable, &names.iter().map(String::as_str).collect::<Vec<_>>())
    {
        return Some(verdict);
    }
    let taken: Vec<_> = others.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(pod).any(|port| taken.iter().any(|other| collide(&port, other))) {
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Some(Verdict {
            reason: "NodePorts".to_owned(),
            message: message.to_owned(),
            ..Verdict::default()
        });
    }
    None
}

/// Why a node under pressure does not take the pod: short of memory it takes none that asks for nothing,
/// short of anything else none at all.
pub fn under_pressure(pod: &Pod, pressures: &BTreeSet<Pressure>) -> Option<Verdict> {
    if pressures.is_empty() || is_critical(pod) {
        return None;
    }
    if *pressures == BTreeSet::from([Pressure::Memory]) {
        let tolerated = spec::spec(pod).tolerations.iter().flatten().any(|t| {
            let fits = |value: &Option<String>, wanted: &str| {
                value.as_deref().is_none_or(|v| v.is_empty() || v == wanted)
            };
            fits(&t.key, Pressure::Memory.taint()) && fits(&t.effect, "NoSchedule")
        });
        if tolerated || qos::class(pod) != qos::Class::BestEffort {
            return None;
        }
    }
    let names: Vec<&str> = pressures.iter().map(|p| p.condition()).collect();
    let message = format!("The node had condition: [{}]. ", names.join(", "));
    Some(Verdict { reason: crate::eviction::EVICTED.to_owned(), message, ..Verdict::default() })
}

/// Everything of which the node has too little for the pod beside `others`, and how much is missing.
pub fn shortages(
    pod: &Pod,
    others: &[&Pod],
    allocatable: &BTreeMap<String, Quantity>,
) -> BTreeMap<String, i64> {
    let names = requested_names(pod);
    let mut missing: BTreeMap<String, i64> = names
        .into_iter()
        .filter_map(|name| {
            let capacity = allocatable.get(&name).map_or(0, |q| resources::amount(&name, q));
            let requested = resources::pod_request(pod, &name);
            let used: i64 = others.iter().map(|other| resources::pod_request(other, &name)).sum();
            let short = requested + used - capacity;
            (requested > 0 && short > 0).then_some((name, short))
        })
        .collect();
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let most = allocatable.get("pods").map_or(i64::MAX, resources::value);
    if count >= most {
        missing.insert("pods".to_owned(), count + 1 - most);
    }
    missing
}

/// The first of `names` of which the node has too little for the pod beside `others`.
pub fn lacking(
    pod: &Pod,
    others: &[&Pod],
    allocatable: &BTreeMap<String, Quantity>,
    names: &[&str],
) -> Option<Verdict> {
    names.iter().find_map(|name| {
        let capacity = allocatable.get(*name).map_or(0, |q| resources::amount(name, q));
        let requested = resources::pod_request(pod, name);
        let used: i64 = others.iter().map(|other| resources::pod_request(other, name)).sum();
        (requested > 0 && requested + used > capacity).then(|| out_of(name, requested, used, capacity))
    })
}

fn out_of(name: &str, requested: i64, used: i64, capacity: i64) -> Verdict {
    Verdict {
        reason: format!("{OUT_OF}{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
        ..Verdict::default()
    }
}

fn requested_names(pod: &Pod) -> BTreeSet<String> {
    let all = spec::containers(pod).iter().chain(spec::init_containers(pod)).map(|c| c.resources.as_ref());
    let requests = all.chain([spec::spec(pod).resources.as_ref()]).flatten();
    requests
        .flat_map(|r| r.requests.iter().chain(&r.limits))
        .flat_map(|amounts| amounts.keys().cloned())
        .collect()
}

/// Protocol, number, and the address of the node that it is taken of (empty: all).
type HostPort<'a> = (&'a str, i32, &'a str);

fn host_ports(pod: &Pod) -> impl Iterator<Item = HostPort<'_>> {
    spec::containers(pod).iter().flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
        let number = p.host_port.filter(|n| *n > 0)?;
        let address = p.host_ip.as_deref().filter(|ip| !matches!(*ip, "0.0.0.0" | "::")).unwrap_or("");
        Some((p.protocol.as_deref().unwrap_or("TCP"), number, address))
    })
}

fn collide(one: &HostPort<'_>, other: &HostPort<'_>) -> bool {
    let same_address = one.2 == other.2 || one.2.is_empty() || other.2.is_empty();
    one.0 == other.0 && one.1 == other.1 && same_address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build;
    use krate_api::types::core::v1::{ContainerPort, ResourceRequirements};

    fn amounts(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
        list.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect()
    }

    fn wanting(name: &str, cpu: &str) -> Pod {
        build::edit(build::pod(name), |s| {
            s.containers[0].resources =
                Some(ResourceRequirements { requests: Some(amounts(&[("cpu", cpu)])), ..Default::default() });
        })
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let node = amounts(&[("cpu", "2"), ("pods", "2")]);
        let one = wanting("a", "1500m");
        assert_eq!(judge(&wanting("b", "500m"), [&one].into_iter(), &node), None);
        let verdict = judge(&wanting("b", "1"), [&one].into_iter(), &node).unwrap();
        assert_eq!(verdict.reason, "OutOfcpu");
        assert_eq!(
            verdict.message,
            "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
        );
        let full = judge(&build::pod("c"), [&one, &one].into_iter(), &node).unwrap();
        assert_eq!(full.reason, "OutOfpods");
    }

    #[test]
    fn extended_resources_are_counted_where_they_are_kept() {
        let pod = build::edit(build::pod("a"), |s| {
            let requests = Some(amounts(&[("example.com/dongle", "3")]));
            s.containers[0].resources = Some(ResourceRequirements { requests, ..Default::default() });
        });
        let judged = |node: &[(&str, &str)]| judge(&pod, [].into_iter(), &amounts(node)).map(|v| v.reason);
        assert_eq!(judged(&[("cpu", "2")]), None);
        assert_eq!(judged(&[("example.com/dongle", "2")]).as_deref(), Some("OutOfexample.com/dongle"));
    }

    #[test]
    fn host_ports_are_taken_once() {
        let at = |name: &str, host_ip: &str| {
            build::edit(build::pod(name), |s| {
                s.containers[0].ports = Some(vec![ContainerPort {
                    host_port: Some(80),
                    host_ip: Some(host_ip.to_owned()),
                    container_port: 80,
                    ..Default::default()
                }]);
            })
        };
        let refused = |a: &str, b: &str| {
            let verdict = judge(&at("a", a), [&at("b", b)].into_iter(), &BTreeMap::new());
            verdict.is_some_and(|v| v.reason == "NodePorts")
        };
        assert!(refused("", "") && refused("0.0.0.0", "127.0.0.1") && refused("127.0.0.1", "127.0.0.1"));
        assert!(!refused("127.0.0.1", "192.0.2.1"));
    }
}
