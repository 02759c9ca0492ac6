//! Services, endpoints, ingress, network policies, addresses.

use super::text::{NONE, UNKNOWN, age, labels, name, or_none, or_unset, selector, some_of, text, text_or};
use super::{AGE, Column, NAME, Printer, print, string};
use crate::types::core::v1::{Endpoints, Service};
use crate::types::discovery::v1::EndpointSlice;
use crate::types::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Items of a list that are shown before the rest is only counted.
const SHOWN: usize = 3;
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

pub(super) const PRINTERS: &[Printer] = &[
    print!(Service, SERVICE, service),
    print!(
        Endpoints,
        &[NAME, string("Endpoints", "Addresses and ports behind the service."), AGE],
        |o, now| { vec![name(&o.metadata), json!(endpoints(o)), age(&o.metadata, now)] }
    ),
    print!(
        EndpointSlice,
        &[
            NAME,
            string("AddressType", "Kind of the addresses."),
            string("Ports", "Ports of the endpoints."),
            string("Endpoints", "Addresses of the endpoints."),
            AGE,
        ],
        endpoint_slice
    ),
    print!(
        Ingress,
        &[
            NAME,
            string("Class", "Class of controller that serves it."),
            string("Hosts", "Hosts that it has rules for."),
            string("Address", "Where it is reached."),
            string("Ports", "Ports that it is reached at."),
            AGE,
        ],
        ingress
    ),
    print!(
        IngressClass,
        &[
            NAME,
            string("Controller", "Controller that serves the class."),
            string("Parameters", "Object with further settings."),
            AGE,
        ],
        |o, now| {
            let spec = o.spec.clone().unwrap_or_default();
            let parameters = spec.parameters.map_or_else(
                || NONE.to_owned(),
                |p| {
                    let group = p.api_group.map_or_else(String::new, |g| format!(".{g}"));
                    format!("{}{group}/{}", p.kind, p.name)
                },
            );
            let controller = text(spec.controller.as_ref());
            vec![
                default_name(&o.metadata, &[DEFAULT_CLASS]),
                json!(controller),
                json!(parameters),
                age(&o.metadata, now),
            ]
        }
    ),
    print!(NetworkPolicy, &[NAME, string("Pod-Selector", "Pods that it is for."), AGE], |o, now| {
        let empty = crate::meta::LabelSelector::default();
        let pods = o.spec.as_ref().and_then(|s| s.pod_selector.as_ref()).unwrap_or(&empty);
        vec![name(&o.metadata), json!(selector(Some(pods))), age(&o.metadata, now)]
    }),
    print!(ServiceCIDR, &[NAME, string("CIDRs", "Ranges of service addresses."), AGE], |o, now| {
        let cidrs = o.spec.as_ref().and_then(|s| s.cidrs.as_ref()).map_or_else(String::new, |c| c.join(","));
        vec![name(&o.metadata), json!(cidrs), age(&o.metadata, now)]
    }),
    print!(IPAddress, &[NAME, string("ParentRef", "Object that the address belongs to.")], |o, _| {
        let parent = Some(&o.spec.parent_ref).filter(|p| !p.name.is_empty());
        let parent = parent.map_or_else(
            || NONE.to_owned(),
            |p| {
                let what = crate::status::qualified(text(p.group.as_ref()), &p.resource).to_lowercase();
                let namespace = text(p.namespace.as_ref());
                format!("{what}/{}", crate::object::key(namespace, &p.name))
            },
        );
        vec![name(&o.metadata), json!(parent)]
    }),
];

/// The name, with a mark if an annotation says that it is the default of its kind.
pub(super) fn default_name(meta: &crate::meta::ObjectMeta, annotations: &[&str]) -> Value {
    let is_true = |a: &&str| meta.annotations.as_ref().and_then(|m| m.get(*a)).is_some_and(|v| v == "true");
    let mark = if annotations.iter().any(is_true) { " (default)" } else { "" };
    json!(format!("{}{mark}", text(meta.name.as_ref())))
}

const SERVICE: &[Column] = &[
    NAME,
    string("Type", "How it is reached."),
    string("Cluster-IP", "Address within the cluster."),
    string("External-IP", "Addresses from outside."),
    string("Port(s)", "Ports, and the ports of the nodes that lead there."),
    AGE,
    Column { description: "Labels of the pods behind it.", ..super::SELECTOR },
];

fn external(service: &Service) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let mut addresses: Vec<String> = Vec::new();
    let kind = text(spec.type_.as_ref());
    match kind {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        "ExternalName" => return text(spec.external_name.as_ref()).to_owned(),
        _ => return UNKNOWN.to_owned(),
    }
    if kind == "LoadBalancer" {
        let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        for ingress in balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default() {
            addresses.push(text_or(ingress.ip.as_ref(), text(ingress.hostname.as_ref())).to_owned());
        }
        addresses.retain(|a| !a.is_empty());
        addresses.sort();
        addresses.dedup();
    }
    addresses.extend(spec.external_ips.into_iter().flatten());
    match (addresses.is_empty(), kind) {
        (false, _) => addresses.join(","),
        (true, "LoadBalancer") => "<pending>".to_owned(),
        (true, _) => NONE.to_owned(),
    }
}

fn service(service: &Service, now: Timestamp) -> Vec<Value> {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default().iter().map(|p| {
        let protocol = text_or(p.protocol.as_ref(), "TCP");
        match p.node_port.unwrap_or(0) {
            0 => format!("{}/{protocol}", p.port),
            node => format!("{}:{node}/{protocol}", p.port),
        }
    });
    let ports = or_none(ports.collect::<Vec<_>>().join(","));
    let address = spec.and_then(|s| s.cluster_ips.as_ref()).and_then(|ips| ips.first());
    vec![
        name(&service.metadata),
        json!(text(spec.and_then(|s| s.type_.as_ref()))),
        json!(text_or(address, NONE)),
        json!(external(service)),
        json!(ports),
        age(&service.metadata, now),
        json!(labels(spec.and_then(|s| s.selector.as_ref()))),
    ]
}

/// `ip:port`, with brackets around an IPv6 address.
fn host_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn endpoints(endpoints: &Endpoints) -> String {
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    if subsets.is_empty() {
        return NONE.to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        match subset.ports.as_deref() {
            None | Some([]) => all.extend(addresses.iter().map(|a| a.ip.clone())),
            Some(ports) => {
                for port in ports {
                    all.extend(addresses.iter().map(|a| host_port(&a.ip, port.port)));
                }
            }
        }
    }
    some_of(all, SHOWN, ",")
}

fn endpoint_slice(slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
    let ports = slice.ports.iter().flatten().map(|p| match p.port {
        Some(number) => number.to_string(),
        None => text_or(p.name.as_ref(), "*").to_owned(),
    });
    let addresses = slice.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned());
    vec![
        name(&slice.metadata),
        json!(slice.address_type),
        json!(or_unset(some_of(ports, SHOWN, ","))),
        json!(or_unset(some_of(addresses, SHOWN, ","))),
        age(&slice.metadata, now),
    ]
}

fn ingress(ingress: &Ingress, now: Timestamp) -> Vec<Value> {
    let spec = ingress.spec.clone().unwrap_or_default();
    let hosts: Vec<String> =
        spec.rules.into_iter().flatten().filter_map(|r| r.host).filter(|h| !h.is_empty()).collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { some_of(hosts, SHOWN, ",") };
    let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let mut addresses: Vec<&str> = balancer
        .and_then(|b| b.ingress.as_deref())
        .unwrap_or_default()
        .iter()
        .map(|i| text_or(i.ip.as_ref(), text(i.hostname.as_ref())))
        .filter(|a| !a.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let tls = spec.tls.is_some_and(|t| !t.is_empty());
    vec![
        name(&ingress.metadata),
        json!(text_or(spec.ingress_class_name.as_ref(), NONE)),
        json!(hosts),
        json!(addresses.join(",")),
        json!(if tls { "80, 443" } else { "80" }),
        age(&ingress.metadata, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn service_cells(spec: Value, status: Value) -> Value {
        let object =
            Service::from_value(json!({"metadata": {"name": "s"}, "spec": spec, "status": status})).unwrap();
        json!(service(&object, Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn services_of_every_type() {
        let ports =
            json!([{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
        assert_eq!(
            service_cells(
                json!({"type": "NodePort", "clusterIPs": ["10.0.0.1"], "ports": ports, "selector": {"a": "b"}}),
                json!({})
            ),
            json!(["s", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "<unknown>", "a=b"])
        );
        assert_eq!(
            service_cells(json!({"type": "ExternalName", "externalName": "x.org"}), json!({})),
            json!(["s", "ExternalName", "<none>", "x.org", "<none>", "<unknown>", "<none>"])
        );
        assert_eq!(service_cells(json!({"type": "LoadBalancer"}), json!({}))[3], "<pending>");
        assert_eq!(
            service_cells(
                json!({"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]}),
                json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "1.example"}]}})
            )[3],
            "1.example,2.2.2.2,9.9.9.9"
        );
        assert_eq!(service_cells(json!({"type": "ClusterIP", "clusterIPs": ["None"]}), json!({}))[2], "None");
    }

    #[test]
    fn long_lists_of_endpoints_are_cut() {
        let addresses: Vec<Value> = (1..=5).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        let object =
            Endpoints::from_value(json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}))
                .unwrap();
        assert_eq!(endpoints(&object), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
        assert_eq!(endpoints(&Endpoints::default()), "<none>");
        let slice = EndpointSlice::from_value(json!({"metadata": {"name": "e"}, "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "x"}], "endpoints": [{"addresses": ["1.1.1.1"]}]}))
        .unwrap();
        assert_eq!(
            json!(endpoint_slice(&slice, Timestamp::UNIX_EPOCH)),
            json!(["e", "IPv4", "80,x", "1.1.1.1", "<unknown>"])
        );
        let empty = EndpointSlice::default();
        assert_eq!(endpoint_slice(&empty, Timestamp::UNIX_EPOCH)[2..4], [json!("<unset>"), json!("<unset>")]);
    }

    #[test]
    fn ingresses_and_their_classes() {
        let object = Ingress::from_value(json!({"metadata": {"name": "i"}, "spec": {"tls": [{}], "rules": [{"host": "a"}, {"host": "b"}]}})).unwrap();
        assert_eq!(
            json!(ingress(&object, Timestamp::UNIX_EPOCH)),
            json!(["i", "<none>", "a,b", "", "80, 443", "<unknown>"])
        );
        let class = IngressClass::from_value(
            json!({"metadata": {"name": "c", "annotations": {DEFAULT_CLASS: "true"}},
            "spec": {"controller": "x", "parameters": {"kind": "K", "apiGroup": "g.io", "name": "p"}}}),
        )
        .unwrap();
        let row = super::super::row_of("networking.k8s.io", "IngressClass", &class, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["c (default)", "x", "K.g.io/p", "<unknown>"]));
    }
}
