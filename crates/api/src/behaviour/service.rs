//! Services. Addresses, node ports and address families are the API server's: they need the cluster.

use super::fill::{items_mut, str_of, text, value};
use super::{Behaviour, Typed, names};
use crate::types::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// Lifetime of a client's affinity, in seconds.
const AFFINITY_SECONDS: i32 = 3 * 60 * 60;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Service> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
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
    let kind = str_of(&spec.type_).to_owned();
    let external = kind == "NodePort"
        || kind == "LoadBalancer"
        || (kind == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()));
    if external {
        text(&mut spec.external_traffic_policy, "Cluster");
    }
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

fn prepare_create(service: &mut Service) {
    service.status = Some(crate::types::core::v1::ServiceStatus {
        load_balancer: Some(Default::default()),
        ..Default::default()
    });
    drop_unused(service, None);
}

fn prepare_update(new: &mut Service, old: &Service) {
    new.status.clone_from(&old.status);
    keep_addresses(new, old);
    drop_unused(new, Some(old));
}

fn is_external_name(spec: &ServiceSpec) -> bool {
    str_of(&spec.type_) == "ExternalName"
}

/// An update that says nothing of addresses keeps them.
fn keep_addresses(new: &mut Service, old: &Service) {
    let (Some(spec), Some(was)) = (&mut new.spec, &old.spec) else { return };
    if is_external_name(spec) || is_external_name(was) {
        return;
    }
    let unset = |ips: &Option<Vec<String>>| ips.as_ref().is_none_or(|i| i.is_empty());
    if str_of(&spec.cluster_ip).is_empty() && unset(&spec.cluster_ips) {
        spec.cluster_ip.clone_from(&was.cluster_ip);
        spec.cluster_ips.clone_from(&was.cluster_ips);
    } else if str_of(&spec.cluster_ip) == str_of(&was.cluster_ip) && unset(&spec.cluster_ips) {
        spec.cluster_ips.clone_from(&was.cluster_ips);
    }
    if spec.ip_families.as_ref().is_none_or(|f| f.is_empty()) && spec.ip_family_policy.is_none() {
        spec.ip_families.clone_from(&was.ip_families);
        spec.ip_family_policy.clone_from(&was.ip_family_policy);
    } else if spec.ip_families.as_ref().is_none_or(|f| f.is_empty())
        && spec.ip_family_policy == was.ip_family_policy
    {
        spec.ip_families.clone_from(&was.ip_families);
    }
    keep_ports(spec, was);
}

/// Node ports that an update leaves out stay.
fn keep_ports(spec: &mut ServiceSpec, was: &ServiceSpec) {
    let node = |s: &ServiceSpec| matches!(str_of(&s.type_), "NodePort" | "LoadBalancer");
    if !node(spec) || !node(was) {
        return;
    }
    let mut free: Vec<&ServicePort> = super::fill::items(&was.ports).iter().collect();
    let used: Vec<i32> = super::fill::items(&spec.ports).iter().filter_map(|p| p.node_port).collect();
    free.retain(|p| !used.contains(&p.node_port.unwrap_or(0)));
    for port in items_mut(&mut spec.ports) {
        if port.node_port.unwrap_or(0) == 0
            && let Some(old) = free.iter().find(|o| o.port == port.port && o.protocol == port.protocol)
        {
            port.node_port = old.node_port;
        }
    }
}

/// Fields that belong to another type are dropped when the type changes and the user left them as they were.
fn drop_unused(new: &mut Service, old: Option<&Service>) {
    let Some(spec) = &mut new.spec else { return };
    let Some(was) = old.and_then(|o| o.spec.as_ref()) else { return };
    let kind = str_of(&spec.type_).to_owned();
    let changed = kind != str_of(&was.type_);
    if !changed {
        return;
    }
    let balancer = kind == "LoadBalancer";
    let node = balancer || kind == "NodePort";
    if kind == "ExternalName" && spec.cluster_ip == was.cluster_ip {
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        spec.ip_families = None;
        spec.ip_family_policy = None;
        spec.internal_traffic_policy = None;
    }
    if is_external_name(was) && spec.external_name == was.external_name {
        spec.external_name = None;
    }
    if !node {
        for port in items_mut(&mut spec.ports) {
            let same = super::fill::items(&was.ports).iter().any(|o| o.node_port == port.node_port);
            if same {
                port.node_port = None;
            }
        }
        if super::fill::items(&spec.external_ips).is_empty()
            && spec.external_traffic_policy == was.external_traffic_policy
        {
            spec.external_traffic_policy = None;
        }
    }
    if !balancer {
        if spec.load_balancer_class == was.load_balancer_class {
            spec.load_balancer_class = None;
        }
        if spec.allocate_load_balancer_node_ports == was.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.health_check_node_port == was.health_check_node_port {
            spec.health_check_node_port = None;
        }
        if str_of(&was.type_) == "LoadBalancer" {
            new.status = Some(crate::types::core::v1::ServiceStatus {
                load_balancer: Some(Default::default()),
                ..Default::default()
            });
        }
    }
}

fn prepare_subresource(_: &str, new: &mut Service, old: &Service) {
    new.spec.clone_from(&old.spec);
}

fn fields(service: &Service) -> Vec<(&'static str, String)> {
    let spec = service.spec.clone().unwrap_or_default();
    vec![
        ("spec.clusterIP", spec.cluster_ip.unwrap_or_default()),
        ("spec.type", spec.type_.unwrap_or_default()),
    ]
}
