//! Mirror pods: the API's picture of static pods. Read-only for users; the kubelet makes and removes them.

use crate::publish::Publisher;
use crate::spec;
use crate::statics::Statics;
use krate_api::meta::{DeleteOptions, OwnerReference, Preconditions};
use krate_api::types::core::v1::{Node, Pod};
use krate_api::{Reason, Status};
use krate_base::metrics::Metrics;
use krate_client::queue::Queue;
use krate_client::{Api, Transport};
use std::sync::Arc;

/// Keeps the mirror pods; clones share one queue.
#[derive(Clone)]
pub struct Mirrors {
    node: String,
    pods: Api<Pod>,
    nodes: Api<Node>,
    statics: Statics,
    publisher: Publisher,
    queue: Queue,
}

impl Mirrors {
    pub fn new(
        node: &str,
        transport: Arc<dyn Transport>,
        statics: Statics,
        publisher: Publisher,
        metrics: &Metrics,
    ) -> Self {
        Self {
            node: node.to_owned(),
            pods: Api::new(transport.clone()).managed_by("kubelet"),
            nodes: Api::new(transport),
            statics,
            publisher,
            queue: Queue::new("mirror_pods", metrics),
        }
    }

    /// A static pod or its mirror pod came, changed or went.
    pub fn look(&self, key: &str) {
        self.queue.add(key.to_owned());
    }

    pub async fn run(&self) {
        while let Some(key) = self.queue.get().await {
            match self.settle(&key).await {
                Ok(()) => self.queue.forget(&key),
                Err(error) => {
                    tracing::debug!(pod = %key, %error, "the mirror pod cannot be settled now");
                    self.queue.add_rate_limited(key.clone());
                }
            }
            self.queue.done(&key);
        }
    }

    pub fn shutdown(&self) {
        self.queue.shutdown();
    }

    async fn settle(&self, key: &str) -> Result<(), Status> {
        let (namespace, name) = krate_api::object::split_key(key);
        let wanted = self.statics.get(key);
        let present = self.pods.get_opt(namespace, name).await?;
        if let Some(present) = &present {
            let Some(shown) = spec::annotation(present, spec::MIRROR_ANNOTATION) else {
                // A pod of the API has the name: it is not ours to touch.
                return Ok(());
            };
            let current =
                wanted.as_ref().is_some_and(|w| spec::uid(w) == shown) && !spec::is_deleting(present);
            if current {
                self.publisher.refresh(shown);
                return Ok(());
            }
            self.remove(present).await?;
        }
        let Some(wanted) = wanted else { return Ok(()) };
        let node = self.nodes.get("", &self.node).await?;
        match self.pods.create(mirror_of(&wanted, &node)).await {
            Err(status) if !status.is(Reason::AlreadyExists) => return Err(status),
            _ => self.publisher.refresh(spec::uid(&wanted)),
        }
        Ok(())
    }

    async fn remove(&self, pod: &Pod) -> Result<(), Status> {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..Default::default()
        };
        match self.pods.delete(spec::namespace(pod), spec::name(pod), options).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
            _ => Ok(()),
        }
    }
}

/// The mirror of a static pod, owned by its node.
fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    annotations.insert(spec::MIRROR_ANNOTATION.to_owned(), spec::uid(pod).to_owned());
    annotations.remove(crate::statics::FILE_ANNOTATION);
    mirror.metadata.uid = None;
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}
