//! The scheduler's node: the fields that it reads, made once per change.

use super::resources::Resources;
use krate_api::labels::Labels;
use krate_api::object::DecodeError;
use krate_api::placement::Taint;
use krate_api::types::core::v1::Node;
use krate_api::{Object, Shared};
use std::collections::HashMap;
use std::sync::Arc;

/// Label of a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a node's region.
pub const REGION: &str = "topology.kubernetes.io/region";

/// A node as it is scheduled onto.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    /// Size in bytes by normalized name.
    pub images: HashMap<String, i64>,
}

impl NodeView {
    #[must_use]
    pub fn new(node: &Node) -> Self {
        let meta = node.meta();
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let images = status.and_then(|s| s.images.as_ref()).into_iter().flatten();
        Self {
            name: meta.name.as_deref().unwrap_or_default().into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            labels: meta.labels.clone().unwrap_or_default(),
            taints: spec
                .and_then(|s| s.taints.as_ref())
                .into_iter()
                .flatten()
                .filter_map(Taint::of)
                .collect(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: Resources::of(status.and_then(|s| s.allocatable.as_ref())),
            images: images
                .flat_map(|image| {
                    let size = image.size_bytes.unwrap_or(0);
                    image.names.iter().flatten().map(move |name| (name.clone(), size))
                })
                .collect(),
        }
    }

    /// Region and zone, for spreading the order in which nodes are tried.
    #[must_use]
    pub fn zone(&self) -> (String, String) {
        let label = |key: &str, beta: &str| {
            self.labels.get(key).or_else(|| self.labels.get(beta)).cloned().unwrap_or_default()
        };
        (
            label(REGION, "failure-domain.beta.kubernetes.io/region"),
            label(ZONE, "failure-domain.beta.kubernetes.io/zone"),
        )
    }
}

impl krate_client::View for NodeView {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        Ok(Arc::new(Self::new(&*object.typed::<Node>()?)))
    }
}
