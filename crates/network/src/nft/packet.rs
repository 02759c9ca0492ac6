//! The pieces that rules are put together from: fields of packets, tests of them, whole chains and sets.

use super::expr::{Cmp, FIB_LOCAL, Header, Meta};
use super::{Expr, Family, Field, Hook, Maps, Op, Reg, Set};
use crate::addr::{Cidr, octets};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Length of an interface's name in a register, padded with zeros.
const IFNAME_LEN: usize = 16;

impl Family {
    /// The bytes of the unspecified address.
    #[must_use]
    pub fn unspecified(self) -> Vec<u8> {
        match self {
            Self::Ip => octets(Ipv4Addr::UNSPECIFIED.into()),
            Self::Ip6 => octets(Ipv6Addr::UNSPECIFIED.into()),
        }
    }

    #[must_use]
    pub fn load_source(self, to: Reg) -> Expr {
        let (offset, len) = if self == Self::Ip { (12, 4) } else { (8, 16) };
        Expr::Payload { header: Header::Network, offset, len, to }
    }

    #[must_use]
    pub fn load_destination(self, to: Reg) -> Expr {
        let (offset, len) = if self == Self::Ip { (16, 4) } else { (24, 16) };
        Expr::Payload { header: Header::Network, offset, len, to }
    }

    /// Loads an address with `load` and tests whether it is in a range ([`Cmp::Eq`]) or is not. Afterwards
    /// the register holds the address' prefix only.
    #[must_use]
    pub fn in_range(self, load: Expr, reg: Reg, op: Cmp, range: &Cidr) -> Vec<Expr> {
        let mask = prefix_mask(range);
        let xor = vec![0; mask.len()];
        vec![
            load,
            Expr::Bitwise { from: reg, to: reg, mask, xor },
            Expr::Cmp { op, reg, value: octets(range.base()) },
        ]
    }
}

impl Expr {
    /// The destination port of TCP, UDP and SCTP.
    #[must_use]
    pub fn destination_port(to: Reg) -> Self {
        Self::Payload { header: Header::Transport, offset: 2, len: 2, to }
    }

    /// Whether the destination is (or is not) an address of the node itself.
    #[must_use]
    pub fn to_node(reg: Reg, op: Cmp) -> [Self; 2] {
        [Self::FibDestinationType { to: reg }, Self::Cmp { op, reg, value: FIB_LOCAL.to_ne_bytes().to_vec() }]
    }

    /// Whether the packet came in by (or goes out by) an interface. Takes four registers.
    #[must_use]
    pub fn interface(key: Meta, reg: Reg, op: Cmp, name: &str) -> [Self; 2] {
        let mut value = name.as_bytes().to_vec();
        value.resize(IFNAME_LEN, 0);
        [Self::Meta { key, to: reg }, Self::Cmp { op, reg, value }]
    }
}

impl Set {
    /// A set that only transactions change.
    #[must_use]
    pub fn of(name: &str, key: Vec<Field>, maps: Maps) -> Self {
        Self { name: name.into(), key, maps, dynamic: false, intervals: false, size: 0 }
    }
}

/// The steps that make a chain with its rules.
#[must_use]
pub fn chain(name: &str, hook: Option<Hook>, rules: Vec<Vec<Expr>>) -> Vec<Op> {
    let mut ops = vec![Op::AddChain { name: name.into(), hook }];
    ops.extend(rules.into_iter().map(|rule| Op::AddRule { chain: name.into(), rule }));
    ops
}

/// A port as a field of a key.
#[must_use]
pub fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn prefix_mask(range: &Cidr) -> Vec<u8> {
    let bytes = octets(range.base()).len();
    let bit = |i: usize| if i < usize::from(range.prefix_len()) { 0x80u8 >> (i % 8) } else { 0 };
    (0..bytes).map(|byte| (0..8).map(|i| bit(byte * 8 + i)).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_as_many_bits_as_the_prefix() {
        let mask = |range: &str| prefix_mask(&range.parse().unwrap());
        assert_eq!(mask("10.0.0.0/8"), [255, 0, 0, 0]);
        assert_eq!(mask("10.96.0.0/12"), [255, 240, 0, 0]);
        assert_eq!(mask("0.0.0.0/0"), [0; 4]);
        assert_eq!(mask("fd00::/9")[..3], [255, 128, 0]);
    }
}
