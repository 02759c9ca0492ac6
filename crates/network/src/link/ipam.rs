//! Leases of pod addresses, kept on disk.
//!
//! Addresses are given round robin, so that one that was just freed is the last to be given again: a peer
//! that still speaks to the old pod does not reach a new one. The file is replaced as a whole before a
//! lease is used. The base of a range, the gateway (its first address) and IPv4's last address are never
//! leased.

use super::Error;
use super::edge::HostPort;
use crate::addr::Cidr;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const FILE: &str = "leases.json";

/// What is on disk.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// By range: the address that was leased last.
    last: BTreeMap<String, IpAddr>,
    leases: Leases,
}

/// What sandboxes hold, by their identifiers.
pub type Leases = BTreeMap<String, Lease>;

/// What one sandbox holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// One of each range.
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    pub ports: Vec<HostPort>,
}

/// The leases of one node.
pub struct Ipam {
    file: PathBuf,
    ranges: Vec<Cidr>,
    state: State,
    used: HashSet<IpAddr>,
}

/// The node's own address in a range of pod addresses.
#[must_use]
pub fn gateway(range: &Cidr) -> Option<IpAddr> {
    range.nth(1)
}

impl Ipam {
    /// Reads the leases in `folder`, which is made if missing.
    pub fn open(folder: &Path, ranges: &[Cidr]) -> Result<Self, Error> {
        let file = folder.join(FILE);
        let failed = |source| Error::File { path: file.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let state: State = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| failed(e.into()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(e) => return Err(failed(e)),
        };
        let used = state.leases.values().flat_map(|l| &l.addresses).copied().collect();
        Ok(Self { file, ranges: ranges.to_vec(), state, used })
    }

    /// The lease of a sandbox, and whether it was made just now; the ports are those of the first call.
    pub fn lease(&mut self, sandbox: &str, ports: &[HostPort]) -> Result<(Lease, bool), Error> {
        if let Some(held) = self.state.leases.get(sandbox) {
            return Ok((held.clone(), false));
        }
        let mut addresses = Vec::new();
        for range in self.ranges.clone() {
            let address = self.next_free(range).ok_or(Error::Exhausted(range))?;
            self.state.last.insert(range.to_string(), address);
            addresses.push(address);
        }
        self.used.extend(&addresses);
        let lease = Lease { addresses, ports: ports.to_vec() };
        self.state.leases.insert(sandbox.to_owned(), lease.clone());
        if let Err(error) = self.save() {
            self.forget(sandbox);
            return Err(error);
        }
        Ok((lease, true))
    }

    /// Ends a lease; none is no error.
    pub fn release(&mut self, sandbox: &str) -> Result<(), Error> {
        if self.forget(sandbox) { self.save() } else { Ok(()) }
    }

    #[must_use]
    pub fn leased(&self, sandbox: &str) -> Option<&Lease> {
        self.state.leases.get(sandbox)
    }

    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.state.leases
    }

    pub fn sandboxes(&self) -> impl Iterator<Item = &str> {
        self.state.leases.keys().map(String::as_str)
    }

    fn forget(&mut self, sandbox: &str) -> bool {
        let Some(lease) = self.state.leases.remove(sandbox) else { return false };
        for address in lease.addresses {
            self.used.remove(&address);
        }
        true
    }

    fn next_free(&self, range: Cidr) -> Option<IpAddr> {
        let first = 2;
        let end = if range.base().is_ipv4() { range.size().saturating_sub(1) } else { range.size() };
        let count = end.checked_sub(first).filter(|n| *n > 0)?;
        let last = self.state.last.get(&range.to_string()).and_then(|a| range.index_of(*a));
        let start = last.map_or(0, |index| index.saturating_sub(first) + 1);
        // One more try than there are leases always finds a free address, if there is one.
        let tries = count.min(self.used.len() as u128 + 1);
        (0..tries).filter_map(|i| range.nth(first + (start + i) % count)).find(|a| !self.used.contains(a))
    }

    fn save(&self) -> Result<(), Error> {
        let failed = |source| Error::File { path: self.file.clone(), source };
        let bytes = serde_json::to_vec(&self.state).map_err(|e| failed(e.into()))?;
        let next = self.file.with_extension("next");
        std::fs::write(&next, bytes).and_then(|()| std::fs::rename(&next, &self.file)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ipam(folder: &Path, range: &str) -> Ipam {
        Ipam::open(folder, &[range.parse().unwrap()]).unwrap()
    }

    fn lease(ipam: &mut Ipam, sandbox: &str) -> String {
        ipam.lease(sandbox, &[]).unwrap().0.addresses[0].to_string()
    }

    #[test]
    fn a_freed_address_is_the_last_to_be_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut ipam = ipam(folder.path(), "10.1.0.0/29");
        assert_eq!(lease(&mut ipam, "a"), "10.1.0.2");
        ipam.release("a").unwrap();
        assert_eq!(
            ["b", "c", "d", "e"].map(|s| lease(&mut ipam, s)),
            ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]
        );
        assert_eq!(lease(&mut ipam, "f"), "10.1.0.2");
        assert!(matches!(ipam.lease("g", &[]), Err(Error::Exhausted(_))));
        ipam.release("d").unwrap();
        assert_eq!(lease(&mut ipam, "g"), "10.1.0.5");
    }

    #[test]
    fn leases_and_the_order_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = ipam(folder.path(), "10.1.0.0/24");
        let (a, b) = (lease(&mut first, "a"), lease(&mut first, "b"));
        first.release("b").unwrap();
        let mut second = ipam(folder.path(), "10.1.0.0/24");
        assert_eq!(lease(&mut second, "a"), a);
        assert_ne!(lease(&mut second, "c"), b);
        assert_eq!(second.sandboxes().collect::<Vec<_>>(), ["a", "c"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_address_is_held_twice(steps in proptest::collection::vec((0u8..20, any::<bool>()), 1..80)) {
            let folder = tempfile::tempdir().unwrap();
            let mut ipam = ipam(folder.path(), "10.1.0.0/28");
            for (sandbox, take) in steps {
                let sandbox = sandbox.to_string();
                if take {
                    let free = ipam.used.len() < 13;
                    prop_assert_eq!(ipam.lease(&sandbox, &[]).is_ok(), free || ipam.leased(&sandbox).is_some());
                } else {
                    ipam.release(&sandbox).unwrap();
                }
                let mut all: Vec<_> = ipam.state.leases.values().flat_map(|l| &l.addresses).collect();
                let count = all.len();
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), count);
                prop_assert_eq!(ipam.used.len(), count);
            }
        }
    }
}
