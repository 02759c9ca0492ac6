//! Where pods meet what is outside of the pod network: ports of the node that lead to a pod (`hostPort`),
//! and, only if asked for, the way out with the node's address.
//!
//! One small table per family: maps of host ports, so that a pod is a few elements. The sources of
//! connections to host ports are kept, but for those from the node's loopback and from the pod itself.

use super::ipam::Leases;
use crate::addr::{Cidr, octets};
use crate::nft::expr::{Cmp, Meta};
use crate::nft::{
    ChainType, Element, Expr, Family, Field, Hook, HookPoint, Maps, Op, Reg, Set, Transaction, Value,
    Verdict, chain, port_bytes,
};
use crate::views::Protocol;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// The table's name, in both families.
pub const TABLE: &str = "krate-pods";
const PORTS: &str = "host-ports";
const PORTS_AT: &str = "host-ports-at";
const HAIRPINS: &str = "hairpins";
/// After the proxy's chains: a Service has the first word.
const DSTNAT: i32 = -90;
const SRCNAT: i32 = 110;

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// The one address of the node; `None` for every one.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// How pods get out of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// Nothing is done: pods reach what has a route back to them.
    #[default]
    None,
    /// Packets of pods that leave these ranges carry the node's address.
    Nat { inside: Vec<Cidr> },
}

/// The registers of the rules: source, destination, protocol, port, address and port of the pod.
fn regs(family: Family) -> [Reg; 6] {
    let a = family.words();
    [Reg(0), Reg(a), Reg(2 * a), Reg(2 * a + 1), Reg(2 * a + 2), Reg(3 * a + 2)]
}

/// The whole tables for the pods that hold leases, in place of what the kernel has.
#[must_use]
pub fn rebuild(ranges: &[Cidr], egress: &Egress, leases: &Leases) -> Vec<Transaction> {
    let each = |range: &Cidr| {
        let family = Family::of(range.base());
        let mut ops = vec![Op::AddTable, Op::DeleteTable, Op::AddTable];
        let address = Field::address(family);
        let target = || Maps::Fields(vec![address, Field::Port]);
        ops.push(Op::AddSet(Set::of(PORTS, vec![Field::Protocol, Field::Port], target())));
        ops.push(Op::AddSet(Set::of(PORTS_AT, vec![address, Field::Protocol, Field::Port], target())));
        ops.push(Op::AddSet(Set::of(HAIRPINS, vec![address, address], Maps::Nothing)));
        ops.extend(chains(family, range, egress));
        for lease in leases.values() {
            ops.extend(add(&elements(family, &lease.addresses, &lease.ports)));
        }
        Transaction { family, table: TABLE, ops }
    };
    ranges.iter().map(each).collect()
}

/// The change by which a pod's ports begin or cease to lead to it.
#[must_use]
pub fn change(ranges: &[Cidr], pod: &[IpAddr], ports: &[HostPort], on: bool) -> Vec<Transaction> {
    let each = |range: &Cidr| {
        let family = Family::of(range.base());
        let elements = elements(family, pod, ports);
        let ops = if on { add(&elements) } else { delete(&elements) };
        Transaction { family, table: TABLE, ops }
    };
    ranges.iter().map(each).collect()
}

fn elements(family: Family, pod: &[IpAddr], ports: &[HostPort]) -> Vec<(&'static str, Element)> {
    let Some(address) = pod.iter().find(|ip| Family::of(**ip) == family).filter(|_| !ports.is_empty()) else {
        return vec![];
    };
    let mut found = vec![(
        HAIRPINS,
        Element { key: [octets(*address), octets(*address)].concat(), end: None, value: None },
    )];
    for port in ports.iter().filter(|p| p.host_ip.is_none_or(|ip| Family::of(ip) == family)) {
        let (set, mut key) = match port.host_ip.filter(|ip| !ip.is_unspecified()) {
            Some(ip) => (PORTS_AT, octets(ip)),
            None => (PORTS, vec![]),
        };
        key.extend([port.protocol as u8, 0, 0, 0]);
        key.extend(port_bytes(port.host_port));
        let target = [octets(*address), port_bytes(port.container_port).to_vec()].concat();
        found.push((set, Element { key, end: None, value: Some(Value::Bytes(target)) }));
    }
    found
}

fn add(elements: &[(&'static str, Element)]) -> Vec<Op> {
    let op = |(set, e): &(&str, Element)| Op::AddElements { set: (*set).into(), elements: vec![e.clone()] };
    elements.iter().map(op).collect()
}

fn delete(elements: &[(&'static str, Element)]) -> Vec<Op> {
    let op = |(set, e): &(&str, Element)| {
        let element = Element { value: None, ..e.clone() };
        Op::DeleteElements { set: (*set).into(), elements: vec![element] }
    };
    elements.iter().map(op).collect()
}

fn chains(family: Family, range: &Cidr, egress: &Egress) -> Vec<Op> {
    let hook = |at, priority| Some(Hook { kind: ChainType::Nat, at, priority });
    let jump = vec![vec![Expr::Verdict(Verdict::Jump("dispatch".into()))]];
    let mut ops = chain("dispatch", None, dispatch_rules(family));
    ops.extend(chain("prerouting", hook(HookPoint::Prerouting, DSTNAT), jump.clone()));
    ops.extend(chain("output", hook(HookPoint::Output, DSTNAT), jump));
    let masquerade = masquerade_rules(family, range, egress);
    ops.extend(chain("postrouting", hook(HookPoint::Postrouting, SRCNAT), masquerade));
    ops
}

fn dispatch_rules(family: Family) -> Vec<Vec<Expr>> {
    let [_, destination, protocol, port, address, target] = regs(family);
    let fields = [Expr::Meta { key: Meta::L4Proto, to: protocol }, Expr::destination_port(port)];
    let dnat = |set: &str, key| {
        [Expr::Lookup { set: set.into(), key, to: address }, Expr::Dnat { address, port: target }]
    };
    let at =
        [vec![family.load_destination(destination)], fields.to_vec(), dnat(PORTS_AT, destination).into()];
    let any = [Expr::to_node(address, Cmp::Eq).to_vec(), fields.to_vec(), dnat(PORTS, protocol).into()];
    vec![at.concat(), any.concat()]
}

fn masquerade_rules(family: Family, range: &Cidr, egress: &Egress) -> Vec<Vec<Expr>> {
    let [source, destination, protocol, ..] = regs(family);
    let itself = vec![
        family.load_source(source),
        family.load_destination(destination),
        Expr::InSet { set: HAIRPINS.into(), key: source, inverted: false },
        Expr::Masquerade,
    ];
    let mut rules = vec![itself];
    if let Some(loopback) = Cidr::new(Ipv4Addr::LOCALHOST.into(), 8).filter(|_| family == Family::Ip) {
        let mut rule = family.in_range(family.load_source(source), source, Cmp::Eq, &loopback);
        rule.extend(Expr::interface(Meta::OifName, protocol, Cmp::Neq, "lo"));
        rule.push(Expr::Masquerade);
        rules.push(rule);
    }
    if let Egress::Nat { inside } = egress {
        let mut rule = family.in_range(family.load_source(source), source, Cmp::Eq, range);
        for inside in inside.iter().filter(|c| Family::of(c.base()) == family) {
            let load = family.load_destination(destination);
            rule.extend(family.in_range(load, destination, Cmp::Neq, inside));
        }
        rule.push(Expr::Masquerade);
        rules.push(rule);
    }
    rules
}
