//! The Node object of a hollow node.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::meta::Time;
use krate_api::types::core::v1::{Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use krate_base::Timestamp;
use std::collections::BTreeMap;

/// What a hollow node says it has.
#[derive(Clone, Debug)]
pub struct Shape {
    pub capacity: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl Default for Shape {
    fn default() -> Self {
        let capacity = [("cpu", "4"), ("memory", "16Gi"), ("pods", "110"), ("ephemeral-storage", "100Gi")];
        let text = |(name, amount): (&str, &str)| (name.to_owned(), amount.to_owned());
        Self { capacity: capacity.into_iter().map(text).collect(), labels: BTreeMap::new() }
    }
}

impl Shape {
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn with(mut self, resource: &str, amount: &str) -> Self {
        self.capacity.insert(resource.to_owned(), amount.to_owned());
        self
    }
}

/// The object that the node registers.
pub(super) fn object(name: &str, shape: &Shape) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    let mut labels = shape.labels.clone();
    for (label, value) in [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", "amd64"),
    ] {
        labels.entry(label.to_owned()).or_insert_with(|| value.to_owned());
    }
    node.metadata.labels = Some(labels);
    node
}

/// Brings the status up to date: what it has, and whether it is well.
pub(super) fn report(
    status: &mut NodeStatus,
    name: &str,
    address: &str,
    shape: &Shape,
    ill: bool,
    now: Timestamp,
) {
    let amounts = |(name, amount): (&String, &String)| (name.clone(), Quantity(amount.clone()));
    let capacity: BTreeMap<_, _> = shape.capacity.iter().map(amounts).collect();
    status.capacity = Some(capacity.clone());
    status.allocatable = Some(capacity);
    let entry =
        |type_: &str, address: &str| NodeAddress { type_: type_.to_owned(), address: address.to_owned() };
    status.addresses = Some(vec![entry("InternalIP", address), entry("Hostname", name)]);
    status.node_info = Some(info());
    let ready = if ill {
        ("Ready", "False", "KubeletNotReady", "container runtime is down")
    } else {
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status")
    };
    for (type_, value, reason, message) in [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ] {
        let list = status.conditions.get_or_insert_default();
        let at = list.iter().position(|c| c.type_ == type_);
        let changed = at.and_then(|at| list.get(at)).filter(|c| c.status == value);
        let condition = NodeCondition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: changed.map_or(Some(Time(now)), |c| c.last_transition_time.clone()),
        };
        match at.and_then(|at| list.get_mut(at)) {
            Some(slot) => *slot = condition,
            None => list.push(condition),
        }
    }
}

fn info() -> NodeSystemInfo {
    NodeSystemInfo {
        architecture: "amd64".to_owned(),
        operating_system: "linux".to_owned(),
        container_runtime_version: "hollow://0.1.0".to_owned(),
        kubelet_version: "v1.36.0".to_owned(),
        kernel_version: "hollow".to_owned(),
        os_image: "hollow".to_owned(),
        ..NodeSystemInfo::default()
    }
}
