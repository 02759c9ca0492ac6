//! The passage of a DaemonSet from one template to the next, node by node. Pure.

use super::nodes::Belongs;
use super::plan::{Actions, Daemon, Observed};
use crate::pods::{Availability, PodView};
use crate::portion::of_total;
use krate_api::types::apps::v1::DaemonSet;

/// How far an update may go at once, in nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub surge: usize,
    pub unavailable: usize,
}

impl Bounds {
    /// Shares round up; both are not zero at once.
    #[must_use]
    pub fn of(set: &DaemonSet, desired: usize) -> Self {
        let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let total = i32::try_from(desired).unwrap_or(i32::MAX);
        let pods = |value| usize::try_from(of_total(value, total, true)).unwrap_or(0);
        let surge = pods(rolling.and_then(|r| r.max_surge.as_ref()));
        let unavailable = pods(rolling.and_then(|r| r.max_unavailable.as_ref()));
        let unavailable = if surge == 0 { unavailable.max(usize::from(desired > 0)) } else { unavailable };
        Self { surge, unavailable }
    }
}

/// Whether two daemons may be on one node during an update.
#[must_use]
pub fn surges(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let rolling = strategy.filter(|s| s.type_.as_deref() == Some("RollingUpdate"));
    let surge = rolling.and_then(|s| s.rolling_update.as_ref()?.max_surge.as_ref());
    // Any share but none at all is at least one node.
    of_total(surge, 100, true) > 0
}

/// The daemons of a node by template.
enum Node {
    Empty,
    New(Daemon),
    Old(Daemon),
    Both {
        new: Daemon,
        old: Daemon,
    },
    /// There are too many; they are about to be sorted out.
    Crowded,
}

/// One step of a rolling update.
#[must_use]
pub fn step(observed: &Observed) -> Actions {
    let bounds = Bounds::of(observed.set, observed.desired());
    if bounds.surge == 0 { replace(observed, bounds.unavailable) } else { surge(observed, bounds.surge) }
}

/// Every node that has daemons or should have one, with them.
fn nodes<'a>(observed: &'a Observed) -> Vec<(&'a str, Node)> {
    let mut names: Vec<&str> = observed.daemons.keys().copied().collect();
    let wanted = observed.nodes.iter().filter(|(_, belongs)| *belongs == Belongs::Yes);
    names.extend(wanted.map(|(node, _)| node.name()));
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| (name, sort(observed, observed.on(name)))).collect()
}

fn sort(observed: &Observed, pods: &[Daemon]) -> Node {
    let living = pods.iter().filter(|p| !p.is_deleting()).cloned();
    let (mut new, mut old): (Vec<_>, Vec<_>) = living.partition(|p| observed.is_updated(p));
    if new.len() > 1 || old.len() > 1 {
        return Node::Crowded;
    }
    match (new.pop(), old.pop()) {
        (None, None) => Node::Empty,
        (Some(new), None) => Node::New(new),
        (None, Some(old)) => Node::Old(old),
        (Some(new), Some(old)) => Node::Both { new, old },
    }
}

/// Deletes as many old daemons as may be missing at once; those that are not available cost nothing.
fn replace(observed: &Observed, most: usize) -> Actions {
    let mut actions = Actions::default();
    let (mut missing, mut candidates) = (0, vec![]);
    for (_, node) in nodes(observed) {
        match node {
            Node::Empty | Node::Crowded | Node::Both { .. } => missing += 1,
            Node::New(pod) => missing += usize::from(!available(observed, &pod, &mut actions)),
            Node::Old(pod) if observed.is_available(&pod) => candidates.push(pod),
            Node::Old(pod) => {
                missing += 1;
                actions.delete.push(pod);
            }
        }
    }
    actions.delete.extend(candidates.into_iter().take(most.saturating_sub(missing)));
    actions
}

/// Starts new daemons beside old ones, and ends the old when the new are available.
fn surge(observed: &Observed, most: usize) -> Actions {
    let mut actions = Actions::default();
    let (mut extra, mut present) = (0, 0);
    let (mut candidates, mut misplaced) = (vec![], vec![]);
    for (name, node) in nodes(observed) {
        match node {
            Node::Crowded => extra += 1,
            Node::Empty => {}
            Node::New(pod) => present += usize::from(observed.is_available(&pod)),
            Node::Old(pod) => {
                let works = observed.is_available(&pod);
                present += usize::from(works);
                let wanted = observed.nodes.iter().any(|(n, b)| n.name() == name && *b == Belongs::Yes);
                match (wanted, works) {
                    (false, _) => misplaced.push(pod),
                    (true, true) => candidates.push(name.to_owned()),
                    (true, false) => actions.create.push(name.to_owned()),
                }
            }
            Node::Both { new, old } => {
                let done = available(observed, &new, &mut actions);
                present += usize::from(done || observed.is_available(&old));
                if done {
                    actions.delete.push(old);
                } else {
                    extra += 1;
                }
            }
        }
    }
    actions.delete.extend(misplaced.into_iter().take(present.saturating_sub(observed.desired())));
    actions.create.extend(candidates.into_iter().take(most.saturating_sub(extra)));
    actions
}

/// Whether a new daemon is available; if it will be by itself, that is when to look again.
fn available(observed: &Observed, pod: &PodView, actions: &mut Actions) -> bool {
    match pod.availability(observed.min_ready(), observed.now) {
        Availability::Yes => true,
        Availability::No => false,
        Availability::In(left) => {
            actions.look_again(left);
            false
        }
    }
}
