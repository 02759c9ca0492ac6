//! One pod's search for a node: filter, score, choose. Pure but for the dice.
//!
//! Pods of one template share their work: what node-local plugins said of a node is remembered beside the
//! node's generation ([`Memo`]) and asked for again only when the node has changed. Plugins whose judgement
//! depends on other nodes are asked every time, after the others. The result is the same with and without
//! the memory.

use crate::diagnosis::Diagnosis;
use crate::framework::{Look, NodeFilter, NodeScore, Unfit};
use crate::memo::{Memo, Verdict};
use crate::nominated::Nominated;
use crate::profile::Profile;
use crate::table::{NodeInfo, Slot, Table};
use crate::view::PodView;
use krate_base::Rng;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Clusters of up to so many nodes are always searched whole.
const MIN_FEASIBLE: usize = 100;
/// The least share of the nodes that is searched, in percent.
const MIN_PERCENTAGE: usize = 5;

/// How many fitting nodes are enough, for a share in percent (`None` adapts to the number of nodes).
#[must_use]
pub fn enough(nodes: usize, percentage: Option<usize>) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let adaptive = || 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE);
    let percentage = percentage.filter(|p| *p > 0).unwrap_or_else(adaptive);
    if percentage >= 100 {
        return nodes;
    }
    (nodes * percentage / 100).max(MIN_FEASIBLE)
}

type Filters<'a> = Vec<(&'static str, Box<dyn NodeFilter + 'a>)>;

/// A pod that is being tried.
pub struct Attempt<'a> {
    pub profile: &'a Profile,
    pub table: &'a Table,
    pub pod: &'a PodView,
    pub nominated: &'a Nominated,
    /// Those whose answers can be remembered, and those that are asked every time.
    local: Filters<'a>,
    others: Filters<'a>,
    /// The only nodes that can fit, if plugins know.
    only: Option<Vec<Slot>>,
    only_said: BTreeSet<&'static str>,
}

/// Nodes that fit, and why the others do not.
#[derive(Default)]
pub struct Found {
    pub fitting: Vec<Slot>,
    pub diagnosis: Diagnosis,
}

impl<'a> Attempt<'a> {
    /// Lets every plugin look at the pod. An error says that no node can fit.
    pub fn new(
        profile: &'a Profile,
        table: &'a Table,
        pod: &'a PodView,
        nominated: &'a Nominated,
    ) -> Result<Self, Diagnosis> {
        let mut attempt = Self {
            profile,
            table,
            pod,
            nominated,
            local: Vec::new(),
            others: Vec::new(),
            only: None,
            only_said: BTreeSet::new(),
        };
        for (plugin, _) in &profile.plugins {
            match plugin.filter(pod, table) {
                Look::Skip => {}
                Look::Filter(filter) => attempt.add(plugin.name(), filter),
                Look::Reject(unfit) => {
                    return Err(Diagnosis {
                        nodes: table.len(),
                        rejection: Some(unfit),
                        plugins: BTreeSet::from([plugin.name()]),
                        ..Diagnosis::default()
                    });
                }
            }
        }
        Ok(attempt)
    }

    fn add(&mut self, name: &'static str, filter: Box<dyn NodeFilter + 'a>) {
        if let Some(names) = filter.only() {
            let slots: Vec<Slot> = names.iter().filter_map(|name| self.table.slot(name)).collect();
            self.only = Some(match self.only.take() {
                None => slots,
                Some(before) => before.into_iter().filter(|slot| slots.contains(slot)).collect(),
            });
            self.only_said.insert(name);
        }
        let filters = if filter.is_local() { &mut self.local } else { &mut self.others };
        filters.push((name, filter));
    }

    /// Searches for nodes, beginning at `start` of the table's order; `start` moves on past the nodes that
    /// were looked at.
    pub fn find(&self, mut memo: Option<&mut Memo>, start: &mut usize) -> Found {
        let mut found = Found::default();
        found.diagnosis.nodes = self.table.len();
        let all = self.table.order();
        let (order, from, wanted) = match &self.only {
            Some(only) => (only.as_slice(), 0, only.len()),
            None => (all, *start % all.len().max(1), enough(all.len(), self.profile.percentage)),
        };
        let mut looked = 0;
        for slot in order[from..].iter().chain(&order[..from]).copied() {
            looked += 1;
            match self.judge(slot, memo.as_deref_mut()) {
                Ok(()) => found.fitting.push(slot),
                Err((plugin, unfit)) => {
                    found.diagnosis.plugins.insert(plugin);
                    found.diagnosis.unfit.insert(slot, unfit);
                }
            }
            if found.fitting.len() >= wanted {
                break;
            }
        }
        if self.only.is_none() {
            *start = (from + looked) % all.len().max(1);
        } else {
            let names: Vec<_> = self.only_said.iter().copied().collect();
            found.diagnosis.excluded = all.len() - order.len();
            found.diagnosis.exclusion =
                format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" ")).into();
            found.diagnosis.plugins.extend(names);
        }
        found
    }

    /// Whether the pod fits on a node, with the pods that are nominated to it and without them.
    pub fn judge(&self, slot: Slot, memo: Option<&mut Memo>) -> Result<(), (&'static str, Unfit)> {
        if !self.nominated.is_empty() {
            self.judge_with_guests(slot)?;
        }
        self.judge_alone(slot, memo)?;
        if self.others.is_empty() { Ok(()) } else { ask(&self.others, self.table.node(slot)) }
    }

    fn judge_with_guests(&self, slot: Slot) -> Result<(), (&'static str, Unfit)> {
        let node = self.table.node(slot);
        let mut guests = self.nominated.guests(&node.view.name, self.pod).peekable();
        if guests.peek().is_none() {
            return Ok(());
        }
        let mut trial = self.trial(slot);
        guests.for_each(|guest| trial.add(guest));
        trial.fits()
    }

    /// What the plugins say that look at nothing but the node. The node itself is looked at only if it has changed.
    fn judge_alone(&self, slot: Slot, memo: Option<&mut Memo>) -> Result<(), (&'static str, Unfit)> {
        let Some(memo) = memo else { return ask(&self.local, self.table.node(slot)) };
        let generation = self.table.generation(slot);
        match memo.verdict(slot, generation) {
            Verdict::Fits => Ok(()),
            Verdict::Unfit(said) => Err((said.0, said.1.clone())),
            Verdict::Unknown => {
                let said = ask(&self.local, self.table.node(slot));
                memo.remember(slot, generation, said.as_ref().err());
                said
            }
        }
    }

    /// A node to try changes on.
    #[must_use]
    pub fn trial(&self, slot: Slot) -> Trial<'a> {
        let filters = self.local.iter().chain(&self.others);
        let filters = filters.map(|(name, filter)| (*name, filter.boxed_clone())).collect();
        Trial { node: self.table.node(slot).clone(), filters }
    }

    /// The best of the nodes that fit.
    #[must_use]
    pub fn choose(&self, fitting: &[Slot], memo: Option<&mut Memo>, rng: &Rng) -> Option<Slot> {
        if fitting.len() <= 1 {
            return fitting.first().copied();
        }
        let scores = (self.profile.plugins.iter())
            .filter(|(_, weight)| *weight != 0)
            .filter_map(|(plugin, weight)| Some((plugin.score(self.pod, self.table, fitting)?, *weight)));
        let (local, others): (Vec<_>, Vec<_>) = scores.partition(|(score, _)| score.is_local());
        let columns = self.columns(fitting, &local, memo);
        let columns = columns.into_iter().chain(self.columns(fitting, &others, None));
        let mut totals = vec![0; fitting.len()];
        for ((score, weight), mut column) in local.iter().chain(&others).zip(columns) {
            score.normalize(&mut column);
            for (total, one) in totals.iter_mut().zip(column) {
                *total += one * weight;
            }
        }
        best(&totals, rng).map(|at| fitting[at])
    }

    /// The scores of each plugin, before they are normalized.
    fn columns(
        &self,
        fitting: &[Slot],
        scores: &[(Box<dyn NodeScore + '_>, i64)],
        memo: Option<&mut Memo>,
    ) -> Vec<Vec<i64>> {
        let mut columns = vec![Vec::with_capacity(fitting.len()); scores.len()];
        let Some(memo) = memo else {
            for (column, (score, _)) in columns.iter_mut().zip(scores) {
                column.extend(fitting.iter().map(|slot| score.score(self.table.node(*slot))));
            }
            return columns;
        };
        memo.expect_scores(scores.len());
        for slot in fitting {
            let row = memo.scores(*slot, self.table.generation(*slot), |row| {
                let node = self.table.node(*slot);
                for (cell, (score, _)) in row.iter_mut().zip(scores) {
                    *cell = score.score(node);
                }
            });
            for (column, score) in columns.iter_mut().zip(row) {
                column.push(*score);
            }
        }
        columns
    }
}

fn ask(filters: &Filters<'_>, node: &NodeInfo) -> Result<(), (&'static str, Unfit)> {
    filters.iter().try_for_each(|(name, filter)| filter.check(node).map_err(|unfit| (*name, unfit)))
}

/// The index of the largest; among equals, each is as likely.
fn best(totals: &[i64], rng: &Rng) -> Option<usize> {
    let max = totals.iter().max()?;
    let equals: Vec<usize> = (0..totals.len()).filter(|at| totals[*at] == *max).collect();
    let at = if equals.len() == 1 { 0 } else { rng.below(equals.len() as u64) as usize };
    equals.get(at).copied()
}

/// A copy of a node on which pods are added and removed to see what would fit.
pub struct Trial<'a> {
    pub node: NodeInfo,
    filters: Filters<'a>,
}

impl Trial<'_> {
    pub fn add(&mut self, pod: &Arc<PodView>) {
        self.node.add(pod.clone());
        for (_, filter) in &mut self.filters {
            filter.add(pod, &self.node);
        }
    }

    pub fn remove(&mut self, pod: &PodView) {
        if self.node.remove(&pod.uid).is_some() {
            for (_, filter) in &mut self.filters {
                filter.remove(pod, &self.node);
            }
        }
    }

    pub fn fits(&self) -> Result<(), (&'static str, Unfit)> {
        ask(&self.filters, &self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_nodes_adapts_as_the_original_does() {
        for (nodes, percentage, want) in [
            (50, None, 50),
            (99, Some(10), 99),
            (100, None, 100),
            (1000, None, 420),
            (5000, None, 500),
            (6000, None, 300),
            (10_000, None, 500),
            (1000, Some(40), 400),
            (1000, Some(5), 100),
            (1000, Some(100), 1000),
            (5000, Some(0), 500),
        ] {
            assert_eq!(enough(nodes, percentage), want, "{nodes} {percentage:?}");
        }
    }
}
