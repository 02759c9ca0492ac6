//! EndpointSlices.

use super::check::{self, Check};
use super::fill::{self, items, items_mut, str_of, value};
use super::{Behaviour, Typed, address_warnings, meta, names};
use crate::field::{Error, Errors, Path};
use crate::meta::ObjectMeta;
use crate::types::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};
use std::collections::BTreeSet;
use std::sync::Arc;

const ENDPOINTS: usize = 1000;
const ADDRESSES: usize = 100;
const PORTS: usize = 20_000;
const TOPOLOGY: usize = 16;
const HINTS: usize = 8;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<EndpointSlice> {
        default,
        prepare_create,
        prepare_update,
        validate: |slice| validate(slice, &["FQDN", "IPv4", "IPv6"]),
        validate_update: |_, new, old| {
            let mut errors = validate(new, &["FQDN", "IP", "IPv4", "IPv6"]);
            errors.unchanged(&Path::new("addressType"), &new.address_type, &old.address_type);
            errors
        },
        warnings: |slice, _| warnings(slice),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

const MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
/// Controllers whose slices have good addresses, whatever they were made of.
const CAREFUL: [&str; 2] = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

fn warnings(slice: &EndpointSlice) -> Vec<String> {
    let mut list = vec![];
    if slice.address_type == "FQDN" {
        list.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let manager = slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGER));
    if manager.is_some_and(|m| CAREFUL.contains(&m.as_str())) {
        return list;
    }
    for (i, endpoint) in items(&slice.endpoints).iter().enumerate() {
        let path = Path::new("endpoints").index(i).child("addresses");
        let addresses = endpoint.addresses.iter().enumerate();
        list.extend(addresses.filter_map(|(j, ip)| address_warnings::ip(&path.index(j), ip)));
    }
    list
}

fn default(slice: &mut EndpointSlice) {
    for port in items_mut(&mut slice.ports) {
        value(&mut port.name, String::new());
        value(&mut port.protocol, "TCP".to_owned());
    }
}

fn prepare_create(slice: &mut EndpointSlice) {
    slice.metadata.generation = Some(1);
}

/// Everything but the metadata counts, and of that the labels.
fn prepare_update(new: &mut EndpointSlice, old: &EndpointSlice) {
    let body = |slice: &EndpointSlice| {
        let labels = slice.metadata.labels.clone();
        EndpointSlice { metadata: ObjectMeta { labels, ..Default::default() }, ..slice.clone() }
    };
    let changed = !fill::same(&body(new), &body(old));
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn validate(slice: &EndpointSlice, types: &[&str]) -> Errors {
    let mut errors = Errors::new();
    errors.required_one_of(&Path::new("addressType"), &slice.address_type, types);
    let (path, endpoints) = (Path::new("endpoints"), items(&slice.endpoints));
    if endpoints.len() > ENDPOINTS {
        errors.push(Error::too_many(&path, endpoints.len(), ENDPOINTS));
    } else {
        for (i, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(&mut errors, &path.index(i), endpoint, &slice.address_type);
        }
    }
    validate_ports(&mut errors, &Path::new("ports"), items(&slice.ports));
    errors
}

fn validate_endpoint(errors: &mut Errors, path: &Path, endpoint: &Endpoint, kind: &str) {
    let at = path.child("addresses");
    if endpoint.addresses.is_empty() {
        errors.push(Error::required(&at, "must contain at least 1 address"));
    } else if endpoint.addresses.len() > ADDRESSES {
        errors.push(Error::too_many(&at, endpoint.addresses.len(), ADDRESSES));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        validate_address(errors, &at.index(i), address, kind);
    }
    if let Some(node) = &endpoint.node_name {
        errors.faults(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    if let Some(topology) = &endpoint.deprecated_topology {
        let path = path.child("deprecatedTopology");
        if topology.len() > TOPOLOGY {
            errors.push(Error::too_many(&path, topology.len(), TOPOLOGY));
        }
        errors.extend(meta::labels(topology, &path));
    }
    if let Some(name) = &endpoint.hostname {
        errors.faults(&path.child("hostname"), name, names::dns1123_label(name));
    }
    if let Some(hints) = &endpoint.hints {
        validate_hints(errors, &path.child("hints"), hints);
    }
}

fn validate_address(errors: &mut Errors, path: &Path, address: &str, kind: &str) {
    let six = address.contains(':');
    let faults = names::ip(address);
    match kind {
        "IPv4" | "IPv6" => {
            if !faults.is_empty() {
                errors.faults(path, address, faults);
            } else {
                if six != (kind == "IPv6") {
                    errors.invalid(path, address, &format!("must be a valid {kind} address"));
                }
                check::endpoint_ip(errors, path, address);
            }
        }
        "IP" => errors.faults(path, address, faults),
        "FQDN" => domain_name(errors, path, address),
        _ => {}
    }
}

fn domain_name(errors: &mut Errors, path: &Path, name: &str) {
    if !errors.required(path, name) {
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let faults = names::dns1123_subdomain(name);
    if !faults.is_empty() {
        errors.invalid(path, name, &faults.join(","));
    } else if !name.contains('.') {
        let text = "should be a domain with at least two segments separated by dots";
        errors.invalid(path, name, text);
    }
}

fn validate_hints(errors: &mut Errors, path: &Path, hints: &EndpointHints) {
    let zones: Vec<&String> = items(&hints.for_zones).iter().map(|z| &z.name).collect();
    let nodes: Vec<&String> = items(&hints.for_nodes).iter().map(|n| &n.name).collect();
    for (field, list, zone) in [("forZones", zones, true), ("forNodes", nodes, false)] {
        let path = path.child(field);
        if list.len() > HINTS {
            errors.push(Error::too_many(&path, list.len(), HINTS));
            continue;
        }
        let mut seen = BTreeSet::new();
        for (i, name) in list.into_iter().enumerate() {
            let path = path.index(i).child("name");
            if !seen.insert(name) {
                errors.push(Error::duplicate(&path, name));
            }
            let faults = if zone { names::label_value(name) } else { names::dns1123_subdomain(name) };
            errors.faults(&path, name, faults);
        }
    }
}

fn validate_ports(errors: &mut Errors, path: &Path, ports: &[EndpointPort]) {
    if ports.len() > PORTS {
        errors.push(Error::too_many(path, ports.len(), PORTS));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = str_of(&port.name);
        if !name.is_empty() {
            errors.faults(&path.child("name"), name, names::dns1123_label(name));
        }
        if !seen.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        errors.required_one_of(&path.child("protocol"), str_of(&port.protocol), &["SCTP", "TCP", "UDP"]);
        if let Some(protocol) = &port.app_protocol {
            errors.faults(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}
