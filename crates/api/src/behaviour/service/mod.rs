//! Services. Addresses, node ports and address families are the API server's: they need the cluster.

mod validate;

use super::fill::{items, items_mut, str_of, text, value};
use super::{Behaviour, Typed, address_warnings, names};
use crate::field::Path;
use crate::types::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

pub use validate::families as family_faults;

/// An annotation that has another name by now, and that name.
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";

/// Lifetime of a client's affinity, in seconds.
const AFFINITY_SECONDS: i32 = 3 * 60 * 60;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Service> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        validate: validate::create,
        validate_update: validate::update,
        warnings,
        fields,
        check_name: names::label_name,
        ..Default::default()
    })
}

fn default(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    text(&mut spec.session_affinity, "None");
    default_affinity(spec);
    text(&mut spec.type_, "ClusterIP");
    for port in items_mut(&mut spec.ports) {
        default_port(port);
    }
    if is_external(spec) {
        text(&mut spec.external_traffic_policy, "Cluster");
    }
    let kind = str_of(&spec.type_).to_owned();
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        value(&mut spec.internal_traffic_policy, "Cluster".to_owned());
    }
    if kind == "LoadBalancer" {
        value(&mut spec.allocate_load_balancer_node_ports, true);
    }
    let status = service.status.get_or_insert_default();
    let balancer = status.load_balancer.get_or_insert_default();
    if kind == "LoadBalancer" {
        for ingress in items_mut(&mut balancer.ingress) {
            if ingress.ip.is_some() {
                value(&mut ingress.ip_mode, "VIP".to_owned());
            }
        }
    }
}

fn default_affinity(spec: &mut ServiceSpec) {
    match str_of(&spec.session_affinity) {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let client =
                spec.session_affinity_config.get_or_insert_default().client_ip.get_or_insert_default();
            value(&mut client.timeout_seconds, AFFINITY_SECONDS);
        }
        _ => {}
    }
}

fn default_port(port: &mut ServicePort) {
    text(&mut port.protocol, "TCP");
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::String(name)) => name.is_empty(),
        Some(IntOrString::Int(_)) => false,
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

fn is_external_name(spec: &ServiceSpec) -> bool {
    str_of(&spec.type_) == "ExternalName"
}

fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(items(&spec.cluster_ips), [ip] if ip == "None")
}

/// Whether traffic may come from outside of the cluster.
fn is_external(spec: &ServiceSpec) -> bool {
    has_node_ports(spec) || (str_of(&spec.type_) == "ClusterIP" && !items(&spec.external_ips).is_empty())
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(str_of(&spec.type_), "NodePort" | "LoadBalancer")
}

/// Whether nodes answer on a port of their own which of them have endpoints.
#[must_use]
pub fn needs_health_check(spec: &ServiceSpec) -> bool {
    str_of(&spec.type_) == "LoadBalancer" && str_of(&spec.external_traffic_policy) == "Local"
}

fn prepare_create(service: &mut Service) {
    clear_status(service);
    if let Some(spec) = &mut service.spec
        && !str_of(&spec.cluster_ip).is_empty()
        && items(&spec.cluster_ips).is_empty()
    {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
}

fn clear_status(service: &mut Service) {
    service.status = Some(crate::types::core::v1::ServiceStatus {
        load_balancer: Some(Default::default()),
        ..Default::default()
    });
}

fn prepare_update(new: &mut Service, old: &Service) {
    new.status.clone_from(&old.status);
    if let (Some(spec), Some(was)) = (&mut new.spec, &old.spec) {
        keep_allocated(spec, was);
        sync_addresses(spec, was);
        drop_unused(spec, was);
    }
    if new.spec.as_ref().is_none_or(|s| str_of(&s.type_) != "LoadBalancer") {
        let status = new.status.get_or_insert_default();
        status.load_balancer = Some(Default::default());
    }
}

/// An update that does not name what was allocated keeps it.
fn keep_allocated(spec: &mut ServiceSpec, was: &ServiceSpec) {
    if !is_external_name(spec) && !is_external_name(was) {
        if str_of(&spec.cluster_ip).is_empty() {
            spec.cluster_ip.clone_from(&was.cluster_ip);
        }
        if items(&spec.cluster_ips).is_empty() && spec.cluster_ip == was.cluster_ip {
            spec.cluster_ips.clone_from(&was.cluster_ips);
        }
        if items(&spec.ip_families).is_empty()
            && (spec.ip_family_policy.is_none() || spec.ip_family_policy == was.ip_family_policy)
        {
            spec.ip_families.clone_from(&was.ip_families);
            spec.ip_family_policy.clone_from(&was.ip_family_policy);
        }
    }
    if has_node_ports(spec) && has_node_ports(was) {
        keep_node_ports(spec, was);
    }
    if needs_health_check(spec) && needs_health_check(was) && spec.health_check_node_port.unwrap_or(0) == 0 {
        spec.health_check_node_port = was.health_check_node_port;
    }
}

/// Ports of the old service that no port of the new one names go to those with the same number.
fn keep_node_ports(spec: &mut ServiceSpec, was: &ServiceSpec) {
    let named: Vec<i32> = items(&spec.ports).iter().filter_map(|p| p.node_port).collect();
    let free: Vec<&ServicePort> =
        items(&was.ports).iter().filter(|p| !named.contains(&p.node_port.unwrap_or(0))).collect();
    for port in items_mut(&mut spec.ports).iter_mut().filter(|p| p.node_port.unwrap_or(0) == 0) {
        if let Some(old) = free.iter().find(|o| o.port == port.port && o.protocol == port.protocol) {
            port.node_port = old.node_port;
        }
    }
}

/// Who changes only the first address changes the list.
fn sync_addresses(spec: &mut ServiceSpec, was: &ServiceSpec) {
    if spec.cluster_ip == was.cluster_ip || spec.cluster_ips != was.cluster_ips {
        return;
    }
    spec.cluster_ips = match str_of(&spec.cluster_ip) {
        "" => None,
        ip => Some(vec![ip.to_owned()]),
    };
}

/// Fields that another type has not are dropped on a change of type, if the user left them as they were.
fn drop_unused(spec: &mut ServiceSpec, was: &ServiceSpec) {
    if !is_external_name(was) && is_external_name(spec) {
        if spec.cluster_ip == was.cluster_ip && spec.cluster_ips == was.cluster_ips {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        spec.ip_families.take_if(|f| Some(&*f) == was.ip_families.as_ref());
        spec.ip_family_policy.take_if(|p| Some(&*p) == was.ip_family_policy.as_ref());
    }
    let node_ports = |s: &ServiceSpec| items(&s.ports).iter().map(|p| p.node_port).collect::<Vec<_>>();
    if has_node_ports(was) && !has_node_ports(spec) && node_ports(spec) == node_ports(was) {
        items_mut(&mut spec.ports).iter_mut().for_each(|port| port.node_port = None);
    }
    if needs_health_check(was)
        && !needs_health_check(spec)
        && spec.health_check_node_port == was.health_check_node_port
    {
        spec.health_check_node_port = None;
    }
    let balancer = |s: &ServiceSpec| str_of(&s.type_) == "LoadBalancer";
    if balancer(was) && !balancer(spec) {
        if spec.allocate_load_balancer_node_ports == was.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == was.load_balancer_class {
            spec.load_balancer_class = None;
        }
    }
    if is_external(was) && !is_external(spec) && spec.external_traffic_policy == was.external_traffic_policy {
        spec.external_traffic_policy = None;
    }
}

fn warnings(service: &Service, _: Option<&Service>) -> Vec<String> {
    let Some(spec) = &service.spec else { return vec![] };
    let mut list = vec![];
    let path = Path::new("spec");
    let annotations = service.metadata.annotations.as_ref();
    if annotations.is_some_and(|a| a.contains_key(HINTS)) {
        list.push(format!("annotation {HINTS} is deprecated, please use {MODE} instead"));
    }
    let (ips, external) = (items(&spec.cluster_ips), items(&spec.external_ips));
    if !is_external_name(spec) && !matches!(str_of(&spec.cluster_ip), "" | "None") {
        let path = path.child("clusterIPs");
        list.extend(ips.iter().enumerate().filter_map(|(i, ip)| address_warnings::ip(&path.index(i), ip)));
    }
    let headless = str_of(&spec.type_) == "ClusterIP" && str_of(&spec.cluster_ip) == "None";
    let balancer_ip = str_of(&spec.load_balancer_ip);
    let mut say = |wrong: bool, text: &str| {
        if wrong {
            list.push(text.to_owned());
        }
    };
    say(headless && !balancer_ip.is_empty(), "spec.loadBalancerIP is ignored for headless services");
    say(headless && !external.is_empty(), "spec.externalIPs is ignored for headless services");
    let sticky = str_of(&spec.session_affinity) != "None";
    say(headless && sticky, "spec.SessionAffinity is ignored for headless services");
    let at = path.child("externalIPs");
    list.extend(external.iter().enumerate().filter_map(|(i, ip)| address_warnings::ip(&at.index(i), ip)));
    if !external.is_empty() && !headless && !is_external_name(spec) {
        let text = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        list.push(text.to_owned());
    }
    list.extend(address_warnings::ip(&path.child("loadBalancerIP"), balancer_ip));
    for (i, range) in items(&spec.load_balancer_source_ranges).iter().enumerate() {
        list.extend(address_warnings::cidr(&path.child("loadBalancerSourceRanges").index(i), range));
    }
    if is_external_name(spec) && !external.is_empty() {
        list.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_external_name(spec) && !str_of(&spec.external_name).is_empty() {
        list.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        let text = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        list.push(text.to_owned());
    }
    list
}

fn prepare_subresource(_: &str, new: &mut Service, old: &Service) {
    new.spec.clone_from(&old.spec);
}

fn fields(service: &Service) -> Vec<(&'static str, String)> {
    let spec = service.spec.as_ref();
    let text = |field: Option<&Option<String>>| field.map_or(String::new(), |f| str_of(f).to_owned());
    vec![("spec.clusterIP", text(spec.map(|s| &s.cluster_ip))), ("spec.type", text(spec.map(|s| &s.type_)))]
}
