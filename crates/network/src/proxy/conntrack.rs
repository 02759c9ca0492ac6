//! Forgetting datagram connections that hang on an endpoint which is gone.
//!
//! A datagram "connection" lasts as long as packets come, so a client that keeps sending would be sent to
//! the old endpoint for ever. Connections of streams end by themselves and are left alone.
//!
//! A node has many connections: the kernel (5.8 and later) is asked for those of a frontend only. What it shows is
//! looked at all the same, for an older one shows all.

use super::program::Stale;
use crate::addr::from_octets;
use crate::netlink::{self, ACK, DUMP, Family as Netlink, Message, REQUEST, Socket, find};
use crate::nft::Family;
use crate::views::Protocol;
use nix::errno::Errno;
use std::net::IpAddr;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
/// What a filter compares: address and port of the destination, and the protocol.
const BY_ADDRESS: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = 1 << 5;
/// With more frontends than these it is cheaper to look at every datagram connection once.
const MAX_DUMPS: usize = 8;
const NESTED: u16 = 0x8000;
/// What precedes the attributes in a netfilter message.
const FIXED: usize = 4;

/// One direction of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Tuple {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
}

/// What became of a look at the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many connections the kernel showed.
    pub shown: usize,
    /// How many of them were stale.
    pub gone: usize,
}

/// Forgets the stale connections of one family, in the network namespace of the calling thread.
pub fn forget(family: Family, stale: &[Stale]) -> Result<Forgotten, netlink::Error> {
    if stale.is_empty() {
        return Ok(Forgotten::default());
    }
    let fixed = [if family == Family::Ip { 2 } else { 10 }, 0, 0, 0];
    let socket = Socket::open(Netlink::Netfilter)?;
    let (mut shown, mut gone) = (0, Vec::new());
    let dump = || Message::new(SUBSYSTEM << 8 | GET, REQUEST | DUMP).raw(&fixed);
    for filter in filters(stale) {
        let mut look = |payload: &[u8]| {
            shown += 1;
            gone.extend(stale_original(payload, stale).map(<[u8]>::to_vec));
        };
        match socket.each(filter.add_to(dump()), &mut look) {
            Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                socket.each(dump(), &mut look)?;
            }
            done => done?,
        }
    }
    for original in &gone {
        let message = Message::new(SUBSYSTEM << 8 | DELETE, REQUEST | ACK).raw(&fixed);
        match socket.request(message.attr(TUPLE_ORIGINAL | NESTED, original)) {
            // It may have ended by itself meanwhile.
            Err(error) if error.errno() != Some(Errno::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(Forgotten { shown, gone: gone.len() })
}

/// Which datagram connections the kernel is to show, by their original destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Filter {
    address: Option<IpAddr>,
    port: Option<u16>,
}

/// Filters that let every stale connection pass, each once.
fn filters(stale: &[Stale]) -> Vec<Filter> {
    let of = |s: &Stale| Filter { address: s.frontend.address, port: Some(s.frontend.port) };
    let mut filters: Vec<Filter> = stale.iter().map(of).collect();
    filters.sort_unstable();
    filters.dedup();
    if filters.len() > MAX_DUMPS { vec![Filter::default()] } else { filters }
}

impl Filter {
    fn add_to(self, dump: Message) -> Message {
        let address = |m: Message| match self.address {
            Some(IpAddr::V4(v4)) => m.nest(TUPLE_IP, |m| m.attr(2, &v4.octets())),
            Some(IpAddr::V6(v6)) => m.nest(TUPLE_IP, |m| m.attr(4, &v6.octets())),
            None => m,
        };
        let port = |m: Message| match self.port {
            Some(port) => m.attr(3, &port.to_be_bytes()),
            None => m,
        };
        let protocol = |m: Message| port(m.attr(1, &[Protocol::Udp as u8]));
        let by_address = self.address.map_or(0, |_| BY_ADDRESS);
        let by_port = self.port.map_or(0, |_| BY_PORT);
        dump.nest(TUPLE_ORIGINAL, |m| address(m).nest(TUPLE_PROTO, protocol))
            .nest(FILTER, |m| m.u32(FILTER_ORIGINAL, BY_PROTOCOL | by_address | by_port))
    }
}

/// The original direction of an entry, as bytes, if it is stale.
fn stale_original<'a>(payload: &'a [u8], stale: &[Stale]) -> Option<&'a [u8]> {
    let attributes = payload.get(FIXED..)?;
    let raw = find(attributes, TUPLE_ORIGINAL)?;
    let (original, reply) = (tuple(raw)?, tuple(find(attributes, TUPLE_REPLY)?)?);
    let is_stale = |s: &Stale| {
        original.protocol == Protocol::Udp as u8
            && original.destination.1 == s.frontend.port
            && s.frontend.address.is_none_or(|a| a == original.destination.0)
            && !s.keep.contains(&reply.source)
    };
    stale.iter().any(is_stale).then_some(raw)
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (find(bytes, TUPLE_IP)?, find(bytes, TUPLE_PROTO)?);
    let address = |v4, v6| find(ip, v4).or_else(|| find(ip, v6)).and_then(from_octets);
    let port = |kind| find(proto, kind).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b));
    Some(Tuple {
        source: (address(1, 3)?, port(2)?),
        destination: (address(2, 4)?, port(3)?),
        protocol: *find(proto, 1)?.first()?,
    })
}
