//! Forgetting datagram connections that hang on an endpoint which is gone.
//!
//! A datagram "connection" lasts as long as packets come, so a client that keeps sending would be sent to
//! the old endpoint for ever. Connections of streams end by themselves and are left alone.

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

/// Forgets the stale connections of one family, in the network namespace of the calling thread. Returns
/// how many there were.
pub fn forget(family: Family, stale: &[Stale]) -> Result<usize, netlink::Error> {
    if stale.is_empty() {
        return Ok(0);
    }
    let fixed = [if family == Family::Ip { 2 } else { 10 }, 0, 0, 0];
    let socket = Socket::open(Netlink::Netfilter)?;
    let mut gone = Vec::new();
    socket.each(Message::new(SUBSYSTEM << 8 | GET, REQUEST | DUMP).raw(&fixed), |payload| {
        gone.extend(stale_original(payload, stale).map(<[u8]>::to_vec));
    })?;
    for original in &gone {
        let message = Message::new(SUBSYSTEM << 8 | DELETE, REQUEST | ACK).raw(&fixed);
        match socket.request(message.attr(TUPLE_ORIGINAL | NESTED, original)) {
            // It may have ended by itself meanwhile.
            Err(error) if error.errno() != Some(Errno::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(gone.len())
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
