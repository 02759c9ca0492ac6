//! What is programmed, and the difference to what is wanted: pure.
//!
//! [`Program`] remembers what every Service asked for and what the kernel was told. An update yields the
//! few operations that lead from one to the other; a rebuild yields the whole table in one transaction.
//! Shared chains and maps are counted and exist as long as something uses them.

use super::layout::{HAIRPINS, Layout, Object};
use super::plan::{Backend, Frontend, Plan, ServicePlan};
use crate::nft::{Element, Family, Op, Value};
use crate::views::Protocol;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// The state of one family's table.
pub struct Program {
    layout: Layout,
    services: HashMap<String, ServicePlan>,
    /// Who asks for a frontend. Two Services may (with the same external address): the first by name wins.
    claims: HashMap<Frontend, BTreeSet<String>>,
    programmed: HashMap<Frontend, Plan>,
    uses: BTreeMap<Object, usize>,
    hairpins: HashMap<IpAddr, usize>,
}

/// Datagram connections to a frontend that must be forgotten: those that are not with one of `keep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    pub frontend: Frontend,
    pub keep: Vec<Backend>,
}

/// What an update asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub ops: Vec<Op>,
    pub stale: Vec<Stale>,
}

/// The elements of a set: by key and end of range, what they lead to.
type Elements = BTreeMap<String, HashMap<(Vec<u8>, Option<Vec<u8>>), Option<Value>>>;

impl Program {
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            services: HashMap::new(),
            claims: HashMap::new(),
            programmed: HashMap::new(),
            uses: BTreeMap::new(),
            hairpins: HashMap::new(),
        }
    }

    #[must_use]
    pub fn family(&self) -> Family {
        self.layout.family
    }

    /// Changes what some Services ask for (`None`: the Service is gone). What concerns the other family is
    /// ignored. The operations are to be carried out as one; if that fails, only [`rebuild`](Self::rebuild)
    /// makes kernel and program agree again.
    pub fn update<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (&'a str, Option<&'a ServicePlan>)>,
    ) -> Update {
        let mut touched = BTreeSet::new();
        let mut hairpins = BTreeSet::new();
        for (service, plan) in changes {
            self.claim(service, plan, &mut touched, &mut hairpins);
        }
        let mut change = Difference::default();
        for frontend in touched {
            self.reprogram(frontend, &mut change);
        }
        for (pod, had) in hairpins {
            let element = (self.layout.hairpin(pod).key, None);
            match (had, self.hairpins.contains_key(&pod)) {
                (true, false) => drop(change.old.entry(HAIRPINS.into()).or_default().insert(element, None)),
                (false, true) => drop(change.new.entry(HAIRPINS.into()).or_default().insert(element, None)),
                _ => {}
            }
        }
        let ops = change.ops(&self.layout);
        Update { ops, stale: change.stale }
    }

    /// The whole table as it should be, in place of whatever the kernel has.
    #[must_use]
    pub fn rebuild(&self) -> Vec<Op> {
        let mut change = Difference { made: self.uses.keys().copied().collect(), ..Difference::default() };
        for (frontend, plan) in &self.programmed {
            collect(&mut change.new, self.layout.elements(frontend, plan, None));
        }
        let hairpins = self.hairpins.keys().map(|pod| (HAIRPINS.to_owned(), self.layout.hairpin(*pod)));
        collect(&mut change.new, hairpins);
        let mut ops = self.layout.base();
        ops.extend(change.ops(&self.layout));
        ops
    }

    /// How many frontends there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.programmed.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programmed.is_empty()
    }

    fn claim(
        &mut self,
        service: &str,
        plan: Option<&ServicePlan>,
        touched: &mut BTreeSet<Frontend>,
        hairpins: &mut BTreeSet<(IpAddr, bool)>,
    ) {
        let family = self.layout.family;
        let old = self.services.remove(service).unwrap_or_default();
        let mut new = plan.cloned().unwrap_or_default();
        new.frontends.retain(|f, _| f.family == family);
        new.hairpins.retain(|pod| Family::of(*pod) == family);
        for frontend in old.frontends.keys() {
            if let Some(claims) = self.claims.get_mut(frontend) {
                claims.remove(service);
                if claims.is_empty() {
                    self.claims.remove(frontend);
                }
            }
            touched.insert(*frontend);
        }
        for frontend in new.frontends.keys() {
            self.claims.entry(*frontend).or_default().insert(service.to_owned());
            touched.insert(*frontend);
        }
        for pod in old.hairpins.union(&new.hairpins) {
            // What counts is whether the pod was there before the first of this update's changes.
            if !hairpins.contains(&(*pod, true)) && !hairpins.contains(&(*pod, false)) {
                hairpins.insert((*pod, self.hairpins.contains_key(pod)));
            }
        }
        for pod in &new.hairpins {
            *self.hairpins.entry(*pod).or_default() += 1;
        }
        for pod in &old.hairpins {
            release(&mut self.hairpins, pod);
        }
        if !new.frontends.is_empty() || !new.hairpins.is_empty() {
            self.services.insert(service.to_owned(), new);
        }
    }

    /// Brings one frontend to what its first claimant asks for.
    fn reprogram(&mut self, frontend: Frontend, change: &mut Difference) {
        let owner = self.claims.get(&frontend).and_then(|c| c.first());
        let mut wanted = owner.and_then(|o| self.services.get(o)?.frontends.get(&frontend)).cloned();
        if let (Some(Plan::Serve(new)), Some(Plan::Serve(old))) =
            (&mut wanted, self.programmed.get(&frontend))
        {
            new.keep_places(old);
        }
        let old = match &wanted {
            Some(plan) => self.programmed.insert(frontend, plan.clone()),
            None => self.programmed.remove(&frontend),
        };
        if old == wanted {
            return;
        }
        change.stale.extend(stale(frontend, old.as_ref(), wanted.as_ref()));
        if let Some(plan) = &wanted {
            collect(&mut change.new, self.layout.elements(&frontend, plan, old.as_ref()));
            for object in self.layout.objects(&frontend, plan) {
                let uses = self.uses.entry(object).or_default();
                *uses += 1;
                // An object that this update had given up is taken back.
                if *uses == 1 && !change.unmade.remove(&object) {
                    change.made.insert(object);
                }
            }
        }
        if let Some(plan) = &old {
            collect(&mut change.old, self.layout.elements(&frontend, plan, wanted.as_ref()));
            for object in self.layout.objects(&frontend, plan) {
                if let Some(uses) = self.uses.get_mut(&object) {
                    *uses -= 1;
                    if *uses == 0 {
                        self.uses.remove(&object);
                        if !change.made.remove(&object) {
                            change.unmade.insert(object);
                        }
                    }
                }
            }
        }
    }
}

fn release(counts: &mut HashMap<IpAddr, usize>, pod: &IpAddr) {
    if let Some(count) = counts.get_mut(pod) {
        *count -= 1;
        if *count == 0 {
            counts.remove(pod);
        }
    }
}

/// Datagram connections live on after their endpoint, or without one, as long as packets come: they are
/// to be forgotten when an endpoint goes, and when a frontend begins to be served.
fn stale(frontend: Frontend, old: Option<&Plan>, new: Option<&Plan>) -> Option<Stale> {
    if frontend.protocol != Protocol::Udp {
        return None;
    }
    let backends = |plan: Option<&Plan>| match plan {
        Some(Plan::Serve(s)) => s.cluster.iter().chain(&s.local).copied().collect::<BTreeSet<_>>(),
        _ => BTreeSet::new(),
    };
    let (before, after) = (backends(old), backends(new));
    let begins = before.is_empty() && !after.is_empty();
    (begins || !before.is_subset(&after)).then(|| Stale { frontend, keep: after.into_iter().collect() })
}

/// A change in the making.
#[derive(Default)]
struct Difference {
    made: BTreeSet<Object>,
    unmade: BTreeSet<Object>,
    old: Elements,
    new: Elements,
    stale: Vec<Stale>,
}

impl Difference {
    /// New objects, then elements, deletions before additions, then objects that nothing uses any more.
    fn ops(&mut self, layout: &Layout) -> Vec<Op> {
        let mut ops: Vec<Op> = self.made.iter().flat_map(|o| layout.make(o)).collect();
        for (set, old) in &mut self.old {
            let Some(new) = self.new.get_mut(set) else { continue };
            old.retain(|key, value| {
                let same = new.get(key) == Some(value);
                if same {
                    new.remove(key);
                }
                !same
            });
        }
        for (set, elements) in std::mem::take(&mut self.old) {
            let elements = listed(elements, false);
            if !elements.is_empty() {
                ops.push(Op::DeleteElements { set, elements });
            }
        }
        for (set, elements) in std::mem::take(&mut self.new) {
            let elements = listed(elements, true);
            if !elements.is_empty() {
                ops.push(Op::AddElements { set, elements });
            }
        }
        ops.extend(self.unmade.iter().rev().map(|o| layout.unmake(o)));
        ops
    }
}

fn listed(elements: HashMap<(Vec<u8>, Option<Vec<u8>>), Option<Value>>, values: bool) -> Vec<Element> {
    let mut list: Vec<Element> = elements
        .into_iter()
        .map(|((key, end), value)| Element { key, end, value: value.filter(|_| values) })
        .collect();
    list.sort_by(|a, b| a.key.cmp(&b.key));
    list
}

fn collect(into: &mut Elements, elements: impl IntoIterator<Item = (String, Element)>) {
    for (set, element) in elements {
        into.entry(set).or_default().insert((element.key, element.end), element.value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Reach, Serve};
    use super::*;
    use proptest::prelude::*;

    fn frontend(port: u16) -> Frontend {
        Frontend {
            family: Family::Ip,
            address: Some("10.96.0.1".parse().unwrap()),
            protocol: Protocol::Udp,
            port,
        }
    }

    fn backends(n: u8) -> Vec<Backend> {
        (0..n).map(|i| (IpAddr::from([10, 1, 0, i]), 80)).collect()
    }

    fn asks(port: u16, n: u8) -> ServicePlan {
        let serve = Serve {
            reach: Reach::Inside,
            cluster: backends(n),
            local: vec![],
            sticky: n.is_multiple_of(2).then_some(10),
            sources: vec![],
        };
        let plan = if n == 0 { Plan::Reject } else { Plan::Serve(serve) };
        ServicePlan {
            frontends: [(frontend(port), plan)].into(),
            hairpins: backends(n).into_iter().map(|(ip, _)| ip).collect(),
            health: None,
        }
    }

    fn program() -> Program {
        let range = |text: &str| vec![text.parse().unwrap()];
        Program::new(Layout {
            family: Family::Ip,
            pods: range("10.1.0.0/16"),
            services: range("10.96.0.0/16"),
        })
    }

    /// A model of the kernel, as strict as it is: nothing is added twice, deleted when absent or in use.
    #[derive(Default, Debug, PartialEq)]
    struct Kernel {
        objects: BTreeSet<String>,
        elements: BTreeMap<(String, Vec<u8>), Option<Value>>,
    }

    impl Kernel {
        fn apply(&mut self, ops: &[Op]) {
            for op in ops {
                match op {
                    Op::AddTable | Op::AddRule { .. } => {}
                    Op::DeleteTable => *self = Self::default(),
                    Op::AddChain { name, .. } => assert!(self.objects.insert(name.clone()), "{name} exists"),
                    Op::AddSet(set) => assert!(self.objects.insert(format!("@{}", set.name))),
                    Op::DeleteChain(name) => {
                        let target = Some(Value::Verdict(crate::nft::Verdict::Goto(name.clone())));
                        assert!(!self.elements.values().any(|v| *v == target), "{name} is in use");
                        assert!(self.objects.remove(name), "{name} does not exist");
                    }
                    Op::DeleteSet(name) => assert!(self.objects.remove(&format!("@{name}"))),
                    Op::AddElements { set, elements } => {
                        assert!(self.objects.contains(&format!("@{set}")), "{set} does not exist");
                        for e in elements {
                            let old = self.elements.insert((set.clone(), e.key.clone()), e.value.clone());
                            assert_eq!(old, None, "an element of {set} is there already");
                        }
                    }
                    Op::DeleteElements { set, elements } => {
                        for e in elements {
                            let old = self.elements.remove(&(set.clone(), e.key.clone()));
                            assert!(old.is_some(), "an element of {set} is not there");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_change_of_one_endpoint_is_a_few_elements() {
        let mut program = program();
        for i in 0..100 {
            program.update([(format!("a/{i}").as_str(), Some(&asks(i, 3)))]);
        }
        let mut changed = asks(7, 3);
        let Some(Plan::Serve(serve)) = changed.frontends.get_mut(&frontend(7)) else { unreachable!() };
        serve.cluster[2] = ("10.1.0.9".parse().unwrap(), 80);
        changed.hairpins = asks(7, 3).hairpins;
        let update = program.update([("a/7", Some(&changed))]);
        let sizes: Vec<_> = update
            .ops
            .iter()
            .map(|op| match op {
                Op::AddElements { set, elements } => format!("+{set} {}", elements.len()),
                Op::DeleteElements { set, elements } => format!("-{set} {}", elements.len()),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, ["-endpoints-cluster 1", "+endpoints-cluster 1"]);
        assert_eq!(update.stale.len(), 1, "datagram connections to the endpoint that went are forgotten");
    }

    fn thousands(range: std::ops::Range<u16>) -> ServicePlan {
        let ip = |i: u16| IpAddr::from([10, 1, (i >> 8).to_be_bytes()[1], i.to_be_bytes()[1]]);
        let mut asked = asks(7, 1);
        let Some(Plan::Serve(serve)) = asked.frontends.get_mut(&frontend(7)) else { unreachable!() };
        serve.cluster = range.map(|i| (ip(i), 80)).collect();
        serve.sticky = Some(10);
        asked.hairpins.clear();
        asked
    }

    /// How many elements an update writes or deletes, and how many steps it takes.
    fn cost(update: &Update) -> (usize, usize) {
        let elements = |op: &Op| match op {
            Op::AddElements { elements, .. } | Op::DeleteElements { elements, .. } => elements.len(),
            _ => 0,
        };
        (update.ops.iter().map(elements).sum(), update.ops.len())
    }

    #[test]
    fn one_of_five_thousand_endpoints_costs_as_much_as_one_of_ten() {
        let mut costs = Vec::new();
        for last in [10, 5000] {
            let mut program = program();
            let mut kernel = Kernel::default();
            kernel.apply(&program.rebuild());
            let mut step = |range| {
                let update = program.update([("a/web", Some(&thousands(range)))]);
                kernel.apply(&update.ops);
                let mut fresh = Kernel::default();
                fresh.apply(&program.rebuild());
                assert_eq!(kernel, fresh);
                cost(&update)
            };
            step(0..last);
            // One comes, the first goes, one goes while another comes.
            costs.push([step(0..last + 1), step(1..last + 1), step(2..last + 2)]);
        }
        assert_eq!(costs[0], costs[1]);
        assert!(costs[1].iter().all(|(elements, steps)| *elements <= 8 && *steps <= 16), "{costs:?}");
    }

    #[test]
    fn one_of_five_thousand_services_is_a_few_elements() {
        let mut program = program();
        let all: Vec<_> = (1..5001).map(|i| (format!("a/{i}"), asks(i, 3))).collect();
        program.update(all.iter().map(|(name, asked)| (name.as_str(), Some(asked))));
        let (gone, _) = cost(&program.update([("a/77", None)]));
        let (back, _) = cost(&program.update([("a/77", Some(&asks(77, 3)))]));
        assert!(gone <= 8 && back <= 8, "{gone} {back}");
    }

    #[test]
    fn nothing_changes_nothing() {
        let mut program = program();
        program.update([("a/web", Some(&asks(1, 3)))]);
        assert_eq!(program.update([("a/web", Some(&asks(1, 3)))]), Update::default());
    }

    #[test]
    fn the_first_claimant_wins_and_the_next_follows() {
        let mut program = program();
        program.update([("a/two", Some(&asks(1, 2)))]);
        assert!(!program.update([("a/one", Some(&asks(1, 1)))]).ops.is_empty());
        assert_eq!(program.programmed[&frontend(1)], asks(1, 1).frontends[&frontend(1)]);
        program.update([("a/one", None)]);
        assert_eq!(program.programmed[&frontend(1)], asks(1, 2).frontends[&frontend(1)]);
        program.update([("a/two", None)]);
        assert!(program.is_empty() && program.uses.is_empty() && program.hairpins.is_empty());
    }

    proptest! {
        #[test]
        fn updates_lead_where_a_rebuild_leads(
            batches in proptest::collection::vec(
                proptest::collection::vec((0u8..6, 0u16..4, proptest::option::of(0u8..5)), 1..6), 1..12)
        ) {
            let mut program = program();
            let mut kernel = Kernel::default();
            kernel.apply(&program.rebuild());
            for batch in batches {
                let plans: Vec<_> = batch
                    .into_iter()
                    .map(|(service, port, n)| (format!("a/{service}"), n.map(|n| asks(port, n))))
                    .collect();
                let update = program.update(plans.iter().map(|(s, p)| (s.as_str(), p.as_ref())));
                kernel.apply(&update.ops);
                let mut fresh = Kernel::default();
                fresh.apply(&program.rebuild());
                prop_assert_eq!(&kernel, &fresh);
            }
        }
    }
}
