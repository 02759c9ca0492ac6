//! Pods as the controllers keep them: the fields that any of them reads, for every pod of the cluster, once.

mod slim;

use crate::meta::MetaView;
use jiff::{SignedDuration, Timestamp};
use krate_api::Shared;
use krate_api::meta::OwnerReference;
use krate_api::object::DecodeError;
use krate_api::types::core::v1::{Affinity, ContainerPort, Pod, PodCondition, Toleration};
use krate_client::{Index, Informer, Informers, Reference, Source, View};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// How much sooner a pod of a ReplicaSet goes than its siblings.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The index of an Indexed Job's pod.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// How often pods of its index have failed before a Job's pod, with a limit per index.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same of failures that the Job's policy ignores.
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Annotations that controllers read; the others are not kept.
const ANNOTATIONS: &[&str] = &[DELETION_COST, COMPLETION_INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES];

/// The slim pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodView {
    pub metadata: MetaView,
    pub spec: SpecView,
    pub status: StatusView,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub node_name: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub hostname: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub subdomain: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub restart_policy: String,
    pub termination_grace_period_seconds: Option<i64>,
    pub active_deadline_seconds: Option<i64>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub tolerations: Vec<Toleration>,
    /// The one node that its required affinity allows by name; empty when it does not say one.
    #[serde(rename = "affinity", deserialize_with = "pinned")]
    pub pinned_to: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub containers: Vec<ContainerView>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub init_containers: Vec<ContainerView>,
    /// Only those with a claim behind them.
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub volumes: Vec<VolumeView>,
}

/// A volume of a pod, as far as it has to do with claims.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSourceView>,
    /// A claim is made for the pod from a template.
    pub ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSourceView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub claim_name: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub name: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub ports: Vec<ContainerPort>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub restart_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub phase: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub reason: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub conditions: Vec<PodCondition>,
    #[serde(rename = "podIP")]
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub pod_ip: String,
    #[serde(rename = "podIPs")]
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub pod_ips: Vec<IpView>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub container_statuses: Vec<ContainerStatusView>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub init_container_statuses: Vec<ContainerStatusView>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct IpView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub ip: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatusView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub name: String,
    pub restart_count: i32,
    pub state: StateView,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct StateView {
    pub terminated: Option<TerminatedView>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminatedView {
    pub exit_code: i32,
    pub finished_at: Option<krate_api::meta::Time>,
}

/// Reads of a pod's affinity the one node that it names.
fn pinned<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<Affinity>::deserialize(deserializer)?.map(|affinity| node_of(&affinity)).unwrap_or_default())
}

/// The one node that an affinity names, or nothing.
fn node_of(affinity: &Affinity) -> String {
    let nodes = affinity.node_affinity.as_ref();
    let required = nodes.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required.into_iter().flat_map(|r| &r.node_selector_terms);
    let fields = terms.flat_map(|t| t.match_fields.iter().flatten());
    let mut names = fields.filter(|f| f.key == "metadata.name" && f.operator == "In");
    let values = names.next().and_then(|f| f.values.as_deref()).unwrap_or_default();
    if let [name] = values { name.clone() } else { String::new() }
}

impl View for PodView {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        let mut pod: Self = match object.typed_at_hand::<Pod>() {
            Some(pod) => {
                let mut view = slim::of(&pod);
                view.metadata.resource_version = object.revision.to_string();
                view
            }
            None => serde_json::from_slice(&object.bytes)?,
        };
        pod.metadata.annotations.retain(|key, _| ANNOTATIONS.contains(&key.as_str()));
        pod.spec.volumes.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
        Ok(Arc::new(pod))
    }
}

impl PodView {
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    #[must_use]
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.is_deleting()
    }

    /// Its containers have ended for good.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Neither finished nor being deleted.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.is_deleting()
    }

    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|c| c.type_ == kind)
    }

    /// The node that it is on, or that it is to be on: bound to it, or pinned to it by its affinity.
    #[must_use]
    pub fn target_node(&self) -> &str {
        if self.spec.node_name.is_empty() { &self.spec.pinned_to } else { &self.spec.node_name }
    }

    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.get(key).map(String::as_str)
    }

    /// Whether it is available now, as [`PodView::availability`] tells it.
    #[must_use]
    pub fn is_available(&self, min_ready: i32, now: Timestamp) -> bool {
        self.availability(min_ready, now) == Availability::Yes
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True")
    }

    /// Since when it is ready.
    #[must_use]
    pub fn ready_since(&self) -> Option<Timestamp> {
        let ready = self.condition("Ready").filter(|c| c.status == "True")?;
        ready.last_transition_time.as_ref().map(|t| t.0)
    }

    /// Whether it has been ready for `min_ready` seconds, and if not yet, how long until it has.
    #[must_use]
    pub fn availability(&self, min_ready: i32, now: Timestamp) -> Availability {
        if !self.is_ready() {
            return Availability::No;
        }
        let Some(since) = self.ready_since() else {
            return if min_ready <= 0 { Availability::Yes } else { Availability::No };
        };
        let left = SignedDuration::from_secs(i64::from(min_ready)) - now.duration_since(since);
        if min_ready <= 0 || left <= SignedDuration::ZERO {
            Availability::Yes
        } else {
            Availability::In(left.unsigned_abs())
        }
    }

    /// The keys of the claims behind its volumes.
    #[must_use]
    pub fn claims(&self) -> Vec<String> {
        let name = |volume: &VolumeView| match &volume.persistent_volume_claim {
            Some(source) => source.claim_name.clone(),
            None => format!("{}-{}", self.name(), volume.name),
        };
        let volumes = self.spec.volumes.iter();
        volumes.map(|volume| krate_api::object::key(self.namespace(), &name(volume))).collect()
    }

    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.metadata.controller()
    }

    /// What events about it refer to.
    #[must_use]
    pub fn reference(&self) -> Reference {
        Reference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.metadata.namespace.clone()),
            name: Some(self.metadata.name.clone()),
            uid: Some(self.metadata.uid.clone()),
            resource_version: Some(self.metadata.resource_version.clone()),
            field_path: None,
        }
    }

    /// Restarts of all its containers.
    #[must_use]
    pub fn restarts(&self) -> i64 {
        let all = self.status.container_statuses.iter().chain(&self.status.init_container_statuses);
        all.map(|c| i64::from(c.restart_count)).sum()
    }

    #[must_use]
    pub fn deletion_cost(&self) -> i32 {
        self.metadata.annotations.get(DELETION_COST).and_then(|c| c.parse().ok()).unwrap_or(0)
    }
}

/// Says in a pod's conditions that it is ended from outside (`DisruptionTarget`). Whether anything changed.
pub fn disrupt(conditions: &mut Vec<PodCondition>, reason: &str, message: &str, now: Timestamp) -> bool {
    if conditions.iter().any(|c| c.type_ == "DisruptionTarget" && c.status == "True") {
        return false;
    }
    conditions.retain(|c| c.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(krate_api::meta::Time(now)),
        ..PodCondition::default()
    });
    true
}

/// Whether a pod counts as available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Yes,
    No,
    In(Duration),
}

/// The informer of all pods.
#[must_use]
pub fn informer(informers: &Informers) -> Informer<PodView> {
    informers.get(Source::of::<Pod>())
}

/// Pods by the uid of their managing owner; those without one under [`orphans`].
#[must_use]
pub fn by_controller(pods: &Informer<PodView>) -> Index<PodView> {
    pods.index("controller", |pod| match pod.controller() {
        Some(owner) => vec![owner.uid.clone()],
        None => vec![orphans(pod.namespace())],
    })
}

/// The value of the index [`by_controller`] for pods of a namespace that nobody manages.
#[must_use]
pub fn orphans(namespace: &str) -> String {
    format!("orphans in {namespace}")
}

/// Pods by the node that they are bound to.
#[must_use]
pub fn by_node(pods: &Informer<PodView>) -> Index<PodView> {
    pods.index(
        "node",
        |pod| {
            if pod.spec.node_name.is_empty() { vec![] } else { vec![pod.spec.node_name.clone()] }
        },
    )
}

/// Pods by the keys of the claims behind their volumes.
#[must_use]
pub fn by_claim(pods: &Informer<PodView>) -> Index<PodView> {
    pods.index("claim", PodView::claims)
}

/// What a change of a pod means to those who manage pods.
#[derive(Debug, PartialEq)]
pub enum Wake<'a> {
    /// A pod of this owner appeared.
    Created(&'a OwnerReference, &'a PodView),
    /// A pod of this owner was marked as deleted, or is gone.
    Deleted(&'a OwnerReference, &'a PodView),
    Changed(&'a OwnerReference, &'a PodView),
    /// A pod without owner appeared or changed so that somebody may now want it.
    Orphan(&'a PodView),
}

/// Tells an informer's change in terms of owners.
pub fn wakes<'a>(
    old: Option<&'a Arc<PodView>>,
    new: Option<&'a Arc<PodView>>,
    mut wake: impl FnMut(Wake<'a>),
) {
    match (old, new) {
        (None, Some(pod)) => match pod.controller() {
            Some(owner) if pod.is_deleting() => wake(Wake::Deleted(owner, pod)),
            Some(owner) => wake(Wake::Created(owner, pod)),
            None => wake(Wake::Orphan(pod)),
        },
        (Some(pod), None) => {
            if let Some(owner) = pod.controller() {
                wake(Wake::Deleted(owner, pod));
            }
        }
        (Some(was), Some(is)) => {
            let (before, after) = (was.controller(), is.controller());
            let moved = before.map(|o| &o.uid) != after.map(|o| &o.uid);
            if let Some(owner) = before.filter(|_| moved) {
                wake(Wake::Changed(owner, was));
            }
            match after {
                Some(owner) if is.is_deleting() && !was.is_deleting() => wake(Wake::Deleted(owner, is)),
                Some(owner) => wake(Wake::Changed(owner, is)),
                None if moved || was.metadata.labels != is.metadata.labels => wake(Wake::Orphan(is)),
                None => {}
            }
        }
        (None, None) => {}
    }
}
