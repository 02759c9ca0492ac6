//! Which nodes' addresses a load balancer has, and who keeps it off the others. Pure.

use crate::meta;
use crate::nodes::NodeView;
use krate_api::types::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The class of load balancers that are kept here; those without a class are too.
pub const CLASS: &str = "krate.dev/node-addresses";
/// Nodes that no load balancer may use.
pub const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A protocol and a port: `TCP/80`.
pub type Port = String;

/// A protocol and a port as a key.
#[must_use]
pub fn port(protocol: Option<&str>, number: i32) -> Port {
    format!("{}/{number}", protocol.unwrap_or("TCP"))
}

/// The ports that a Service's load balancer listens at.
#[must_use]
pub fn ports(service: &Service) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    ports.iter().map(|p| port(p.protocol.as_deref(), p.port)).collect()
}

/// The ports that a Service has on every node.
#[must_use]
pub fn node_ports(service: &Service) -> Vec<Port> {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default().iter();
    let taken = ports.filter_map(|p| Some(port(p.protocol.as_deref(), p.node_port.filter(|n| *n > 0)?)));
    let health = spec.and_then(|s| s.health_check_node_port).filter(|n| *n > 0);
    taken.chain(health.map(|n| port(None, n))).collect()
}

#[must_use]
pub fn is_balanced(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("LoadBalancer")
}

/// Whether the Service's load balancer is kept here.
#[must_use]
pub fn is_ours(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|s| s.load_balancer_class.as_deref());
    is_balanced(service) && class.is_none_or(|c| c == CLASS)
}

/// Whether only nodes with ready endpoints are to be used.
#[must_use]
pub fn is_local(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.external_traffic_policy.as_deref()) == Some("Local")
}

/// The addresses that a Service's load balancer has now.
pub fn held(service: &Service) -> impl Iterator<Item = &str> {
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    status.and_then(|b| b.ingress.as_deref()).unwrap_or_default().iter().filter_map(|i| i.ip.as_deref())
}

/// Whether a node may be used at all.
#[must_use]
pub fn is_usable(node: &NodeView) -> bool {
    node.condition("Ready").is_some_and(|c| c.status == "True")
        && !node.metadata.labels.contains_key(EXCLUDE)
        && !node.metadata.is_deleting()
}

/// The addresses under which packets reach the node itself.
pub fn addresses(node: &NodeView) -> impl Iterator<Item = IpAddr> {
    let internal = node.status.addresses.iter().filter(|a| a.type_ == "InternalIP");
    internal.filter_map(|a| a.address.parse().ok())
}

/// An address that could be a load balancer's.
#[derive(Clone, Debug)]
pub struct Site {
    pub node: String,
    pub address: IpAddr,
    /// The first of the Service's ports that somebody else has there, and who.
    pub taken: Option<(Port, String)>,
}

/// What a load balancer gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Sorted.
    pub addresses: Vec<IpAddr>,
    /// Why others are not among them.
    pub refused: Option<String>,
}

/// Chooses among the sites of usable nodes.
#[must_use]
pub fn choose(spec: &ServiceSpec, sites: Vec<Site>) -> Choice {
    let families: Vec<bool> = spec.ip_families.iter().flatten().map(|f| f == "IPv4").collect();
    let wanted: Option<IpAddr> = spec.load_balancer_ip.as_deref().and_then(|ip| ip.parse().ok());
    let mut choice = Choice::default();
    let mut refused: BTreeMap<(Port, String), Vec<String>> = BTreeMap::new();
    let fits = |s: &Site| {
        (families.is_empty() || families.contains(&s.address.is_ipv4()))
            && wanted.is_none_or(|ip| ip == s.address)
    };
    for site in sites.into_iter().filter(fits) {
        match site.taken {
            None => choice.addresses.push(site.address),
            Some(by) => refused.entry(by).or_default().push(site.node),
        }
    }
    choice.addresses.sort();
    choice.addresses.dedup();
    let tell = |((port, holder), mut nodes): ((Port, String), Vec<String>)| {
        nodes.sort();
        nodes.dedup();
        format!("port {port} of {} is in use by {holder}", nodes.join(", "))
    };
    let reasons: Vec<String> = refused.into_iter().map(tell).collect();
    choice.refused = (!reasons.is_empty()).then(|| reasons.join("; "));
    choice
}

/// The addresses as a status shows them: packets reach the node with them unchanged.
#[must_use]
pub fn ingress(addresses: &[IpAddr]) -> Option<Vec<LoadBalancerIngress>> {
    let one = |ip: &IpAddr| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    (!addresses.is_empty()).then(|| addresses.iter().map(one).collect())
}

/// Which of two Services keeps an address that both have: the older one.
#[must_use]
pub fn is_older(a: &Service, b: &Service) -> bool {
    let age = |s: &Service| (meta::created(&s.metadata), meta::key(&s.metadata));
    age(a) < age(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(node: &str, address: &str, taken: Option<&str>) -> Site {
        let taken = taken.map(|by| ("TCP/80".to_owned(), by.to_owned()));
        Site { node: node.to_owned(), address: address.parse().unwrap(), taken }
    }

    #[test]
    fn addresses_are_those_of_the_families_that_nobody_else_uses() {
        let sites = || {
            vec![
                site("b", "10.0.0.2", None),
                site("b", "fd00::2", None),
                site("a", "10.0.0.1", None),
                site("c", "10.0.0.3", Some("Pod default/edge")),
            ]
        };
        let mut spec = ServiceSpec { ip_families: Some(vec!["IPv4".to_owned()]), ..ServiceSpec::default() };
        let choice = choose(&spec, sites());
        assert_eq!(choice.addresses, ["10.0.0.1", "10.0.0.2"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(choice.refused.as_deref(), Some("port TCP/80 of c is in use by Pod default/edge"));
        spec.load_balancer_ip = Some("10.0.0.2".to_owned());
        let choice = choose(&spec, sites());
        assert_eq!((choice.addresses.len(), choice.refused), (1, None));
        spec.ip_families = Some(vec!["IPv6".to_owned(), "IPv4".to_owned()]);
        spec.load_balancer_ip = None;
        assert_eq!(choose(&spec, sites()).addresses.len(), 3);
    }
}
