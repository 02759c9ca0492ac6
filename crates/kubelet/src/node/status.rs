//! `node.status` as a pure function of what was observed.

use super::Facts;
use crate::eviction::{self, Pressure, threshold::Signal};
use krate_api::behaviour::resources::is_extended;
use krate_api::meta::Time;
use krate_api::quantity::{Format, Quantity as Exact};
use krate_api::types::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
};
use krate_base::Timestamp;
use krate_runtime::cri::{self, Image, RuntimeStatus, VersionResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Images that a node's status names at most.
const MAX_IMAGES: usize = 50;
/// Names of one image that a node's status carries at most.
const MAX_NAMES: usize = 5;

/// What this node is told to be.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub name: String,
    pub ips: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    pub kubelet_port: u16,
    pub max_pods: u32,
    /// Replaces what the machine has, such as `cpu: 4`.
    pub capacity: BTreeMap<String, String>,
    /// What pods cannot have: for the system and for Kubernetes' own programs, such as `cpu: 100m`.
    pub reserved: BTreeMap<String, String>,
    /// What its hard thresholds keep free pods cannot have either.
    pub eviction: eviction::Config,
    pub root_dir: PathBuf,
}

impl NodeSpec {
    /// Its own labels and those that every node carries.
    #[must_use]
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        for (key, value) in [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch()),
        ] {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        labels
    }
}

/// The architecture as Go names it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What was seen of the machine and its runtime.
pub struct Observed {
    pub facts: Facts,
    pub runtime: cri::Result<RuntimeStatus>,
    pub version: Option<VersionResponse>,
    pub images: Vec<Image>,
    pub pressures: BTreeSet<Pressure>,
}

/// The status to report. `last` gives transition times and what others wrote.
#[must_use]
pub fn compute(spec: &NodeSpec, seen: &Observed, last: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let (mut capacity, mut allocatable) = (capacity(spec, &seen.facts), allocatable(spec, &seen.facts));
    for (name, amount) in extended(last.and_then(|s| s.capacity.as_ref())) {
        if capacity.insert(name.clone(), amount.clone()).is_none() {
            allocatable.insert(name.clone(), amount.clone());
        }
    }
    NodeStatus {
        addresses: Some(addresses(spec)),
        allocatable: Some(allocatable),
        capacity: Some(capacity),
        conditions: Some(conditions(seen, last, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(spec.kubelet_port) }),
        }),
        images: Some(images(&seen.images)),
        node_info: Some(info(seen)),
        features: seen.runtime.as_ref().ok().map(|runtime| NodeFeatures {
            supplemental_groups_policy: Some(runtime.features.supplemental_groups_policy),
        }),
        runtime_handlers: seen
            .runtime
            .as_ref()
            .ok()
            .map(|runtime| runtime.handlers.iter().map(handler).collect()),
        ..Default::default()
    }
}

/// What the runtime can do under a name of a RuntimeClass's handler; the empty one is for pods without a class.
fn handler(handler: &cri::RuntimeHandler) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(handler.recursive_read_only_mounts),
            user_namespaces: Some(handler.user_namespaces),
        }),
    }
}

fn addresses(spec: &NodeSpec) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let mut all: Vec<NodeAddress> = spec.ips.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    all.push(address("Hostname", spec.name.clone()));
    all
}

/// What the node has, the overrides of its configuration included.
#[must_use]
pub fn capacity(spec: &NodeSpec, facts: &Facts) -> BTreeMap<String, Quantity> {
    let mut all = BTreeMap::from([
        ("cpu".to_owned(), facts.cpus.to_string()),
        ("memory".to_owned(), format!("{}Ki", facts.memory_bytes / 1024)),
        ("ephemeral-storage".to_owned(), format!("{}Ki", facts.disk_bytes / 1024)),
        ("hugepages-1Gi".to_owned(), "0".to_owned()),
        ("hugepages-2Mi".to_owned(), "0".to_owned()),
        ("pods".to_owned(), spec.max_pods.to_string()),
    ]);
    all.extend(spec.capacity.clone());
    all.into_iter().map(|(name, amount)| (name, Quantity(amount))).collect()
}

/// What pods can have of it: the capacity without what is reserved and what must stay free.
#[must_use]
pub fn allocatable(spec: &NodeSpec, facts: &Facts) -> BTreeMap<String, Quantity> {
    let mut all = capacity(spec, facts);
    let exact = |text: &str| Exact::parse(text).unwrap_or_default();
    let kept = [("memory", Signal::MemoryAvailable), ("ephemeral-storage", Signal::NodeFsAvailable)];
    for (name, amount) in &mut all {
        let whole = exact(&amount.0);
        let mut left = whole;
        if let Some(reserved) = spec.reserved.get(name) {
            left.sub(&exact(reserved));
        }
        if let Some((_, signal)) = kept.iter().find(|(kept, _)| kept == name) {
            left.sub(&Exact::new(spec.eviction.reserved(*signal, whole.value()), Format::BinarySI));
        }
        if left != whole {
            *amount = if left.is_negative() { Quantity("0".to_owned()) } else { left.text() };
        }
    }
    all
}

fn conditions(seen: &Observed, last: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let [memory, disk, pids] =
        [Pressure::Memory, Pressure::Disk, Pressure::Pid].map(|p| seen.pressures.contains(&p));
    let (ready, reason, message) = match ready(&seen.runtime) {
        Ok(()) => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
        Err(message) => ("False", "KubeletNotReady", message),
    };
    let pressure = |kind: &str, on: bool, yes: &str, no: &str, have: &str, fine: &str| {
        let (status, reason, message) = if on { ("True", yes, have) } else { ("False", no, fine) };
        condition(kind, status, reason, message.to_owned(), last, now)
    };
    vec![
        pressure(
            "MemoryPressure",
            memory,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "kubelet has insufficient memory available",
            "kubelet has sufficient memory available",
        ),
        pressure(
            "DiskPressure",
            disk,
            "KubeletHasDiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has disk pressure",
            "kubelet has no disk pressure",
        ),
        pressure(
            "PIDPressure",
            pids,
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
            "kubelet has insufficient PID available",
            "kubelet has sufficient PID available",
        ),
        condition("Ready", ready, reason, message, last, now),
    ]
}

/// Whether containers can be run, or what is in the way.
fn ready(runtime: &cri::Result<RuntimeStatus>) -> Result<(), String> {
    let status = runtime.as_ref().map_err(|e| format!("container runtime is down: {e}"))?;
    for (kind, text) in [
        ("RuntimeReady", "container runtime not ready"),
        ("NetworkReady", "container runtime network not ready"),
    ] {
        if let Some(c) = status.conditions.iter().find(|c| c.r#type == kind && !c.status) {
            return Err(format!("{text}: {kind}=false reason:{} message:{}", c.reason, c.message));
        }
    }
    Ok(())
}

/// Whether the node can run containers.
#[must_use]
pub fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether the control plane has written that nothing is known of the node any more: it was not heard of for too
/// long, and pods are taken from it until it speaks again.
#[must_use]
pub fn is_doubted(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "Unknown")
}

type Amounts = BTreeMap<String, Quantity>;

/// The extended resources among `amounts`. They are written into a node's capacity by whoever has them to give
/// ("Advertise Extended Resources for a Node").
fn extended(amounts: Option<&Amounts>) -> impl Iterator<Item = (&String, &Quantity)> {
    amounts.into_iter().flatten().filter(|(name, _)| is_extended(name))
}

/// Whether extended resources were added to a node, or taken from it, that pods cannot have yet, or have no more.
#[must_use]
pub fn is_advertised_anew(node: &Node) -> bool {
    let status = node.status.as_ref();
    let all = extended(status.and_then(|s| s.capacity.as_ref()));
    !all.eq(extended(status.and_then(|s| s.allocatable.as_ref())))
}

/// The extended resources that pods have no more.
pub fn withdrawn<'a>(have: &'a NodeStatus, wanted: &'a NodeStatus) -> impl Iterator<Item = &'a String> {
    let kept = |name: &&String| wanted.allocatable.as_ref().is_some_and(|all| all.contains_key(*name));
    extended(have.allocatable.as_ref()).map(|(name, _)| name).filter(move |name| !kept(name))
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    last: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeCondition {
    let before = last.and_then(|s| s.conditions.as_ref()).and_then(|c| c.iter().find(|c| c.type_ == kind));
    let since = before.filter(|b| b.status == status).and_then(|b| b.last_transition_time.clone());
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: before.and_then(|b| b.last_heartbeat_time.clone()).or(Some(Time(now))),
        last_transition_time: since.or(Some(Time(now))),
    }
}

fn images(all: &[Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<&Image> = all.iter().collect();
    sorted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    sorted
        .into_iter()
        .take(MAX_IMAGES)
        .map(|image| {
            let names = image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).cloned();
            ContainerImage { names: Some(names.collect()), size_bytes: i64::try_from(image.size).ok() }
        })
        .collect()
}

fn info(seen: &Observed) -> NodeSystemInfo {
    let f = &seen.facts;
    let runtime = seen.version.as_ref().map(|v| format!("{}://{}", v.runtime_name, v.runtime_version));
    NodeSystemInfo {
        architecture: arch().to_owned(),
        boot_id: f.boot_id.clone(),
        container_runtime_version: runtime.unwrap_or_default(),
        kernel_version: f.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: krate_api::KUBERNETES_VERSION.to_owned(),
        machine_id: f.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: f.os_image.clone(),
        swap: None,
        system_uuid: f.system_uuid.clone(),
    }
}

/// Whether there is news: anything but heartbeats differs.
#[must_use]
pub fn differs(have: &NodeStatus, wanted: &NodeStatus) -> bool {
    let brief = |s: &NodeStatus| {
        let all = s.conditions.iter().flatten();
        let own = all.filter(|c| wanted_kinds(wanted, &c.type_));
        own.map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone()))
            .collect::<Vec<_>>()
    };
    let mut have_conditions = brief(have);
    let mut wanted_conditions = brief(wanted);
    have_conditions.sort();
    wanted_conditions.sort();
    have_conditions != wanted_conditions
        || have.addresses != wanted.addresses
        || have.capacity != wanted.capacity
        || have.allocatable != wanted.allocatable
        || have.node_info != wanted.node_info
        || have.images.clone().unwrap_or_default() != wanted.images.clone().unwrap_or_default()
        || have.daemon_endpoints != wanted.daemon_endpoints
}

fn wanted_kinds(wanted: &NodeStatus, kind: &str) -> bool {
    wanted.conditions.iter().flatten().any(|c| c.type_ == kind)
}

/// Conditions whose status changed, with the reason that the event carries.
#[must_use]
pub fn transitions(have: Option<&NodeStatus>, wanted: &NodeStatus) -> Vec<(&'static str, &'static str)> {
    let status = |s: &NodeStatus, kind: &str| {
        s.conditions.iter().flatten().find(|c| c.type_ == kind).map(|c| c.status.clone())
    };
    [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ]
    .into_iter()
    .filter_map(|(kind, on, off)| {
        let now = status(wanted, kind)?;
        let before = have.and_then(|h| status(h, kind));
        (before.as_ref() != Some(&now)).then_some((kind, if now == "True" { on } else { off }))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_runtime::cri::RuntimeCondition;

    fn spec() -> NodeSpec {
        NodeSpec {
            name: "node-1".into(),
            ips: vec!["172.29.0.2".parse().unwrap()],
            labels: BTreeMap::new(),
            kubelet_port: 10250,
            max_pods: 110,
            capacity: BTreeMap::from([("cpu".into(), "4".into())]),
            reserved: BTreeMap::from([("cpu".into(), "100m".into())]),
            eviction: eviction::Config::default(),
            root_dir: "/".into(),
        }
    }

    fn seen(network: bool) -> Observed {
        let condition = RuntimeCondition {
            r#type: "NetworkReady".into(),
            status: network,
            reason: "NetworkPluginNotReady".into(),
            message: "no range".into(),
        };
        let facts = Facts {
            cpus: 2,
            memory_bytes: 1 << 30,
            memory_available: 1 << 30,
            disk_bytes: 100,
            disk_available: 50,
            ..Facts::default()
        };
        Observed {
            facts,
            runtime: Ok(RuntimeStatus { conditions: vec![condition], ..Default::default() }),
            version: None,
            images: vec![],
            pressures: BTreeSet::new(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_node_is_ready_when_its_runtime_and_network_are() {
        let waiting = compute(&spec(), &seen(false), None, at(1));
        let ready = |s: &NodeStatus| {
            s.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Ready").unwrap().clone()
        };
        assert_eq!(
            ready(&waiting).message.unwrap(),
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no range"
        );
        let well = compute(&spec(), &seen(true), Some(&waiting), at(5));
        assert_eq!(
            (ready(&well).status.as_str(), ready(&well).last_transition_time),
            ("True", Some(Time(at(5))))
        );
        assert_eq!(transitions(Some(&waiting), &well), [("Ready", "NodeReady")]);
        assert!(differs(&waiting, &well));
        let later = compute(&spec(), &seen(true), Some(&well), at(9));
        assert!(!differs(&well, &later), "time alone is no news");
        assert_eq!(well.capacity.unwrap()["cpu"].0, "4");
        let left = well.allocatable.unwrap();
        assert_eq!((left["cpu"].0.as_str(), left["memory"].0.as_str()), ("3900m", "924Mi"));
    }

    #[test]
    fn what_others_advertise_is_for_pods() {
        let amounts =
            |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), Quantity("4".into()))).collect();
        let mut node = Node { status: Some(compute(&spec(), &seen(true), None, at(1))), ..Node::default() };
        assert!(!is_advertised_anew(&node));
        let have = node.status.as_mut().unwrap();
        have.capacity.as_mut().unwrap().extend::<Amounts>(amounts(&["example.com/dongle", "cpu"]));
        assert!(is_advertised_anew(&node));
        let wanted = compute(&spec(), &seen(true), node.status.as_ref(), at(2));
        assert_eq!(wanted.allocatable.as_ref().unwrap()["example.com/dongle"].0, "4");
        assert_eq!(wanted.allocatable.as_ref().unwrap()["cpu"].0, "3900m");
        node.status = Some(wanted.clone());
        assert!(!is_advertised_anew(&node));
        node.status.as_mut().unwrap().capacity.as_mut().unwrap().remove("example.com/dongle");
        assert!(is_advertised_anew(&node));
        let later = compute(&spec(), &seen(true), node.status.as_ref(), at(3));
        assert_eq!(withdrawn(&wanted, &later).collect::<Vec<_>>(), ["example.com/dongle"]);
    }

    #[test]
    fn pressure_is_a_condition() {
        let mut under = seen(true);
        under.pressures.insert(Pressure::Pid);
        let status = compute(&spec(), &under, None, at(1));
        let pid = status.conditions.unwrap().into_iter().find(|c| c.type_ == "PIDPressure").unwrap();
        assert_eq!((pid.status.as_str(), pid.reason.as_deref()), ("True", Some("KubeletHasInsufficientPID")));
    }
}
