//! The rules of the proxy's chains; see [`layout`](super::layout) for what they are for.

use super::layout::{
    AFFINITY, ENDPOINTS, ENTER, ENTRIES, ENTRY_BITS, Entry, HAIRPINS, Kind, Layout, NODE_PORTS, Picker,
    REFUSALS, REFUSED, REFUSED_PORTS, REJECT, SERVICES, SOURCES, STICKY, Way, pick_mask,
};
use crate::addr::Cidr;
use crate::link::LINK_PREFIX;
use crate::nft::expr::{CT_DNAT, CT_INVALID, CT_NEW, Cmp, Ct, DynamicOp, FIB_LOCAL, Meta, Reject};
use crate::nft::{ChainType, Expr, Family, Hook, HookPoint, Op, Reg, Verdict, chain};
use std::net::Ipv4Addr;

/// The bit of a packet's mark that asks for masquerading.
const MASQUERADE: u32 = 0x4000;

/// The chain that refuses as it was noted.
const REFUSE_SO: &str = "refuse-so";
/// How often a number is drawn until an endpoint has it; then the first one is taken, which happens to fewer than
/// one connection of 100,000 (see [`bound`](super::layout::bound)).
const DRAWS: usize = 8;

/// The registers that hold a connection's fields, each after the other, so that any run of them is a key.
struct Regs {
    source: Reg,
    /// The destination, the protocol and the port follow each other.
    destination: Reg,
    protocol: Reg,
    port: Reg,
    /// The group, or another number: in place of the destination, so that it follows the source.
    group: Reg,
    /// What follows the group: the random number, then the chosen endpoint's address and port.
    chosen: Reg,
    chosen_port: Reg,
    scratch: Reg,
}

impl Layout {
    pub(super) fn base_chains(&self) -> Vec<Op> {
        let hook = |kind, at, priority| Some(Hook { kind, at, priority });
        let jump = |to: &str| Expr::Verdict(Verdict::Jump(to.into()));
        let (dstnat, srcnat, filter) = (-100, 100, 0);
        let mut ops = chain(REJECT, None, reject_rules());
        ops.extend(chain(REFUSE_SO, None, vec![self.by_noted(u32::MAX >> 1, REFUSALS)]));
        ops.extend(chain("refuse", None, self.refuse_rules()));
        for entry in Entry::all() {
            ops.extend(chain(&entry.to_string(), None, self.entry_rules(&entry)));
        }
        ops.extend(chain(ENTER, None, vec![self.by_noted((1 << ENTRY_BITS) - 1, ENTRIES)]));
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
            group: Reg(a),
            chosen: Reg(a + 1),
            chosen_port: Reg(2 * a + 1),
            scratch: Reg(12),
        }
    }

    /// Loads (destination, protocol, port) and finds what the map of addresses or of node ports says of it.
    fn look_up(&self, node_port: bool, set: &str, to: Reg) -> Vec<Expr> {
        let regs = self.regs();
        let key = if node_port { regs.protocol } else { regs.destination };
        let mut rule = self.load_frontend();
        rule.push(Expr::Lookup { set: set.into(), key, to });
        rule
    }

    fn load_frontend(&self) -> Vec<Expr> {
        let regs = self.regs();
        vec![
            self.family.load_destination(regs.destination),
            Expr::Meta { key: Meta::L4Proto, to: regs.protocol },
            Expr::destination_port(regs.port),
        ]
    }

    /// Sets the packet's priority to a number that a map has for it.
    fn note(&self, node_port: bool, set: &str) -> Vec<Expr> {
        let regs = self.regs();
        let mut rule = self.look_up(node_port, set, regs.group);
        rule.push(Expr::SetMeta { key: Meta::Priority, from: regs.group });
        rule
    }

    /// Loads the number that was noted.
    fn noted(&self) -> Expr {
        Expr::Meta { key: Meta::Priority, to: self.regs().group }
    }

    /// Follows the verdict of a part of the number that was noted.
    fn by_noted(&self, mask: u32, verdicts: &str) -> Vec<Expr> {
        let reg = self.regs().group;
        let mask = mask.to_ne_bytes().to_vec();
        let xor = vec![0; mask.len()];
        vec![
            self.noted(),
            Expr::Bitwise { from: reg, to: reg, mask, xor },
            Expr::VerdictMap { set: verdicts.into(), key: reg },
        ]
    }

    /// By destination, or else by port if the destination is the node: notes the number that is found, and goes on.
    fn by_frontend(&self, [addresses, ports]: [&str; 2], then: &str) -> Vec<Vec<Expr>> {
        let then = Expr::Verdict(Verdict::Goto(then.into()));
        let mut by_address = self.note(false, addresses);
        by_address.push(then.clone());
        let mut by_port = Expr::to_node(self.regs().scratch, Cmp::Eq).to_vec();
        by_port.extend(self.note(true, ports));
        by_port.push(then);
        vec![by_address, by_port]
    }

    fn dispatch_rules(&self) -> Vec<Vec<Expr>> {
        self.by_frontend([SERVICES, NODE_PORTS], ENTER)
    }

    fn refuse_rules(&self) -> Vec<Vec<Expr>> {
        self.by_frontend([REFUSED, REFUSED_PORTS], REFUSE_SO)
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
        let Some(loopback) = Cidr::new(Ipv4Addr::LOCALHOST.into(), 8).filter(|_| self.family == Family::Ip)
        else {
            return vec![];
        };
        let reg = self.regs().scratch;
        let status = |value: u32| value.to_ne_bytes().to_vec();
        let mut rule = Expr::interface(Meta::IifName, Reg(0), Cmp::Neq, "lo").to_vec();
        rule.extend(self.family.in_range(self.family.load_destination(reg), reg, Cmp::Eq, &loopback));
        rule.extend([
            Expr::Ct { key: Ct::Status, to: reg },
            Expr::Bitwise { from: reg, to: reg, mask: status(CT_DNAT), xor: status(0) },
            Expr::Cmp { op: Cmp::Eq, reg, value: status(0) },
            Expr::Verdict(Verdict::Drop),
        ]);
        vec![rule]
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
            Expr::SetMeta { key: Meta::Mark, from: reg },
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
            self.family.load_source(regs.source),
            self.family.load_destination(regs.destination),
            Expr::InSet { set: HAIRPINS.into(), key: regs.source, inverted: false },
            Expr::Masquerade,
        ];
        vec![marked, itself]
    }

    fn when_from_pods(&self, then: &[Expr]) -> Vec<Vec<Expr>> {
        let reg = self.regs().source;
        let load = self.family.load_source(reg);
        let rule = |range: &Cidr| [&self.family.in_range(load.clone(), reg, Cmp::Eq, range), then].concat();
        self.pods.iter().map(rule).collect()
    }

    /// Packets that still go to the address of a Service were translated by none.
    fn unclaimed_rules(&self) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let rule = |range: &Cidr| {
            let mut rule = self.family.in_range(
                self.family.load_destination(regs.destination),
                regs.destination,
                Cmp::Eq,
                range,
            );
            rule.extend(Expr::to_node(regs.scratch, Cmp::Neq));
            rule.push(Expr::Verdict(Verdict::Goto(REJECT.into())));
            rule
        };
        self.services.iter().map(rule).collect()
    }

    /// Goes to the chain that chooses.
    fn choose(&self, way: Way) -> Vec<Expr> {
        self.by_noted(pick_mask(way.second), way.pickers())
    }

    fn entry_rules(&self, entry: &Entry) -> Vec<Vec<Expr>> {
        let way = |second| Way { node_port: entry.node_port, second };
        let first = self.choose(way(false));
        let mut rules = if entry.guarded { vec![self.guard_rule()] } else { vec![] };
        match entry.kind {
            Kind::Inside => {
                rules.extend(self.when_from_pods(&first));
                if !self.pods.is_empty() {
                    rules.push(self.mark(true));
                }
                rules.push(first);
            }
            Kind::Outside => rules.extend([self.mark(true), first]),
            Kind::Preserve { near } => {
                let anywhere = [self.mark(true), first.clone()].concat();
                rules.extend(self.when_from_pods(&[&own_pods()[..], &first].concat()));
                let reg = self.regs().scratch;
                let from_node = [
                    Expr::FibSourceType { to: reg },
                    Expr::Cmp { op: Cmp::Eq, reg, value: FIB_LOCAL.to_ne_bytes().to_vec() },
                ];
                rules.push([&from_node[..], &anywhere].concat());
                if near {
                    rules.push(self.choose(way(true)));
                } else {
                    // Other nodes' pods too reach what is not here, but the replies must come back this way.
                    rules.extend(self.when_from_pods(&anywhere));
                    rules.push(vec![Expr::Verdict(Verdict::Drop)]);
                }
            }
        }
        rules
    }

    fn guard_rule(&self) -> Vec<Expr> {
        let regs = self.regs();
        let mut others = self.load_frontend();
        others.push(self.family.load_source(Reg(regs.port.0 + 1)));
        others.push(Expr::InSet { set: SOURCES.into(), key: regs.destination, inverted: true });
        others.push(Expr::Verdict(Verdict::Drop));
        others
    }

    pub(super) fn pick_rules(&self, picker: &Picker) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let settle = [
            Expr::Load { to: regs.scratch, value: vec![0; 4] },
            Expr::SetMeta { key: Meta::Priority, from: regs.scratch },
            Expr::Dnat { address: regs.chosen, port: regs.chosen_port },
        ];
        let found = || Expr::Lookup { set: ENDPOINTS.into(), key: regs.group, to: regs.chosen };
        let draw =
            || vec![self.noted(), Expr::Random { modulus: picker.pick.bound, to: regs.chosen }, found()];
        let first = || vec![self.noted(), Expr::Load { to: regs.chosen, value: vec![0; 4] }, found()];
        // Of so few, every number is an endpoint's.
        let draws = if picker.pick.bound <= 8 { 1 } else { DRAWS };
        let choices = |then: &[Expr]| -> Vec<Vec<Expr>> {
            let drawn = (0..draws).map(|_| draw());
            drawn.chain((draws > 1).then(first)).map(|rule| [&rule, then].concat()).collect()
        };
        let mut rules = vec![self.note(picker.way.node_port, picker.way.groups())];
        let Some(seconds) = picker.pick.sticky else { return [rules, choices(&settle)].concat() };

        let remember = |op| Expr::Dynamic {
            op,
            set: AFFINITY.into(),
            key: regs.source,
            data: regs.chosen,
            timeout_ms: u64::from(seconds) * 1000,
        };
        let client = [self.family.load_source(regs.source), self.noted()];
        let known = [
            Expr::Lookup { set: AFFINITY.into(), key: regs.source, to: regs.chosen },
            Expr::InSet { set: STICKY.into(), key: regs.group, inverted: false },
            remember(DynamicOp::Update),
        ];
        rules.push([&client[..], &known, &settle].concat());
        let forget = [
            Expr::Load { to: regs.chosen, value: self.family.unspecified() },
            Expr::Load { to: regs.chosen_port, value: vec![0; 4] },
            remember(DynamicOp::Delete),
        ];
        rules.push([&client[..], &forget].concat());
        let source = self.family.load_source(regs.source);
        rules.extend(choices(&[&[source, remember(DynamicOp::Update)][..], &settle].concat()));
        // These serve those for whom there is no more room in the map.
        rules.extend(choices(&settle));
        rules
    }
}

/// Whether a packet comes from a pod of this node, by the name of the link.
fn own_pods() -> [Expr; 2] {
    let reg = Reg(8);
    [Expr::Meta { key: Meta::IifName, to: reg }, Expr::Cmp { op: Cmp::Eq, reg, value: LINK_PREFIX.into() }]
}

fn reject_rules() -> Vec<Vec<Expr>> {
    let tcp = vec![
        Expr::Meta { key: Meta::L4Proto, to: Reg(0) },
        Expr::Cmp { op: Cmp::Eq, reg: Reg(0), value: vec![6] },
        Expr::Reject(Reject::TcpReset),
    ];
    vec![tcp, vec![Expr::Reject(Reject::PortUnreachable)]]
}
