//! What is programmed, and the difference to what is wanted: pure.
//!
//! [`Program`] remembers what every Service asked for and what the kernel was told. An update yields the
//! few operations that lead from one to the other; a rebuild yields the whole table in one transaction.
//! Chains that choose are shared and counted; those that nothing uses any more stay for a while, because to
//! make one costs the kernel a walk over its maps.

use super::change::Difference;
use super::groups::Numbered;
use super::layout::{Chosen, FIRST_STICKY, HAIRPINS, Layout, Pick, Picker, Way};
use super::plan::{Backend, Frontend, GroupKey, Plan, ServicePlan};
use crate::nft::{Element, Family, Op};
use crate::views::Protocol;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Most chains that are kept for nobody.
const IDLE_PICKERS: usize = 64;

/// The state of one family's table.
pub struct Program {
    layout: Layout,
    services: HashMap<String, Arc<ServicePlan>>,
    /// Who asks for a frontend. Two Services may (with the same external address): the first by name wins.
    claims: HashMap<Frontend, BTreeSet<String>>,
    programmed: HashMap<Frontend, Programmed>,
    /// The endpoints, by Service.
    groups: HashMap<String, BTreeMap<GroupKey, Numbered>>,
    /// The number of the group that was made last.
    last_group: u32,
    /// How many frontends use a chain; 0 for those that are kept.
    pickers: BTreeMap<Picker, usize>,
    /// The numbers of picks with affinity.
    sticky: BTreeMap<Pick, u32>,
    hairpins: HashMap<IpAddr, usize>,
}

/// What the kernel was told of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Programmed {
    elements: Vec<(&'static str, Element)>,
    pickers: Vec<Picker>,
    /// Who asked for it.
    service: String,
}

/// Datagram connections to a frontend that must be forgotten: those that are not with one of `keep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    pub frontend: Frontend,
    pub keep: BTreeSet<Backend>,
}

/// What an update asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub ops: Vec<Op>,
    pub stale: Vec<Stale>,
}

impl Program {
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            services: HashMap::new(),
            claims: HashMap::new(),
            programmed: HashMap::new(),
            groups: HashMap::new(),
            last_group: 0,
            pickers: BTreeMap::new(),
            sticky: BTreeMap::new(),
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
        changes: impl IntoIterator<Item = (&'a str, Option<Arc<ServicePlan>>)>,
    ) -> Update {
        let mut touched = Touched::default();
        let (mut change, mut stale) = (Difference::default(), Vec::new());
        let changes: BTreeMap<&str, _> = changes.into_iter().collect();
        for (service, plan) in changes {
            let plan = plan.filter(|p| !p.is_empty());
            self.regroup(service, plan.as_deref(), &mut change);
            self.claim(service, plan, &mut touched);
        }
        for frontend in std::mem::take(&mut touched.frontends) {
            stale.extend(self.reprogram(frontend, &touched.before, &mut change));
        }
        for (pod, had) in touched.hairpins {
            let element = self.layout.hairpin(pod);
            match (had, self.hairpins.contains_key(&pod)) {
                (true, false) => change.remove(HAIRPINS, element),
                (false, true) => change.add(HAIRPINS, element),
                _ => {}
            }
        }
        self.keep_few_idle(&mut change);
        Update { ops: change.ops(&self.layout), stale }
    }

    /// The whole table as it should be, in place of whatever the kernel has.
    #[must_use]
    pub fn rebuild(&self) -> Vec<Op> {
        let mut change = Difference::making(self.pickers.keys().copied());
        for (set, element) in self.programmed.values().flat_map(|p| &p.elements) {
            change.add(set, element.clone());
        }
        for group in self.groups.values().flat_map(BTreeMap::values) {
            group.elements().for_each(|(set, element)| change.add(set, element));
        }
        for pod in self.hairpins.keys() {
            change.add(HAIRPINS, self.layout.hairpin(*pod));
        }
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

    /// Brings a Service's groups to what it asks for.
    fn regroup(&mut self, service: &str, plan: Option<&ServicePlan>, change: &mut Difference) {
        let family = self.layout.family;
        let mut old = self.groups.remove(service).unwrap_or_default();
        let mut new = BTreeMap::new();
        for (key, group) in plan.iter().flat_map(|p| &p.groups).filter(|(key, _)| key.family == family) {
            let mut numbered = old.remove(key).unwrap_or_else(|| {
                self.last_group = self.last_group.wrapping_add(1).max(1);
                Numbered::new(self.last_group)
            });
            numbered.change(group, change);
            new.insert(key.clone(), numbered);
        }
        for group in old.values() {
            group.elements().for_each(|(set, element)| change.remove(set, element));
        }
        if !new.is_empty() {
            self.groups.insert(service.to_owned(), new);
        }
    }

    fn claim(&mut self, service: &str, plan: Option<Arc<ServicePlan>>, touched: &mut Touched) {
        let family = self.layout.family;
        let old = self.services.remove(service);
        let frontends = |plan: &Option<Arc<ServicePlan>>| -> Vec<Frontend> {
            plan.iter().flat_map(|p| p.frontends.keys()).filter(|f| f.family == family).copied().collect()
        };
        let pods = |plan: &Option<Arc<ServicePlan>>| -> Vec<IpAddr> {
            plan.iter().flat_map(|p| &p.hairpins).filter(|pod| Family::of(**pod) == family).copied().collect()
        };
        for frontend in frontends(&old) {
            if let Some(claims) = self.claims.get_mut(&frontend) {
                claims.remove(service);
                if claims.is_empty() {
                    self.claims.remove(&frontend);
                }
            }
            touched.frontends.insert(frontend);
        }
        for frontend in frontends(&plan) {
            self.claims.entry(frontend).or_default().insert(service.to_owned());
            touched.frontends.insert(frontend);
        }
        let (had, has) = (pods(&old), pods(&plan));
        for pod in had.iter().chain(&has) {
            // What counts is whether the pod was there before the first of this update's changes.
            touched.hairpins.entry(*pod).or_insert_with(|| self.hairpins.contains_key(pod));
        }
        for pod in has {
            *self.hairpins.entry(pod).or_default() += 1;
        }
        for pod in had {
            release(&mut self.hairpins, &pod);
        }
        touched.before.entry(service.to_owned()).or_insert(old);
        if let Some(plan) = plan {
            self.services.insert(service.to_owned(), plan);
        }
    }

    /// Brings one frontend to what its first claimant asks for; tells what is to be forgotten.
    fn reprogram(&mut self, frontend: Frontend, before: &Before, change: &mut Difference) -> Option<Stale> {
        let owner = self.claims.get(&frontend).and_then(|c| c.first()).cloned();
        let plan = owner.as_ref().and_then(|o| self.services.get(o)).cloned();
        let asks = plan.as_ref().zip(owner.as_ref());
        let wanted = asks.and_then(|(plan, owner)| self.wanted(&frontend, plan, owner));
        let old = self.programmed.remove(&frontend);
        let plan_before = old.as_ref().and_then(|o| match before.get(&o.service) {
            Some(before) => before.as_deref(),
            None => self.services.get(&o.service).map(|plan| &**plan),
        });
        let stale = stale(frontend, plan_before, plan.as_deref());
        if old == wanted {
            self.programmed.extend(wanted.map(|w| (frontend, w)));
            return stale;
        }
        for picker in wanted.iter().flat_map(|w| &w.pickers) {
            let uses = self.pickers.entry(*picker).or_insert_with(|| {
                change.made.insert(*picker);
                0
            });
            *uses += 1;
        }
        for picker in old.iter().flat_map(|o| &o.pickers) {
            if let Some(uses) = self.pickers.get_mut(picker) {
                *uses -= 1;
            }
        }
        for (set, element) in old.into_iter().flat_map(|o| o.elements) {
            change.remove(set, element);
        }
        if let Some(wanted) = wanted {
            wanted.elements.iter().for_each(|(set, element)| change.add(set, element.clone()));
            self.programmed.insert(frontend, wanted);
        }
        stale
    }

    /// What the kernel is to know of a frontend that a Service asks for.
    fn wanted(&mut self, frontend: &Frontend, plan: &ServicePlan, owner: &str) -> Option<Programmed> {
        let asked = plan.frontends.get(frontend)?;
        let mut chosen = Vec::new();
        if let Plan::Serve(serve) = asked {
            for (key, second) in serve.groups(frontend.family).zip([false, true]) {
                let group = self.groups.get(owner)?.get(&key)?;
                let (group, pick) = (group.number(), group.pick());
                let (number, pick) = self.number(pick);
                let way = Way { node_port: frontend.address.is_none(), second };
                chosen.push(Chosen { group, picker: Picker { number, pick, way } });
            }
        }
        let elements = self.layout.frontend(frontend, asked, &chosen);
        let pickers = chosen.into_iter().map(|c| c.picker).collect();
        Some(Programmed { elements, pickers, service: owner.to_owned() })
    }

    /// The number of a pick. If there are more with affinity than numbers, the rest does without.
    fn number(&mut self, pick: Pick) -> (u32, Pick) {
        let plain = Pick { sticky: None, ..pick };
        if pick.sticky.is_none() {
            return (plain.plain_number(), plain);
        }
        if let Some(number) = self.sticky.get(&pick) {
            return (*number, pick);
        }
        let taken: BTreeSet<u32> = self.sticky.values().copied().collect();
        match (FIRST_STICKY..Pick::MOST).find(|n| !taken.contains(n)) {
            Some(number) => {
                self.sticky.insert(pick, number);
                (number, pick)
            }
            None => (plain.plain_number(), plain),
        }
    }

    fn keep_few_idle(&mut self, change: &mut Difference) {
        let idle = || self.pickers.iter().filter(|(_, uses)| **uses == 0).map(|(picker, _)| *picker);
        if idle().count() <= IDLE_PICKERS {
            return;
        }
        for picker in idle().collect::<Vec<_>>() {
            self.pickers.remove(&picker);
            if !change.made.remove(&picker) {
                change.unmade.insert(picker);
            }
        }
        let used: BTreeSet<u32> = self.pickers.keys().map(|picker| picker.number).collect();
        self.sticky.retain(|_, number| used.contains(number));
    }
}

/// What Services asked for before an update; `None` for those that are new.
type Before = HashMap<String, Option<Arc<ServicePlan>>>;

/// What an update may have changed.
#[derive(Default)]
struct Touched {
    frontends: BTreeSet<Frontend>,
    /// Pods, and whether they were there before.
    hairpins: BTreeMap<IpAddr, bool>,
    before: Before,
}

fn release(counts: &mut HashMap<IpAddr, usize>, pod: &IpAddr) {
    if let Some(count) = counts.get_mut(pod) {
        *count -= 1;
        if *count == 0 {
            counts.remove(pod);
        }
    }
}

/// Connections of datagrams live on after their endpoint, or without one, as long as packets come: they are
/// to be forgotten when an endpoint goes, and when a frontend begins to be served.
fn stale(frontend: Frontend, old: Option<&ServicePlan>, new: Option<&ServicePlan>) -> Option<Stale> {
    if frontend.protocol != Protocol::Udp {
        return None;
    }
    let backends = |plan: Option<&ServicePlan>| plan.map(|p| p.backends(&frontend)).unwrap_or_default();
    let (before, after) = (backends(old), backends(new));
    let begins = before.is_empty() && !after.is_empty();
    (begins || !before.is_subset(&after)).then_some(Stale { frontend, keep: after })
}

#[cfg(test)]
mod tests {
    use super::super::layout::TABLE;
    use super::super::plan::{Group, Reach, Scope, Serve};
    use super::*;
    use crate::nft::{self, Size, Transaction, Value};
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

    fn key() -> GroupKey {
        GroupKey { port: String::new(), family: Family::Ip, scope: Scope::Cluster }
    }

    /// Asks for one frontend with `n` endpoints.
    fn asks(port: u16, n: u8) -> Arc<ServicePlan> {
        let serve = Serve { reach: Reach::Inside, port: String::new(), near: false, sources: vec![] };
        let mut asked = ServicePlan {
            frontends: [(frontend(port), if n == 0 { Plan::Reject } else { Plan::Serve(serve) })].into(),
            hairpins: backends(n).into_iter().map(|(ip, _)| ip).collect(),
            ..ServicePlan::default()
        };
        if n > 0 {
            let sticky = n.is_multiple_of(2).then_some(10);
            asked.groups.insert(key(), Group { backends: backends(n), sticky });
        }
        Arc::new(asked)
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
            program.update([(format!("a/{i}").as_str(), Some(asks(i, 3)))]);
        }
        let mut changed = (*asks(7, 3)).clone();
        changed.groups.get_mut(&key()).unwrap().backends[2] = ("10.1.0.9".parse().unwrap(), 80);
        let update = program.update([("a/7", Some(Arc::new(changed)))]);
        let sizes: Vec<_> = update
            .ops
            .iter()
            .map(|op| match op {
                Op::AddElements { set, elements } => format!("+{set} {}", elements.len()),
                Op::DeleteElements { set, elements } => format!("-{set} {}", elements.len()),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, ["-endpoints 1", "+endpoints 1"]);
        assert_eq!(update.stale.len(), 1, "datagram connections to the endpoint that went are forgotten");
    }

    /// A Service with many frontends, which stays with its clients, and its endpoints.
    fn thousands(range: std::ops::Range<u16>) -> Arc<ServicePlan> {
        let ip = |i: u16| IpAddr::from([10, 1, (i >> 8).to_be_bytes()[1], i.to_be_bytes()[1]]);
        let mut asked = (*asks(1, 2)).clone();
        let served = asked.frontends[&frontend(1)].clone();
        asked.frontends = (1..65).map(|port| (frontend(port), served.clone())).collect();
        asked.groups.get_mut(&key()).unwrap().backends = range.map(|i| (ip(i), 80)).collect();
        asked.hairpins.clear();
        Arc::new(asked)
    }

    fn size(ops: Vec<Op>) -> Size {
        nft::size(&[Transaction { family: Family::Ip, table: TABLE, ops }])
    }

    #[test]
    fn one_of_five_thousand_endpoints_costs_as_much_as_one_of_ten() {
        let mut costs = Vec::new();
        for last in [10, 5000] {
            let mut program = program();
            let mut kernel = Kernel::default();
            kernel.apply(&program.rebuild());
            let mut step = |range| {
                let update = program.update([("a/web", Some(thousands(range)))]);
                kernel.apply(&update.ops);
                let mut fresh = Kernel::default();
                fresh.apply(&program.rebuild());
                assert_eq!(kernel, fresh);
                size(update.ops)
            };
            step(0..last);
            // The first goes, one comes, one goes while another comes.
            costs.push([step(1..last), step(1..last + 1), step(2..last + 2)]);
        }
        assert_eq!(costs[0], costs[1]);
        let handful = |size: &Size| size.elements <= 4 && size.messages <= 4 && size.bytes < 1000;
        assert!(costs[1].iter().all(handful), "{costs:?}");
    }

    #[test]
    fn one_of_five_thousand_services_is_a_few_elements() {
        let mut program = program();
        let all: Vec<_> = (1..5001).map(|i| (format!("a/{i}"), asks(i, 3))).collect();
        program.update(all.iter().map(|(name, asked)| (name.as_str(), Some(asked.clone()))));
        let gone = size(program.update([("a/77", None)]).ops);
        let back = size(program.update([("a/77", Some(asks(77, 3)))]).ops);
        for size in [gone, back] {
            assert_eq!((size.elements, size.messages), (5, 3), "the frontend, its group, three endpoints");
        }
    }

    #[test]
    fn chains_are_kept_for_later_but_not_all() {
        let mut program = program();
        let mut kernel = Kernel::default();
        kernel.apply(&program.rebuild());
        let with = |sticky| {
            let mut asked = (*asks(1, 2)).clone();
            asked.groups.get_mut(&key()).unwrap().sticky = Some(sticky);
            Some(Arc::new(asked))
        };
        for seconds in 1..500 {
            kernel.apply(&program.update([("a/web", with(seconds))]).ops);
            assert!(program.pickers.len() <= IDLE_PICKERS + 2);
        }
        let makes_a_chain = |ops: &[Op]| ops.iter().any(|op| matches!(op, Op::AddChain { .. }));
        assert!(makes_a_chain(&program.update([("a/web", with(700))]).ops));
        assert!(!makes_a_chain(&program.update([("a/web", with(499))]).ops));
    }

    #[test]
    fn nothing_changes_nothing() {
        let mut program = program();
        program.update([("a/web", Some(asks(1, 3)))]);
        assert_eq!(program.update([("a/web", Some(asks(1, 3)))]), Update::default());
    }

    #[test]
    fn the_first_claimant_wins_and_the_next_follows() {
        let mut program = program();
        program.update([("a/two", Some(asks(1, 2)))]);
        assert!(!program.update([("a/one", Some(asks(1, 1)))]).ops.is_empty());
        assert_eq!(program.programmed[&frontend(1)].service, "a/one");
        program.update([("a/one", None)]);
        assert_eq!(program.programmed[&frontend(1)].service, "a/two");
        program.update([("a/two", None)]);
        assert!(program.is_empty() && program.groups.is_empty() && program.hairpins.is_empty());
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
                let update = program.update(plans.iter().map(|(s, p)| (s.as_str(), p.clone())));
                kernel.apply(&update.ops);
                let mut fresh = Kernel::default();
                fresh.apply(&program.rebuild());
                prop_assert_eq!(&kernel, &fresh);
            }
        }
    }
}
