//! Which pod goes first, and what it is told. Pure.

use super::threshold::{Reading, Signal, Threshold};
use crate::spec::{self, resources};
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::quantity::{Format, Quantity as Exact};
use krate_api::types::core::v1::Pod;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What a pod uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub memory: i64,
    pub disk: i64,
    pub inodes: i64,
    pub pids: i64,
    /// By container name: memory and disk.
    pub containers: BTreeMap<String, (i64, i64)>,
}

impl Usage {
    fn of(&self, resource: &str) -> i64 {
        match resource {
            "memory" => self.memory,
            "ephemeral-storage" => self.disk,
            "inodes" => self.inodes,
            _ => self.pids,
        }
    }
}

/// Orders pods by who goes first: those that use more than they asked for, then the less important, then
/// those that use the most beyond what they asked for.
pub fn rank(signal: Signal, pods: &mut [&Pod], usage: &BTreeMap<String, Usage>) {
    let resource = signal.resource();
    let none = Usage::default();
    pods.sort_by_key(|pod| {
        let used = usage.get(spec::uid(pod)).unwrap_or(&none).of(resource);
        let asked = match resource {
            "memory" | "ephemeral-storage" => resources::pod_request(pod, resource),
            _ => 0,
        };
        let counts = resource != "pids" && resource != "inodes";
        let beyond = counts && used > asked;
        (Reverse(beyond), spec::spec(pod).priority.unwrap_or(0), Reverse(used - asked))
    });
}

/// Pods without which the node or the cluster does not work are not evicted.
pub fn is_critical(pod: &Pod) -> bool {
    const SYSTEM_CRITICAL: i32 = 2_000_000_000;
    spec::is_static(pod)
        || spec::is_mirror(pod)
        || spec::spec(pod).priority.is_some_and(|p| p >= SYSTEM_CRITICAL)
}

/// The message of an evicted pod.
pub fn message(threshold: &Threshold, reading: Reading, pod: &Pod, usage: &Usage) -> String {
    let resource = threshold.signal.resource();
    let show = |amount: i64| {
        if threshold.signal.is_bytes() { bytes(amount) } else { amount.to_string() }
    };
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        show(threshold.least.of(reading.capacity)),
        show(reading.available)
    );
    if !matches!(resource, "memory" | "ephemeral-storage") {
        return text;
    }
    for container in spec::containers(pod) {
        let Some((memory, disk)) = usage.containers.get(&container.name) else { continue };
        let used = if resource == "memory" { *memory } else { *disk };
        let asked = resources::request(container.resources.as_ref(), resource);
        if used > asked.map_or(0, resources::value) {
            text.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                container.name,
                bytes(used),
                asked.map_or("0", |q: &Quantity| q.0.as_str())
            ));
        }
    }
    text
}

/// Bytes as a quantity with a binary suffix.
pub fn bytes(amount: i64) -> String {
    Exact::new(amount, Format::BinarySI).text().0
}

#[cfg(test)]
mod tests {
    use super::super::threshold::Amount;
    use super::*;
    use crate::spec::build::*;
    use krate_api::types::core::v1::ResourceRequirements;

    fn asking(name: &str, memory: &str, priority: i32) -> Pod {
        edit(pod(name), |s| {
            s.priority = Some(priority);
            s.containers[0].resources = Some(ResourceRequirements {
                requests: Some([("memory".to_owned(), Quantity(memory.into()))].into()),
                ..Default::default()
            });
        })
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first() {
        let (modest, greedy, important) =
            (asking("modest", "1Gi", 0), asking("greedy", "1Mi", 0), asking("important", "1Mi", 9));
        let used = |mi: i64| Usage { memory: mi << 20, ..Default::default() };
        let usage: BTreeMap<String, Usage> = [
            ("uid-modest".to_owned(), used(900)),
            ("uid-greedy".to_owned(), used(100)),
            ("uid-important".to_owned(), used(500)),
        ]
        .into();
        let mut pods = vec![&important, &modest, &greedy];
        rank(Signal::MemoryAvailable, &mut pods, &usage);
        assert_eq!(pods.iter().map(|p| spec::name(p)).collect::<Vec<_>>(), ["greedy", "important", "modest"]);
    }

    #[test]
    fn the_message_says_who_used_what() {
        let threshold =
            Threshold { signal: Signal::MemoryAvailable, least: Amount::Absolute(100 << 20), grace: None };
        let usage = Usage { containers: [("web".to_owned(), (3 << 20, 0))].into(), ..Default::default() };
        let reading = Reading { available: 50 << 20, capacity: 1 << 30 };
        assert_eq!(
            message(&threshold, reading, &asking("a", "1Mi", 0), &usage),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container web was using 3Mi, request is 1Mi, has larger consumption of memory. "
        );
    }
}
