//! What the network keeps of Services, EndpointSlices and Nodes: small views, made once per event.
//!
//! They hold parsed addresses and resolved defaults, so that what works with them has no decisions about
//! absent fields left. Values that cannot be read (an address that is none) are left out: validation has
//! kept them out of the API.

use crate::addr::Cidr;
use crate::link::routes::NodeView;
use krate_api::Shared;
use krate_api::object::DecodeError;
use krate_api::types::core::v1::{Node, Service, ServiceSpec};
use krate_api::types::discovery::v1::{Endpoint, EndpointSlice};
use krate_api::types::networking::v1::ServiceCIDR;
use krate_client::View;
use std::net::IpAddr;
use std::sync::Arc;

/// The label that ties a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a Service asks for another proxy.
pub const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// How long a client stays with its endpoint by default, in seconds.
const AFFINITY_SECONDS: u32 = 10_800;

/// A transport protocol, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    /// As the API writes it; nothing is TCP.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("UDP") => Self::Udp,
            Some("SCTP") => Self::Sctp,
            _ => Self::Tcp,
        }
    }

    /// The label of SRV records.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceView {
    pub namespace: String,
    pub name: String,
    /// Empty for headless and ExternalName Services, and until they are allocated.
    pub cluster_ips: Vec<IpAddr>,
    pub headless: bool,
    pub external_ips: Vec<IpAddr>,
    /// Addresses of load balancers that hand packets to the node with their destination unchanged.
    pub balancer_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// For how many seconds a client stays with its endpoint.
    pub affinity_seconds: Option<u32>,
    /// Only endpoints of the client's own node are used.
    pub internal_local: bool,
    /// Traffic from outside goes only to endpoints of the node that it reaches, with its source kept.
    pub external_local: bool,
    pub health_check_port: Option<u16>,
    /// Whom a load balancer's addresses serve; empty for everyone.
    pub source_ranges: Vec<Cidr>,
    pub external_name: Option<String>,
    /// Another proxy is in charge.
    pub foreign: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty if the only port has no name.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceView {
    pub namespace: String,
    pub name: String,
    /// The Service's name; empty if it belongs to none.
    pub service: String,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<EndpointView>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointView {
    pub addresses: Vec<IpAddr>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub hostname: Option<String>,
    pub node: Option<String>,
    /// The zones and the nodes that it is meant for.
    pub for_zones: Vec<String>,
    pub for_nodes: Vec<String>,
}

impl ServiceView {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        krate_api::object::key(&self.namespace, &self.name)
    }
}

impl SliceView {
    /// The key of its Service, if it has one.
    #[must_use]
    pub fn service_key(&self) -> Option<String> {
        (!self.service.is_empty()).then(|| krate_api::object::key(&self.namespace, &self.service))
    }
}

impl View for ServiceView {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        Ok(Arc::new(Self::from(&*object.typed::<Service>()?)))
    }
}

impl From<&Service> for ServiceView {
    fn from(service: &Service) -> Self {
        let (meta, empty) = (&service.metadata, ServiceSpec::default());
        let spec = service.spec.as_ref().unwrap_or(&empty);
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let labels = meta.labels.as_ref();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            cluster_ips: cluster_ips(spec),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            external_ips: addresses(spec.external_ips.iter().flatten()),
            balancer_ips: balancer_ips(service),
            ports: spec.ports.iter().flatten().filter_map(|p| service_port(spec, p)).collect(),
            affinity_seconds: affinity(spec),
            internal_local: is_local(&spec.internal_traffic_policy),
            external_local: is_local(&spec.external_traffic_policy),
            health_check_port: spec
                .health_check_node_port
                .and_then(|p| u16::try_from(p).ok())
                .filter(|p| *p > 0),
            source_ranges: spec
                .load_balancer_source_ranges
                .iter()
                .flatten()
                .filter_map(|r| r.trim().parse().ok())
                .collect(),
            external_name: spec
                .external_name
                .clone()
                .filter(|_| spec.type_.as_deref() == Some("ExternalName")),
            foreign: labels.is_some_and(|l| l.contains_key(PROXY_NAME)),
        }
    }
}

fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return vec![];
    }
    match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => addresses(ips),
        _ => addresses(&spec.cluster_ip),
    }
}

fn balancer_ips(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|b| b.ingress.as_ref()).into_iter().flatten();
    let direct = ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    let is_balanced = service.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer"));
    if is_balanced { addresses(direct.filter_map(|i| i.ip.as_ref())) } else { vec![] }
}

fn service_port(spec: &ServiceSpec, port: &krate_api::types::core::v1::ServicePort) -> Option<ServicePort> {
    let has_node_port = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: Protocol::parse(port.protocol.as_deref()),
        port: u16::try_from(port.port).ok()?,
        node_port: port
            .node_port
            .filter(|_| has_node_port)
            .and_then(|p| u16::try_from(p).ok())
            .filter(|p| *p > 0),
    })
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        config.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(AFFINITY_SECONDS)
    })
}

impl View for SliceView {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        Ok(Arc::new(Self::from(&*object.typed::<EndpointSlice>()?)))
    }
}

impl From<&EndpointSlice> for SliceView {
    fn from(slice: &EndpointSlice) -> Self {
        let meta = &slice.metadata;
        let label = meta.labels.as_ref().and_then(|l| l.get(SERVICE_NAME));
        let ports = slice.ports.iter().flatten().filter_map(|p| {
            Some(SlicePort {
                name: p.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(p.protocol.as_deref()),
                port: u16::try_from(p.port?).ok()?,
            })
        });
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            service: label.cloned().unwrap_or_default(),
            ports: ports.collect(),
            endpoints: slice.endpoints.iter().flatten().map(EndpointView::from).collect(),
        }
    }
}

impl From<&Endpoint> for EndpointView {
    fn from(endpoint: &Endpoint) -> Self {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let hints = endpoint.hints.clone().unwrap_or_default();
        Self {
            addresses: addresses(&endpoint.addresses),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            hostname: endpoint.hostname.clone().filter(|h| !h.is_empty()),
            node: endpoint.node_name.clone(),
            for_zones: hints.for_zones.into_iter().flatten().map(|z| z.name).collect(),
            for_nodes: hints.for_nodes.into_iter().flatten().map(|n| n.name).collect(),
        }
    }
}

impl View for NodeView {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        Ok(Arc::new(Self::from(&*object.typed::<Node>()?)))
    }
}

impl From<&Node> for NodeView {
    fn from(node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let ranges = spec.pod_cidrs.filter(|c| !c.is_empty()).or_else(|| spec.pod_cidr.map(|c| vec![c]));
        let status = node.status.as_ref().and_then(|s| s.addresses.as_ref());
        let internal = status.into_iter().flatten().filter(|a| a.type_ == "InternalIP");
        let zone = node.metadata.labels.as_ref().and_then(|l| l.get(ZONE)).filter(|z| !z.is_empty());
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            pod_cidrs: ranges.iter().flatten().filter_map(|c| c.parse().ok()).collect(),
            internal_ips: addresses(internal.map(|a| &a.address)),
            zone: zone.cloned(),
            leaves: !crate::proxy::healthz::is_eligible(node),
        }
    }
}

/// The ranges of a ServiceCIDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangesView(pub Vec<Cidr>);

impl View for RangesView {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        let cidr = object.typed::<ServiceCIDR>()?;
        let texts = cidr.spec.as_ref().and_then(|s| s.cidrs.as_deref()).unwrap_or_default();
        Ok(Arc::new(Self(texts.iter().filter_map(|t| t.parse().ok()).collect())))
    }
}

/// A Namespace, of which only the existence counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceView;

impl View for NamespaceView {
    fn of(_: &Shared) -> Result<Arc<Self>, DecodeError> {
        Ok(Arc::new(Self))
    }
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|t| t.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::Kind;

    #[test]
    fn reads_a_service() {
        let service = Service::decode(
            br#"{"metadata":{"namespace":"a","name":"web"},"spec":{"type":"LoadBalancer","clusterIP":"10.96.0.7",
            "clusterIPs":["10.96.0.7","fd00::7"],"ports":[{"port":80,"nodePort":30080,"name":"http"}],
            "sessionAffinity":"ClientIP","externalTrafficPolicy":"Local","healthCheckNodePort":31000,
            "loadBalancerSourceRanges":["10.0.0.0/8"]},
            "status":{"loadBalancer":{"ingress":[{"ip":"1.2.3.4"},{"ip":"1.2.3.5","ipMode":"Proxy"}]}}}"#,
        )
        .unwrap();
        let view = ServiceView::from(&service);
        assert_eq!(view.cluster_ips.len(), 2);
        assert_eq!(view.balancer_ips, ["1.2.3.4".parse::<IpAddr>().unwrap()]);
        assert_eq!(view.affinity_seconds, Some(10_800));
        assert!(view.external_local && !view.internal_local && !view.headless);
        assert_eq!(view.health_check_port, Some(31000));
        let port =
            ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: Some(30080) };
        assert_eq!(view.ports, [port]);
    }

    #[test]
    fn absent_conditions_mean_ready() {
        let slice = EndpointSlice::decode(
            br#"{"metadata":{"namespace":"a","name":"web-x","labels":{"kubernetes.io/service-name":"web"}},
            "addressType":"IPv4","ports":[{"port":8080,"protocol":"UDP"}],
            "endpoints":[{"addresses":["10.1.0.2"]},
            {"addresses":["10.1.0.3"],"conditions":{"ready":false,"terminating":true}}]}"#,
        )
        .unwrap();
        let view = SliceView::from(&slice);
        assert_eq!(view.service_key().as_deref(), Some("a/web"));
        assert_eq!(view.ports[0].protocol, Protocol::Udp);
        let states: Vec<_> = view.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
        assert_eq!(states, [(true, true, false), (false, false, true)]);
    }
}
