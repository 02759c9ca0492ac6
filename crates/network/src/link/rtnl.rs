//! The requests about links, addresses, routes and neighbours that the pod network needs.
//!
//! Each works in the namespace of the thread that opened the [`Rtnl`]. Numbers are those of Linux'
//! `rtnetlink`(7); adding what is there already replaces it.

use super::{Error, kernel};
use crate::addr::{Cidr, bits, from_octets, octets};
use crate::netlink::{
    ACK, CREATE, DUMP, EXCL, Family, Message, REPLACE, REQUEST, Socket, attrs, find, get_u32,
};
use nix::errno::Errno;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address is ours by construction.
const IFA_F_NODAD: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;
/// The origin under which our routes are known, so that we find and remove only those.
pub const ORIGIN: u8 = 0x4b;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A veth pair to be made.
pub struct Veth<'a> {
    pub name: &'a str,
    pub mac: [u8; 6],
    /// The other side's name, in its own namespace.
    pub peer: &'a str,
    pub peer_mac: [u8; 6],
    pub peer_netns: &'a File,
    pub mtu: u32,
}

/// A route to a range over another node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub to: Cidr,
    pub via: IpAddr,
}

/// An open socket to the kernel's routing family.
pub struct Rtnl(Socket);

impl Rtnl {
    pub fn open() -> Result<Self, Error> {
        Socket::open(Family::Route)
            .map(Self)
            .map_err(|source| Error::Kernel { what: "open a netlink socket".into(), source })
    }

    pub fn add_veth(&self, veth: &Veth<'_>) -> Result<(), Error> {
        let message = Message::new(NEWLINK, REQUEST | ACK | CREATE | EXCL)
            .raw(&ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, veth.name)
            .attr(IFLA_ADDRESS, &veth.mac)
            .u32(IFLA_MTU, veth.mtu)
            .nest(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                    m.nest(VETH_INFO_PEER, |m| {
                        m.raw(&ifinfo(0, 0, 0))
                            .text(IFLA_IFNAME, veth.peer)
                            .attr(IFLA_ADDRESS, &veth.peer_mac)
                            .u32(IFLA_MTU, veth.mtu)
                            .u32(IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd().cast_unsigned())
                    })
                })
            });
        kernel(format!("make the veth pair {}", veth.name), self.0.request(message), &[])
    }

    /// A link that has addresses and routes and sends nothing anywhere: a bridge without ports. (Dummy links
    /// are made for that, but a kernel may lack them.)
    pub fn add_island(&self, name: &str) -> Result<(), Error> {
        let message = Message::new(NEWLINK, REQUEST | ACK | CREATE | EXCL)
            .raw(&ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, name)
            .nest(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
        kernel(format!("make the link {name}"), self.0.request(message), &[Errno::EEXIST])
    }

    /// Deletes a link and, for a pair, its other side. One that does not exist is no error.
    pub fn delete_link(&self, name: &str) -> Result<(), Error> {
        let message = Message::new(DELLINK, REQUEST | ACK).raw(&ifinfo(0, 0, 0)).text(IFLA_IFNAME, name);
        kernel(format!("delete the link {name}"), self.0.request(message), &[Errno::ENODEV])
    }

    pub fn link_index(&self, name: &str) -> Result<u32, Error> {
        let message = Message::new(GETLINK, REQUEST).raw(&ifinfo(0, 0, 0)).text(IFLA_IFNAME, name);
        let failed = |source| Error::Kernel { what: format!("find the link {name}"), source };
        let found = self.0.query(message).map_err(failed)?;
        found
            .first()
            .and_then(|payload| payload.get(4..).and_then(get_u32))
            .ok_or_else(|| failed(crate::netlink::Error::Malformed))
    }

    pub fn set_up(&self, index: u32) -> Result<(), Error> {
        let message = Message::new(NEWLINK, REQUEST | ACK).raw(&ifinfo(index, IFF_UP, IFF_UP));
        kernel(format!("set link {index} up"), self.0.request(message), &[])
    }

    /// Has the kernel act on a link's change of state before it goes on. The first side of a pair that is set up
    /// drops what is sent through it until a task of the kernel has seen that the other side is up, which on a
    /// loaded machine can be seconds; to ask for the link makes that happen now (since Linux 6.8).
    pub fn settle(&self, name: &str) -> Result<(), Error> {
        self.link_index(name).map(drop)
    }

    pub fn link_up(&self, name: &str) -> Result<(), Error> {
        self.set_up(self.link_index(name)?)
    }

    /// Gives a link an address of its own, without a range around it.
    pub fn add_address(&self, index: u32, address: IpAddr) -> Result<(), Error> {
        let mut fixed = vec![family(address), bits(address), IFA_F_NODAD, RT_SCOPE_UNIVERSE];
        fixed.extend(index.to_ne_bytes());
        let message = Message::new(NEWADDR, REQUEST | ACK | CREATE | REPLACE)
            .raw(&fixed)
            .attr(IFA_LOCAL, &octets(address))
            .attr(IFA_ADDRESS, &octets(address));
        kernel(format!("add the address {address}"), self.0.request(message), &[])
    }

    /// A neighbour whose hardware address is known for good.
    pub fn add_neighbour(&self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), Error> {
        let mut fixed = vec![family(address), 0, 0, 0];
        fixed.extend(index.to_ne_bytes());
        fixed.extend(NUD_PERMANENT.to_ne_bytes());
        fixed.extend([0, RTN_UNICAST]);
        let message = Message::new(NEWNEIGH, REQUEST | ACK | CREATE | REPLACE)
            .raw(&fixed)
            .attr(NDA_DST, &octets(address))
            .attr(NDA_LLADDR, &mac);
        kernel(format!("add the neighbour {address}"), self.0.request(message), &[])
    }

    /// `to` is on this link; packets of our own to it come from `from`.
    pub fn add_host_route(&self, index: u32, to: IpAddr, from: IpAddr) -> Result<(), Error> {
        self.add_link_route(index, Cidr::host(to), Some(from))
    }

    /// A whole range is on this link.
    pub fn add_link_route(&self, index: u32, to: Cidr, from: Option<IpAddr>) -> Result<(), Error> {
        let mut message = Message::new(NEWROUTE, REQUEST | ACK | CREATE | REPLACE)
            .raw(&rtmsg(to, RT_SCOPE_LINK, RTN_UNICAST, 0))
            .attr(RTA_DST, &octets(to.base()))
            .u32(RTA_OIF, index);
        if let Some(from) = from {
            message = message.attr(RTA_PREFSRC, &octets(from));
        }
        kernel(format!("add the route to {to}"), self.0.request(message), &[])
    }

    pub fn add_default_route(&self, index: u32, via: IpAddr) -> Result<(), Error> {
        let Some(all) = Cidr::new(via, 0) else { return Ok(()) };
        let message = Message::new(NEWROUTE, REQUEST | ACK | CREATE | REPLACE)
            .raw(&rtmsg(all, RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK))
            .attr(RTA_GATEWAY, &octets(via))
            .u32(RTA_OIF, index);
        kernel(format!("add the default route via {via}"), self.0.request(message), &[])
    }

    /// Packets to this range are answered with "unreachable" at once, unless a better route exists.
    pub fn refuse(&self, to: Cidr, metric: u32) -> Result<(), Error> {
        let message = Message::new(NEWROUTE, REQUEST | ACK | CREATE | REPLACE)
            .raw(&rtmsg(to, RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0))
            .attr(RTA_DST, &octets(to.base()))
            .u32(RTA_PRIORITY, metric);
        kernel(format!("refuse {to}"), self.0.request(message), &[])
    }

    pub fn add_route(&self, route: &Route) -> Result<(), Error> {
        let message = Message::new(NEWROUTE, REQUEST | ACK | CREATE | REPLACE)
            .raw(&rtmsg(route.to, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0))
            .attr(RTA_DST, &octets(route.to.base()))
            .attr(RTA_GATEWAY, &octets(route.via));
        kernel(format!("add the route to {} via {}", route.to, route.via), self.0.request(message), &[])
    }

    /// Deletes a route of ours; one that is gone already is no error.
    pub fn delete_route(&self, route: &Route) -> Result<(), Error> {
        let message = Message::new(DELROUTE, REQUEST | ACK)
            .raw(&rtmsg(route.to, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0))
            .attr(RTA_DST, &octets(route.to.base()))
            .attr(RTA_GATEWAY, &octets(route.via));
        kernel(format!("delete the route to {}", route.to), self.0.request(message), &[Errno::ESRCH])
    }

    /// The routes over other nodes that we have made, now or in an earlier run.
    pub fn our_routes(&self) -> Result<Vec<Route>, Error> {
        let failed = |source| Error::Kernel { what: "list the routes".into(), source };
        let mut routes = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut fixed = vec![0; 12];
            fixed[0] = family;
            let message = Message::new(GETROUTE, REQUEST | DUMP).raw(&fixed);
            routes.extend(self.0.query(message).map_err(failed)?.iter().filter_map(|p| our_route(p)));
        }
        Ok(routes)
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn rtmsg(to: Cidr, scope: u8, kind: u8, flags: u32) -> Vec<u8> {
    let mut fixed = vec![family(to.base()), to.prefix_len(), 0, 0, RT_TABLE_MAIN, ORIGIN, scope, kind];
    fixed.extend(flags.to_ne_bytes());
    fixed
}

fn our_route(payload: &[u8]) -> Option<Route> {
    let (fixed, rest) = payload.split_at_checked(12)?;
    if fixed[4] != RT_TABLE_MAIN || fixed[5] != ORIGIN || fixed[7] != RTN_UNICAST {
        return None;
    }
    debug_assert!(attrs(rest).count() > 0);
    let to = Cidr::new(from_octets(find(rest, RTA_DST)?)?, fixed[1])?;
    Some(Route { to, via: from_octets(find(rest, RTA_GATEWAY)?)? })
}
