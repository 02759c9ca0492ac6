//! Nodes, namespaces, events, configuration, accounts, quotas.

use super::text::{NONE, UNKNOWN, age, name, or_none, since_micro, since_time, text, text_or};
use super::{AGE, Column, NAME, Printer, print, string};
use crate::catalogue::events;
use crate::types::core::v1::{
    ComponentStatus, ConfigMap, Event, Namespace, Node, ResourceQuota, Secret, ServiceAccount,
};
use crate::types::events::v1::Event as NewEvent;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) const PRINTERS: &[Printer] = &[
    print!(Node, NODE, node),
    print!(Event, EVENT, event),
    print!(NewEvent, EVENT, |o, now| event(&events::to_core(o.clone()), now)),
    print!(Namespace, &[NAME, string("Status", "Whether it is active or going away."), AGE], |o, now| {
        let phase = o.status.as_ref().and_then(|s| s.phase.as_ref());
        vec![name(&o.metadata), json!(text(phase)), age(&o.metadata, now)]
    }),
    print!(ConfigMap, &[NAME, string("Data", "Number of keys."), AGE], |o, now| {
        let keys = o.data.as_ref().map_or(0, |d| d.len()) + o.binary_data.as_ref().map_or(0, |d| d.len());
        vec![name(&o.metadata), json!(keys), age(&o.metadata, now)]
    }),
    print!(
        Secret,
        &[NAME, string("Type", "What is kept in it."), string("Data", "Number of keys."), AGE],
        |o, now| vec![
            name(&o.metadata),
            json!(text(o.type_.as_ref())),
            json!(o.data.as_ref().map_or(0, |d| d.len())),
            age(&o.metadata, now),
        ]
    ),
    print!(ServiceAccount, &[NAME, AGE], |o, now| vec![name(&o.metadata), age(&o.metadata, now)]),
    print!(
        ComponentStatus,
        &[
            NAME,
            string("Status", "Whether the component is healthy."),
            string("Message", "What it says."),
            string("Error", "What is wrong with it."),
        ],
        |o, _| {
            let condition = o.conditions.iter().flatten().find(|c| c.type_ == "Healthy");
            let status = condition.map_or("Unknown", |c| match c.status.as_str() {
                "True" => "Healthy",
                "False" => "Unhealthy",
                _ => "Unknown",
            });
            let message = condition.and_then(|c| c.message.as_ref());
            let error = condition.and_then(|c| c.error.as_ref());
            vec![name(&o.metadata), json!(status), json!(text(message)), json!(text(error))]
        }
    ),
    print!(
        ResourceQuota,
        &[
            NAME,
            string("Request", "Used and allowed of what is requested and counted."),
            string("Limit", "Used and allowed of what is limited."),
            AGE,
        ],
        quota
    ),
];

const NODE: &[Column] = &[
    NAME,
    string("Status", "Whether it is ready, and whether pods may be bound to it."),
    string("Roles", "Roles that its labels give it."),
    AGE,
    string("Version", "Version of its kubelet."),
    string("Internal-IP", "Address within the cluster.").wide(),
    string("External-IP", "Address from outside.").wide(),
    string("OS-Image", "Operating system.").wide(),
    string("Kernel-Version", "Kernel.").wide(),
    string("Container-Runtime", "What runs its containers.").wide(),
];

/// Labels that give roles: the suffix of the one, the value of the other.
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

fn roles(node: &Node) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == ROLE_LABEL && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    or_none(roles.join(","))
}

fn node(node: &Node, now: Timestamp) -> Vec<Value> {
    let status = node.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|c| c.type_ == "Ready");
    let mut state =
        ready.map_or("Unknown", |c| if c.status == "True" { "Ready" } else { "NotReady" }).to_owned();
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        state.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let addresses = status.and_then(|s| s.addresses.as_deref()).unwrap_or_default();
        json!(addresses.iter().find(|a| a.type_ == kind).map_or(NONE, |a| &a.address))
    };
    let info = status.and_then(|s| s.node_info.clone()).unwrap_or_default();
    let known = |text: &String| text_or(Some(text), UNKNOWN).to_owned();
    let kernel = match (info.kernel_version.as_str(), info.architecture.as_str()) {
        ("", _) => UNKNOWN.to_owned(),
        (kernel, "") => kernel.to_owned(),
        (kernel, architecture) => format!("{kernel} ({architecture})"),
    };
    vec![
        name(&node.metadata),
        json!(state),
        json!(roles(node)),
        age(&node.metadata, now),
        json!(info.kubelet_version),
        address("InternalIP"),
        address("ExternalIP"),
        json!(known(&info.os_image)),
        json!(kernel),
        json!(known(&info.container_runtime_version)),
    ]
}

const EVENT: &[Column] = &[
    string("Last Seen", "Time since it last happened."),
    string("Type", "Normal or Warning."),
    string("Reason", "Why it happened, in one word."),
    string("Object", "What it happened to."),
    string("Subobject", "The part of it.").wide(),
    string("Source", "Who says so.").wide(),
    string("Message", "What happened."),
    string("First Seen", "Time since it first happened.").wide(),
    string("Count", "How often it happened.").wide(),
    Column { priority: 1, ..NAME },
];

fn event(event: &Event, now: Timestamp) -> Vec<Value> {
    let first = match &event.first_timestamp {
        Some(time) => since_time(Some(time), now),
        None => since_micro(event.event_time.as_ref(), now),
    };
    let mut last = event.last_timestamp.as_ref().map_or_else(|| first.clone(), |t| since_time(Some(t), now));
    let mut count = event.count.unwrap_or(0).max(1);
    if let Some(series) = &event.series {
        last = since_micro(series.last_observed_time.as_ref(), now);
        count = series.count.unwrap_or(0);
    }
    let object = &event.involved_object;
    let kind = text(object.kind.as_ref()).to_lowercase();
    let target = match text(object.name.as_ref()) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = event.source.as_ref();
    let component =
        text_or(source.and_then(|s| s.component.as_ref()), text(event.reporting_component.as_ref()));
    let host = text_or(source.and_then(|s| s.host.as_ref()), text(event.reporting_instance.as_ref()));
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        json!(last),
        json!(text(event.type_.as_ref())),
        json!(text(event.reason.as_ref())),
        json!(target),
        json!(text(object.field_path.as_ref())),
        json!(source),
        json!(text(event.message.as_ref()).trim()),
        json!(first),
        json!(count),
        name(&event.metadata),
    ]
}

fn quota(quota: &ResourceQuota, now: Timestamp) -> Vec<Value> {
    let status = quota.status.clone().unwrap_or_default();
    let (hard, used) = (status.hard.unwrap_or_default(), status.used.unwrap_or_default());
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in &hard {
        let cell = format!("{resource}: {}/{}", used.get(resource).map_or("0", |q| &q.0), hard.0);
        if resource.starts_with("limits.") { limits.push(cell) } else { requests.push(cell) }
    }
    vec![
        name(&quota.metadata),
        json!(requests.join(", ")),
        json!(limits.join(", ")),
        age(&quota.metadata, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_node() {
        let object = Node::from_value(json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:59:00Z",
            "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "a"}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "False"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0+krate", "kernelVersion": "6.1", "architecture": "amd64"}}})).unwrap();
        let want = json!([
            "n",
            "NotReady,SchedulingDisabled",
            "a,control-plane",
            "60s",
            "v1.36.0+krate",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "6.1 (amd64)",
            "<unknown>"
        ]);
        assert_eq!(json!(node(&object, now())), want);
    }

    #[test]
    fn events_of_both_shapes() {
        let object = Event::from_value(json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Started",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"}, "message": " m\n",
            "source": {"component": "kubelet", "host": "n"}, "firstTimestamp": "2026-01-01T00:50:00Z",
            "lastTimestamp": "2026-01-01T00:59:00Z", "count": 3})).unwrap();
        let want = json!([
            "60s",
            "Normal",
            "Started",
            "pod/p",
            "spec.containers{c}",
            "kubelet, n",
            "m",
            "10m",
            3,
            "e"
        ]);
        assert_eq!(json!(event(&object, now())), want);
        let new = NewEvent::from_value(
            json!({"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:59:30.000000Z",
            "regarding": {"kind": "Node", "name": "n"}, "note": "x", "reportingController": "c"}),
        )
        .unwrap();
        let row = super::super::row_of("events.k8s.io", "Event", &new, now());
        assert_eq!(json!(row), json!(["30s", "", "", "node/n", "", "c", "x", "30s", 1, "e"]));
    }

    #[test]
    fn a_quota() {
        let object = ResourceQuota::from_value(json!({"metadata": {"name": "q"}, "status": {
            "hard": {"limits.cpu": "2", "pods": "10", "cpu": "1"}, "used": {"pods": "3", "limits.cpu": "1"}}})).unwrap();
        assert_eq!(
            json!(quota(&object, now())),
            json!(["q", "cpu: 0/1, pods: 3/10", "limits.cpu: 1/2", "<unknown>"])
        );
    }
}
