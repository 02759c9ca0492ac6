//! The layout of the proxy's nftables table: what is fixed, and what a plan needs in it.
//!
//! All rules are there from the beginning: Services and endpoints are elements of maps that lead to numbers, not
//! to chains. A verdict in a map makes the kernel walk over every chain and every element of such maps at each
//! change, and a rule that is added makes it walk over the maps that the rule looks into; so a change would cost
//! as much as there is. Like this it costs the elements that it changes, a handful for one endpoint of thousands.
//!
//! ```text
//! prerouting, output -> dispatch:  @services [address . protocol . port] = (entry, pick); goto enter
//!                                  else, to the node itself: the same with @node-ports [protocol . port]
//! enter:                           @entries [entry] -> goto outside
//! outside:                         mark for masquerading; @pickers [pick] -> goto pick-6
//! pick-6:                          @groups [address . protocol . port] = group
//!                                  dnat to @endpoints [group . random mod 6]; again and again if there is none
//! postrouting:                     marked, or a pod that reaches itself: masquerade
//! forward, input, output:          new and in @refused -> reject, or drop
//! ```
//!
//! From rule to rule numbers go in the packet's priority, which means nothing yet: forwarding gives it anew. (They
//! could stay in registers, but then the program `nft` could not list the rules.)
//!
//! A group is a numbered list of endpoints that all frontends of a Service's port share. Random numbers need a
//! bound that is written in the rule. The bounds are rounded up ([`bound`]), so that few such chains exist and
//! stay: a number that no endpoint has is drawn again. An endpoint that goes leaves its number to the last one.
//!
//! Client affinity is a dynamic map from (client . group) to the endpoint, which is believed only as long as the
//! set `@sticky-endpoints` still has the pair (group . endpoint): an endpoint that goes takes its clients'
//! affinity with it in the same transaction.

use super::plan::{Backend, Frontend, Plan, Reach, Serve};
use crate::addr::{Cidr, octets};
use crate::nft::{Element, Family, Field, Maps, Op, Set, Value, Verdict, chain, port_bytes};
use std::net::IpAddr;

/// The table's name, in both families.
pub const TABLE: &str = "krate-proxy";
/// The link that Service addresses are routed to, and where the node's own are.
pub const SERVICE_LINK: &str = "krate-services";
/// Most clients that are remembered at one time; more are served without affinity.
const AFFINITY_SIZE: u32 = 262_144;

pub const SERVICES: &str = "services";
pub const NODE_PORTS: &str = "node-ports";
const GROUPS: &str = "groups";
const NEAR_GROUPS: &str = "groups-near";
const PORT_GROUPS: &str = "node-port-groups";
const PORT_NEAR_GROUPS: &str = "node-port-groups-near";
pub const REFUSED: &str = "refused";
pub const REFUSED_PORTS: &str = "refused-ports";
pub const ENDPOINTS: &str = "endpoints";
pub const HAIRPINS: &str = "hairpins";
pub const STICKY: &str = "sticky-endpoints";
pub const SOURCES: &str = "allowed-sources";
pub(super) const ENTRIES: &str = "entries";
pub(super) const ENTER: &str = "enter";
pub(super) const PICKERS: &str = "pickers";
pub(super) const PORT_PICKERS: &str = "node-port-pickers";
pub(super) const REFUSALS: &str = "refusals";
pub(super) const AFFINITY: &str = "affinity";
pub(super) const REJECT: &str = "reject";

/// How an endpoint of a group is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    /// Random numbers are drawn below it.
    pub bound: u32,
    /// For how many seconds a client stays with its endpoint.
    pub sticky: Option<u32>,
}

/// A chain that chooses an endpoint: of the group that it finds on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Picker {
    /// Its number, below [`Pick::MOST`]; the same for all ways.
    pub number: u32,
    pub pick: Pick,
    pub way: Way,
}

/// Where a group's number is found: by address or by node port, that of all endpoints or that of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    pub node_port: bool,
    pub second: bool,
}

/// What the chain does that a frontend leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Inside,
    Outside,
    /// Whether there is a second group, for those who must stay on the node.
    Preserve {
        near: bool,
    },
}

/// A chain that a frontend leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    pub kind: Kind,
    pub node_port: bool,
    /// Only some sources may use it.
    pub guarded: bool,
}

/// A group that a frontend leads to, by the way to it, and the chain that chooses from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub group: u32,
    pub picker: Picker,
}

/// What random numbers are drawn below to choose from so many: rounded up to three significant bits. At least four
/// of five numbers hit.
#[must_use]
pub fn bound(count: usize) -> u32 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let step = 1u32 << (u32::BITS - count.leading_zeros()).saturating_sub(3);
    count.checked_next_multiple_of(step).unwrap_or(u32::MAX)
}

impl Entry {
    const KINDS: [Kind; 4] =
        [Kind::Inside, Kind::Outside, Kind::Preserve { near: true }, Kind::Preserve { near: false }];

    /// Every one that there can be.
    pub fn all() -> impl Iterator<Item = Self> {
        let flags = [(false, false), (true, false), (false, true)];
        Self::KINDS.into_iter().flat_map(move |kind| {
            flags.into_iter().map(move |(node_port, guarded)| Self { kind, node_port, guarded })
        })
    }

    /// Its key in [`ENTRIES`].
    fn number(self) -> u32 {
        let kind = match self.kind {
            Kind::Inside => 0,
            Kind::Outside => 1,
            Kind::Preserve { near: true } => 2,
            Kind::Preserve { near: false } => 3,
        };
        kind * 4 + u32::from(self.node_port) * 2 + u32::from(self.guarded)
    }

    fn of(frontend: &Frontend, serve: &Serve) -> Self {
        let kind = match serve.reach {
            Reach::Inside | Reach::InsideLocal => Kind::Inside,
            Reach::Outside => Kind::Outside,
            Reach::Preserve => Kind::Preserve { near: serve.near },
        };
        Self { kind, node_port: frontend.address.is_none(), guarded: !serve.sources.is_empty() }
    }
}

/// The name in the kernel.
impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.kind {
            Kind::Inside => "inside",
            Kind::Outside => "outside",
            Kind::Preserve { near: true } => "preserve",
            Kind::Preserve { near: false } => "preserve-none",
        })?;
        f.write_str(if self.node_port { "-port" } else { "" })?;
        f.write_str(if self.guarded { "-guarded" } else { "" })
    }
}

/// The name in the kernel.
impl std::fmt::Display for Picker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pick-{}", self.pick.bound)?;
        f.write_str(if self.way.node_port { "-port" } else { "" })?;
        f.write_str(if self.way.second { "-near" } else { "" })?;
        self.pick.sticky.map_or(Ok(()), |s| write!(f, "-sticky-{s}"))
    }
}

impl Pick {
    #[must_use]
    pub fn of(count: usize, sticky: Option<u32>) -> Self {
        Self { bound: bound(count), sticky }
    }

    /// How many numbers there are for them.
    pub const MOST: u32 = 1 << PICK_BITS;

    /// The number of one without affinity; those of others follow after them.
    #[must_use]
    pub fn plain_number(self) -> u32 {
        let bits = u32::BITS - self.bound.leading_zeros();
        bits * 4 + (self.bound >> bits.saturating_sub(3)) % 4
    }
}

/// The first number of a pick with affinity.
pub(super) const FIRST_STICKY: u32 = 4 * (u32::BITS + 1);
/// A frontend's number holds the entry in its lowest bits, then the first and the second pick.
pub(super) const ENTRY_BITS: u32 = 4;
const PICK_BITS: u32 = 14;

/// The bits of a frontend's number that are a pick.
pub(super) fn pick_mask(second: bool) -> u32 {
    in_place(Pick::MOST - 1, second)
}

fn in_place(pick: u32, second: bool) -> u32 {
    pick << if second { ENTRY_BITS + PICK_BITS } else { ENTRY_BITS }
}

impl Way {
    /// The map of the groups' numbers.
    pub(super) fn groups(self) -> &'static str {
        match (self.node_port, self.second) {
            (false, false) => GROUPS,
            (false, true) => NEAR_GROUPS,
            (true, false) => PORT_GROUPS,
            (true, true) => PORT_NEAR_GROUPS,
        }
    }

    /// The map of the chains that choose.
    pub(super) fn pickers(self) -> &'static str {
        if self.node_port { PORT_PICKERS } else { PICKERS }
    }
}

/// What a table is made for.
#[derive(Clone, Debug)]
pub struct Layout {
    pub family: Family,
    /// The cluster's pods, of this family; sources in there keep their address within the cluster.
    pub pods: Vec<Cidr>,
    /// Addresses of Services, of this family; those that no Service has are refused.
    pub services: Vec<Cidr>,
}

impl Layout {
    /// The elements of a frontend, by set; what it leads to, first and second.
    #[must_use]
    pub fn frontend(&self, frontend: &Frontend, plan: &Plan, to: &[Chosen]) -> Vec<(&'static str, Element)> {
        let (serving, refusing) = match frontend.address {
            Some(_) => (SERVICES, REFUSED),
            None => (NODE_PORTS, REFUSED_PORTS),
        };
        let lead = |set, to| (set, element(key(frontend), Some(Value::Bytes(numbers(&[to])))));
        let serve = match plan {
            Plan::Reject => return vec![lead(refusing, Refusal::Reject as u32)],
            Plan::Drop => return vec![lead(refusing, Refusal::Drop as u32)],
            Plan::Serve(serve) => serve,
        };
        let picks = to.iter().map(|c| in_place(c.picker.number, c.picker.way.second));
        let number = picks.fold(Entry::of(frontend, serve).number(), |number, pick| number | pick);
        let mut found = vec![lead(serving, number)];
        found.extend(to.iter().map(|c| lead(c.picker.way.groups(), c.group)));
        found.extend(serve.sources.iter().filter_map(|range| {
            let last = range.nth(range.size().checked_sub(1)?)?;
            let key = |ip| [key(frontend), octets(ip)].concat();
            let element = Element { key: key(range.base()), end: Some(key(last)), value: None };
            (Family::of(last) == self.family).then_some((SOURCES, element))
        }));
        found
    }

    /// One endpoint of a group, by its number.
    #[must_use]
    pub fn endpoint(group: u32, index: u32, backend: &Backend) -> Element {
        element(numbers(&[group, index]), Some(Value::Bytes(endpoint(backend))))
    }

    /// By which an endpoint's clients may stay with it.
    #[must_use]
    pub fn sticky(group: u32, backend: &Backend) -> Element {
        element([numbers(&[group]), endpoint(backend)].concat(), None)
    }

    /// The element by which a pod may reach itself through a Service.
    #[must_use]
    pub fn hairpin(&self, pod: IpAddr) -> Element {
        element([octets(pod), octets(pod)].concat(), None)
    }

    /// The steps that make a chain that chooses.
    #[must_use]
    pub fn make(&self, picker: &Picker) -> Vec<Op> {
        let mut ops = chain(&picker.to_string(), None, self.pick_rules(picker));
        let target = Value::Verdict(Verdict::Goto(picker.to_string()));
        let elements = vec![element(picker_key(picker), Some(target))];
        ops.push(Op::AddElements { set: picker.way.pickers().into(), elements });
        ops
    }

    /// The steps that remove a chain that chooses.
    #[must_use]
    pub fn unmake(&self, picker: &Picker) -> [Op; 2] {
        let elements = vec![element(picker_key(picker), None)];
        [
            Op::DeleteElements { set: picker.way.pickers().into(), elements },
            Op::DeleteChain(picker.to_string()),
        ]
    }

    /// The whole table without any Service, in place of whatever is there.
    #[must_use]
    pub fn base(&self) -> Vec<Op> {
        let mut ops = vec![Op::AddTable, Op::DeleteTable, Op::AddTable];
        let address = Field::address(self.family);
        let (port, number) = (vec![Field::Protocol, Field::Port], Field::Mark);
        let frontend = vec![address, Field::Protocol, Field::Port];
        let endpoint = vec![address, Field::Port];
        let mut set = |name, key: &[Field], maps| ops.push(Op::AddSet(Set::of(name, key.to_vec(), maps)));
        for name in [SERVICES, GROUPS, NEAR_GROUPS, REFUSED] {
            set(name, &frontend, Maps::Fields(vec![number]));
        }
        for name in [NODE_PORTS, PORT_GROUPS, PORT_NEAR_GROUPS, REFUSED_PORTS] {
            set(name, &port, Maps::Fields(vec![number]));
        }
        set(HAIRPINS, &[address, address], Maps::Nothing);
        set(ENDPOINTS, &[number, number], Maps::Fields(endpoint.clone()));
        set(STICKY, &[number, address, Field::Port], Maps::Nothing);
        for name in [ENTRIES, PICKERS, PORT_PICKERS, REFUSALS] {
            set(name, &[number], Maps::Verdict);
        }
        ops.push(Op::AddSet(Set {
            intervals: true,
            ..Set::of(SOURCES, [frontend, vec![address]].concat(), Maps::Nothing)
        }));
        ops.push(Op::AddSet(Set {
            dynamic: true,
            size: AFFINITY_SIZE,
            ..Set::of(AFFINITY, vec![address, number], Maps::Fields(endpoint))
        }));
        ops.extend(self.base_chains());
        let lead = |set: &str, to: Vec<(u32, Verdict)>| Op::AddElements {
            set: set.into(),
            elements: to.into_iter().map(|(n, v)| element(numbers(&[n]), Some(Value::Verdict(v)))).collect(),
        };
        ops.push(lead(ENTRIES, Entry::all().map(|e| (e.number(), Verdict::Goto(e.to_string()))).collect()));
        let reject = (Refusal::Reject as u32, Verdict::Goto(REJECT.into()));
        ops.push(lead(REFUSALS, vec![reject, (Refusal::Drop as u32, Verdict::Drop)]));
        ops
    }
}

/// What [`REFUSED`] leads to.
enum Refusal {
    Reject = 1,
    Drop = 2,
}

/// The key of a frontend: by address, or by port alone for a node port.
fn key(frontend: &Frontend) -> Vec<u8> {
    let mut key = frontend.address.map(octets).unwrap_or_default();
    key.extend([frontend.protocol as u8, 0, 0, 0]);
    key.extend(port_bytes(frontend.port));
    key
}

fn picker_key(picker: &Picker) -> Vec<u8> {
    numbers(&[in_place(picker.number, picker.way.second)])
}

/// Numbers as fields of a key or a value.
fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_ne_bytes()).collect()
}

fn endpoint(backend: &Backend) -> Vec<u8> {
    let mut bytes = octets(backend.0);
    bytes.extend(port_bytes(backend.1));
    bytes
}

fn element(key: Vec<u8>, value: Option<Value>) -> Element {
    Element { key, end: None, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_few_and_near() {
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 17, 5000].map(bound),
            [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 5120]
        );
        assert!((1..10_000).all(|n| bound(n) as usize >= n && n * 5 >= bound(n) as usize * 4));
    }

    #[test]
    fn entries_have_numbers_of_their_own() {
        let numbers: std::collections::BTreeSet<u32> = Entry::all().map(Entry::number).collect();
        assert_eq!(numbers.len(), Entry::all().count());
        assert!(numbers.iter().all(|n| *n < 1 << ENTRY_BITS));
    }

    #[test]
    fn picks_have_numbers_of_their_own() {
        let bounds: std::collections::BTreeSet<u32> = (1..100_000).map(bound).collect();
        let numbers: std::collections::BTreeSet<u32> =
            bounds.iter().map(|b| Pick { bound: *b, sticky: None }.plain_number()).collect();
        assert_eq!(numbers.len(), bounds.len());
        assert!(Pick { bound: u32::MAX, sticky: None }.plain_number() < FIRST_STICKY);
    }
}
