//! Which Services a pod belongs to, and which pods a Service has: found by one of the selector's labels, not by
//! asking every Service or every pod of a namespace.

use crate::meta;
use crate::pods::PodView;
use krate_api::types::core::v1::Service;
use krate_client::{Index, Informer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Finds Services by the labels of pods.
#[derive(Clone)]
pub struct Selecting(Index<Service>);

impl Selecting {
    #[must_use]
    pub fn new(services: &Informer<Service>) -> Self {
        Self(services.index("selected label", |service: &Service| {
            let first = selector(service).and_then(|s| s.iter().next());
            first.map(|(k, v)| value(meta::namespace(&service.metadata), k, v)).into_iter().collect()
        }))
    }

    /// Calls `wake` with the key of every Service whose endpoints a change of a pod may change.
    pub fn wake(&self, old: Option<&Arc<PodView>>, new: Option<&Arc<PodView>>, mut wake: impl FnMut(String)) {
        // A pod without an address is no endpoint.
        if [old, new]
            .into_iter()
            .flatten()
            .all(|pod| pod.status.pod_ips.is_empty() && pod.status.pod_ip.is_empty())
        {
            return;
        }
        if let (Some(old), Some(new)) = (old, new)
            && old.metadata.labels == new.metadata.labels
            && !differ(old, new)
        {
            return;
        }
        let mut keys = BTreeSet::new();
        for pod in [old, new].into_iter().flatten() {
            keys.extend(self.keys(&pod.metadata.namespace, &pod.metadata.labels));
        }
        keys.into_iter().for_each(&mut wake);
    }

    fn keys(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<String> {
        let candidates = labels.iter().flat_map(|(k, v)| self.0.get(&value(namespace, k, v)));
        candidates.filter(|s| selects(s, labels)).map(|s| meta::key(&s.metadata)).collect()
    }
}

/// Finds the pods of Services by their labels.
#[derive(Clone)]
pub struct Selected(Index<PodView>);

impl Selected {
    #[must_use]
    pub fn new(pods: &Informer<PodView>) -> Self {
        Self(pods.index("label", |pod: &PodView| {
            pod.metadata.labels.iter().map(|(k, v)| value(&pod.metadata.namespace, k, v)).collect()
        }))
    }

    /// The pods that a Service selects, ordered by name. Only those with the label that the fewest have are
    /// looked at.
    #[must_use]
    pub fn of(&self, service: &Service) -> Vec<Arc<PodView>> {
        let namespace = meta::namespace(&service.metadata);
        let labels = selector(service).into_iter().flatten().map(|(k, v)| value(namespace, k, v));
        let Some(rarest) = labels.min_by_key(|label| self.0.count(label)) else { return vec![] };
        let mut pods = self.0.get(&rarest);
        pods.retain(|pod| selects(service, &pod.metadata.labels));
        pods
    }
}

fn value(namespace: &str, key: &str, label: &str) -> String {
    format!("{namespace}/{key}={label}")
}

/// The selector, if the Service has one.
#[must_use]
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|s| !s.is_empty())
}

#[must_use]
pub fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    selector(service).is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

/// Whether two states of a pod differ in what endpoints show.
fn differ(old: &PodView, new: &PodView) -> bool {
    old.is_deleting() != new.is_deleting()
        || old.is_ready() != new.is_ready()
        || old.is_finished() != new.is_finished()
        || old.status.pod_ips != new.status.pod_ips
        || old.status.pod_ip != new.status.pod_ip
        || old.spec.node_name != new.spec.node_name
        || old.spec.hostname != new.spec.hostname
        || old.spec.subdomain != new.spec.subdomain
        || old.uid() != new.uid()
}
