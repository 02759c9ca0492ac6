//! NetworkPolicies.

use super::check::{self, Check};
use super::fill::{self, items, items_mut, value};
use super::{Behaviour, Typed, address_warnings, names, selector};
use crate::field::{Error, Errors, Path};
use crate::types::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<NetworkPolicy> {
        default,
        prepare_create: |policy| policy.metadata.generation = Some(1),
        prepare_update: |new, old| {
            let changed = !fill::same(&new.spec, &old.spec);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        validate: |policy| validate(policy, &[]),
        // Networks that were accepted once stay acceptable.
        validate_update: |_, new, old| {
            let known: Vec<String> = networks(old).into_iter().map(|(_, cidr)| cidr).collect();
            validate(new, &known)
        },
        warnings: |policy, _| {
            networks(policy).iter().flat_map(|(path, cidr)| address_warnings::cidr(path, cidr)).collect()
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(policy: &mut NetworkPolicy) {
    let spec = policy.spec.get_or_insert_default();
    spec.pod_selector.get_or_insert_default();
    let ingress = items_mut(&mut spec.ingress).iter_mut().flat_map(|r| items_mut(&mut r.ports));
    let egress = items_mut(&mut spec.egress).iter_mut().flat_map(|r| items_mut(&mut r.ports));
    for port in ingress.chain(egress) {
        value(&mut port.protocol, "TCP".to_owned());
    }
    if items(&spec.policy_types).is_empty() {
        let mut types = vec!["Ingress".to_owned()];
        if !items(&spec.egress).is_empty() {
            types.push("Egress".to_owned());
        }
        spec.policy_types = Some(types);
    }
}

/// Every network that a policy names, and where.
fn networks(policy: &NetworkPolicy) -> Vec<(Path, String)> {
    let Some(spec) = &policy.spec else { return vec![] };
    let path = Path::new("spec");
    let rule = |direction: &str, i| path.child(direction).index(i);
    let ingress = items(&spec.ingress).iter().enumerate();
    let ingress = ingress.map(|(i, r)| (rule("ingress", i).child("from"), items(&r.from)));
    let egress = items(&spec.egress).iter().enumerate();
    let egress = egress.map(|(i, r)| (rule("egress", i).child("to"), items(&r.to)));
    let mut list = vec![];
    for (path, peers) in ingress.chain(egress) {
        for (i, peer) in peers.iter().enumerate() {
            let Some(block) = &peer.ip_block else { continue };
            let path = path.index(i).child("ipBlock");
            list.push((path.child("cidr"), block.cidr.clone()));
            let excepted = items(&block.except).iter().enumerate();
            list.extend(excepted.map(|(i, cidr)| (path.child("except").index(i), cidr.clone())));
        }
    }
    list
}

fn validate(policy: &NetworkPolicy, known: &[String]) -> Errors {
    let mut errors = Errors::new();
    let default = NetworkPolicySpec::default();
    let spec = policy.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    selector::validate_opt(&mut errors, &path.child("podSelector"), &spec.pod_selector);
    for (i, rule) in items(&spec.ingress).iter().enumerate() {
        let path = path.child("ingress").index(i);
        validate_ports(&mut errors, &path.child("ports"), items(&rule.ports));
        validate_peers(&mut errors, &path.child("from"), items(&rule.from), known);
    }
    for (i, rule) in items(&spec.egress).iter().enumerate() {
        let path = path.child("egress").index(i);
        validate_ports(&mut errors, &path.child("ports"), items(&rule.ports));
        validate_peers(&mut errors, &path.child("to"), items(&rule.to), known);
    }
    let (path, types) = (path.child("policyTypes"), items(&spec.policy_types));
    if types.len() > 2 {
        errors.invalid(&path, types, "may not specify more than two policyTypes");
        return errors;
    }
    for (i, kind) in types.iter().enumerate() {
        errors.one_of(&path.index(i), kind, &["Ingress", "Egress"]);
    }
    errors
}

fn validate_ports(errors: &mut Errors, path: &Path, ports: &[NetworkPolicyPort]) {
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        if let Some(protocol) = &port.protocol {
            errors.one_of(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
        }
        let at = path.child("endPort");
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(first)), Some(last)) => {
                check::port_number(errors, &path.child("port"), *first);
                if last < *first {
                    // The original shows the first port here.
                    errors.invalid(&at, first, "must be greater than or equal to `port`");
                }
                check::port_number(errors, &at, last);
            }
            (Some(IntOrString::String(name)), last) => {
                if let Some(last) = last {
                    errors.invalid(&at, &last, "may not be specified when `port` is non-numeric");
                }
                errors.faults(&path.child("port"), name, names::port_name(name));
            }
            (Some(IntOrString::Int(number)), None) => {
                check::port_number(errors, &path.child("port"), *number);
            }
            (None, Some(last)) => {
                errors.invalid(&at, &last, "may not be specified when `port` is not specified");
            }
            (None, None) => {}
        }
    }
}

fn validate_peers(errors: &mut Errors, path: &Path, peers: &[NetworkPolicyPeer], known: &[String]) {
    for (i, peer) in peers.iter().enumerate() {
        let path = path.index(i);
        selector::validate_opt(errors, &path.child("podSelector"), &peer.pod_selector);
        selector::validate_opt(errors, &path.child("namespaceSelector"), &peer.namespace_selector);
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            Some(block) => {
                validate_block(errors, &path.child("ipBlock"), block, known);
                if selects {
                    errors.forbidden(&path, "may not specify both ipBlock and another peer");
                }
            }
            None if !selects => errors.push(Error::required(&path, "must specify a peer")),
            None => {}
        }
    }
}

fn validate_block(errors: &mut Errors, path: &Path, block: &IPBlock, known: &[String]) {
    if !errors.required(&path.child("cidr"), &block.cidr) {
        return;
    }
    let faults = |text: &String| if known.contains(text) { vec![] } else { names::cidr(text) };
    errors.faults(&path.child("cidr"), &block.cidr, faults(&block.cidr));
    let Some(whole) = network(&block.cidr) else { return };
    for (i, except) in items(&block.except).iter().enumerate() {
        let path = path.child("except").index(i);
        errors.faults(&path, except, faults(except));
        let Some(part) = network(except) else { continue };
        if !part.is_inside(&whole) {
            errors.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

struct Network {
    number: u128,
    bits: u32,
    width: u32,
}

impl Network {
    /// Whether it is a part of another, and not all of it.
    fn is_inside(&self, other: &Self) -> bool {
        let prefix = |n: &Self| n.number.checked_shr(other.width - other.bits).unwrap_or(0);
        self.width == other.width && self.bits > other.bits && prefix(self) == prefix(other)
    }
}

fn network(text: &str) -> Option<Network> {
    let (address, bits) = text.split_once('/')?;
    let bits = bits.parse().ok()?;
    let (number, width) = match names::sloppy_ip(address)? {
        std::net::IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        std::net::IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    (bits <= width).then_some(Network { number, bits, width })
}
