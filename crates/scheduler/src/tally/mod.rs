//! How many pods of some description are in each domain of a topology: what topology spread and affinity
//! between pods are judged by.
//!
//! A tally is made over all nodes when a plugin first asks its [`Question`] and follows every change of the
//! table from then on, so that an answer costs nothing per pod or node of the cluster. The invariant: it
//! equals what a new count over the table would give. It knows no rule of any plugin.

mod carried;
mod selectors;

pub use carried::{Carried, Load};
pub use selectors::{Owner, Selectors, Selects, controller};

use crate::table::{Namespaces, NodeInfo, Slot};
use crate::view::{NodeChoice, NodeView, PodTerm, PodView, Toleration, repelled};
use krate_api::labels::Selector;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most tallies that are kept; the one unused for longest goes first.
const TALLIES: usize = 256;
/// The domain of nodes that are not in any.
const NOWHERE: u32 = u32::MAX;

/// What is counted, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    pub who: Who,
    /// The label of nodes whose values are the domains.
    pub key: String,
    pub scope: Scope,
}

/// Which pods count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Those of a namespace with such labels that are not being deleted.
    Staying { namespace: Arc<str>, selector: Selector },
    /// Those that all of the terms are about.
    Meant(Vec<PodTerm>),
}

impl Who {
    #[must_use]
    pub fn includes(&self, pod: &PodView, namespaces: &Namespaces) -> bool {
        match self {
            Self::Staying { namespace, selector } => {
                *namespace == pod.namespace && !pod.deleting && selector.matches(&pod.labels)
            }
            Self::Meant(terms) => {
                let labels = namespaces.labels(&pod.namespace);
                terms.iter().all(|term| term.matches(&pod.namespace, labels, &pod.labels))
            }
        }
    }

    fn depends_on_namespaces(&self) -> bool {
        matches!(self, Self::Meant(terms) if terms.iter().any(|term| term.namespace_selector.is_some()))
    }
}

/// Which nodes count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Labels that they must have beside the key.
    pub keys: Vec<String>,
    pub choice: Option<NodeChoice>,
    /// Taints that are not tolerated exclude a node.
    pub tolerations: Option<Vec<Toleration>>,
}

impl Scope {
    fn admits(&self, node: &NodeView) -> bool {
        self.keys.iter().all(|key| node.labels.contains_key(key))
            && self.choice.as_ref().is_none_or(|choice| choice.accepts(&node.name, &node.labels))
            && self.tolerations.as_ref().is_none_or(|tolerations| !repelled(tolerations, &node.taints))
    }
}

/// Index of a domain in a tally.
pub type DomainId = u32;

#[derive(Clone, Debug, Default)]
struct Domain {
    value: String,
    nodes: usize,
    pods: i64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    domain: DomainId,
    pods: i64,
}

const NO_PLACE: Place = Place { domain: NOWHERE, pods: 0 };

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct Tally {
    question: Arc<Question>,
    places: Vec<Place>,
    domains: Vec<Domain>,
    free: Vec<DomainId>,
    ids: HashMap<String, DomainId>,
    /// How many domains have so many pods.
    levels: BTreeMap<i64, usize>,
    total: i64,
}

impl Tally {
    fn new(question: Arc<Question>) -> Self {
        Self {
            question,
            places: Vec::new(),
            domains: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
            levels: BTreeMap::new(),
            total: 0,
        }
    }

    /// Whether a pod is one of those that are counted.
    #[must_use]
    pub fn includes(&self, pod: &PodView, namespaces: &Namespaces) -> bool {
        self.question.who.includes(pod, namespaces)
    }

    /// The domain of a node that counts.
    #[must_use]
    pub fn domain(&self, slot: Slot) -> Option<DomainId> {
        self.places.get(slot).map(|place| place.domain).filter(|domain| *domain != NOWHERE)
    }

    /// The pods in a domain.
    #[must_use]
    pub fn pods(&self, domain: DomainId) -> i64 {
        self.domains[domain as usize].pods
    }

    /// Number of domains; upper bound of their indexes.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.ids.len(), self.domains.len())
    }

    /// The pods in all domains together.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.total
    }

    /// The pods in the domain with the fewest, if some domains had so many more or fewer. None if there is
    /// no domain.
    #[must_use]
    pub fn least(&self, moved: &[(DomainId, i64)]) -> Option<i64> {
        let after = moved.iter().map(|(domain, by)| self.pods(*domain) + by).min();
        let unmoved = self.levels.iter().find_map(|(pods, domains)| {
            let gone = moved.iter().filter(|(domain, _)| self.pods(*domain) == *pods).count();
            (*domains > gone).then_some(*pods)
        });
        unmoved.into_iter().chain(after).min()
    }

    /// The pods by the domain's value, for those who look from outside.
    #[must_use]
    pub fn by_value(&self) -> BTreeMap<&str, i64> {
        self.ids.iter().map(|(value, id)| (value.as_str(), self.pods(*id))).collect()
    }

    fn set_node(&mut self, slot: Slot, node: &NodeInfo, namespaces: &Namespaces) {
        self.forget(slot);
        let question = self.question.clone();
        let Some(value) = node.view.labels.get(&question.key) else { return };
        if !question.scope.admits(&node.view) {
            return;
        }
        let pods = node.pods.iter().filter(|pod| question.who.includes(pod, namespaces)).count() as i64;
        let domain = self.enter(value);
        if self.places.len() <= slot {
            self.places.resize(slot + 1, NO_PLACE);
        }
        self.places[slot] = Place { domain, pods: 0 };
        self.add(slot, pods);
    }

    fn enter(&mut self, value: &str) -> DomainId {
        if let Some(id) = self.ids.get(value) {
            self.domains[*id as usize].nodes += 1;
            return *id;
        }
        let new = Domain { value: value.to_owned(), nodes: 1, pods: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.domains[id as usize] = new;
                id
            }
            None => {
                self.domains.push(new);
                (self.domains.len() - 1) as DomainId
            }
        };
        self.ids.insert(value.to_owned(), id);
        *self.levels.entry(0).or_default() += 1;
        id
    }

    fn forget(&mut self, slot: Slot) {
        let Some(place) = self.places.get(slot).copied().filter(|place| place.domain != NOWHERE) else {
            return;
        };
        self.add(slot, -place.pods);
        self.places[slot] = NO_PLACE;
        let domain = &mut self.domains[place.domain as usize];
        domain.nodes -= 1;
        if domain.nodes == 0 {
            let value = std::mem::take(&mut domain.value);
            self.ids.remove(&value);
            self.free.push(place.domain);
            self.leave(0);
        }
    }

    fn add(&mut self, slot: Slot, pods: i64) {
        let place = &mut self.places[slot];
        if pods == 0 || place.domain == NOWHERE {
            return;
        }
        place.pods += pods;
        let domain = &mut self.domains[place.domain as usize];
        let before = domain.pods;
        domain.pods += pods;
        self.total += pods;
        *self.levels.entry(before + pods).or_default() += 1;
        self.leave(before);
    }

    fn leave(&mut self, level: i64) {
        if let Some(domains) = self.levels.get_mut(&level) {
            *domains -= 1;
            if *domains == 0 {
                self.levels.remove(&level);
            }
        }
    }
}

/// The answers to the questions that were asked last.
#[derive(Default)]
pub struct Tallies {
    turn: u64,
    tallies: HashMap<Arc<Question>, (u64, Arc<Tally>)>,
}

impl Tallies {
    /// The answer; counted over these nodes if nobody has asked before.
    pub fn of<'a>(
        &mut self,
        question: Question,
        nodes: impl Iterator<Item = (Slot, &'a NodeInfo)>,
        namespaces: &Namespaces,
    ) -> Arc<Tally> {
        self.turn += 1;
        if let Some((used, tally)) = self.tallies.get_mut(&question) {
            *used = self.turn;
            return tally.clone();
        }
        if self.tallies.len() >= TALLIES {
            let oldest = self.tallies.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.tallies.remove(&key));
        }
        let question = Arc::new(question);
        let mut tally = Tally::new(question.clone());
        for (slot, node) in nodes {
            tally.set_node(slot, node, namespaces);
        }
        let tally = Arc::new(tally);
        self.tallies.insert(question, (self.turn, tally.clone()));
        tally
    }

    /// A node came or changed.
    pub fn set_node(&mut self, slot: Slot, node: &NodeInfo, namespaces: &Namespaces) {
        self.each().for_each(|tally| tally.set_node(slot, node, namespaces));
    }

    pub fn remove_node(&mut self, slot: Slot) {
        self.each().for_each(|tally| tally.forget(slot));
    }

    /// A pod came to a node (`by` 1) or left it (`by` -1).
    pub fn count(&mut self, slot: Slot, pod: &PodView, by: i64, namespaces: &Namespaces) {
        for (_, tally) in self.tallies.values_mut() {
            if tally.domain(slot).is_some() && tally.includes(pod, namespaces) {
                Arc::make_mut(tally).add(slot, by);
            }
        }
    }

    /// The labels of a namespace have changed: what was counted by them must be counted anew.
    pub fn namespace_changed(&mut self) {
        self.tallies.retain(|question, _| !question.who.depends_on_namespaces());
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Tally> {
        self.tallies.values_mut().map(|(_, tally)| Arc::make_mut(tally))
    }
}

#[cfg(test)]
mod tests;
