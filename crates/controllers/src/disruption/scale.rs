//! How many pods there should be: the sum of what those who manage the pods are asked for.

use crate::meta;
use crate::pods::PodView;
use krate_api::meta::OwnerReference;
use krate_api::types::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use krate_api::types::autoscaling::v1::Scale;
use krate_api::types::core::v1::ReplicationController;
use krate_api::{Kind as _, Status};
use krate_client::{DynamicApi, Informer, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who may manage pods.
pub struct Owners {
    pub deployments: Informer<Deployment>,
    pub replica_sets: Informer<ReplicaSet>,
    pub stateful_sets: Informer<StatefulSet>,
    pub controllers: Informer<ReplicationController>,
    /// For all others, whose scale is asked for.
    pub transport: Arc<dyn Transport>,
    pub resources: crate::env::Resources,
}

/// Why the number is not known.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    #[error("{0} does not implement the scale subresource")]
    NoScale(String),
    #[error(transparent)]
    Api(#[from] Status),
}

/// An owner's uid and the number of pods that it is to have.
type Found = Option<(String, i32)>;

impl Owners {
    /// Pods that nobody manages count for nothing here.
    pub async fn expected(&self, pods: &[Arc<PodView>]) -> Result<i32, Fault> {
        let mut asked = BTreeSet::new();
        let mut scales = BTreeMap::new();
        for pod in pods {
            let Some(owner) = pod.controller() else { continue };
            if !asked.insert(owner.uid.clone()) {
                continue;
            }
            let found = self.known(owner, pod.namespace());
            let found = match found {
                Some(found) => Some(found),
                None => self.scale(owner, pod.namespace()).await?,
            };
            let Some((uid, replicas)) = found else { return Err(Fault::NoController(pod.name().to_owned())) };
            scales.insert(uid, replicas);
        }
        Ok(scales.values().fold(0i32, |sum, n| sum.saturating_add(*n)))
    }

    /// Of the kinds that are in our caches.
    fn known(&self, owner: &OwnerReference, namespace: &str) -> Found {
        let key = krate_api::object::key(namespace, &owner.name);
        let one = |uid: &str, replicas: Option<i32>| {
            (uid == owner.uid).then(|| (uid.to_owned(), replicas.unwrap_or(1)))
        };
        if meta::refers_to::<ReplicaSet>(owner) {
            let set = self.replica_sets.get(&key).filter(|s| meta::uid(&s.metadata) == owner.uid)?;
            let above = meta::controller_of(&set.metadata).filter(|o| meta::refers_to::<Deployment>(o));
            if let Some(above) = above {
                // The sets of one Deployment count once, with its number.
                let key = krate_api::object::key(namespace, &above.name);
                let all = self.deployments.get(&key).filter(|d| meta::uid(&d.metadata) == above.uid)?;
                let replicas = all.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                return Some((above.uid.clone(), replicas));
            }
            return one(meta::uid(&set.metadata), set.spec.as_ref().and_then(|s| s.replicas));
        }
        if meta::refers_to::<StatefulSet>(owner) {
            let set = self.stateful_sets.get(&key)?;
            return one(meta::uid(&set.metadata), set.spec.as_ref().and_then(|s| s.replicas));
        }
        if meta::refers_to::<ReplicationController>(owner) {
            let set = self.controllers.get(&key)?;
            return one(meta::uid(&set.metadata), set.spec.as_ref().and_then(|s| s.replicas));
        }
        None
    }

    /// Of any other kind, through its `scale`.
    async fn scale(&self, owner: &OwnerReference, namespace: &str) -> Result<Found, Fault> {
        let row = self.resources.borrow().by_kind(&owner.api_version, &owner.kind).cloned();
        let Some(row) = row else { return Ok(None) };
        if row.subresource("scale").is_none() {
            return Err(Fault::NoScale(row.qualified()));
        }
        let api = DynamicApi::of(self.transport.clone(), &row);
        match api.get_at(namespace, &owner.name, "scale").await {
            Ok(shared) => {
                let scale = Scale::decode(&shared.bytes).map_err(Status::internal)?;
                let same = meta::uid(&scale.metadata) == owner.uid;
                let replicas = scale.spec.and_then(|s| s.replicas).unwrap_or(0);
                Ok(same.then(|| (owner.uid.clone(), replicas)))
            }
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status.into()),
        }
    }
}
