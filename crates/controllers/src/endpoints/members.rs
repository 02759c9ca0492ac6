//! The members of a Service: its pods as addresses and ports. Pure.

use super::services;
use crate::meta;
use crate::nodes::NodeView;
use crate::pods::PodView;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::types::core::v1::{ObjectReference, Service, ServicePort};
use krate_api::types::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    #[must_use]
    pub fn of(ip: &str) -> Option<Self> {
        match ip.parse().ok()? {
            std::net::IpAddr::V4(_) => Some(Self::V4),
            std::net::IpAddr::V6(_) => Some(Self::V6),
        }
    }
}

/// The families that a Service wants endpoints of; the first is that of its Endpoints.
#[must_use]
pub fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    let families: Vec<_> = named.iter().map(|f| if f == "IPv6" { Family::V6 } else { Family::V4 }).collect();
    if !families.is_empty() {
        return families;
    }
    let ip = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    vec![Family::of(ip).unwrap_or(Family::V4)]
}

#[must_use]
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

#[must_use]
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

#[must_use]
pub fn service_ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

/// Whether a pod can be an endpoint at all. `terminating`: also while it is being deleted.
#[must_use]
pub fn is_member(service: &Service, pod: &PodView, terminating: bool) -> bool {
    services::selects(service, &pod.metadata.labels)
        && !pod.is_finished()
        && !(pod.status.pod_ip.is_empty() && pod.status.pod_ips.is_empty())
        && (terminating || !pod.is_deleting())
}

/// The pod's addresses of a family.
#[must_use]
pub fn addresses(pod: &PodView, family: Family) -> Vec<String> {
    let mut ips: Vec<String> = pod.status.pod_ips.iter().map(|i| i.ip.clone()).collect();
    if ips.is_empty() {
        ips.push(pod.status.pod_ip.clone());
    }
    ips.retain(|ip| Family::of(ip) == Some(family));
    ips
}

/// The number behind a Service's port in one pod; a name that the pod does not have is none.
#[must_use]
pub fn pod_port(pod: &PodView, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
            let mut ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
            let named = ports.find(|p| {
                p.name.as_deref() == Some(name.as_str()) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            named.map(|p| p.container_port)
        }
    }
}

/// The ports of a Service in one pod.
#[must_use]
pub fn ports(service: &Service, pod: &PodView) -> Vec<EndpointPort> {
    let port = |p: &ServicePort| {
        Some(EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(pod_port(pod, p)?),
            protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: p.app_protocol.clone(),
        })
    };
    service_ports(service).iter().filter_map(port).collect()
}

/// A reference to a pod as endpoints carry it.
#[must_use]
pub fn target(pod: &PodView) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.uid().to_owned()),
        ..ObjectReference::default()
    }
}

/// The pod's own name in the Service's domain.
#[must_use]
pub fn hostname(service: &Service, pod: &PodView) -> Option<String> {
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == meta::name(&service.metadata);
    named.then(|| pod.spec.hostname.clone())
}

/// The pod as an endpoint of a slice.
#[must_use]
pub fn endpoint(service: &Service, pod: &PodView, node: Option<&NodeView>, family: Family) -> Endpoint {
    let (serving, terminating) = (pod.is_ready(), pod.is_deleting());
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let zone = node.and_then(NodeView::zone).map(str::to_owned);
    let node_name = Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty());
    Endpoint {
        addresses: addresses(pod, family),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        // Nobody looks for those that are not ready.
        hints: hints(service, zone.as_deref(), node_name.as_deref()).filter(|_| ready),
        hostname: hostname(service, pod),
        node_name,
        target_ref: Some(target(pod)),
        zone,
        deprecated_topology: None,
    }
}

/// Where the endpoint's traffic should come from (`spec.trafficDistribution`).
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let preference = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let zones = zone.map(|name| vec![ForZone { name: name.to_owned() }]);
    match preference {
        "PreferClose" | "PreferSameZone" => {
            zones.map(|zones| EndpointHints { for_zones: Some(zones), for_nodes: None })
        }
        "PreferSameNode" => node.map(|name| EndpointHints {
            for_nodes: Some(vec![ForNode { name: name.to_owned() }]),
            for_zones: zones,
        }),
        _ => None,
    }
}
