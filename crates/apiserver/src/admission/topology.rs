//! PodTopologyLabels: a pod carries the zone and the region of its node as labels, so that it can learn them
//! without the right to read nodes. Labels that it has already are left alone.

use super::{Attributes, Operation, Plugin, cast_mut};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::types::core::v1::{Binding, Node, Pod};
use krate_api::{Object, Status};

pub(super) struct PodTopologyLabels;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

#[async_trait]
impl Plugin for PodTopologyLabels {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        let resource = at.call.resource();
        let pods = resource.group.is_empty() && resource.plural == "pods";
        if at.operation != Operation::Create || !pods {
            return Ok(());
        }
        let node = match at.call.subresource.as_str() {
            "" => cast_mut::<Pod>(object).and_then(|pod| pod.spec.as_ref()?.node_name.clone()),
            "binding" => cast_mut::<Binding>(object)
                .filter(|binding| binding.target.kind.as_deref() == Some("Node"))
                .and_then(|binding| binding.target.name.clone()),
            _ => None,
        };
        let Some(name) = node.filter(|name| !name.is_empty()) else { return Ok(()) };
        // A node that is not there yet says nothing.
        let Some(node) = server.find::<Node>("", &name).await? else { return Ok(()) };
        for label in LABELS {
            if let Some(value) = node.view.labels.get(label) {
                let labels = object.meta_mut().labels.get_or_insert_default();
                labels.entry(label.to_owned()).or_insert_with(|| value.clone());
            }
        }
        Ok(())
    }
}
