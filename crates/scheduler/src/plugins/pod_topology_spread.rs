//! Spreads pods over the domains of a topology: no domain may have too many more than the one with the
//! fewest (`DoNotSchedule`), or should not (`ScheduleAnyway`).
//!
//! Pods without constraints of their own are spread by what their Services and controllers select.

use crate::framework::{Look, MAX_SCORE, NodeFilter, NodeScore, Plugin, Unfit};
use crate::plugins::Settings;
use crate::queue::{Event, Events, Hint};
use crate::table::{Namespaces, NodeInfo, Slot, Table};
use crate::tally::{DomainId, Question, Scope, Tally, Who};
use crate::view::node::ZONE;
use crate::view::{NodeChoice, NodeView, PodView, Spread};
use krate_api::labels::Selector;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// The score of a node that has not all the labels; others are never negative.
const IGNORED: i64 = -1;

/// How pods without constraints of their own are spread.
#[derive(Clone, Debug, Default)]
pub enum Defaulting {
    /// Over nodes and zones, as a preference.
    #[default]
    System,
    /// By these, whose selectors are filled in.
    List(Vec<Spread>),
}

pub struct PodTopologySpread {
    defaults: Vec<Spread>,
    /// Nodes without all the labels are not scored.
    strict_defaults: bool,
}

fn preference(key: &str, max_skew: i64) -> Spread {
    Spread {
        max_skew,
        key: key.to_owned(),
        hard: false,
        selector: Selector::nothing(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    }
}

impl PodTopologySpread {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        match &settings.spread {
            Defaulting::System => {
                Self { defaults: vec![preference(HOSTNAME, 3), preference(ZONE, 5)], strict_defaults: false }
            }
            Defaulting::List(list) => Self { defaults: list.clone(), strict_defaults: true },
        }
    }

    /// The constraints that are (or are not) hard.
    fn constraints<'a>(&self, pod: &'a PodView, table: &Table, hard: bool) -> Vec<Cow<'a, Spread>> {
        if !pod.spread.is_empty() {
            return pod.spread.iter().filter(|c| c.hard == hard).map(Cow::Borrowed).collect();
        }
        let wanted = || self.defaults.iter().filter(|c| c.hard == hard);
        if wanted().next().is_none() {
            return vec![];
        }
        let Some(selector) = table.selectors.of(pod) else { return vec![] };
        wanted().map(|c| Cow::Owned(Spread { selector: selector.clone(), ..c.clone() })).collect()
    }
}

fn tally(table: &Table, pod: &PodView, constraint: &Spread, keys: &[String]) -> Arc<Tally> {
    let choice = || NodeChoice { preferred: vec![], ..pod.choice.clone() };
    table.tally(Question {
        who: Who::Staying { namespace: pod.namespace.clone(), selector: constraint.selector.clone() },
        key: constraint.key.clone(),
        scope: Scope {
            keys: keys.iter().filter(|key| **key != constraint.key).cloned().collect(),
            choice: (constraint.honor_affinity && pod.choice.demands()).then(choice),
            tolerations: constraint.honor_taints.then(|| pod.tolerations.clone()),
        },
    })
}

/// A hard constraint.
#[derive(Clone)]
struct Rule<'a> {
    constraint: Cow<'a, Spread>,
    tally: Arc<Tally>,
    /// 1 if the pod itself counts where it comes to be.
    own: i64,
    /// What is different for the moment.
    moved: Vec<(DomainId, i64)>,
}

impl Rule<'_> {
    fn holds(&self, node: &NodeInfo) -> bool {
        let domains = self.tally.len().0 as i64;
        let least = self.tally.least(&self.moved).unwrap_or(0);
        let least = if domains < self.constraint.min_domains { 0 } else { least };
        let there = self.tally.domain(node.slot).map_or(0, |domain| {
            let moved = self.moved.iter().filter(|(moved, _)| *moved == domain).map(|(_, by)| by);
            self.tally.pods(domain) + moved.sum::<i64>()
        });
        there + self.own - least <= self.constraint.max_skew
    }

    fn moves(&mut self, other: &PodView, node: &NodeInfo, by: i64, namespaces: &Namespaces) {
        let Some(domain) = self.tally.domain(node.slot) else { return };
        if !self.tally.includes(other, namespaces) {
            return;
        }
        match self.moved.iter_mut().find(|(moved, _)| *moved == domain) {
            Some((_, sum)) => *sum += by,
            None => self.moved.push((domain, by)),
        }
    }
}

#[derive(Clone)]
struct Filter<'a> {
    rules: Vec<Rule<'a>>,
    namespaces: &'a Namespaces,
}

impl NodeFilter for Filter<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        for rule in &self.rules {
            if !node.view.labels.contains_key(&rule.constraint.key) {
                return Err(Unfit::for_good(NO_LABEL));
            }
            if !rule.holds(node) {
                return Err(Unfit::for_now(REASON));
            }
        }
        Ok(())
    }

    fn is_local(&self) -> bool {
        false
    }

    fn add(&mut self, other: &PodView, node: &NodeInfo) {
        self.rules.iter_mut().for_each(|rule| rule.moves(other, node, 1, self.namespaces));
    }

    fn remove(&mut self, other: &PodView, node: &NodeInfo) {
        self.rules.iter_mut().for_each(|rule| rule.moves(other, node, -1, self.namespaces));
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

/// A soft constraint.
struct Wish {
    key: String,
    tally: Arc<Tally>,
    max_skew: i64,
    /// The more domains, the more a pod in one of them weighs.
    weight: f64,
}

struct Score {
    wishes: Vec<Wish>,
    strict: bool,
}

fn has_all<'a>(node: &NodeView, mut keys: impl Iterator<Item = &'a String>) -> bool {
    keys.all(|key| node.labels.contains_key(key))
}

impl NodeScore for Score {
    fn score(&self, node: &NodeInfo) -> i64 {
        if self.strict && !has_all(&node.view, self.wishes.iter().map(|wish| &wish.key)) {
            return IGNORED;
        }
        let of = |wish: &Wish| {
            let pods = wish.tally.domain(node.slot).map_or(0, |domain| wish.tally.pods(domain));
            pods as f64 * wish.weight + (wish.max_skew - 1) as f64
        };
        let there = self.wishes.iter().filter(|wish| node.view.labels.contains_key(&wish.key));
        there.map(of).sum::<f64>().round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let scored = || scores.iter().copied().filter(|score| *score != IGNORED);
        let (min, max) = (scored().min().unwrap_or(0), scored().max().unwrap_or(0));
        for score in scores {
            *score = match *score {
                IGNORED => 0,
                _ if max == 0 => MAX_SCORE,
                score => MAX_SCORE * (max + min - score) / max,
            };
        }
    }

    fn is_local(&self) -> bool {
        false
    }
}

/// Number of domains that the fitting nodes are in.
fn size(tally: &Tally, key: &str, fitting: &[Slot]) -> usize {
    let domains = fitting.iter().filter_map(|slot| tally.domain(*slot));
    if key == HOSTNAME { fitting.len() } else { domains.collect::<HashSet<_>>().len() }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, table: &'a Table) -> Look<'a> {
        let constraints = self.constraints(pod, table, true);
        if constraints.is_empty() {
            return Look::Skip;
        }
        let keys: Vec<String> = constraints.iter().map(|c| c.key.clone()).collect();
        let rule = |constraint: Cow<'a, Spread>| Rule {
            tally: tally(table, pod, &constraint, &keys),
            own: i64::from(constraint.selector.matches(&pod.labels)),
            moved: vec![],
            constraint,
        };
        let rules = constraints.into_iter().map(rule).collect();
        Look::Filter(Box::new(Filter { rules, namespaces: table.namespaces() }))
    }

    fn score<'a>(
        &'a self,
        pod: &'a PodView,
        table: &'a Table,
        fitting: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        let constraints = self.constraints(pod, table, false);
        if constraints.is_empty() {
            return None;
        }
        let strict = !pod.spread.is_empty() || self.strict_defaults;
        let keys: Vec<String> =
            if strict { constraints.iter().map(|c| c.key.clone()).collect() } else { vec![] };
        let complete = |slot: &&Slot| !strict || has_all(&table.node(**slot).view, keys.iter());
        let fitting: Vec<Slot> = fitting.iter().filter(complete).copied().collect();
        let wish = |constraint: Cow<'a, Spread>| {
            let tally = tally(table, pod, &constraint, &keys);
            let weight = (size(&tally, &constraint.key, &fitting) as f64 + 2.0).ln();
            Wish { key: constraint.key.clone(), max_skew: constraint.max_skew, tally, weight }
        };
        Some(Box::new(Score { wishes: constraints.into_iter().map(wish).collect(), strict }))
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD
            | Events::NODE_LABEL
            | Events::NODE_TAINT
            | Events::NODE_DELETE
            | Events::POD_ASSIGNED
            | Events::POD_DELETE
            | Events::POD_LABEL
            | Events::ITSELF
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        // what the defaults demand is known to the table only
        if pod.spread.is_empty() {
            return Hint::Queue;
        }
        let hard = || pod.spread.iter().filter(|c| c.hard);
        let counts = |other: &PodView, c: &Spread| {
            other.namespace == pod.namespace && c.selector.matches(&other.labels)
        };
        let complete = |node: &NodeView| has_all(node, hard().map(|c| &c.key));
        match event {
            Event::PodAssigned(other) | Event::PodDeleted(other) => hard().any(|c| counts(other, c)).into(),
            Event::PodChanged { old, new } => hard().any(|c| counts(old, c) != counts(new, c)).into(),
            Event::ItselfChanged { old, new } => (old.labels != new.labels).into(),
            Event::NodeAdded(node) => complete(node).into(),
            Event::NodeChanged { old, new } => {
                let counts_otherwise = old.labels != new.labels || old.taints != new.taints;
                (counts_otherwise && (complete(old) || complete(new))).into()
            }
            _ => Hint::Queue,
        }
    }
}

#[cfg(test)]
mod tests;
