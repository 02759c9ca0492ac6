//! Places pods near to or away from other pods: what the pod demands and prefers of those that are there,
//! and what those demand and prefer of it.

use crate::framework::{Look, MAX_SCORE, NodeFilter, NodeScore, Plugin, Unfit};
use crate::plugins::Settings;
use crate::queue::{Event, Events, Hint};
use crate::table::{Namespaces, NodeInfo, Slot, Table};
use crate::tally::{Load, Question, Scope, Tally, Who};
use crate::view::{NodeView, PodTerm, PodView};
use std::collections::HashMap;
use std::sync::Arc;

const NO_AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const OTHERS_ANTI_AFFINITY: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

pub struct InterPodAffinity {
    /// What a pod's required affinity counts when others are scored.
    hard_weight: i64,
    /// What pods that are there prefer does not count.
    ignore_others: bool,
}

impl InterPodAffinity {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            hard_weight: settings.hard_pod_affinity_weight,
            ignore_others: settings.ignore_preferred_terms_of_existing_pods,
        }
    }
}

fn tally(table: &Table, key: &str, terms: Vec<PodTerm>) -> Arc<Tally> {
    table.tally(Question { who: Who::Meant(terms), key: key.to_owned(), scope: Scope::default() })
}

fn is_about(term: &PodTerm, pod: &PodView, namespaces: &Namespaces) -> bool {
    term.matches(&pod.namespace, namespaces.labels(&pod.namespace), &pod.labels)
}

/// The pods that one term is about, by domain.
#[derive(Clone)]
struct Counted<'a> {
    key: &'a str,
    tally: Arc<Tally>,
    /// What is different for the moment, on the node that is tried.
    moved: i64,
}

impl Counted<'_> {
    fn pods(&self, node: &NodeInfo) -> i64 {
        self.tally.domain(node.slot).map_or(0, |domain| self.tally.pods(domain)) + self.moved
    }

    fn moves(&mut self, other: &PodView, node: &NodeInfo, by: i64, namespaces: &Namespaces) {
        if self.tally.domain(node.slot).is_some() && self.tally.includes(other, namespaces) {
            self.moved += by;
        }
    }
}

/// Pods that are there and want to be away from such pods.
#[derive(Clone)]
struct Others<'a> {
    term: &'a PodTerm,
    domains: &'a HashMap<String, Load>,
}

/// Changes are tried on one node at a time: what moves, moves there.
#[derive(Clone)]
struct Filter<'a> {
    pod: &'a PodView,
    namespaces: &'a Namespaces,
    affinity: Vec<Counted<'a>>,
    anti: Vec<Counted<'a>>,
    others: Vec<Others<'a>>,
    /// Labels by which pods that were moved want to be away from this one, and how many more.
    others_moved: Vec<(String, String, i64)>,
    /// All of the pod's own terms are about the pod itself.
    is_first: bool,
}

impl Filter<'_> {
    fn is_near(&self, node: &NodeInfo) -> bool {
        if self.affinity.iter().any(|c| !node.view.labels.contains_key(c.key)) {
            return false;
        }
        let all = self.affinity.iter().all(|c| c.pods(node) > 0);
        // the first of a group that wants to be together has to begin somewhere
        all || (self.is_first && self.affinity.iter().all(|c| c.tally.total() + c.moved <= 0))
    }

    fn is_wanted_away(&self, node: &NodeInfo) -> bool {
        let moved = |key: &str, value: &str| -> i64 {
            self.others_moved.iter().filter(|(k, v, _)| k == key && v == value).map(|(_, _, by)| by).sum()
        };
        let there = |key: &str| node.view.labels.get(key);
        let mut keys: Vec<(&str, i64)> = Vec::new();
        for other in &self.others {
            let Some(value) = there(&other.term.key) else { continue };
            let pods = other.domains.get(value).map_or(0, |load| load.pods);
            match keys.iter_mut().find(|(key, _)| *key == other.term.key) {
                Some((_, sum)) => *sum += pods,
                None => keys.push((&other.term.key, pods)),
            }
        }
        for (key, _, _) in &self.others_moved {
            if !keys.iter().any(|(known, _)| known == key) {
                keys.push((key, 0));
            }
        }
        keys.iter().any(|(key, pods)| there(key).is_some_and(|value| pods + moved(key, value) > 0))
    }

    fn moves(&mut self, other: &PodView, node: &NodeInfo, by: i64) {
        let namespaces = self.namespaces;
        self.affinity.iter_mut().for_each(|c| c.moves(other, node, by, namespaces));
        self.anti.iter_mut().for_each(|c| c.moves(other, node, by, namespaces));
        for term in other.affinity.iter().flat_map(|affinity| &affinity.required_anti) {
            if let Some(value) = node.view.labels.get(&term.key)
                && is_about(term, self.pod, namespaces)
            {
                self.others_moved.push((term.key.clone(), value.clone(), by));
            }
        }
    }
}

impl NodeFilter for Filter<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if !self.affinity.is_empty() && !self.is_near(node) {
            return Err(Unfit::for_good(NO_AFFINITY));
        }
        if self.anti.iter().any(|c| c.pods(node) > 0) {
            return Err(Unfit::for_now(ANTI_AFFINITY));
        }
        let is_free = self.others.is_empty() && self.others_moved.is_empty();
        if !is_free && self.is_wanted_away(node) {
            return Err(Unfit::for_now(OTHERS_ANTI_AFFINITY));
        }
        Ok(())
    }

    fn is_local(&self) -> bool {
        false
    }

    fn add(&mut self, other: &PodView, node: &NodeInfo) {
        self.moves(other, node, 1);
    }

    fn remove(&mut self, other: &PodView, node: &NodeInfo) {
        self.moves(other, node, -1);
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

/// One term's part of the scores.
enum Wish<'a> {
    /// Of the pod: so much for each pod that the term is about.
    Own(i64, Arc<Tally>),
    /// Of the pods that are there.
    Others(&'a str, &'a HashMap<String, Load>, i64),
}

struct Score<'a>(Vec<Wish<'a>>);

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let of = |wish: &Wish<'_>| match wish {
            Wish::Own(weight, tally) => {
                tally.domain(node.slot).map_or(0, |domain| tally.pods(domain) * weight)
            }
            Wish::Others(key, domains, weight) => {
                let load = node.view.labels.get(*key).and_then(|value| domains.get(value));
                load.map_or(0, |load| load.weight * weight)
            }
        };
        self.0.iter().map(of).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (min, max) = (scores.iter().min().copied(), scores.iter().max().copied());
        let (Some(min), Some(max)) = (min, max) else { return };
        for score in scores {
            let part = if max == min { 0.0 } else { (*score - min) as f64 / (max - min) as f64 };
            *score = (MAX_SCORE as f64 * part) as i64;
        }
    }

    fn is_local(&self) -> bool {
        false
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, table: &'a Table) -> Look<'a> {
        let namespaces = table.namespaces();
        let others: Vec<_> = (table.carried().required_anti.iter())
            .filter(|(term, _)| is_about(term, pod, namespaces))
            .map(|(term, domains)| Others { term, domains })
            .collect();
        let own = pod.affinity.as_deref();
        let (required, anti) = own.map_or((&[][..], &[][..]), |own| (&own.required[..], &own.required_anti));
        if required.is_empty() && anti.is_empty() && others.is_empty() {
            return Look::Skip;
        }
        let counted =
            |key: &'a str, terms: Vec<PodTerm>| Counted { key, tally: tally(table, key, terms), moved: 0 };
        Look::Filter(Box::new(Filter {
            pod,
            namespaces,
            affinity: required.iter().map(|term| counted(&term.key, required.to_vec())).collect(),
            anti: anti.iter().map(|term| counted(&term.key, vec![term.clone()])).collect(),
            others,
            others_moved: vec![],
            is_first: required.iter().all(|term| is_about(term, pod, namespaces)),
        }))
    }

    fn score<'a>(
        &'a self,
        pod: &'a PodView,
        table: &'a Table,
        _: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        let (namespaces, carried) = (table.namespaces(), table.carried());
        let own = pod.affinity.iter().flat_map(|affinity| &affinity.preferred);
        let mut wishes: Vec<Wish<'a>> = own
            .map(|(weight, term)| Wish::Own(*weight, tally(table, &term.key, vec![term.clone()])))
            .collect();
        if !wishes.is_empty() || !self.ignore_others {
            let required = carried.required.iter().map(|(term, domains)| (term, domains, self.hard_weight));
            let preferred = carried.preferred.iter().map(|(term, domains)| (term, domains, 1));
            let about = required
                .chain(preferred)
                .filter(|(term, _, weight)| *weight != 0 && is_about(term, pod, namespaces));
            wishes.extend(about.map(|(term, domains, weight)| Wish::Others(&term.key, domains, weight)));
        }
        (!wishes.is_empty()).then(|| Box::new(Score(wishes)) as Box<dyn NodeScore + 'a>)
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD
            | Events::NODE_LABEL
            | Events::POD_ASSIGNED
            | Events::POD_DELETE
            | Events::POD_LABEL
            | Events::ITSELF
            | Events::NAMESPACE
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        let own = pod.affinity.as_deref();
        let required = || own.into_iter().flat_map(|own| &own.required);
        let anti = || own.into_iter().flat_map(|own| &own.required_anti);
        let is_wanted = |other: &PodView| required().all(|t| t.may_match(&other.namespace, &other.labels));
        let is_shunned = |other: &PodView| {
            let theirs = other.affinity.iter().flat_map(|theirs| &theirs.required_anti);
            anti().any(|term| term.may_match(&other.namespace, &other.labels))
                || theirs.into_iter().any(|term| term.may_match(&pod.namespace, &pod.labels))
        };
        let has_keys = |node: &NodeView| required().all(|term| node.labels.contains_key(&term.key));
        match event {
            Event::PodAssigned(other) => (required().next().is_some() && is_wanted(other)).into(),
            // the last pod of a group that goes lets another begin elsewhere
            Event::PodDeleted(other) => {
                (is_shunned(other) || (required().next().is_some() && is_wanted(other))).into()
            }
            Event::PodChanged { old, new } => {
                let is_new = required().next().is_some() && is_wanted(new) && !is_wanted(old);
                (is_new || (is_shunned(old) && !is_shunned(new))).into()
            }
            Event::ItselfChanged { old, new } => (old.labels != new.labels).into(),
            Event::NodeAdded(node) => has_keys(node).into(),
            // any label may be the key of a pod that wants this one away
            Event::NodeChanged { old, new } => (has_keys(new) && old.labels != new.labels).into(),
            _ => Hint::Queue,
        }
    }
}

#[cfg(test)]
mod tests;
