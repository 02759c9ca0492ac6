//! The expressions of nf_tables' virtual machine that Krate's rules are made of.
//!
//! A rule is a list of expressions over sixteen registers of 32 bits; the first that does not match ends
//! the rule. Loads fill whole registers, so that fields in successive registers are a set's key.

use super::{Family, Field};
use crate::netlink::Message;

/// A register: the number of one of the sixteen of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

impl Reg {
    fn wire(self) -> u32 {
        const FIRST: u32 = 8;
        assert!(self.0 < 16, "register {} does not exist", self.0);
        FIRST + u32::from(self.0)
    }
}

/// What happens to the packet next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Network = 1,
    Transport = 2,
}

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The class of queues: a number that the node gives a packet anew when it forwards it.
    Priority = 2,
    Mark = 3,
    IifName = 6,
    OifName = 7,
    L4Proto = 16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    State = 0,
    Status = 2,
}

/// Bits of [`Ct::State`].
pub const CT_INVALID: u32 = 1;
pub const CT_NEW: u32 = 8;
/// Bit of [`Ct::Status`]: the destination was translated.
pub const CT_DNAT: u32 = 1 << 5;
/// What [`Expr::FibDestinationType`] finds for an address of the node itself.
pub const FIB_LOCAL: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq = 0,
    Neq = 1,
}

/// What a rule does to a dynamic map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicOp {
    /// Adds, or renews the time of what is there; does not match if the map is full.
    Update = 1,
    Delete = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ICMP port unreachable.
    PortUnreachable,
    TcpReset,
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    Payload {
        header: Header,
        offset: u32,
        len: u32,
        to: Reg,
    },
    Meta {
        key: Meta,
        to: Reg,
    },
    SetMeta {
        key: Meta,
        from: Reg,
    },
    Ct {
        key: Ct,
        to: Reg,
    },
    Cmp {
        op: Cmp,
        reg: Reg,
        value: Vec<u8>,
    },
    /// `to = from & mask ^ xor`, over as many bytes as the masks have.
    Bitwise {
        from: Reg,
        to: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Load {
        to: Reg,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    /// Matches if the key is in the set.
    InSet {
        set: String,
        key: Reg,
        inverted: bool,
    },
    /// Matches if the key is in the map, and loads what it leads to.
    Lookup {
        set: String,
        key: Reg,
        to: Reg,
    },
    /// Follows the verdict that the key leads to; does not match without one.
    VerdictMap {
        set: String,
        key: Reg,
    },
    Random {
        modulus: u32,
        to: Reg,
    },
    Dynamic {
        op: DynamicOp,
        set: String,
        key: Reg,
        data: Reg,
        timeout_ms: u64,
    },
    FibDestinationType {
        to: Reg,
    },
    FibSourceType {
        to: Reg,
    },
    Dnat {
        address: Reg,
        port: Reg,
    },
    Masquerade,
    Reject(Reject),
}

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const VERDICT_REGISTER: u32 = 0;

impl Expr {
    /// Adds the expression as one element of a rule's list.
    pub(super) fn encode(&self, family: Family, message: Message) -> Message {
        const LIST_ELEM: u16 = 1;
        message.nest(LIST_ELEM, |m| {
            m.text(EXPR_NAME, self.name()).nest(EXPR_DATA, |m| self.encode_data(family, m))
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::Cmp { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Load { .. } | Self::Verdict(_) => "immediate",
            Self::InSet { .. } | Self::Lookup { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Random { .. } => "numgen",
            Self::Dynamic { .. } => "dynset",
            Self::FibDestinationType { .. } | Self::FibSourceType { .. } => "fib",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(_) => "reject",
        }
    }

    /// The attributes of each expression, in the kernel's numbering.
    fn encode_data(&self, family: Family, m: Message) -> Message {
        match self {
            Self::Payload { header, offset, len, to } => {
                m.be32(1, to.wire()).be32(2, *header as u32).be32(3, *offset).be32(4, *len)
            }
            Self::Meta { key, to } => m.be32(1, to.wire()).be32(2, *key as u32),
            Self::SetMeta { key, from } => m.be32(2, *key as u32).be32(3, from.wire()),
            Self::Ct { key, to } => m.be32(1, to.wire()).be32(2, *key as u32),
            Self::Cmp { op, reg, value } => {
                m.be32(1, reg.wire()).be32(2, *op as u32).nest(3, |m| m.attr(DATA_VALUE, value))
            }
            Self::Bitwise { from, to, mask, xor } => m
                .be32(1, from.wire())
                .be32(2, to.wire())
                .be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX))
                .nest(4, |m| m.attr(DATA_VALUE, mask))
                .nest(5, |m| m.attr(DATA_VALUE, xor)),
            Self::Load { to, value } => m.be32(1, to.wire()).nest(2, |m| m.attr(DATA_VALUE, value)),
            Self::Verdict(verdict) => m.be32(1, VERDICT_REGISTER).nest(2, |m| verdict.encode(m)),
            Self::InSet { set, key, inverted } => {
                m.text(1, set).be32(2, key.wire()).be32(5, u32::from(*inverted))
            }
            Self::Lookup { set, key, to } => m.text(1, set).be32(2, key.wire()).be32(3, to.wire()),
            Self::VerdictMap { set, key } => m.text(1, set).be32(2, key.wire()).be32(3, VERDICT_REGISTER),
            Self::Random { modulus, to } => m.be32(1, to.wire()).be32(2, *modulus).be32(3, NUMGEN_RANDOM),
            Self::Dynamic { op, set, key, data, timeout_ms } => m
                .text(1, set)
                .be32(3, *op as u32)
                .be32(4, key.wire())
                .be32(5, data.wire())
                .be64(6, *timeout_ms),
            Self::FibDestinationType { to } => fib(m, *to, FIB_F_DADDR),
            Self::FibSourceType { to } => fib(m, *to, FIB_F_SADDR),
            Self::Dnat { address, port } => m
                .be32(1, NAT_DNAT)
                .be32(2, super::wire::family(family).into())
                .be32(3, address.wire())
                .be32(5, port.wire()),
            Self::Masquerade => m.be32(1, RANDOM_FULLY),
            Self::Reject(kind) => reject(m, *kind, family),
        }
    }
}

const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const NUMGEN_RANDOM: u32 = 1;
const NAT_DNAT: u32 = 1;
const FIB_F_SADDR: u32 = 1;
const FIB_F_DADDR: u32 = 2;
/// Ports of masqueraded connections are chosen at random, so that two nodes' choices rarely meet.
const RANDOM_FULLY: u32 = 1 << 4;

fn fib(m: Message, to: Reg, flags: u32) -> Message {
    const ADDRESS_TYPE: u32 = 3;
    m.be32(1, to.wire()).be32(2, ADDRESS_TYPE).be32(3, flags)
}

fn reject(m: Message, kind: Reject, family: Family) -> Message {
    let (kind, code) = match (kind, family) {
        (Reject::TcpReset, _) => (1, 0),
        (Reject::PortUnreachable, Family::Ip) => (0, 3),
        (Reject::PortUnreachable, Family::Ip6) => (0, 4),
    };
    m.be32(1, kind).attr(2, &[code])
}

impl Verdict {
    /// As the content of a data attribute.
    pub(super) fn encode(&self, m: Message) -> Message {
        let (code, chain): (i32, _) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
        };
        m.nest(DATA_VERDICT, |m| {
            let m = m.be32(1, code.cast_unsigned());
            chain.iter().fold(m, |m, chain| m.text(2, chain))
        })
    }
}

/// The wire's name of a concatenation of fields.
pub(super) fn type_of(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |id, f| id << 6 | *f as u32)
}

/// How many bytes a concatenation takes.
pub(super) fn len_of(fields: &[Field]) -> u32 {
    fields.iter().map(|f| f.len()).sum()
}
