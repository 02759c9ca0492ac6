//! Which pods of a Job to make and which to end, so that the right number runs. Pure.
//!
//! One reconcile either ends pods or makes pods, never both.

use super::backoff;
use super::indexes::Indexes;
use super::plan::{BURST, NewPod, Work};
use super::policy::Verdict;
use crate::pods::PodView;
use crate::ranking;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Chooses. What is ended here counts for nothing.
pub fn manage(work: &mut Work) {
    work.plan.uncounted = true;
    if work.is_suspended() {
        work.plan.delete = work.tally.active.iter().take(BURST).map(|p| (*p).clone()).collect();
        return;
    }
    let active = work.tally.active.len();
    let wanted = wanted(work, active);
    work.plan.delete = excess(work, active.saturating_sub(wanted));
    work.plan.delete.truncate(BURST);
    if !work.plan.delete.is_empty() {
        return;
    }
    let terminating = if work.tally.replaces_failed_only() { work.tally.terminating } else { 0 };
    let missing = wanted.saturating_sub(active + terminating).min(BURST);
    if missing > 0 {
        make(work, missing);
    }
}

/// How many pods are to run.
fn wanted(work: &Work, active: usize) -> usize {
    let parallelism = i64::from(work.spec.parallelism.unwrap_or(1).max(0));
    let succeeded = work.tally.succeeded(&work.plan.status);
    let wanted = match work.spec.completions {
        // Whoever finishes first tells that there is nothing more to do; the others finish theirs.
        None if succeeded > 0 => return active,
        None => parallelism,
        Some(completions) => (i64::from(completions) - succeeded).clamp(0, parallelism),
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// At least `count` pods to end: first those without a place of their own, then those that have done least.
fn excess(work: &Work, count: usize) -> Vec<Arc<PodView>> {
    let active: Vec<Arc<PodView>> = work.tally.active.iter().map(|p| (*p).clone()).collect();
    let (mut doomed, left) = if work.tally.indexed { displaced(work, active) } else { (vec![], active) };
    let more = count.saturating_sub(doomed.len());
    if more > 0 {
        doomed.extend(ranking::to_delete(left, work.tally.pods, more, work.now));
    }
    doomed
}

/// Pods that have no index, or one that another has too; and the others.
fn displaced(work: &Work, active: Vec<Arc<PodView>>) -> (Vec<Arc<PodView>>, Vec<Arc<PodView>>) {
    let count = active.len();
    let mut used = BTreeSet::new();
    // In the order of worth, so that of two pods the better one keeps its index.
    let mut ranked = ranking::ranked(active, work.tally.pods, work.now);
    ranked.reverse();
    let mut doomed = vec![];
    let mut left = Vec::with_capacity(count);
    for pod in ranked {
        let keeps = work.tally.index(&pod).is_some_and(|index| used.insert(index));
        if keeps { left.push(pod) } else { doomed.push(pod) }
    }
    (doomed, left)
}

fn make(work: &mut Work, missing: usize) {
    let per_index = work.spec.backoff_limit_per_index.is_some() && work.tally.indexed;
    if !per_index && let Some(left) = work.plan.backoff.left(work.now) {
        return work.again(left);
    }
    if !work.tally.indexed {
        work.plan.create = vec![NewPod::default(); missing];
        return;
    }
    let indexes = pending(work, missing);
    if !per_index {
        work.plan.create = indexes.into_iter().map(|n| NewPod { index: Some(n), failures: None }).collect();
        return;
    }
    let mut first: Option<Duration> = None;
    for index in indexes {
        let before = work.tally.delayed.get(&index);
        match before.and_then(|pod| backoff::left_for_index(pod, work.now)) {
            Some(left) => first = Some(first.map_or(left, |f| f.min(left))),
            None => {
                let failures = Some(before.map_or((0, 0), |pod| failures(work, pod)));
                work.plan.create.push(NewPod { index: Some(index), failures });
            }
        }
    }
    if let Some(first) = first {
        work.again(first);
    }
}

/// The first indexes that are neither done nor under way.
fn pending(work: &Work, count: usize) -> Vec<u32> {
    let tally = &work.tally;
    let mut taken: Indexes = tally.active.iter().filter_map(|p| tally.index(p)).collect();
    if tally.replaces_failed_only() {
        let leaving = tally.pods.iter().filter(|p| p.is_deleting() && !p.is_finished());
        taken = taken.union(&leaving.filter_map(|p| tally.index(p)).collect());
    }
    if let Some(failed) = &tally.failed_indexes {
        taken = taken.union(failed);
    }
    taken.union(&tally.succeeded_indexes).missing(tally.completions(), count)
}

/// The failures of an index, with its last failed pod's own: counted and ignored ones.
fn failures(work: &Work, pod: &PodView) -> (u32, u32) {
    let (counted, ignored) = (backoff::index_failures(pod), backoff::ignored_failures(pod));
    match work.tally.verdict(pod) {
        Verdict::Ignore => (counted, ignored.saturating_add(1)),
        _ => (counted.saturating_add(1), ignored),
    }
}
