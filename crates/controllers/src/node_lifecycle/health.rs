//! What is said of a node's health: conditions of a node that is silent, taints that follow. Pure.

use jiff::Timestamp;
use krate_api::meta::Time;
use krate_api::types::core::v1::{NodeCondition, Taint};

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
pub const NO_SCHEDULE: &str = "NoSchedule";
pub const NO_EXECUTE: &str = "NoExecute";

/// Conditions that a kubelet reports and that nobody knows when it is silent.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Conditions that taint a node while they have a value.
const TAINTS: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The value of the condition `Ready`; `Unknown` when there is none.
#[must_use]
pub fn ready(conditions: &[NodeCondition]) -> &str {
    conditions.iter().find(|c| c.type_ == "Ready").map_or("Unknown", |c| c.status.as_str())
}

/// Makes the conditions those of a silent node. Whether anything changed.
pub fn silence(conditions: &mut Vec<NodeCondition>, created: Timestamp, now: Timestamp) -> bool {
    let mut changed = false;
    for kind in REPORTED {
        match conditions.iter_mut().find(|c| c.type_ == *kind) {
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
                changed = true;
            }
            Some(_) => {}
            None => {
                conditions.push(NodeCondition {
                    type_: (*kind).to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: Some(Time(created)),
                    last_transition_time: Some(Time(now)),
                });
                changed = true;
            }
        }
    }
    changed
}

/// The key of the NoExecute taint that a node should have.
#[must_use]
pub fn eviction_taint(conditions: &[NodeCondition]) -> Option<&'static str> {
    match ready(conditions) {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    }
}

/// Keys of the NoSchedule taints that follow from conditions and from `spec.unschedulable`.
#[must_use]
pub fn schedule_taints(conditions: &[NodeCondition], unschedulable: bool) -> Vec<&'static str> {
    let has = |kind: &str, value: &str| conditions.iter().any(|c| c.type_ == kind && c.status == value);
    let mut keys: Vec<_> =
        TAINTS.iter().filter(|(kind, value, _)| has(kind, value)).map(|(_, _, key)| *key).collect();
    if unschedulable {
        keys.push(UNSCHEDULABLE);
    }
    keys
}

/// The taints of a node with ours as they should be; those of others stay. `evict`: the NoExecute taint.
#[must_use]
pub fn taints(
    present: &[Taint],
    schedule: &[&'static str],
    evict: Option<&'static str>,
    now: Timestamp,
) -> Vec<Taint> {
    let is_ours = |t: &Taint| {
        let known = TAINTS.iter().any(|(_, _, key)| *key == t.key) || t.key == UNSCHEDULABLE;
        let evicts = t.key == NOT_READY || t.key == UNREACHABLE;
        (t.effect == NO_SCHEDULE && known) || (t.effect == NO_EXECUTE && evicts)
    };
    let wanted: Vec<(&str, &str)> =
        schedule.iter().map(|key| (*key, NO_SCHEDULE)).chain(evict.map(|key| (key, NO_EXECUTE))).collect();
    let is_wanted = |t: &Taint| wanted.contains(&(t.key.as_str(), t.effect.as_str()));
    let mut taints: Vec<Taint> = present.iter().filter(|t| !is_ours(t) || is_wanted(t)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str) -> NodeCondition {
        NodeCondition { type_: kind.to_owned(), status: status.to_owned(), ..NodeCondition::default() }
    }

    #[test]
    fn a_silent_node_is_known_of_in_nothing() {
        let mut conditions = vec![condition("Ready", "True"), condition("Custom", "True")];
        assert!(silence(&mut conditions, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH));
        assert_eq!(ready(&conditions), "Unknown");
        assert_eq!(conditions.len(), 5);
        assert_eq!(conditions[1].status, "True");
        assert!(!silence(&mut conditions, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn taints_follow_and_those_of_others_stay() {
        let foreign = Taint { key: "gpu".to_owned(), effect: NO_SCHEDULE.to_owned(), ..Taint::default() };
        let down = [condition("Ready", "Unknown")];
        let evict = eviction_taint(&down);
        let tainted = taints(
            std::slice::from_ref(&foreign),
            &schedule_taints(&down, true),
            evict,
            Timestamp::UNIX_EPOCH,
        );
        let keys: Vec<_> = tainted.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
        assert_eq!(
            keys,
            [
                ("gpu", NO_SCHEDULE),
                (UNREACHABLE, NO_SCHEDULE),
                (UNSCHEDULABLE, NO_SCHEDULE),
                (UNREACHABLE, NO_EXECUTE)
            ]
        );
        assert_eq!(taints(&tainted, &[], None, Timestamp::UNIX_EPOCH), [foreign]);
    }
}
