//! Gives every node its share of the cluster's pod addresses (`spec.podCIDR`, `spec.podCIDRs`).

use crate::env::{Env, synced};
use crate::nodes::{self, NodeView};
use krate_api::Status;
use krate_api::types::core::v1::Node;
use krate_client::{Api, Informer, Outcome, PatchKind, Queue, Recorder, Reference};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const ACCOUNT: &str = "node-controller";
const COMPONENT: &str = "cidrAllocator";

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cidr {
    base: u128,
    length: u8,
    is_v6: bool,
}

impl Cidr {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ip, length) = text.split_once('/')?;
        let length: u8 = length.parse().ok()?;
        let (base, is_v6) = match ip.parse().ok()? {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), false),
            IpAddr::V6(ip) => (u128::from(ip), true),
        };
        let cidr = Self { base, length, is_v6 };
        if length > cidr.bits() {
            return None;
        }
        Some(Self { base: base & !(cidr.size() - 1), ..cidr })
    }

    fn bits(self) -> u8 {
        if self.is_v6 { 128 } else { 32 }
    }

    /// Number of addresses; the whole of IPv6 is taken for all but one bit of it.
    fn size(self) -> u128 {
        1u128.checked_shl(u32::from(self.bits() - self.length)).unwrap_or(1 << 127)
    }

    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        let length = if ip.is_ipv6() { 128 } else { 32 };
        Self::parse(&format!("{ip}/{length}"))
            .is_some_and(|host| host.length >= self.length && self.overlaps(host))
    }

    fn overlaps(self, other: Self) -> bool {
        let (long, short) = if self.length >= other.length { (self, other) } else { (other, self) };
        self.is_v6 == other.is_v6 && long.base & !(short.size() - 1) == short.base
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_v6 {
            write!(f, "{}/{}", Ipv6Addr::from(self.base), self.length)
        } else {
            let base = u32::try_from(self.base).unwrap_or_default();
            write!(f, "{}/{}", Ipv4Addr::from(base), self.length)
        }
    }
}

/// One range that is shared out, and who has which part.
#[derive(Debug)]
struct Pool {
    range: Cidr,
    length: u8,
    taken: BTreeMap<Cidr, String>,
    /// What each node has taken.
    owners: HashMap<String, Vec<Cidr>>,
    /// Where the search for a free part goes on: parts are not given again at once.
    next: u128,
    /// Nothing was free, and nothing has come back since.
    full: bool,
}

impl Pool {
    fn new(range: Cidr, length: u8) -> Self {
        let length = length.clamp(range.length, range.bits());
        Self { range, length, taken: BTreeMap::new(), owners: HashMap::new(), next: 0, full: false }
    }

    fn take(&mut self, node: &str) -> Option<Cidr> {
        if self.full {
            return None;
        }
        let part = Cidr { length: self.length, ..self.range };
        let count = self.range.size() / part.size();
        let mut n = self.next;
        // What is taken is met once, but for what lies where the search begins, which is met again at the end.
        for _ in 0..self.taken.len() + 2 {
            let candidate = Cidr { base: self.range.base + n * part.size(), ..part };
            let Some(taken) = self.in_the_way(candidate) else {
                self.next = (n + 1) % count;
                self.occupy(candidate, node);
                return Some(candidate);
            };
            let end = (taken.base + (taken.size() - 1)).saturating_sub(self.range.base) / part.size();
            n = (end.max(n) + 1) % count;
        }
        self.full = true;
        None
    }

    /// Something taken that lies in a part or around it.
    fn in_the_way(&self, part: Cidr) -> Option<Cidr> {
        let (first, last) = (Cidr { length: 0, ..part }, part.base + (part.size() - 1));
        let inside = self.taken.range(first..=Cidr { base: last, length: u8::MAX, ..part });
        let around = (0..part.length).map(|length| {
            let wide = Cidr { length, ..part };
            Cidr { base: wide.base & !(wide.size() - 1), ..wide }
        });
        let mut around = around.filter(|wide| self.taken.contains_key(wide));
        around.next().or_else(|| inside.last().map(|(taken, _)| *taken))
    }

    fn occupy(&mut self, part: Cidr, node: &str) {
        if let Some(before) = self.taken.insert(part, node.to_owned()) {
            self.disown(part, &before);
        }
        self.owners.entry(node.to_owned()).or_default().push(part);
    }

    fn disown(&mut self, part: Cidr, node: &str) {
        if let Some(parts) = self.owners.get_mut(node) {
            parts.retain(|other| *other != part);
            if parts.is_empty() {
                self.owners.remove(node);
            }
        }
    }

    /// Takes back what a node has; whether it had anything.
    fn give_back(&mut self, node: &str) -> bool {
        let Some(parts) = self.owners.remove(node) else { return false };
        parts.iter().for_each(|part| drop(self.taken.remove(part)));
        self.full = false;
        true
    }
}

struct Controller {
    api: Api<Node>,
    nodes: Informer<NodeView>,
    recorder: Recorder,
    pools: Mutex<Vec<Pool>>,
}

pub fn start(env: &Env) {
    let cluster = &env.cluster;
    let pool = |text: &String| {
        let range = Cidr::parse(text)?;
        Some(Pool::new(range, if range.is_v6 { cluster.node_mask_v6 } else { cluster.node_mask_v4 }))
    };
    let pools: Vec<Pool> = cluster.pod_cidrs.iter().filter_map(pool).collect();
    if pools.len() < cluster.pod_cidrs.len() {
        tracing::error!(ranges = ?cluster.pod_cidrs, "a pod address range cannot be read; it is left out");
    }
    if pools.is_empty() {
        return;
    }
    let nodes = nodes::informer(&env.informers);
    let queue: Queue = env.queue("node_ipam");
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        nodes: nodes.clone(),
        recorder: env.recorder(ACCOUNT, COMPONENT),
        pools: Mutex::new(pools),
    });
    let (q, c) = (queue.clone(), controller.clone());
    nodes.subscribe(move |old, new| match (old, new) {
        (_, Some(node)) if node.spec.pod_cidrs.is_empty() && node.spec.pod_cidr.is_empty() => {
            q.add(node.name());
        }
        (_, Some(node)) => c.occupy(node),
        (Some(node), None) => {
            // Whoever waits for room.
            if c.give_back(node.name()) {
                c.without().into_iter().for_each(|name| q.add(name));
            }
        }
        (None, None) => {}
    });
    // One worker: parts are given in order.
    env.run(&queue, 1, synced!(nodes), move |name: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&name).await }
    });
}

impl Controller {
    fn occupy(&self, node: &NodeView) {
        let mut texts: BTreeSet<&str> = node.spec.pod_cidrs.iter().map(String::as_str).collect();
        texts.insert(&node.spec.pod_cidr);
        for cidr in texts.into_iter().filter_map(Cidr::parse) {
            for pool in self.pools.lock().iter_mut().filter(|p| p.range.overlaps(cidr)) {
                pool.occupy(cidr, node.name());
            }
        }
    }

    /// Names of nodes that have no addresses.
    fn without(&self) -> Vec<String> {
        let nodes = self.nodes.list();
        let bare = nodes.iter().filter(|n| n.spec.pod_cidrs.is_empty() && n.spec.pod_cidr.is_empty());
        bare.map(|n| n.name().to_owned()).collect()
    }

    async fn reconcile(&self, name: &str) -> Result<Outcome, Status> {
        let Some(node) = self.nodes.get(name) else { return Ok(Outcome::Done) };
        if !node.spec.pod_cidrs.is_empty() || !node.spec.pod_cidr.is_empty() {
            return Ok(Outcome::Done);
        }
        let Some(parts) = self.take(name) else {
            let about = Reference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(name.to_owned()),
                uid: Some(node.metadata.uid.clone()),
                ..Reference::default()
            };
            let text = format!("Node {name} status is now: CIDRNotAvailable");
            self.recorder.normal(&about, "CIDRNotAvailable", text);
            return Ok(Outcome::Done);
        };
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        let patch = serde_json::json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": parts[0], "podCIDRs": parts},
        });
        match self.api.patch("", name, PatchKind::Merge, patch.to_string()).await {
            Ok(_) => Ok(Outcome::Done),
            Err(status) => {
                self.give_back(name);
                if status.is_not_found() { Ok(Outcome::Done) } else { Err(status) }
            }
        }
    }

    /// A part of every range, or nothing.
    fn take(&self, name: &str) -> Option<Vec<Cidr>> {
        self.give_back(name);
        let parts: Option<Vec<Cidr>> = self.pools.lock().iter_mut().map(|pool| pool.take(name)).collect();
        if parts.is_none() {
            self.give_back(name);
        }
        parts
    }

    /// Takes back what a node has; whether it had anything.
    fn give_back(&self, name: &str) -> bool {
        self.pools.lock().iter_mut().fold(false, |had, pool| pool.give_back(name) | had)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Cluster;
    use crate::world::World;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    #[test]
    fn ranges_overlap_when_one_holds_the_other() {
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.1.2.0/24")));
        assert!(!cidr("10.0.0.0/24").overlaps(cidr("10.0.1.0/24")));
        assert!(!cidr("::/0").overlaps(cidr("10.0.0.0/8")));
        assert_eq!(cidr("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(cidr("fd00:1::/64").to_string(), "fd00:1::/64");
    }

    #[test]
    fn a_part_is_free_unless_something_taken_lies_in_it_or_around_it() {
        let mut pool = Pool::new(cidr("10.0.0.0/16"), 24);
        for (taken, node) in
            [("10.0.0.0/20", "wide"), ("10.0.5.0/24", "in the wide"), ("10.0.17.8/30", "small")]
        {
            pool.occupy(cidr(taken), node);
        }
        for (part, free) in [("10.0.9.0/24", false), ("10.0.16.0/24", true), ("10.0.17.0/24", false)] {
            assert_eq!(pool.in_the_way(cidr(part)).is_none(), free, "{part}");
        }
        assert_eq!(pool.take("a"), Some(cidr("10.0.16.0/24")));
        assert_eq!(pool.take("b"), Some(cidr("10.0.18.0/24")));
        assert!(pool.give_back("wide") && !pool.give_back("wide"));
        assert!(pool.in_the_way(cidr("10.0.9.0/24")).is_none());
        assert_eq!(pool.in_the_way(cidr("10.0.5.0/24")), Some(cidr("10.0.5.0/24")));
    }

    #[test]
    fn a_pool_that_is_full_has_room_when_something_comes_back() {
        let mut pool = Pool::new(cidr("10.0.0.0/23"), 24);
        assert!(pool.take("a").is_some() && pool.take("b").is_some());
        assert_eq!((pool.take("c"), pool.full), (None, true));
        assert!(pool.give_back("a"));
        assert_eq!(pool.take("c"), Some(cidr("10.0.0.0/24")));
    }

    fn node(w: &World, name: &str) {
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        w.fake.put(&node);
    }

    fn cidrs(w: &World, name: &str) -> Vec<String> {
        let node = w.fake.get::<Node>("", name).unwrap();
        node.spec.as_ref().and_then(|s| s.pod_cidrs.clone()).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn every_node_has_a_part_of_each_family_and_parts_come_back() {
        let ranges = vec!["10.244.0.0/23".to_owned(), "fd00:10::/56".to_owned()];
        let w = World::with(Cluster { pod_cidrs: ranges, ..Cluster::default() }, &[start]);
        for name in ["a", "b", "c"] {
            node(&w, name);
            w.settle().await;
        }
        assert_eq!(cidrs(&w, "a"), ["10.244.0.0/24", "fd00:10::/64"]);
        assert_eq!(cidrs(&w, "b"), ["10.244.1.0/24", "fd00:10:0:1::/64"]);
        assert_eq!(cidrs(&w, "c"), Vec::<String>::new());
        w.fake.remove::<Node>("", "a");
        w.settle().await;
        assert_eq!(cidrs(&w, "c")[0], "10.244.0.0/24");
        assert!(w.events().iter().any(|e| e.starts_with("CIDRNotAvailable")));
    }
}
