//! nf_tables over netlink: transactions of tables, chains, sets and their elements.
//!
//! A [`Transaction`] is data: a list of [`Op`]s on one table, which pure code makes and tests look at.
//! [`commit`] sends transactions as one batch, which the kernel carries out as a whole or not at all;
//! traffic sees the state before or the state after, never one between. Only what Krate needs is here.
//! Rules are never changed, only chains are made and deleted; what varies lives in set elements.

pub mod expr;
mod packet;
mod wire;

pub use expr::{Expr, Reg, Verdict};
pub use packet::{chain, port_bytes};

use crate::netlink::{self, Family as Netlink, Socket};
use nix::errno::Errno;

/// The protocol family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ip,
    Ip6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::Ip } else { Self::Ip6 }
    }

    /// How many registers of 32 bits an address takes.
    #[must_use]
    pub fn words(self) -> u8 {
        match self {
            Self::Ip => 1,
            Self::Ip6 => 4,
        }
    }
}

/// Where a chain sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    Nat,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub kind: ChainType,
    pub at: HookPoint,
    /// Chains with a lower number see a packet first.
    pub priority: i32,
}

/// The types that `nft list` shows for a field of a set; each takes whole registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Ipv4 = 7,
    Ipv6 = 8,
    Protocol = 12,
    Port = 13,
    /// Any number of 32 bits in the machine's byte order.
    Mark = 19,
}

impl Field {
    /// The type of an address of the family.
    #[must_use]
    pub fn address(family: Family) -> Self {
        match family {
            Family::Ip => Self::Ipv4,
            Family::Ip6 => Self::Ipv6,
        }
    }

    fn len(self) -> u32 {
        if self == Self::Ipv6 { 16 } else { 4 }
    }
}

/// What a set maps its keys to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maps {
    /// Nothing: a plain set.
    Nothing,
    Verdict,
    Fields(Vec<Field>),
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: Vec<Field>,
    pub maps: Maps,
    /// Rules add elements, which expire.
    pub dynamic: bool,
    /// Elements are ranges in each field.
    pub intervals: bool,
    /// Most elements; 0 for as many as needed.
    pub size: u32,
}

/// What an element of a map leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    Bytes(Vec<u8>),
    Verdict(Verdict),
}

/// An element of a set, keyed by the bytes of its fields, each padded to whole registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    /// The last key of a range.
    pub end: Option<Vec<u8>>,
    pub value: Option<Value>,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// No error if it is there.
    AddTable,
    /// With everything in it.
    DeleteTable,
    /// No error if it is there. A chain without hook is reached from others.
    AddChain {
        name: String,
        hook: Option<Hook>,
    },
    /// With its rules.
    DeleteChain(String),
    AddRule {
        chain: String,
        rule: Vec<Expr>,
    },
    AddSet(Set),
    DeleteSet(String),
    AddElements {
        set: String,
        elements: Vec<Element>,
    },
    DeleteElements {
        set: String,
        elements: Vec<Element>,
    },
}

impl Op {
    /// How many elements of sets the step adds or deletes.
    #[must_use]
    pub fn elements(&self) -> usize {
        match self {
            Self::AddElements { elements, .. } | Self::DeleteElements { elements, .. } => elements.len(),
            _ => 0,
        }
    }
}

/// Steps on one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub family: Family,
    pub table: &'static str,
    pub ops: Vec<Op>,
}

/// Why a transaction was not carried out; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused this step first.
    #[error("nftables refused to {step}: {errno}")]
    Refused { step: String, errno: Errno },
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

/// What a commit tells the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub messages: usize,
    pub elements: usize,
    pub bytes: usize,
}

/// How much it is to carry out these transactions.
#[must_use]
pub fn size(transactions: &[Transaction]) -> Size {
    let batch = wire::encode(transactions);
    let elements = transactions.iter().flat_map(|t| &t.ops).map(Op::elements).sum();
    Size { messages: batch.messages(), elements, bytes: batch.bytes.len() }
}

/// Carries out transactions as one, in the network namespace of the calling thread.
pub fn commit(transactions: &[Transaction]) -> Result<(), Error> {
    if transactions.iter().all(|t| t.ops.is_empty()) {
        return Ok(());
    }
    Connection::open()?.commit(transactions)
}

/// An open way to the kernel, for who has much to tell: when one is closed, the kernel first waits until all of its
/// processors have let go of what was deleted.
pub struct Connection(Socket);

impl Connection {
    /// Opens one in the network namespace of the calling thread, where it stays.
    pub fn open() -> Result<Self, Error> {
        Ok(Self(Socket::open(Netlink::Netfilter)?))
    }

    /// Carries out transactions as one.
    pub fn commit(&self, transactions: &[Transaction]) -> Result<(), Error> {
        if transactions.iter().all(|t| t.ops.is_empty()) {
            return Ok(());
        }
        let batch = wire::encode(transactions);
        let answers = self.0.exchange(&batch.bytes)?;
        let mut answered = false;
        for answer in &answers {
            match answer.error() {
                Ok(done) => answered |= done.is_some(),
                Err(netlink::Error::Refused { seq, errno }) => {
                    return Err(Error::Refused { step: batch.describe(transactions, seq), errno });
                }
                Err(other) => return Err(other.into()),
            }
        }
        if answered { Ok(()) } else { Err(netlink::Error::NoAnswer.into()) }
    }
}
