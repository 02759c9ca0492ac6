//! The scheduling framework: the points at which plugins take part in a pod's way to its node.
//!
//! | point | here |
//! | --- | --- |
//! | PreEnqueue | [`Plugin::pre_enqueue`]: may the pod be tried at all |
//! | QueueSort | [`Plugin::compare`]: which pod is tried first |
//! | PreFilter, Filter | [`Plugin::filter`] looks at the pod once and gives a [`NodeFilter`] for its nodes |
//! | PostFilter | [`Plugin::post_filter`]: no node fits; make room |
//! | PreScore, Score, NormalizeScore | [`Plugin::score`] gives a [`NodeScore`] for the nodes that fit |
//! | Reserve, Unreserve | [`Plugin::reserve`], [`Plugin::unreserve`] |
//! | Permit | [`Plugin::permit`]: now, later, or not |
//! | PreBind, Bind, PostBind | [`Plugin::pre_bind`], [`Plugin::bind`], [`Plugin::post_bind`], off the loop |
//! | EventsToRegister, hints | [`Plugin::interests`], [`Plugin::hint`]: what may help a pod it refused |
//!
//! A plugin is a small file in [`crate::plugins`]. What a filter or score says about a node must depend on
//! nothing but the pod's signature and the node, for pods of one template share it; one that looks at more
//! says so ([`NodeFilter::is_local`]) and is asked every time.

use crate::budgets::Budgets;
use crate::cycle::Attempt;
use crate::diagnosis::Diagnosis;
use crate::queue::{Event, Events, Hint};
use crate::table::{NodeInfo, Slot, Table};
use crate::view::PodView;
use async_trait::async_trait;
use krate_api::Status;
use krate_base::Rng;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// The best score that a plugin gives to a node; the least is 0.
pub const MAX_SCORE: i64 = 100;

/// Why a node (or every node) does not suit.
pub type Reason = Cow<'static, str>;

/// What a plugin says of a node that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Mostly one; the list is never empty.
    pub reasons: Vec<Reason>,
    /// Whether taking pods away from the node could help.
    pub resolvable: bool,
}

impl Unfit {
    /// Nothing that happens to the node's pods would help.
    #[must_use]
    pub fn for_good(reason: impl Into<Reason>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }

    /// It might fit with fewer pods on the node.
    #[must_use]
    pub fn for_now(reason: impl Into<Reason>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }
}

/// A pod's filter of one plugin, made once per attempt.
pub trait NodeFilter: Send + Sync {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit>;

    /// The names of the only nodes that can fit, if the plugin knows them beforehand.
    fn only(&self) -> Option<&[&str]> {
        None
    }

    /// Whether the answer depends on nothing but the pod's signature and the node.
    fn is_local(&self) -> bool {
        true
    }

    /// The pod is looked at as if `other` were on the node as well (nominated pods, preemption).
    fn add(&mut self, _other: &PodView, _node: &NodeInfo) {}

    /// The pod is looked at as if `other` were not on the node.
    fn remove(&mut self, _other: &PodView, _node: &NodeInfo) {}

    fn boxed_clone<'a>(&self) -> Box<dyn NodeFilter + 'a>
    where
        Self: 'a;
}

/// What a plugin's look at a pod gives.
pub enum Look<'a> {
    /// It has nothing to say about this pod.
    Skip,
    Filter(Box<dyn NodeFilter + 'a>),
    /// No node fits, whatever the nodes are.
    Reject(Unfit),
}

/// A pod's score of one plugin, made once per attempt.
pub trait NodeScore: Send + Sync {
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the scores of all nodes into 0..=[`MAX_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}

    /// Whether a node's score depends on nothing but the pod's signature, the node and the table's epoch.
    fn is_local(&self) -> bool {
        true
    }
}

/// What a plugin says before a pod is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    Allow,
    /// Not before somebody allows it; refused after this long.
    Wait(Duration),
    Reject(Reason),
}

/// What came of making room.
#[derive(Clone, Debug, Default)]
pub struct PostFilterResult {
    /// The node to nominate.
    pub nominate: Option<Arc<str>>,
    /// Pods to take away from it, and why (the message of the victim's condition and event).
    pub victims: Vec<Arc<PodView>>,
    /// A sentence for the pod's status.
    pub message: String,
}

/// What PostFilter plugins work with.
pub struct Plight<'a> {
    pub pod: &'a PodView,
    pub diagnosis: &'a Diagnosis,
    /// The attempt that failed: tries nodes again as if some pods were not there.
    pub attempt: &'a Attempt<'a>,
    pub rng: &'a Rng,
    pub budgets: &'a Budgets,
}

/// A plugin takes part at the points that it overrides.
#[async_trait]
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Why the pod must not be tried yet.
    fn pre_enqueue(&self, _pod: &PodView) -> Result<(), Reason> {
        Ok(())
    }

    /// Which of two waiting pods is first; `None` if the plugin does not sort.
    fn compare(&self, _a: &PodView, _b: &PodView) -> Option<Ordering> {
        None
    }

    fn filter<'a>(&'a self, _pod: &'a PodView, _table: &'a Table) -> Look<'a> {
        Look::Skip
    }

    fn post_filter(&self, _plight: &Plight<'_>) -> Option<PostFilterResult> {
        None
    }

    /// `None` when all nodes are alike to this pod.
    fn score<'a>(
        &'a self,
        _pod: &'a PodView,
        _table: &'a Table,
        _fitting: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        None
    }

    fn reserve(&self, _pod: &PodView, _node: &str) -> Result<(), Reason> {
        Ok(())
    }

    /// Takes back [`Plugin::reserve`]; called for all plugins when one refused or a later step failed.
    fn unreserve(&self, _pod: &PodView, _node: &str) {}

    fn permit(&self, _pod: &PodView, _node: &str) -> Permission {
        Permission::Allow
    }

    async fn pre_bind(&self, _pod: &PodView, _node: &str) -> Result<(), Status> {
        Ok(())
    }

    /// Binds the pod; `None` leaves it to the next plugin.
    async fn bind(&self, _pod: &PodView, _node: &str) -> Option<Result<(), Status>> {
        None
    }

    fn post_bind(&self, _pod: &PodView, _node: &str) {}

    /// After which kinds of events a pod that the plugin refused is worth a look.
    fn interests(&self) -> Events {
        Events::empty()
    }

    /// Whether an event of [`Plugin::interests`] may have helped the pod.
    fn hint(&self, _pod: &PodView, _event: &Event) -> Hint {
        Hint::Queue
    }
}

/// Scales scores to 0..=[`MAX_SCORE`] by the largest one; `reverse` makes the smallest the best.
pub fn normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_scaled_by_the_largest() {
        let mut scores = [0, 1, 4];
        normalize(&mut scores, false);
        assert_eq!(scores, [0, 25, 100]);
        let mut scores = [0, 1, 4];
        normalize(&mut scores, true);
        assert_eq!(scores, [100, 75, 0]);
        let mut scores = [0, 0];
        normalize(&mut scores, true);
        assert_eq!(scores, [100, 100]);
    }
}
