//! The pod network of one node: every pod has a veth pair of its own, routed, without a bridge.
//!
//! The pod's side is `eth0` with a host address (/32, /128) and a default route through the node's gateway
//! address; the node's side carries the gateway address and a host route to the pod. Nothing is switched:
//! every packet of a pod, also one to its neighbour on the same node, is routed by the node. So connection
//! tracking sees both directions of every connection, which is what makes address translation for Services
//! right between two pods of one node (behind a bridge the replies would be switched past it). It also
//! makes a pod's interface its identity: reverse-path filtering on it drops packets with a forged source.
//! Hardware addresses follow from the IP addresses and are entered as permanent neighbours on both sides,
//! so that no ARP or neighbour discovery stands between a pod's creation and its first packet.
//!
//! Ports of the node that lead to pods, and the way out of the cluster, are in [`edge`]. Addresses are leased by [`ipam`], on disk, and survive a restart. Other nodes' ranges are reached over
//! the routes of [`routes`].

pub mod edge;
pub mod ipam;
pub mod netns;
pub mod routes;
pub mod rtnl;
pub mod sysctl;

use crate::addr::{Cidr, octets};
use crate::{netlink, nft};
use edge::{Egress, HostPort};
use ipam::{Ipam, Lease};
use nix::errno::Errno;
use parking_lot::Mutex;
use rtnl::{Rtnl, Veth};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of the interface inside a pod.
pub const POD_INTERFACE: &str = "eth0";
/// The hardware address of the node's side of every pair: locally administered, the same everywhere.
const NODE_MAC: [u8; 6] = [0xee; 6];
/// Metric of the route that refuses addresses that no pod has; any real route is better.
const REFUSE_METRIC: u32 = 0xffff_fffe;

/// How a node's pod network is laid out.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own ranges, at most one per family (`spec.podCIDRs`).
    pub pod_cidrs: Vec<Cidr>,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Folder for the address leases; made if missing.
    pub state_dir: PathBuf,
}

/// Why the pod network failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Kernel { what: String, source: netlink::Error },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Nft(#[from] nft::Error),
    /// Every address of the node's range is leased.
    #[error("no addresses available in range {0}")]
    Exhausted(Cidr),
    #[error("a node has one range of pod addresses per family, not {0:?}")]
    Ranges(Vec<Cidr>),
    /// A thread for a namespace could not be made or died.
    #[error("network namespace thread: {0}")]
    Thread(String),
}

/// The pod network. Clones share it.
#[derive(Clone)]
pub struct PodNetwork(Arc<Inner>);

struct Inner {
    config: Config,
    egress: Egress,
    ipam: Mutex<Ipam>,
}

impl PodNetwork {
    /// Makes the node ready to forward between pods, and reads the leases of an earlier run. Pods have no
    /// way out of the cluster.
    pub async fn new(config: Config) -> Result<Self, Error> {
        Self::with_egress(config, Egress::None).await
    }

    /// Like [`new`](Self::new), with the pods' way out of the cluster.
    pub async fn with_egress(config: Config, egress: Egress) -> Result<Self, Error> {
        let v4 = config.pod_cidrs.iter().filter(|c| c.base().is_ipv4()).count();
        if config.pod_cidrs.is_empty() || v4 > 1 || config.pod_cidrs.len() - v4 > 1 {
            return Err(Error::Ranges(config.pod_cidrs));
        }
        let network = Self(Arc::new(Inner {
            ipam: Mutex::new(Ipam::open(&config.state_dir, &config.pod_cidrs)?),
            config,
            egress,
        }));
        let this = network.clone();
        netns::here(move || this.0.prepare_node()).await?;
        Ok(network)
    }

    /// The addresses under which the node is reached from its pods.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.0.config.pod_cidrs.iter().filter_map(ipam::gateway).collect()
    }

    /// Gives the pod whose network namespace is at `netns` its interface and its addresses. Calling it again
    /// for the same sandbox gives the same addresses.
    pub async fn attach(&self, sandbox: &str, netns: &Path) -> Result<Vec<IpAddr>, Error> {
        self.attach_with_ports(sandbox, netns, &[]).await
    }

    /// Like [`attach`](Self::attach), with ports of the node that lead to the pod.
    pub async fn attach_with_ports(
        &self,
        sandbox: &str,
        netns: &Path,
        ports: &[HostPort],
    ) -> Result<Vec<IpAddr>, Error> {
        let target = File::open(netns).map_err(|source| Error::File { path: netns.into(), source })?;
        let (lease, fresh) = self.0.ipam.lock().lease(sandbox, ports)?;
        let (this, name, pod) = (self.clone(), link_name(sandbox), lease.clone());
        let made = netns::here(move || {
            let node = this.0.connect(&name, &target, &pod.addresses)?;
            nft::commit(&edge::change(&this.0.config.pod_cidrs, &pod.addresses, &pod.ports, true))?;
            netns::enter(&target)?;
            this.0.configure_pod(&pod.addresses)?;
            node.settle(&name)
        });
        match made.await {
            Ok(()) => Ok(lease.addresses),
            Err(error) => {
                if fresh {
                    self.detach(sandbox).await?;
                }
                Err(error)
            }
        }
    }

    /// Removes the pod's interface and frees its addresses. What is gone already is no error.
    pub async fn detach(&self, sandbox: &str) -> Result<(), Error> {
        let (this, name) = (self.clone(), link_name(sandbox));
        let lease = self.0.ipam.lock().leased(sandbox).cloned();
        netns::here(move || {
            this.0.close_ports(&lease.unwrap_or_default())?;
            Rtnl::open()?.delete_link(&name)
        })
        .await?;
        self.0.ipam.lock().release(sandbox)
    }

    /// Frees whatever belongs to sandboxes other than these: called once after a restart, when the
    /// sandboxes that still live are known.
    pub async fn keep_only(&self, sandboxes: &BTreeSet<String>) -> Result<(), Error> {
        let held: Vec<String> = self.0.ipam.lock().sandboxes().map(str::to_owned).collect();
        for sandbox in held.iter().filter(|s| !sandboxes.contains(*s)) {
            self.detach(sandbox).await?;
        }
        Ok(())
    }

    /// The addresses that a sandbox has.
    #[must_use]
    pub fn addresses(&self, sandbox: &str) -> Option<Vec<IpAddr>> {
        self.0.ipam.lock().leased(sandbox).map(|l| l.addresses.clone())
    }
}

impl Inner {
    fn prepare_node(&self) -> Result<(), Error> {
        sysctl::set("net/ipv4/ip_forward", "1")?;
        // A pod that reaches itself through a Service leaves by the interface that it came in by.
        sysctl::set("net/ipv4/conf/all/send_redirects", "0")?;
        sysctl::set("net/ipv4/conf/default/send_redirects", "0")?;
        // Ports of the node lead to pods from its loopback too; the rules keep everybody else off it.
        sysctl::set("net/ipv4/conf/all/route_localnet", "1")?;
        if self.config.pod_cidrs.iter().any(|c| c.base().is_ipv6()) {
            sysctl::set("net/ipv6/conf/all/forwarding", "1")?;
        }
        let rtnl = Rtnl::open()?;
        rtnl.link_up("lo")?;
        for cidr in &self.config.pod_cidrs {
            rtnl.refuse(*cidr, REFUSE_METRIC)?;
        }
        let leases = self.ipam.lock().leases().clone();
        Ok(nft::commit(&edge::rebuild(&self.config.pod_cidrs, &self.egress, &leases))?)
    }

    /// Takes a pod's ports of the node away. They may be gone: an attach that failed has not made them.
    fn close_ports(&self, lease: &Lease) -> Result<(), Error> {
        match nft::commit(&edge::change(&self.config.pod_cidrs, &lease.addresses, &lease.ports, false)) {
            Err(nft::Error::Refused { errno: Errno::ENOENT, .. }) => Ok(()),
            result => Ok(result?),
        }
    }

    /// The pair, and the node's side of it; and the way to ask for more there.
    fn connect(&self, name: &str, target: &File, pod: &[IpAddr]) -> Result<Rtnl, Error> {
        let rtnl = Rtnl::open()?;
        rtnl.delete_link(name)?;
        rtnl.add_veth(&Veth {
            name,
            mac: NODE_MAC,
            peer: POD_INTERFACE,
            peer_mac: pod_mac(pod),
            peer_netns: target,
            mtu: self.config.mtu,
        })?;
        sysctl::set(&format!("net/ipv4/conf/{name}/rp_filter"), "1")?;
        sysctl::set(&format!("net/ipv4/conf/{name}/send_redirects"), "0")?;
        let index = rtnl.link_index(name)?;
        rtnl.set_up(index)?;
        for address in pod {
            let gateway = self.gateway_of(*address)?;
            rtnl.add_address(index, gateway)?;
            rtnl.add_neighbour(index, *address, pod_mac(pod))?;
            rtnl.add_host_route(index, *address, gateway)?;
        }
        Ok(rtnl)
    }

    /// The pod's side; runs inside the pod's namespace.
    fn configure_pod(&self, pod: &[IpAddr]) -> Result<(), Error> {
        let rtnl = Rtnl::open()?;
        rtnl.link_up("lo")?;
        let index = rtnl.link_index(POD_INTERFACE)?;
        rtnl.set_up(index)?;
        for address in pod {
            let gateway = self.gateway_of(*address)?;
            rtnl.add_address(index, *address)?;
            rtnl.add_neighbour(index, gateway, NODE_MAC)?;
            rtnl.add_host_route(index, gateway, *address)?;
            rtnl.add_default_route(index, gateway)?;
        }
        Ok(())
    }

    fn gateway_of(&self, address: IpAddr) -> Result<IpAddr, Error> {
        let cidrs = &self.config.pod_cidrs;
        let found = cidrs.iter().find(|c| c.contains(address)).and_then(ipam::gateway);
        found.ok_or_else(|| Error::Ranges(cidrs.clone()))
    }
}

/// What the names of the pods' links on the node begin with.
pub const LINK_PREFIX: &str = "pod";

/// The name of the node's side of a sandbox's pair: names have 15 characters, sandbox identifiers more.
#[must_use]
pub fn link_name(sandbox: &str) -> String {
    let hash = sandbox
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{LINK_PREFIX}{:012x}", hash >> 16)
}

/// A hardware address that follows from the pod's first address.
fn pod_mac(pod: &[IpAddr]) -> [u8; 6] {
    let mut mac = [0x0a, 0x58, 0, 0, 0, 0];
    if let Some(address) = pod.first() {
        let bytes = octets(*address);
        mac[2..].copy_from_slice(&bytes[bytes.len() - 4..]);
    }
    mac
}

/// A netlink error with what was being done, unless `ignore` says that it is none.
fn kernel(
    what: impl Into<String>,
    result: Result<(), netlink::Error>,
    ignore: &[Errno],
) -> Result<(), Error> {
    match result {
        Err(source) if !source.errno().is_some_and(|e| ignore.contains(&e)) => {
            Err(Error::Kernel { what: what.into(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let (a, b) = (link_name(&"a".repeat(64)), link_name(&"b".repeat(64)));
        assert_eq!(a.len(), 15);
        assert_ne!(a, b);
    }

    #[test]
    fn hardware_addresses_follow_from_addresses() {
        assert_eq!(pod_mac(&["10.244.1.7".parse().unwrap()]), [0x0a, 0x58, 10, 244, 1, 7]);
    }
}
