//! The rules of the proxy's chains; see [`layout`](super::layout) for what they are for.

use super::layout::{
    AFFINITY, Entry, HAIRPINS, Layout, NODE_PORTS, Object, Pick, REFUSED, REFUSED_PORTS, REJECT, SERVICES,
    SOURCES, STICKY,
};
use crate::addr::Cidr;
use crate::nft::expr::{CT_DNAT, CT_INVALID, CT_NEW, Cmp, Ct, DynamicOp, FIB_LOCAL, Meta, Reject};
use crate::nft::{ChainType, Expr, Family, Hook, HookPoint, Op, Reg, Verdict, chain};
use std::net::Ipv4Addr;

/// The bit of a packet's mark that asks for masquerading.
const MASQUERADE: u32 = 0x4000;

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
    pub(super) fn base_chains(&self) -> Vec<Op> {
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

    fn load_protocol_and_port(&self) -> [Expr; 2] {
        let regs = self.regs();
        [Expr::Meta { key: Meta::L4Proto, to: regs.protocol }, Expr::destination_port(regs.port)]
    }

    /// Loads (source, destination, protocol, port), the destination of a node port being unspecified.
    fn load_key(&self, node_port: bool) -> Vec<Expr> {
        let regs = self.regs();
        let destination = if node_port {
            Expr::Load { to: regs.destination, value: self.family.unspecified() }
        } else {
            self.family.load_destination(regs.destination)
        };
        let mut rule = vec![self.family.load_source(regs.source), destination];
        rule.extend(self.load_protocol_and_port());
        rule
    }

    /// By destination, or else by port if the destination is the node.
    fn by_frontend(&self, addresses: &str, ports: &str) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let mut by_address = vec![self.family.load_destination(regs.destination)];
        by_address.extend(self.load_protocol_and_port());
        by_address.push(Expr::VerdictMap { set: addresses.into(), key: regs.destination });
        let mut by_port = Expr::to_node(regs.scratch, Cmp::Eq).to_vec();
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
            self.family.load_source(regs.source),
            self.family.load_destination(regs.destination),
            Expr::InSet { set: HAIRPINS.into(), key: regs.source, inverted: false },
            Expr::Masquerade,
        ];
        vec![marked, itself]
    }

    fn when_from_pods(&self, then: &Object) -> Vec<Vec<Expr>> {
        let reg = self.regs().source;
        let rule = |range: &Cidr| {
            [self.family.in_range(self.family.load_source(reg), reg, Cmp::Eq, range), vec![goto(then)]]
                .concat()
        };
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

    pub(super) fn entry_rules(&self, entry: &Entry) -> Vec<Vec<Expr>> {
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

    pub(super) fn guard_rules(&self, entry: &Entry) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let mut others = self.load_key(false);
        others.push(self.family.load_source(regs.chosen));
        others.push(Expr::InSet { set: SOURCES.into(), key: regs.destination, inverted: true });
        others.push(Expr::Verdict(Verdict::Drop));
        vec![others, vec![goto(&Object::Entry(*entry))]]
    }

    pub(super) fn pick_rules(&self, pick: &Pick) -> Vec<Vec<Expr>> {
        let regs = self.regs();
        let dnat = Expr::Dnat { address: regs.chosen, port: regs.chosen_port };
        let endpoints = pick.scope.endpoints().to_owned();
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
        forget.push(Expr::Load { to: regs.chosen, value: self.family.unspecified() });
        forget.push(Expr::Load { to: regs.chosen_port, value: vec![0; 4] });
        forget.push(remember(DynamicOp::Delete));
        let mut first = choose;
        first.push(remember(DynamicOp::Update));
        first.push(dnat);
        // The last rule serves those for whom there is no more room in the map.
        vec![again, forget, first, plain]
    }
}

fn reject_rules() -> Vec<Vec<Expr>> {
    let tcp = vec![
        Expr::Meta { key: Meta::L4Proto, to: Reg(0) },
        Expr::Cmp { op: Cmp::Eq, reg: Reg(0), value: vec![6] },
        Expr::Reject(Reject::TcpReset),
    ];
    vec![tcp, vec![Expr::Reject(Reject::PortUnreachable)]]
}

fn goto(object: &Object) -> Expr {
    Expr::Verdict(Verdict::Goto(object.to_string()))
}
