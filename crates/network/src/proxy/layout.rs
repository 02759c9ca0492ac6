//! The layout of the proxy's nftables table: what is fixed, and what a plan needs in it.
//!
//! A new connection is looked up once in a verdict map by destination address, protocol and port; the
//! verdict leads to a chain that many frontends share, because all that it depends on is in its name: how
//! many endpoints, chosen how, with or without the source's address. That chain looks up the chosen
//! endpoint, again in one map, by the same key and a random number. So the cost is the same for ten
//! Services or ten thousand, and a change is a few set elements:
//!
//! ```text
//! prerouting, output -> services:  (address . protocol . port) in @services -> goto outside-cluster-3
//!                                  else, to the node itself: (protocol . port) in @node-ports -> goto ...
//! outside-cluster-3:               mark for masquerading; goto pick-cluster-3
//! pick-cluster-3:                  dnat to @endpoints-cluster-3 [address . protocol . port . random mod 3]
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
use crate::nft::expr::{CT_DNAT, CT_INVALID, CT_NEW, Cmp, Ct, DynamicOp, FIB_LOCAL, Header, Meta, Reject};
use crate::nft::{
    ChainType, Element, Expr, Family, Field, Hook, HookPoint, Maps, Op, Reg, Set, Value, Verdict,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The table's name, in both families.
pub const TABLE: &str = "krate-proxy";
/// The link that Service addresses are routed to, and where the node's own are.
pub const SERVICE_LINK: &str = "krate-services";
/// The bit of a packet's mark that asks for masquerading.
const MASQUERADE: u32 = 0x4000;
/// Most clients that are remembered at one time; more are served without affinity.
const AFFINITY_SIZE: u32 = 262_144;

pub const SERVICES: &str = "services";
pub const NODE_PORTS: &str = "node-ports";
pub const REFUSED: &str = "refused";
pub const REFUSED_PORTS: &str = "refused-ports";
pub const HAIRPINS: &str = "hairpins";
pub const STICKY: &str = "sticky-endpoints";
pub const SOURCES: &str = "allowed-sources";
const AFFINITY: &str = "affinity";
const REJECT: &str = "reject";

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
    Endpoints(Scope, u32),
    Pick(Pick),
    Entry(Entry),
    /// The entry, for frontends that only some sources may use.
    Guarded(Entry),
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
            Self::Endpoints(scope, count) => write!(f, "endpoints-{scope}-{count}"),
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

/// The registers that hold a connection's fields, each after the other, so that any run of them is a key.
struct Regs {
    source: Reg,
    destination: Reg,
    protocol: Reg,
    port: Reg,
    /// The chosen endpoint's address, and before it is known the random number.
    chosen: Reg,
    chosen_port: Reg,
    scratch: Reg,
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
        let mut objects: Vec<Object> =
            picks.iter().flat_map(|p| [Object::Endpoints(p.scope, p.count), Object::Pick(*p)]).collect();
        objects.push(Object::Entry(entry));
        if !serve.sources.is_empty() {
            objects.push(Object::Guarded(entry));
        }
        objects
    }

    /// The elements of a plan, by set.
    #[must_use]
    pub fn elements(&self, frontend: &Frontend, plan: &Plan) -> Vec<(String, Element)> {
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
        for (scope, backends) in [(Scope::Cluster, &serve.cluster), (Scope::Local, &serve.local)] {
            found.extend(self.endpoint_elements(frontend, scope, backends));
        }
        if serve.sticky.is_some() {
            let mut all: Vec<&Backend> = serve.cluster.iter().chain(&serve.local).collect();
            all.sort();
            all.dedup();
            found.extend(all.into_iter().map(|b| {
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
    ) -> impl Iterator<Item = (String, Element)> + 'a {
        let set = Object::Endpoints(scope, count(backends)).to_string();
        backends.iter().zip(0u32..).map(move |(backend, index)| {
            let key = [self.full_key(frontend), index.to_ne_bytes().to_vec()].concat();
            (set.clone(), element(key, Some(Value::Bytes(endpoint(backend)))))
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
            None => self.full_key(frontend).split_off(self.unspecified().len()),
        }
    }

    fn full_key(&self, frontend: &Frontend) -> Vec<u8> {
        let mut key = frontend.address.map_or_else(|| self.unspecified(), octets);
        key.extend([frontend.protocol as u8, 0, 0, 0]);
        key.extend(port_bytes(frontend.port));
        key
    }

    fn unspecified(&self) -> Vec<u8> {
        match self.family {
            Family::Ip => octets(Ipv4Addr::UNSPECIFIED.into()),
            Family::Ip6 => octets(Ipv6Addr::UNSPECIFIED.into()),
        }
    }

    /// The steps that make an object.
    #[must_use]
    pub fn make(&self, object: &Object) -> Vec<Op> {
        let rules = match object {
            Object::Endpoints(..) => {
                let mut key = self.frontend_fields();
                key.push(Field::Mark);
                return vec![set(&object.to_string(), key, Maps::Fields(self.endpoint_fields()))];
            }
            Object::Pick(pick) => self.pick_rules(pick),
            Object::Entry(entry) => self.entry_rules(entry),
            Object::Guarded(entry) => self.guard_rules(entry),
        };
        chain(&object.to_string(), None, rules)
    }

    /// The steps that remove an object.
    #[must_use]
    pub fn unmake(&self, object: &Object) -> Op {
        match object {
            Object::Endpoints(..) => Op::DeleteSet(object.to_string()),
            _ => Op::DeleteChain(object.to_string()),
        }
    }

    /// The whole table without any Service, in place of whatever is there.
    #[must_use]
    pub fn base(&self) -> Vec<Op> {
        let mut ops = vec![Op::AddTable, Op::DeleteTable, Op::AddTable];
        let address = Field::address(self.family);
        let port = vec![Field::Protocol, Field::Port];
        let frontend = self.frontend_fields();
        ops.push(set(SERVICES, frontend.clone(), Maps::Verdict));
        ops.push(set(NODE_PORTS, port.clone(), Maps::Verdict));
        ops.push(set(REFUSED, frontend.clone(), Maps::Verdict));
        ops.push(set(REFUSED_PORTS, port, Maps::Verdict));
        ops.push(set(HAIRPINS, vec![address, address], Maps::Nothing));
        ops.push(set(STICKY, [frontend.clone(), self.endpoint_fields()].concat(), Maps::Nothing));
        ops.push(Op::AddSet(Set {
            intervals: true,
            ..plain(SOURCES, [frontend.clone(), vec![address]].concat())
        }));
        ops.push(Op::AddSet(Set {
            maps: Maps::Fields(self.endpoint_fields()),
            dynamic: true,
            size: AFFINITY_SIZE,
            ..plain(AFFINITY, [vec![address], frontend].concat())
        }));
        ops.extend(self.base_chains());
        ops
    }

    fn base_chains(&self) -> Vec<Op> {
        let hook = |kind, at, priority| Some(Hook { kind, at, priority });
        let jump = |to: &str| Expr::Verdict(Verdict::Jump(to.into()));
        let (dstnat, srcnat, filter) = (-100, 100, 0);
        let mut ops = chain(REJECT, None, reject_rules());
        ops.extend(chain("refuse", None, self.refuse_rules()));
        ops.extend(chain("dispatch", None, self.dispatch_rules()));
        let refuse_new = self.when_state(CT_NEW, jump("refuse"));
        let translate = vec![vec![jump("dispatch")]];
        ops.extend(chain(
            "prerouting",
            hook(ChainType::Nat, HookPoint::Prerouting, dstnat),
            translate.clone(),
        ));
        ops.extend(chain("output-nat", hook(ChainType::Nat, HookPoint::Output, dstnat), translate));
        let masquerade = self.masquerade_rules();
        ops.extend(chain("postrouting", hook(ChainType::Nat, HookPoint::Postrouting, srcnat), masquerade));
        let drop_invalid = self.when_state(CT_INVALID, Expr::Verdict(Verdict::Drop));
        let forward = [vec![drop_invalid, refuse_new.clone()], self.unclaimed_rules()].concat();
        ops.extend(chain("forward", hook(ChainType::Filter, HookPoint::Forward, filter), forward));
        let mut input = self.loopback_guard();
        input.push(refuse_new.clone());
        ops.extend(chain("input", hook(ChainType::Filter, HookPoint::Input, filter), input));
        let output = [vec![refuse_new], self.unclaimed_rules()].concat();
        ops.extend(chain("output", hook(ChainType::Filter, HookPoint::Output, filter), output));
        ops
    }

    fn regs(&self) -> Regs {
        let a = self.family.words();
        Regs {
            source: Reg(0),
            destination: Reg(a),
            protocol: Reg(2 * a),
            port: Reg(2 * a + 1),
            chosen: Reg(2 * a + 2),
            chosen_port: Reg(3 * a + 2),
            scratch: Reg(3 * a + 3),
        }
    }

    fn frontend_fields(&self) -> Vec<Field> {
        vec![Field::address(self.family), Field::Protocol, Field::Port]
    }

    fn endpoint_fields(&self) -> Vec<Field> {
        vec![Field::address(self.family), Field::Port]
    }

    fn load_source(&self, to: Reg) -> Expr {
        let (offset, len) = if self.family == Family::Ip { (12, 4) } else { (8, 16) };
        Expr::Payload { header: Header::Network, offset, len, to }
    }

    fn load_destination(&self) -> Expr {
        let (offset, len) = if self.family == Family::Ip { (16, 4) } else { (24, 16) };
        Expr::Payload { header: Header::Network, offset, len, to: self.regs().destination }
    }

    fn load_protocol_and_port(&self) -> [Expr; 2] {
        let regs = self.regs();
        let port = Expr::Payload { header: Header::Transport, offset: 2, len: 2, to: regs.port };
        [Expr::Meta { key: Meta::L4Proto, to: regs.protocol }, port]
    }

    /// Loads (source, destination, protocol, port), the destination of a node port being unspecified.
    fn load_key(&self, node_port: bool) -> Vec<Expr> {
        let regs = self.regs();
        let destination = if node_port {
            Expr::Load { to: regs.destination, value: self.unspecified() }
        } else {
            self.load_destination()
        };
        let mut rule = vec![self.load_source(regs.source), destination];
        rule.extend(self.load_protocol_and_port());
        rule
    }

    /// By destination, or else by port if the destination is the node.
    fn by_frontend(&self, addresses: &str, ports: &str) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let mut by_address = vec![self.load_destination()];
        by_address.extend(self.load_protocol_and_port());
        by_address.push(Expr::VerdictMap { set: addresses.into(), key: regs.destination });
        let mut by_port = vec![
            Expr::FibDestinationType { to: regs.scratch },
            Expr::Cmp { op: Cmp::Eq, reg: regs.scratch, value: FIB_LOCAL.to_ne_bytes().to_vec() },
        ];
        by_port.extend(self.load_protocol_and_port());
        by_port.push(Expr::VerdictMap { set: ports.into(), key: regs.protocol });
        vec![by_address, by_port]
    }

    fn dispatch_rules(&self) -> Vec<Vec<Expr>> {
        self.by_frontend(SERVICES, NODE_PORTS)
    }

    fn refuse_rules(&self) -> Vec<Vec<Expr>> {
        self.by_frontend(REFUSED, REFUSED_PORTS)
    }

    fn when_state(&self, bits: u32, then: Expr) -> Vec<Expr> {
        let reg = self.regs().scratch;
        let zero = vec![0; 4];
        vec![
            Expr::Ct { key: Ct::State, to: reg },
            Expr::Bitwise { from: reg, to: reg, mask: bits.to_ne_bytes().to_vec(), xor: zero.clone() },
            Expr::Cmp { op: Cmp::Neq, reg, value: zero },
            then,
        ]
    }

    /// Loopback addresses are routed so that node ports work on them: keep everybody else off them.
    fn loopback_guard(&self) -> Vec<Vec<Expr>> {
        if self.family == Family::Ip6 {
            return vec![];
        }
        let (regs, zero) = (self.regs(), vec![0; 4]);
        let mut loopback = b"lo".to_vec();
        loopback.resize(IFNAME_LEN, 0);
        let bits = |mask: [u8; 4]| Expr::Bitwise {
            from: regs.destination,
            to: regs.destination,
            mask: mask.to_vec(),
            xor: vec![0; 4],
        };
        let cmp = |op, value: &[u8]| Expr::Cmp { op, reg: regs.destination, value: value.to_vec() };
        vec![vec![
            Expr::Meta { key: Meta::IifName, to: regs.destination },
            cmp(Cmp::Neq, &loopback),
            self.load_destination(),
            bits([255, 0, 0, 0]),
            cmp(Cmp::Eq, &[127, 0, 0, 0]),
            Expr::Ct { key: Ct::Status, to: regs.destination },
            bits(CT_DNAT.to_ne_bytes()),
            cmp(Cmp::Eq, &zero),
            Expr::Verdict(Verdict::Drop),
        ]]
    }

    /// Sets or clears our bit of the packet's mark.
    fn mark(&self, on: bool) -> Vec<Expr> {
        let reg = self.regs().scratch;
        let bit = if on { MASQUERADE } else { 0 };
        vec![
            Expr::Meta { key: Meta::Mark, to: reg },
            Expr::Bitwise {
                from: reg,
                to: reg,
                mask: (!MASQUERADE).to_ne_bytes().to_vec(),
                xor: bit.to_ne_bytes().to_vec(),
            },
            Expr::SetMark { from: reg },
        ]
    }

    fn masquerade_rules(&self) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let bit = MASQUERADE.to_ne_bytes().to_vec();
        let mut marked = vec![
            Expr::Meta { key: Meta::Mark, to: regs.scratch },
            Expr::Bitwise { from: regs.scratch, to: regs.scratch, mask: bit.clone(), xor: vec![0; 4] },
            Expr::Cmp { op: Cmp::Eq, reg: regs.scratch, value: bit },
        ];
        marked.extend(self.mark(false));
        marked.push(Expr::Masquerade);
        let itself = vec![
            self.load_source(regs.source),
            self.load_destination(),
            Expr::InSet { set: HAIRPINS.into(), key: regs.source, inverted: false },
            Expr::Masquerade,
        ];
        vec![marked, itself]
    }

    /// Loads an address and matches if it is in a range.
    fn in_range(&self, load: Expr, reg: Reg, range: &Cidr) -> Vec<Expr> {
        let mask = prefix_mask(range);
        let xor = vec![0; mask.len()];
        vec![
            load,
            Expr::Bitwise { from: reg, to: reg, mask, xor },
            Expr::Cmp { op: Cmp::Eq, reg, value: octets(range.base()) },
        ]
    }

    fn when_from_pods(&self, then: &Object) -> Vec<Vec<Expr>> {
        let reg = self.regs().source;
        let rule =
            |range: &Cidr| [self.in_range(self.load_source(reg), reg, range), vec![goto(then)]].concat();
        self.pods.iter().map(rule).collect()
    }

    /// Packets that still go to the address of a Service were translated by none.
    fn unclaimed_rules(&self) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let rule = |range: &Cidr| {
            let mut rule = self.in_range(self.load_destination(), regs.destination, range);
            rule.push(Expr::FibDestinationType { to: regs.scratch });
            let value = FIB_LOCAL.to_ne_bytes().to_vec();
            rule.push(Expr::Cmp { op: Cmp::Neq, reg: regs.scratch, value });
            rule.push(Expr::Verdict(Verdict::Goto(REJECT.into())));
            rule
        };
        self.services.iter().map(rule).collect()
    }

    fn entry_rules(&self, entry: &Entry) -> Vec<Vec<Expr>> {
        match entry {
            Entry::Inside(pick) => {
                let pick = Object::Pick(*pick);
                let mut rules = self.when_from_pods(&pick);
                if !rules.is_empty() {
                    rules.push(self.mark(true));
                }
                rules.push(vec![goto(&pick)]);
                rules
            }
            Entry::Outside(pick) => vec![self.mark(true), vec![goto(&Object::Pick(*pick))]],
            Entry::Preserve { cluster, local } => {
                let (reg, cluster) = (self.regs().scratch, Object::Pick(*cluster));
                let mut rules = self.when_from_pods(&cluster);
                let mut from_node = vec![
                    Expr::FibSourceType { to: reg },
                    Expr::Cmp { op: Cmp::Eq, reg, value: FIB_LOCAL.to_ne_bytes().to_vec() },
                ];
                from_node.extend(self.mark(true));
                from_node.push(goto(&cluster));
                rules.push(from_node);
                let others = local.map_or(Expr::Verdict(Verdict::Drop), |pick| goto(&Object::Pick(pick)));
                rules.push(vec![others]);
                rules
            }
        }
    }

    fn guard_rules(&self, entry: &Entry) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let mut others = self.load_key(false);
        others.push(self.load_source(regs.chosen));
        others.push(Expr::InSet { set: SOURCES.into(), key: regs.destination, inverted: true });
        others.push(Expr::Verdict(Verdict::Drop));
        vec![others, vec![goto(&Object::Entry(*entry))]]
    }

    fn pick_rules(&self, pick: &Pick) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let dnat = Expr::Dnat { address: regs.chosen, port: regs.chosen_port };
        let endpoints = Object::Endpoints(pick.scope, pick.count).to_string();
        let mut choose = self.load_key(pick.node_port);
        choose.push(Expr::Random { modulus: pick.count, to: regs.chosen });
        choose.push(Expr::Lookup { set: endpoints, key: regs.destination, to: regs.chosen });
        let mut plain = choose.clone();
        plain.push(dnat.clone());
        let Some(seconds) = pick.sticky else { return vec![plain] };

        let remember = |op| Expr::Dynamic {
            op,
            set: AFFINITY.into(),
            key: regs.source,
            data: regs.chosen,
            timeout_ms: u64::from(seconds) * 1000,
        };
        let mut again = self.load_key(pick.node_port);
        again.push(Expr::Lookup { set: AFFINITY.into(), key: regs.source, to: regs.chosen });
        again.push(Expr::InSet { set: STICKY.into(), key: regs.destination, inverted: false });
        again.push(remember(DynamicOp::Update));
        again.push(dnat.clone());
        let mut forget = self.load_key(pick.node_port);
        forget.push(Expr::Load { to: regs.chosen, value: self.unspecified() });
        forget.push(Expr::Load { to: regs.chosen_port, value: vec![0; 4] });
        forget.push(remember(DynamicOp::Delete));
        let mut first = choose;
        first.push(remember(DynamicOp::Update));
        first.push(dnat);
        // The last rule serves those for whom there is no more room in the map.
        vec![again, forget, first, plain]
    }
}

const IFNAME_LEN: usize = 16;

fn reject_rules() -> Vec<Vec<Expr>> {
    let tcp = vec![
        Expr::Meta { key: Meta::L4Proto, to: Reg(0) },
        Expr::Cmp { op: Cmp::Eq, reg: Reg(0), value: vec![6] },
        Expr::Reject(Reject::TcpReset),
    ];
    vec![tcp, vec![Expr::Reject(Reject::PortUnreachable)]]
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

fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn prefix_mask(range: &Cidr) -> Vec<u8> {
    let bytes = octets(range.base()).len();
    let bit = |i: usize| if i < usize::from(range.prefix_len()) { 0x80u8 >> (i % 8) } else { 0 };
    (0..bytes).map(|byte| (0..8).map(|i| bit(byte * 8 + i)).sum()).collect()
}

fn goto(object: &Object) -> Expr {
    Expr::Verdict(Verdict::Goto(object.to_string()))
}

fn element(key: Vec<u8>, value: Option<Value>) -> Element {
    Element { key, end: None, value }
}

fn plain(name: &str, key: Vec<Field>) -> Set {
    Set { name: name.into(), key, maps: Maps::Nothing, dynamic: false, intervals: false, size: 0 }
}

fn set(name: &str, key: Vec<Field>, maps: Maps) -> Op {
    Op::AddSet(Set { maps, ..plain(name, key) })
}

fn chain(name: &str, hook: Option<Hook>, rules: Vec<Vec<Expr>>) -> Vec<Op> {
    let mut ops = vec![Op::AddChain { name: name.into(), hook }];
    ops.extend(rules.into_iter().map(|rule| Op::AddRule { chain: name.into(), rule }));
    ops
}
