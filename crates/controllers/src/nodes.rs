//! Nodes as the controllers keep them: without images and capacities.

use crate::meta::MetaView;
use krate_api::Shared;
use krate_api::object::DecodeError;
use krate_api::quantity::Quantity;
use krate_api::types::core::v1::{Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, Taint};
use krate_client::{Informer, Informers, Source, View};
use serde::Deserialize;
use std::sync::Arc;

/// The label of a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The slim node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeView {
    pub metadata: MetaView,
    pub spec: NodeSpecView,
    pub status: NodeStatusView,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpecView {
    pub unschedulable: bool,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub taints: Vec<Taint>,
    #[serde(rename = "podCIDR")]
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatusView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub conditions: Vec<NodeCondition>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub addresses: Vec<NodeAddress>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub daemon_endpoints: NodeDaemonEndpoints,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub allocatable: AllocatableView,
}

/// Of what pods may have: the processors.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct AllocatableView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub cpu: String,
}

impl View for NodeView {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        let mut node: Self = serde_json::from_slice(&object.bytes)?;
        node.metadata.annotations.clear();
        Ok(Arc::new(node))
    }
}

impl NodeView {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.metadata.labels.get(ZONE).map(String::as_str).filter(|z| !z.is_empty())
    }

    /// Thousandths of processors that pods may have.
    #[must_use]
    pub fn allocatable_cpu(&self) -> i64 {
        Quantity::parse(&self.status.allocatable.cpu).map_or(0, |cpu| cpu.millis())
    }

    /// The port of the node's kubelet, if it has told one.
    #[must_use]
    pub fn kubelet_port(&self) -> Option<i32> {
        self.status.daemon_endpoints.kubelet_endpoint.as_ref().map(|e| e.port)
    }

    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&NodeCondition> {
        self.status.conditions.iter().find(|c| c.type_ == kind)
    }
}

/// The informer of all nodes.
#[must_use]
pub fn informer(informers: &Informers) -> Informer<NodeView> {
    informers.get(Source::of::<Node>())
}
