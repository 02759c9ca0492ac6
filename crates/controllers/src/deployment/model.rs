//! A Deployment and its ReplicaSets as the plan sees them, and the arithmetic of their numbers. Pure.

use crate::hash::canonical;
use crate::meta;
use crate::portion::of_total;
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use std::sync::Arc;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// What is read of a Deployment's spec, with defaults for what may be absent.
pub trait Wanted {
    fn replicas(&self) -> i32;
    fn is_recreate(&self) -> bool;
    /// Pods beyond the wanted number during a rolling update.
    fn max_surge(&self) -> i32;
    /// Pods below the wanted number that a rolling update may cost.
    fn max_unavailable(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    /// `None` when there is no deadline.
    fn progress_deadline(&self) -> Option<i64>;
    fn is_paused(&self) -> bool;
}

impl Wanted for Deployment {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn is_recreate(&self) -> bool {
        let strategy = self.spec.as_ref().and_then(|s| s.strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }

    fn max_surge(&self) -> i32 {
        limits(self).0
    }

    fn max_unavailable(&self) -> i32 {
        limits(self).1.min(self.replicas())
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn progress_deadline(&self) -> Option<i64> {
        let seconds = self.spec.as_ref()?.progress_deadline_seconds?;
        (seconds != i32::MAX).then_some(i64::from(seconds))
    }

    fn is_paused(&self) -> bool {
        self.spec.as_ref().and_then(|s| s.paused) == Some(true)
    }
}

/// Surge and unavailability in pods: a share of surge rounds up, of unavailability down, and both are not
/// zero at once.
fn limits(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    if deployment.is_recreate() {
        return (0, 0);
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let total = deployment.replicas();
    let surge = of_total(rolling.and_then(|r| r.max_surge.as_ref()), total, true);
    let unavailable = of_total(rolling.and_then(|r| r.max_unavailable.as_ref()), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A ReplicaSet and what is often read of it.
#[derive(Clone, Debug)]
pub struct Set {
    pub object: Arc<ReplicaSet>,
}

impl Set {
    #[must_use]
    pub fn name(&self) -> &str {
        meta::name(&self.object.metadata)
    }

    #[must_use]
    pub fn replicas(&self) -> i32 {
        self.object.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    /// Pods that exist, by its status.
    #[must_use]
    pub fn actual(&self) -> i32 {
        self.object.status.as_ref().map_or(0, |s| s.replicas)
    }

    #[must_use]
    pub fn ready(&self) -> i32 {
        self.object.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
    }

    #[must_use]
    pub fn available(&self) -> i32 {
        self.object.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        meta::annotation(&self.object.metadata, key)
    }

    /// A number in an annotation.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<i32> {
        self.annotation(key)?.parse().ok()
    }

    #[must_use]
    pub fn revision(&self) -> i64 {
        self.annotation(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
    }

    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// Older sets first, those of one second by name.
    fn age(&self) -> (jiff::Timestamp, &str) {
        (meta::created(&self.object.metadata), self.name())
    }
}

/// The ReplicaSets of a Deployment: the one of its present template, and the others, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    pub new: Option<Set>,
    pub old: Vec<Set>,
}

impl Sets {
    /// Tells the set of the present template from the others. Of several the oldest counts.
    #[must_use]
    pub fn of(deployment: &Deployment, sets: impl IntoIterator<Item = Arc<ReplicaSet>>) -> Self {
        let mut old: Vec<Set> = sets.into_iter().map(|object| Set { object }).collect();
        old.sort_by(|a, b| a.age().cmp(&b.age()));
        let wanted = deployment.spec.as_ref().map(|s| canonical(&s.template));
        let is_new = |set: &Set| {
            let template = set.object.spec.as_ref().and_then(|s| s.template.as_ref());
            template.map(canonical) == wanted
        };
        let new = old.iter().position(is_new).map(|at| old.remove(at));
        Self { new, old }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    #[must_use]
    pub fn total(&self) -> i32 {
        self.iter().map(Set::replicas).sum()
    }

    #[must_use]
    pub fn actual(&self) -> i32 {
        self.iter().map(Set::actual).sum()
    }

    #[must_use]
    pub fn available(&self) -> i32 {
        self.iter().map(Set::available).sum()
    }

    #[must_use]
    pub fn old_total(&self) -> i32 {
        self.old.iter().map(Set::replicas).sum()
    }

    #[must_use]
    pub fn max_old_revision(&self) -> i64 {
        self.old.iter().map(Set::revision).max().unwrap_or(0)
    }

    /// Puts in the place of a set its newer state, as a write returned it.
    pub fn replace(&mut self, object: Arc<ReplicaSet>) {
        let uid = object.metadata.uid.clone();
        for set in self.old.iter_mut().chain(&mut self.new) {
            if set.object.metadata.uid == uid {
                set.object = object;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::deployment;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    fn percent(text: &str) -> IntOrString {
        IntOrString::String(text.to_owned())
    }

    #[test]
    fn shares_round_in_the_rollouts_favour() {
        assert_eq!(of_total(Some(&percent("25%")), 10, true), 3);
        assert_eq!(of_total(Some(&percent("25%")), 10, false), 2);
        assert_eq!(of_total(Some(&percent("100%")), 7, false), 7);
        assert_eq!(of_total(Some(&IntOrString::Int(4)), 1, true), 4);
    }

    #[test]
    fn both_limits_are_never_zero() {
        let mut d = deployment("web", 1);
        assert_eq!((d.max_surge(), d.max_unavailable()), (1, 0));
        let strategy = d.spec.as_mut().unwrap().strategy.as_mut().unwrap();
        let rolling = strategy.rolling_update.as_mut().unwrap();
        rolling.max_surge = Some(IntOrString::Int(0));
        assert_eq!((d.max_surge(), d.max_unavailable()), (0, 1));
    }
}
