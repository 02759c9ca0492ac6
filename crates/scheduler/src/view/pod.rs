//! The scheduler's pod: the fields that it reads, made once per change.

use super::affinity::{PodAffinity, Spread};
use super::resources::{Resources, pod_requests, pod_usage};
use krate_api::labels::Labels;
use krate_api::object::DecodeError;
use krate_api::placement::{NodeChoice, Toleration};
use krate_api::types::core::v1::{Container, Pod, PodSpec};
use krate_api::{Object, Shared};
use krate_base::Timestamp;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A port of the node that a pod wants for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Empty for every address.
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether two pods cannot have both on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip.is_empty() || other.ip.is_empty() || self.ip == other.ip)
    }
}

/// A claim that a pod's volume is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    pub claim: String,
    /// It is made for this pod.
    pub ephemeral: bool,
}

/// The condition `PodScheduled` as it is in the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduled {
    pub status: String,
    pub reason: String,
    pub message: String,
    pub observed_generation: Option<i64>,
}

/// What does not change what a pod needs of a node, but is needed beside it, and what does.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub revision: Arc<str>,
    pub generation: i64,
    pub scheduler: String,
    /// `spec.nodeName`: set once the pod is bound.
    pub node: Option<Arc<str>>,
    /// `status.nominatedNodeName`.
    pub nominated: Option<Arc<str>>,
    pub priority: i32,
    /// `preemptionPolicy` is not `Never`.
    pub preempts: bool,
    pub created: Option<Timestamp>,
    pub started: Option<Timestamp>,
    /// Succeeded or Failed: it needs no node any more.
    pub ended: bool,
    pub deleting: bool,
    /// Names of its scheduling gates.
    pub gates: Vec<String>,
    pub scheduled: Option<Scheduled>,
    pub labels: Labels,
    pub requests: Resources,
    /// CPU and memory it is taken to use when nodes are scored.
    pub usage: [i64; 2],
    pub ports: Vec<HostPort>,
    /// Normalized names of the images of its containers.
    pub images: Vec<String>,
    pub choice: NodeChoice,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<Spread>,
    pub affinity: Option<Box<PodAffinity>>,
    /// Kind and name of the controller that selects it.
    pub controller: Option<(&'static str, Arc<str>)>,
    /// The claims behind its volumes. What they mean to a node is not of the signature: their filters say so.
    pub claims: Vec<ClaimUse>,
    /// Equal for pods that every node-local plugin judges alike.
    pub signature: u64,
}

impl PodView {
    #[must_use]
    pub fn new(pod: &Pod) -> Self {
        let meta = pod.meta();
        let default = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default);
        let status = pod.status.as_ref();
        let text = |value: &Option<String>| value.as_deref().unwrap_or_default().into();
        let some = |value: Option<&String>| value.filter(|v| !v.is_empty()).map(|v| v.as_str().into());
        let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let mut view = Self {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            revision: text(&meta.resource_version),
            generation: meta.generation.unwrap_or(0),
            scheduler: spec.scheduler_name.clone().unwrap_or_default(),
            node: some(spec.node_name.as_ref()),
            nominated: some(status.and_then(|s| s.nominated_node_name.as_ref())),
            priority: spec.priority.unwrap_or(0),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            started: status.and_then(|s| s.start_time.as_ref()).map(|time| time.0),
            ended: matches!(phase, "Succeeded" | "Failed"),
            deleting: meta.deletion_timestamp.is_some(),
            gates: spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect(),
            scheduled: scheduled(pod),
            labels: meta.labels.clone().unwrap_or_default(),
            requests: pod_requests(spec, status),
            usage: pod_usage(spec),
            ports: ports(spec),
            images: all_containers(spec).filter_map(|c| c.image.as_deref()).map(normalized).collect(),
            choice: NodeChoice::of(spec),
            tolerations: spec.tolerations.iter().flatten().filter_map(Toleration::of).collect(),
            spread: Spread::all(spec, meta.labels.as_ref()),
            affinity: PodAffinity::of(spec, meta.namespace.as_deref().unwrap_or_default()).map(Box::new),
            controller: crate::tally::controller(meta.owner_references.as_deref().unwrap_or_default()),
            claims: claims(spec, meta.name.as_deref().unwrap_or_default()),
            signature: 0,
        };
        view.signature = view.sign();
        view
    }

    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        krate_api::object::key(&self.namespace, &self.name)
    }

    /// Whether the pod holds or may come to hold resources of a node.
    #[must_use]
    pub fn is_assigned(&self) -> bool {
        self.node.is_some()
    }

    fn sign(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.scheduler, &self.node, &self.requests, self.usage, &self.ports).hash(&mut hasher);
        (&self.images, &self.choice, &self.tolerations).hash(&mut hasher);
        hasher.finish()
    }
}

impl krate_client::View for PodView {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        Ok(Arc::new(Self::new(&*object.typed::<Pod>()?)))
    }
}

fn claims(spec: &PodSpec, pod: &str) -> Vec<ClaimUse> {
    let volumes = spec.volumes.iter().flatten();
    let used = |volume| {
        let claim = krate_api::volumes::claim_name(pod, volume)?;
        Some(ClaimUse { claim, ephemeral: volume.persistent_volume_claim.is_none() })
    };
    volumes.filter_map(used).collect()
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter(|port| port.host_port.unwrap_or(0) > 0).map(|port| HostPort {
        ip: port.host_ip.clone().filter(|ip| ip != "0.0.0.0").unwrap_or_default(),
        protocol: port.protocol.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "TCP".to_owned()),
        port: port.host_port.unwrap_or(0),
    });
    taken.collect()
}

/// An image's name with a tag, as nodes report it.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

fn scheduled(pod: &Pod) -> Option<Scheduled> {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let condition = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled")?;
    Some(Scheduled {
        status: condition.status.clone(),
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
        observed_generation: condition.observed_generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_conflict_by_number_protocol_and_address() {
        let port =
            |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        assert!(port("", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("10.0.0.2", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("", "UDP", 80).conflicts(&port("", "TCP", 80)));
        assert!(!port("", "TCP", 81).conflicts(&port("", "TCP", 80)));
    }

    #[test]
    fn images_get_their_tag() {
        assert_eq!(normalized("nginx"), "nginx:latest");
        assert_eq!(normalized("registry:5000/nginx"), "registry:5000/nginx:latest");
        assert_eq!(normalized("nginx:1"), "nginx:1");
        assert_eq!(normalized("nginx@sha256:0"), "nginx@sha256:0");
    }

    #[test]
    fn pods_of_one_template_have_one_signature() {
        let pod = |name: &str, cpu: &str| {
            let json = serde_json::json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]},
            });
            PodView::new(&<Pod as krate_api::Kind>::from_value(json).unwrap()).signature
        };
        assert_eq!(pod("a", "1"), pod("b", "1000m"));
        assert_ne!(pod("a", "1"), pod("b", "2"));
    }
}
