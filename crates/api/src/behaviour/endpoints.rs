//! Endpoints.

use super::check::{self, Check};
use super::fill::{self, is_empty, items, items_mut, str_of, text};
use super::{Behaviour, Typed, address_warnings, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{EndpointAddress, EndpointPort, Endpoints};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Endpoints> {
        default,
        validate,
        // What was accepted once stays acceptable.
        validate_update: |_, new, old| {
            if fill::same(&new.subsets, &old.subsets) { vec![] } else { validate(new) }
        },
        warnings: |endpoints, _| warnings(endpoints),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

/// Both marks of the endpoints that the controller made, whose addresses are good.
const CONTROLLER: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

fn warnings(endpoints: &Endpoints) -> Vec<String> {
    let mut list =
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()];
    let manager = endpoints.metadata.labels.as_ref().and_then(|l| l.get(CONTROLLER.0));
    if manager.is_some_and(|m| m == CONTROLLER.1) {
        return list;
    }
    for (i, subset) in items(&endpoints.subsets).iter().enumerate() {
        let path = Path::new("subsets").index(i);
        for (field, addresses) in
            [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
        {
            for (j, address) in items(addresses).iter().enumerate() {
                list.extend(address_warnings::ip(&path.child(field).index(j).child("ip"), &address.ip));
            }
        }
    }
    list
}

fn default(endpoints: &mut Endpoints) {
    for subset in items_mut(&mut endpoints.subsets) {
        for port in items_mut(&mut subset.ports) {
            text(&mut port.protocol, "TCP");
        }
    }
}

fn validate(endpoints: &Endpoints) -> Errors {
    let mut errors = Errors::new();
    for (i, subset) in items(&endpoints.subsets).iter().enumerate() {
        let path = Path::new("subsets").index(i);
        let (ready, rest) = (items(&subset.addresses), items(&subset.not_ready_addresses));
        if ready.is_empty() && rest.is_empty() {
            errors.push(Error::required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for (field, list) in [("addresses", ready), ("notReadyAddresses", rest)] {
            for (j, address) in list.iter().enumerate() {
                validate_address(&mut errors, &path.child(field).index(j), address);
            }
        }
        let ports = items(&subset.ports);
        for (j, port) in ports.iter().enumerate() {
            validate_port(&mut errors, &path.child("ports").index(j), port, ports.len() > 1);
        }
    }
    errors
}

fn validate_address(errors: &mut Errors, path: &Path, address: &EndpointAddress) {
    errors.faults(&path.child("ip"), &address.ip, names::ip(&address.ip));
    if !is_empty(&address.hostname) {
        let name = str_of(&address.hostname);
        errors.faults(&path.child("hostname"), name, names::dns1123_label(name));
    }
    if let Some(node) = &address.node_name {
        errors.faults(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    check::endpoint_ip(errors, &path.child("ip"), &address.ip);
}

fn validate_port(errors: &mut Errors, path: &Path, port: &EndpointPort, named: bool) {
    let name = str_of(&port.name);
    if !name.is_empty() {
        errors.faults(&path.child("name"), name, names::dns1123_label(name));
    } else if named {
        errors.push(Error::required(&path.child("name"), ""));
    }
    check::port_number(errors, &path.child("port"), port.port);
    errors.required_one_of(&path.child("protocol"), str_of(&port.protocol), &["SCTP", "TCP", "UDP"]);
    if let Some(protocol) = &port.app_protocol {
        errors.faults(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}
