//! Makes room for a pod that fits nowhere by taking less important pods away: as few and as unimportant
//! ones as possible, within their disruption budgets if that can be.
//!
//! It nominates the pod to the node and does not bind it: when the victims are gone, the pod is tried again.

use crate::cycle::Trial;
use crate::diagnosis::summary;
use crate::framework::{Plight, Plugin, PostFilterResult};
use crate::table::Slot;
use crate::view::PodView;
use krate_base::Timestamp;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The least share of the nodes that is tried, in percent, and the least number.
const MIN_PERCENTAGE: usize = 10;
const MIN_CANDIDATES: usize = 100;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NEVER: &str = "preemption: not eligible due to preemptionPolicy=Never.";
const TERMINATING: &str = "preemption: not eligible due to a terminating pod on the nominated node.";

pub struct DefaultPreemption;

/// A node and the pods to take away from it.
struct Candidate {
    slot: Slot,
    /// The most important first.
    victims: Vec<Arc<PodView>>,
    violations: usize,
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }

    fn post_filter(&self, plight: &Plight<'_>) -> Option<PostFilterResult> {
        let only_say = |message: String| Some(PostFilterResult { message, ..PostFilterResult::default() });
        if !plight.pod.preempts {
            return only_say(NEVER.to_owned());
        }
        if waits_for_room(plight) {
            // the nomination stays: its victims are on their way out
            let nominate = plight.attempt.nominated.node_of(&plight.pod.uid).cloned();
            return Some(PostFilterResult { nominate, victims: vec![], message: TERMINATING.to_owned() });
        }
        match candidates(plight) {
            Ok(candidates) => {
                let best = candidates.into_iter().min_by(|a, b| cost(a).cmp(&cost(b)))?;
                let node = plight.attempt.table.node(best.slot).view.name.clone();
                Some(PostFilterResult { nominate: Some(node), victims: best.victims, message: String::new() })
            }
            Err(message) => only_say(message),
        }
    }
}

/// Whether pods are being taken away from the pod's nominated node already.
fn waits_for_room(plight: &Plight<'_>) -> bool {
    let attempt = plight.attempt;
    let Some(slot) = attempt.nominated.node_of(&plight.pod.uid).and_then(|node| attempt.table.slot(node))
    else {
        return false;
    };
    if plight.diagnosis.unfit.get(&slot).is_some_and(|unfit| !unfit.resolvable) {
        return false;
    }
    let leaving = |pod: &Arc<PodView>| pod.deleting && pod.priority < plight.pod.priority;
    attempt.table.node(slot).pods.iter().any(leaving)
}

/// The nodes on which room can be made; if there are none, what each node says to that.
fn candidates(plight: &Plight<'_>) -> Result<Vec<Candidate>, String> {
    let diagnosis = plight.diagnosis;
    let mut promising: Vec<Slot> =
        diagnosis.unfit.iter().filter(|(_, unfit)| unfit.resolvable).map(|(slot, _)| *slot).collect();
    promising.sort_unstable();
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    let hopeless = diagnosis.nodes - promising.len();
    if hopeless > 0 {
        said.insert(NOT_HELPFUL.to_owned(), hopeless);
    }
    let wanted = (diagnosis.nodes * MIN_PERCENTAGE / 100).max(MIN_CANDIDATES);
    let offset = plight.rng.below(promising.len() as u64) as usize;
    promising.rotate_left(offset);
    let mut found: Vec<Candidate> = Vec::new();
    for slot in promising {
        match victims(plight, slot) {
            Ok(candidate) => found.push(candidate),
            Err(reasons) => reasons.into_iter().for_each(|reason| *said.entry(reason).or_default() += 1),
        }
        let is_enough = found.len() >= wanted && found.iter().any(|candidate| candidate.violations == 0);
        if is_enough {
            break;
        }
    }
    if found.is_empty() {
        let counts = said.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        return Err(format!("preemption: {}", summary(diagnosis.nodes, &counts)));
    }
    Ok(found)
}

/// The pods to take away from one node: all less important ones, less those that may stay after all.
fn victims(plight: &Plight<'_>, slot: Slot) -> Result<Candidate, Vec<String>> {
    let mut trial = plight.attempt.trial(slot);
    let node = trial.node.view.name.clone();
    for guest in plight.attempt.nominated.guests(&node, plight.pod) {
        trial.add(guest);
    }
    let lesser = |pod: &&Arc<PodView>| pod.priority < plight.pod.priority;
    let mut lesser: Vec<_> = plight.attempt.table.node(slot).pods.iter().filter(lesser).cloned().collect();
    if lesser.is_empty() {
        return Err(vec![NO_VICTIMS.to_owned()]);
    }
    lesser.iter().for_each(|pod| trial.remove(pod));
    if let Err((_, unfit)) = trial.fits() {
        return Err(unfit.reasons.into_iter().map(String::from).collect());
    }
    lesser.sort_by(|a, b| importance(a, b));
    let violates = plight.budgets.violated(&lesser);
    let pods = || lesser.iter().zip(&violates);
    let mut candidate = Candidate { slot, victims: Vec::new(), violations: 0 };
    for (pod, _) in pods().filter(|(_, violates)| **violates) {
        if !stays(&mut trial, pod) {
            candidate.victims.push(pod.clone());
            candidate.violations += 1;
        }
    }
    for (pod, _) in pods().filter(|(_, violates)| !**violates) {
        if !stays(&mut trial, pod) {
            candidate.victims.push(pod.clone());
        }
    }
    candidate.victims.sort_by(|a, b| importance(a, b));
    Ok(candidate)
}

/// Puts a pod back on the node if there is room for it as well.
fn stays(trial: &mut Trial<'_>, pod: &Arc<PodView>) -> bool {
    trial.add(pod);
    let fits = trial.fits().is_ok();
    if !fits {
        trial.remove(pod);
    }
    fits
}

/// The more important pod first: by priority, then by age.
fn importance(a: &PodView, b: &PodView) -> Ordering {
    let since = |pod: &PodView| pod.started.unwrap_or(Timestamp::MAX);
    b.priority.cmp(&a.priority).then(since(a).cmp(&since(b)))
}

/// What a candidate costs: violated budgets, the most important victim, their importance together, their
/// number, and then how long the most important ones have been running (the youngest go).
fn cost(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let victims = &candidate.victims;
    let highest = victims.first().map_or(i32::MIN, |pod| pod.priority);
    // priorities may be negative: shifted, more victims always cost more
    let sum = victims.iter().map(|pod| i64::from(pod.priority) - i64::from(i32::MIN)).sum();
    let eldest = victims.iter().filter(|pod| pod.priority == highest).filter_map(|pod| pod.started).min();
    let eldest = Reverse(eldest.unwrap_or(Timestamp::MAX));
    (candidate.violations, highest, sum, victims.len(), eldest)
}
