//! Where the two kinds keep what the controller needs.

use krate_api::Kind;
use krate_api::labels::{Selector, SelectorError};
use krate_api::meta::Time;
use krate_api::types::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use krate_api::types::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

/// The status of both kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommonStatus {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: Option<i32>,
    pub observed_generation: i64,
    pub conditions: Vec<Condition>,
}

/// A condition of both kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub changed: Option<Time>,
}

/// A kind that keeps a number of pods of one template.
pub trait Replicated: Kind {
    /// The service account, and the component of events.
    const ACCOUNT: &'static str;
    const QUEUE: &'static str;
    /// Whether the status says how many pods are on their way out.
    const COUNTS_TERMINATING: bool;

    fn replicas(&self) -> usize;
    fn selector(&self) -> Result<Selector, SelectorError>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn min_ready_seconds(&self) -> i32;
    fn status(&self) -> CommonStatus;
    fn set_status(&mut self, status: CommonStatus);
}

fn count(n: i32) -> Option<i32> {
    (n != 0).then_some(n)
}

impl Replicated for ReplicaSet {
    const ACCOUNT: &'static str = "replicaset-controller";
    const QUEUE: &'static str = "replicaset";
    const COUNTS_TERMINATING: bool = true;

    fn replicas(&self) -> usize {
        let replicas = self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        usize::try_from(replicas).unwrap_or(0)
    }

    fn selector(&self) -> Result<Selector, SelectorError> {
        Selector::of(self.spec.as_ref().map(|s| &s.selector))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn status(&self) -> CommonStatus {
        let Some(s) = &self.status else { return CommonStatus::default() };
        let condition = |c: &ReplicaSetCondition| Condition {
            kind: c.type_.clone(),
            status: c.status.clone(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            changed: c.last_transition_time.clone(),
        };
        CommonStatus {
            replicas: s.replicas,
            fully_labeled: s.fully_labeled_replicas.unwrap_or(0),
            ready: s.ready_replicas.unwrap_or(0),
            available: s.available_replicas.unwrap_or(0),
            terminating: s.terminating_replicas,
            observed_generation: s.observed_generation.unwrap_or(0),
            conditions: s.conditions.iter().flatten().map(condition).collect(),
        }
    }

    fn set_status(&mut self, s: CommonStatus) {
        let condition = |c: Condition| ReplicaSetCondition {
            type_: c.kind,
            status: c.status,
            reason: c.reason,
            message: c.message,
            last_transition_time: c.changed,
        };
        self.status = Some(ReplicaSetStatus {
            replicas: s.replicas,
            fully_labeled_replicas: count(s.fully_labeled),
            ready_replicas: count(s.ready),
            available_replicas: count(s.available),
            terminating_replicas: s.terminating,
            observed_generation: Some(s.observed_generation),
            conditions: Some(s.conditions.into_iter().map(condition).collect::<Vec<_>>())
                .filter(|c| !c.is_empty()),
        });
    }
}

impl Replicated for ReplicationController {
    const ACCOUNT: &'static str = "replication-controller";
    const QUEUE: &'static str = "replicationmanager";
    const COUNTS_TERMINATING: bool = false;

    fn replicas(&self) -> usize {
        let replicas = self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        usize::try_from(replicas).unwrap_or(0)
    }

    fn selector(&self) -> Result<Selector, SelectorError> {
        let labels = self.spec.as_ref().and_then(|s| s.selector.as_ref());
        Ok(labels.filter(|l| !l.is_empty()).map_or_else(Selector::nothing, Selector::from_labels))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn status(&self) -> CommonStatus {
        let Some(s) = &self.status else { return CommonStatus::default() };
        let condition = |c: &ReplicationControllerCondition| Condition {
            kind: c.type_.clone(),
            status: c.status.clone(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            changed: c.last_transition_time.clone(),
        };
        CommonStatus {
            replicas: s.replicas,
            fully_labeled: s.fully_labeled_replicas.unwrap_or(0),
            ready: s.ready_replicas.unwrap_or(0),
            available: s.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: s.observed_generation.unwrap_or(0),
            conditions: s.conditions.iter().flatten().map(condition).collect(),
        }
    }

    fn set_status(&mut self, s: CommonStatus) {
        let condition = |c: Condition| ReplicationControllerCondition {
            type_: c.kind,
            status: c.status,
            reason: c.reason,
            message: c.message,
            last_transition_time: c.changed,
        };
        self.status = Some(ReplicationControllerStatus {
            replicas: s.replicas,
            fully_labeled_replicas: count(s.fully_labeled),
            ready_replicas: count(s.ready),
            available_replicas: count(s.available),
            observed_generation: Some(s.observed_generation),
            conditions: Some(s.conditions.into_iter().map(condition).collect::<Vec<_>>())
                .filter(|c| !c.is_empty()),
        });
    }
}
