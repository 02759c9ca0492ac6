//! The layout of the proxy's nftables table: what is fixed, and what a plan needs in it.
//!
//! A new connection is looked up once in a verdict map by destination address, protocol and port; the
//! verdict leads to a chain that many frontends share, because all that it depends on is in its name: how
//! many endpoints, chosen how, with or without the source's address. That chain looks up the chosen
//! endpoint, again in one map, by the same key and a random number. So the cost is the same for ten
//! Services or ten thousand, and a change is a few set elements, also to a Service of thousands of endpoints:
//! those that stay keep their numbers.
//!
//! ```text
//! prerouting, output -> services:  (address . protocol . port) in @services -> goto outside-cluster-3
//!                                  else, to the node itself: (protocol . port) in @node-ports -> goto ...
//! outside-cluster-3:               mark for masquerading; goto pick-cluster-3
//! pick-cluster-3:                  dnat to @endpoints-cluster [address . protocol . port . random mod 3]
//! postrouting:                     marked, or a pod that reaches itself: masquerade
//! forward, input, output:          new and in @refused -> goto reject, or drop
//! ```
//!
//! Node ports use the same maps with the unspecified address as their key. Client affinity is a dynamic
//! map from (client . frontend) to the endpoint, which is believed only as long as the set
//! `@sticky-endpoints` still has the pair (frontend . endpoint): an endpoint that goes takes its clients'
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
pub const REFUSED: &str = "refused";
pub const REFUSED_PORTS: &str = "refused-ports";
pub const ENDPOINTS: &str = "endpoints-cluster";
pub const LOCAL_ENDPOINTS: &str = "endpoints-local";
pub const HAIRPINS: &str = "hairpins";
pub const STICKY: &str = "sticky-endpoints";
pub const SOURCES: &str = "allowed-sources";
pub(super) const AFFINITY: &str = "affinity";
pub(super) const REJECT: &str = "reject";

/// Which of a plan's lists of endpoints is chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Cluster,
    Local,
}

/// A chain that chooses an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    pub scope: Scope,
    pub count: u32,
    pub node_port: bool,
    pub sticky: Option<u32>,
}

/// A chain that a frontend leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    Inside(Pick),
    Outside(Pick),
    Preserve { cluster: Pick, local: Option<Pick> },
}

/// What plans share and what exists as long as one of them needs it; in the order of dependence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    Pick(Pick),
    Entry(Entry),
    /// The entry, for frontends that only some sources may use.
    Guarded(Entry),
}

impl Scope {
    /// The map of the endpoints.
    #[must_use]
    pub fn endpoints(self) -> &'static str {
        match self {
            Self::Cluster => ENDPOINTS,
            Self::Local => LOCAL_ENDPOINTS,
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Local => "local",
        })
    }
}

impl std::fmt::Display for Pick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.scope, self.count)?;
        if self.node_port {
            f.write_str("-port")?;
        }
        self.sticky.map_or(Ok(()), |s| write!(f, "-sticky-{s}"))
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inside(pick) => write!(f, "inside-{pick}"),
            Self::Outside(pick) => write!(f, "outside-{pick}"),
            Self::Preserve { cluster, local: Some(local) } => write!(f, "preserve-{cluster}-{local}"),
            Self::Preserve { cluster, local: None } => write!(f, "preserve-{cluster}-none"),
        }
    }
}

/// The name in the kernel.
impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pick(pick) => write!(f, "pick-{pick}"),
            Self::Entry(entry) => write!(f, "{entry}"),
            Self::Guarded(entry) => write!(f, "guarded-{entry}"),
        }
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
    /// What plan's elements and chains hang on, in the order in which it must be made.
    #[must_use]
    pub fn objects(&self, frontend: &Frontend, plan: &Plan) -> Vec<Object> {
        let Plan::Serve(serve) = plan else { return vec![] };
        let entry = entry(frontend, serve);
        let picks = match entry {
            Entry::Inside(pick) | Entry::Outside(pick) => vec![pick],
            Entry::Preserve { cluster, local } => [Some(cluster), local].into_iter().flatten().collect(),
        };
        let mut objects: Vec<Object> = picks.into_iter().map(Object::Pick).collect();
        objects.push(Object::Entry(entry));
        if !serve.sources.is_empty() {
            objects.push(Object::Guarded(entry));
        }
        objects
    }

    /// The elements of a plan, by set. Of the endpoints, only those that `beside` has not in the same place: a
    /// change costs what changes, however many endpoints there are.
    #[must_use]
    pub fn elements(
        &self,
        frontend: &Frontend,
        plan: &Plan,
        beside: Option<&Plan>,
    ) -> Vec<(String, Element)> {
        let (serving, refusing) = match frontend.address {
            Some(_) => (SERVICES, REFUSED),
            None => (NODE_PORTS, REFUSED_PORTS),
        };
        let verdict =
            |set: &str, verdict| (set.to_owned(), element(self.key(frontend), Some(Value::Verdict(verdict))));
        let serve = match plan {
            Plan::Reject => return vec![verdict(refusing, Verdict::Goto(REJECT.into()))],
            Plan::Drop => return vec![verdict(refusing, Verdict::Drop)],
            Plan::Serve(serve) => serve,
        };
        let entry = entry(frontend, serve);
        let target = if serve.sources.is_empty() { Object::Entry(entry) } else { Object::Guarded(entry) };
        let mut found = vec![verdict(serving, Verdict::Goto(target.to_string()))];
        let beside = match beside {
            Some(Plan::Serve(other)) => Some(other),
            _ => None,
        };
        for scope in [Scope::Cluster, Scope::Local] {
            let others = beside.map_or(&[][..], |b| b.of(scope));
            found.extend(self.endpoint_elements(frontend, scope, serve.of(scope), others));
        }
        if serve.sticky.is_some() {
            let others = beside.filter(|b| b.sticky.is_some()).map(Serve::all).unwrap_or_default();
            found.extend(serve.all().difference(&others).map(|b| {
                (STICKY.to_owned(), element([self.full_key(frontend), endpoint(b)].concat(), None))
            }));
        }
        found.extend(serve.sources.iter().filter_map(|range| {
            let last = range.nth(range.size().checked_sub(1)?)?;
            let key = |ip| [self.full_key(frontend), octets(ip)].concat();
            let element = Element { key: key(range.base()), end: Some(key(last)), value: None };
            (Family::of(last) == self.family).then(|| (SOURCES.to_owned(), element))
        }));
        found
    }

    fn endpoint_elements<'a>(
        &'a self,
        frontend: &'a Frontend,
        scope: Scope,
        backends: &'a [Backend],
        others: &'a [Backend],
    ) -> impl Iterator<Item = (String, Element)> + 'a {
        let numbered = backends.iter().zip(0u32..).enumerate();
        let differ = numbered.filter(|(at, (backend, _))| others.get(*at) != Some(*backend));
        differ.map(move |(_, (backend, index))| {
            let key = [self.full_key(frontend), index.to_ne_bytes().to_vec()].concat();
            (scope.endpoints().to_owned(), element(key, Some(Value::Bytes(endpoint(backend)))))
        })
    }

    /// The element by which a pod may reach itself through a Service.
    #[must_use]
    pub fn hairpin(&self, pod: IpAddr) -> Element {
        element([octets(pod), octets(pod)].concat(), None)
    }

    /// The key of a frontend in the maps by address, or by port alone for a node port.
    fn key(&self, frontend: &Frontend) -> Vec<u8> {
        match frontend.address {
            Some(_) => self.full_key(frontend),
            None => self.full_key(frontend).split_off(self.family.unspecified().len()),
        }
    }

    fn full_key(&self, frontend: &Frontend) -> Vec<u8> {
        let mut key = frontend.address.map_or_else(|| self.family.unspecified(), octets);
        key.extend([frontend.protocol as u8, 0, 0, 0]);
        key.extend(port_bytes(frontend.port));
        key
    }

    /// The steps that make an object.
    #[must_use]
    pub fn make(&self, object: &Object) -> Vec<Op> {
        let rules = match object {
            Object::Pick(pick) => self.pick_rules(pick),
            Object::Entry(entry) => self.entry_rules(entry),
            Object::Guarded(entry) => self.guard_rules(entry),
        };
        chain(&object.to_string(), None, rules)
    }

    /// The steps that remove an object.
    #[must_use]
    pub fn unmake(&self, object: &Object) -> Op {
        Op::DeleteChain(object.to_string())
    }

    /// The whole table without any Service, in place of whatever is there.
    #[must_use]
    pub fn base(&self) -> Vec<Op> {
        let mut ops = vec![Op::AddTable, Op::DeleteTable, Op::AddTable];
        let address = Field::address(self.family);
        let port = vec![Field::Protocol, Field::Port];
        let frontend = self.frontend_fields();
        ops.push(Op::AddSet(Set::of(SERVICES, frontend.clone(), Maps::Verdict)));
        ops.push(Op::AddSet(Set::of(NODE_PORTS, port.clone(), Maps::Verdict)));
        ops.push(Op::AddSet(Set::of(REFUSED, frontend.clone(), Maps::Verdict)));
        ops.push(Op::AddSet(Set::of(REFUSED_PORTS, port, Maps::Verdict)));
        ops.push(Op::AddSet(Set::of(HAIRPINS, vec![address, address], Maps::Nothing)));
        let numbered = [frontend.clone(), vec![Field::Mark]].concat();
        for set in [ENDPOINTS, LOCAL_ENDPOINTS] {
            ops.push(Op::AddSet(Set::of(set, numbered.clone(), Maps::Fields(self.endpoint_fields()))));
        }
        ops.push(Op::AddSet(Set::of(
            STICKY,
            [frontend.clone(), self.endpoint_fields()].concat(),
            Maps::Nothing,
        )));
        ops.push(Op::AddSet(Set {
            intervals: true,
            ..Set::of(SOURCES, [frontend.clone(), vec![address]].concat(), Maps::Nothing)
        }));
        ops.push(Op::AddSet(Set {
            dynamic: true,
            size: AFFINITY_SIZE,
            ..Set::of(AFFINITY, [vec![address], frontend].concat(), Maps::Fields(self.endpoint_fields()))
        }));
        ops.extend(self.base_chains());
        ops
    }

    fn frontend_fields(&self) -> Vec<Field> {
        vec![Field::address(self.family), Field::Protocol, Field::Port]
    }

    fn endpoint_fields(&self) -> Vec<Field> {
        vec![Field::address(self.family), Field::Port]
    }
}

fn entry(frontend: &Frontend, serve: &Serve) -> Entry {
    let pick = |scope, backends: &[Backend]| Pick {
        scope,
        count: count(backends),
        node_port: frontend.address.is_none(),
        sticky: serve.sticky,
    };
    match serve.reach {
        Reach::Inside => Entry::Inside(pick(Scope::Cluster, &serve.cluster)),
        Reach::InsideLocal => Entry::Inside(pick(Scope::Local, &serve.local)),
        Reach::Outside => Entry::Outside(pick(Scope::Cluster, &serve.cluster)),
        Reach::Preserve => Entry::Preserve {
            cluster: pick(Scope::Cluster, &serve.cluster),
            local: (!serve.local.is_empty()).then(|| pick(Scope::Local, &serve.local)),
        },
    }
}

fn count(backends: &[Backend]) -> u32 {
    u32::try_from(backends.len()).unwrap_or(u32::MAX)
}

fn endpoint(backend: &Backend) -> Vec<u8> {
    let mut bytes = octets(backend.0);
    bytes.extend(port_bytes(backend.1));
    bytes
}

fn element(key: Vec<u8>, value: Option<Value>) -> Element {
    Element { key, end: None, value }
}
