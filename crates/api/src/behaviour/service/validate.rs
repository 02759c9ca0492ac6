//! The faults of services. The API server has given addresses and ports before this runs.

use super::{HINTS, MODE, is_external_name, is_headless, needs_health_check};
use crate::behaviour::check::{self, Check};
use crate::behaviour::fill::{is_empty, items, str_of};
use crate::behaviour::{internal, meta, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{LoadBalancerIngress, Service, ServicePort, ServiceSpec};
use std::collections::BTreeSet;

/// Longest affinity of a client, in seconds.
const MAX_AFFINITY: i32 = 86400;
const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const ONCE: &str = "may not change once set";
/// Where the ranges of a load balancer were written once.
const OLD_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub fn create(service: &Service) -> Errors {
    let mut errors = Errors::new();
    all(&mut errors, service, None);
    errors
}

pub fn update(subresource: &str, new: &Service, old: &Service) -> Errors {
    let mut errors = Errors::new();
    if subresource == "status" {
        status(&mut errors, new, old);
        return errors;
    }
    if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
        cluster_ips_change(&mut errors, spec, was);
        families_change(&mut errors, spec, was);
        let balancers = [spec, was].iter().all(|s| str_of(&s.type_) == "LoadBalancer");
        if balancers && spec.load_balancer_class != was.load_balancer_class {
            let path = Path::new("spec").child("loadBalancerClass");
            errors.invalid(&path, &spec.load_balancer_class, ONCE);
        }
        if needs_health_check(spec)
            && needs_health_check(was)
            && spec.health_check_node_port != was.health_check_node_port
        {
            errors.forbidden(&Path::new("spec").child("healthCheckNodePort"), check::IMMUTABLE);
        }
    }
    all(&mut errors, new, old.spec.as_ref());
    errors
}

fn all(errors: &mut Errors, service: &Service, old: Option<&ServiceSpec>) {
    let default = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    topology_annotations(errors, service);
    if items(&spec.ports).is_empty() && !is_headless(spec) && !is_external_name(spec) {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    by_type(errors, &path, spec);
    ports(errors, &path.child("ports"), spec);
    if let Some(selector) = &spec.selector {
        errors.extend(meta::labels(selector, &path.child("selector")));
    }
    affinity(errors, &path, spec);
    addresses(errors, &path, spec, old);
    external_ips(errors, &path.child("externalIPs"), spec, old);
    errors.required_one_of(
        &path.child("type"),
        str_of(&spec.type_),
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    node_ports(errors, &path.child("ports"), spec);
    let annotations = service.metadata.annotations.as_ref();
    balancer(errors, &path, spec, old, annotations.and_then(|a| a.get(OLD_RANGES)));
    traffic(errors, &path, spec);
}

fn topology_annotations(errors: &mut Errors, service: &Service) {
    let Some(annotations) = &service.metadata.annotations else { return };
    if let (Some(hints), Some(mode)) = (annotations.get(HINTS), annotations.get(MODE))
        && hints != mode
    {
        let path = Path::new("metadata").child("annotations").key(MODE);
        errors.invalid(&path, mode, &format!("must match annotations[{HINTS}] when both are specified"));
    }
}

/// What a type asks for, and what it does not have.
fn by_type(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let kind = str_of(&spec.type_);
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let text = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&path.child("clusterIPs").index(0), "None", &text);
        }
        "ExternalName" => {
            for (field, set) in [
                ("clusterIPs", !items(&spec.cluster_ips).is_empty()),
                ("ipFamilies", !items(&spec.ip_families).is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if set {
                    errors.forbidden(&path.child(field), "may not be set for ExternalName services");
                }
            }
            let name = str_of(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            if errors.required(&path.child("externalName"), name) {
                errors.faults(&path.child("externalName"), name, names::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
}

fn ports(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let ports = items(&spec.ports);
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = str_of(&port.name);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(Error::required(&path.child("name"), ""));
            }
        } else {
            errors.faults(&path.child("name"), name, names::dns1123_label(name));
            if !seen.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
        check::port_number(errors, &path.child("port"), port.port);
        errors.required_one_of(&path.child("protocol"), str_of(&port.protocol), &["SCTP", "TCP", "UDP"]);
        if let Some(target) = &port.target_port {
            check::port(errors, &path.child("targetPort"), target);
        }
        if let Some(protocol) = &port.app_protocol {
            errors.faults(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

fn node_ports(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let ports = items(&spec.ports);
    let node = |port: &ServicePort| port.node_port.filter(|p| *p != 0);
    for (i, _) in ports.iter().enumerate().filter(|(_, p)| node(p).is_some()) {
        if str_of(&spec.type_) == "ClusterIP" {
            let path = path.index(i).child("nodePort");
            errors.forbidden(&path, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut taken = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let Some(number) = node(port) else { continue };
        if !taken.insert((str_of(&port.protocol), number)) {
            errors.push(Error::duplicate(&path.index(i).child("nodePort"), &number));
        }
    }
    let mut taken = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let protocol = str_of(&port.protocol);
        if !taken.insert((protocol, port.port)) {
            // Only these two are in what the original shows.
            let both = ServicePort { protocol: port.protocol.clone(), port: port.port, ..Default::default() };
            let shown = internal::show(&both, internal::SERVICE_PORT);
            errors.push(Error::duplicate(&path.index(i), "").showing(shown));
        }
    }
}

fn affinity(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    const WHEN: &str = "when session affinity type is ClientIP";
    let affinity = str_of(&spec.session_affinity);
    errors.required_one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let path = path.child("sessionAffinityConfig");
    match (affinity, &spec.session_affinity_config) {
        ("ClientIP", None) => errors.push(Error::required(&path, WHEN)),
        ("ClientIP", Some(config)) => {
            let path = path.child("clientIP");
            let Some(client) = &config.client_ip else {
                errors.push(Error::required(&path, WHEN));
                return;
            };
            let path = path.child("timeoutSeconds");
            match client.timeout_seconds {
                None => errors.push(Error::required(&path, WHEN)),
                Some(seconds) if !(1..=MAX_AFFINITY).contains(&seconds) => {
                    let text = format!("must be greater than 0 and less than {MAX_AFFINITY}");
                    errors.invalid(&path, &seconds, &text);
                }
                Some(_) => {}
            }
        }
        ("None", Some(_)) => {
            errors.forbidden(&path, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn addresses(errors: &mut Errors, path: &Path, spec: &ServiceSpec, old: Option<&ServiceSpec>) {
    if is_external_name(spec) {
        return;
    }
    let (at, ips) = (path.child("clusterIPs"), items(&spec.cluster_ips));
    let ip = str_of(&spec.cluster_ip);
    match ips.first() {
        None if !ip.is_empty() => errors.push(Error::required(&at, "")),
        Some(_) if ip.is_empty() => {
            errors.invalid(&at, ips, "must be empty when `clusterIP` is not specified");
        }
        Some(first) if first != ip => errors.invalid(&at, ips, "first value must match `clusterIP`"),
        _ => {}
    }
    errors.extend(families(path, spec));
    let mut readable = true;
    let known = old.map_or(&[][..], |o| items(&o.cluster_ips));
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                readable = false;
                errors.invalid(&at, ips, "'None' must be the first and only value");
            }
        } else if !known.contains(ip) {
            let faults = names::ip(ip);
            readable &= faults.is_empty();
            errors.faults(&at.index(i), ip, faults);
        }
    }
    if ips.len() > 2 {
        errors.invalid(&at, ips, "may only hold up to 2 values");
    }
    if readable {
        stacks(errors, &at, spec);
    }
}

/// The faults of `ipFamilies` and `ipFamilyPolicy` as they are written: without them nothing can be allocated.
pub fn families(path: &Path, spec: &ServiceSpec) -> Errors {
    let (mut errors, mut seen) = (Errors::new(), BTreeSet::new());
    for (i, family) in items(&spec.ip_families).iter().enumerate() {
        let path = path.child("ipFamilies").index(i);
        errors.one_of(&path, family, &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            errors.push(Error::duplicate(&path, family));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.one_of(&path.child("ipFamilyPolicy"), policy, &policies);
    }
    errors
}

/// Two addresses are of two families, in the order of the families.
fn stacks(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let ips = items(&spec.cluster_ips);
    let texts: Vec<&str> = ips.iter().map(String::as_str).collect();
    if texts.len() > 1 && !check::dual_stack(&texts) {
        errors.invalid(path, ips, "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (i, (ip, family)) in ips.iter().zip(items(&spec.ip_families)).enumerate() {
        let six = ip.contains(':');
        if matches!(family.as_str(), "IPv4" | "IPv6") && six != (family == "IPv6") {
            let text = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&path.index(i), ip, &text);
        }
    }
}

fn external_ips(errors: &mut Errors, path: &Path, spec: &ServiceSpec, old: Option<&ServiceSpec>) {
    let known = old.map_or(&[][..], |o| items(&o.external_ips));
    for (i, ip) in items(&spec.external_ips).iter().enumerate() {
        let path = path.index(i);
        let faults = if known.contains(ip) { vec![] } else { names::ip(ip) };
        if faults.is_empty() {
            check::endpoint_ip(errors, &path, ip);
        }
        errors.faults(&path, ip, faults);
    }
}

fn balancer(
    errors: &mut Errors,
    path: &Path,
    spec: &ServiceSpec,
    old: Option<&ServiceSpec>,
    old_ranges: Option<&String>,
) {
    let is_balancer = str_of(&spec.type_) == "LoadBalancer";
    let ranges = items(&spec.load_balancer_source_ranges);
    let at = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer {
        errors.forbidden(&at, BALANCER_ONLY);
    }
    let known = old.map_or(&[][..], |o| items(&o.load_balancer_source_ranges));
    for (i, range) in ranges.iter().enumerate().filter(|(_, r)| !known.contains(r)) {
        errors.faults(&at.index(i), range.trim(), names::cidr(range.trim()));
    }
    if let Some(text) = old_ranges.filter(|_| ranges.is_empty()) {
        let at = Path::new("metadata").child("annotations").key(OLD_RANGES);
        if !is_balancer {
            errors.forbidden(&at, BALANCER_ONLY);
        }
        let text = text.trim();
        for range in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
            errors.faults(&at, range, names::cidr(range));
        }
    }
    match (spec.allocate_load_balancer_node_ports, is_balancer) {
        (Some(_), false) => errors.forbidden(&path.child("allocateLoadBalancerNodePorts"), BALANCER_ONLY),
        (None, true) => {
            errors.push(Error::required(&Path::new("allocateLoadBalancerNodePorts"), ""));
        }
        _ => {}
    }
    if let Some(class) = &spec.load_balancer_class {
        let path = path.child("loadBalancerClass");
        if is_balancer {
            errors.faults(&path, class, names::qualified_name(class));
        } else {
            errors.forbidden(&path, BALANCER_ONLY);
        }
    }
}

fn traffic(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let external = str_of(&spec.external_traffic_policy);
    let at = path.child("externalTrafficPolicy");
    if super::is_external(spec) {
        errors.required_one_of(&at, external, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        errors.invalid(&at, external, "may only be set for externally-accessible services");
    }
    let at = path.child("healthCheckNodePort");
    let port = spec.health_check_node_port.unwrap_or(0);
    match (needs_health_check(spec), port) {
        (true, 0) => errors.push(Error::required(&at, "")),
        (true, port) => check::port_number(errors, &at, port),
        (false, 0) => {}
        (false, port) => errors.invalid(
            &at,
            &port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
    }
    let at = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        None if !is_external_name(spec) => errors.push(Error::required(&at, "")),
        None => {}
        Some(policy) => errors.one_of(&at, policy, &["Cluster", "Local"]),
    }
    if let Some(distribution) = &spec.traffic_distribution {
        let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.one_of(&path.child("trafficDistribution"), distribution, &supported);
    }
}

fn cluster_ips_change(errors: &mut Errors, new: &ServiceSpec, old: &ServiceSpec) {
    if is_external_name(new) || is_external_name(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let path = Path::new("spec").child("clusterIPs");
    let (now, was) = (items(&new.cluster_ips), items(&old.cluster_ips));
    if now.len() == was.len() {
        for (i, _) in was.iter().zip(now).enumerate().filter(|(_, (was, now))| was != now) {
            errors.invalid_list(&path.index(i), now, ONCE);
        }
        return;
    }
    if now.is_empty() {
        errors.invalid_list(&path.index(0), now, "primary clusterIP can not be unset");
    } else if was.first().is_some_and(|was| *was != now[0]) {
        errors.invalid(&path.index(0), now, ONCE);
    }
    if was.len() > now.len() && now.len() == 1 && str_of(&new.ip_family_policy) != "SingleStack" {
        let text = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(&Path::new("spec").child("ipFamilyPolicy"), &new.ip_family_policy, text);
    }
}

fn families_change(errors: &mut Errors, new: &ServiceSpec, old: &ServiceSpec) {
    if is_external_name(new) || is_external_name(old) || is_headless(new) || is_headless(old) {
        return;
    }
    let path = Path::new("spec").child("ipFamilies").index(0);
    let (now, was) = (items(&new.ip_families), items(&old.ip_families));
    if now.len() == was.len() {
        for _ in was.iter().zip(now).filter(|(was, now)| was != now) {
            errors.invalid_list(&path, now, ONCE);
        }
        return;
    }
    if was.len() > now.len() && items(&new.cluster_ips).is_empty() {
        errors.invalid_list(&path, now, "primary ipFamily can not be unset");
    }
    if let (Some(now), Some(was)) = (now.first(), was.first())
        && now != was
    {
        errors.invalid_list(&path, items(&new.cluster_ips), ONCE);
    }
    if was.len() > now.len() && now.len() == 1 && str_of(&new.ip_family_policy) != "SingleStack" {
        let text = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.invalid(&Path::new("spec").child("ipFamilyPolicy"), &new.ip_family_policy, text);
    }
}

fn status(errors: &mut Errors, new: &Service, old: &Service) {
    let list = |service: &Service| -> Vec<LoadBalancerIngress> {
        let balancer = service.status.as_ref().and_then(|s| s.load_balancer.clone());
        balancer.and_then(|b| b.ingress).unwrap_or_default()
    };
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let (now, was) = (list(new), list(old));
    let kind = new.spec.as_ref().map_or("", |s| str_of(&s.type_));
    if kind != "LoadBalancer" && !now.is_empty() {
        errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for (i, ingress) in now.iter().enumerate() {
        let path = path.index(i);
        let ip = str_of(&ingress.ip);
        if !ip.is_empty() && !was.iter().any(|w| w.ip == ingress.ip) {
            errors.faults(&path.child("ip"), ip, names::ip(ip));
        }
        let at = path.child("ipMode");
        match (&ingress.ip_mode, ip.is_empty()) {
            (None, false) => errors.push(Error::required(&at, "must be specified when `ip` is set")),
            (Some(_), true) => errors.forbidden(&at, "may not be specified when `ip` is not set"),
            (Some(mode), false) => errors.one_of(&at, mode, &["Proxy", "VIP"]),
            (None, true) => {}
        }
        if !is_empty(&ingress.hostname) {
            let name = str_of(&ingress.hostname);
            errors.faults(&path.child("hostname"), name, names::dns1123_subdomain(name));
            if name.parse::<std::net::IpAddr>().is_ok() {
                let text = "must be a DNS name, not an IP address";
                errors.invalid(&path.child("hostname"), name, text);
            }
        }
    }
}
