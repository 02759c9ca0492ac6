//! PodResizeValidator: a pod that runs can be resized on Linux only, and not beyond what its node has to give.

use super::{Attributes, Operation, Plugin, cast};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::behaviour::pod_spec::requests_of_containers;
use krate_api::meta::StatusCause;
use krate_api::quantity::Quantity;
use krate_api::types::core::v1::{Node, Pod, PodSpec};
use krate_api::{Object, Status};
use std::collections::BTreeMap;

pub(super) struct PodResize;

const SYSTEM: &str = "kubernetes.io/os";

#[async_trait]
impl Plugin for PodResize {
    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let resizes = at.operation == Operation::Update && at.call.subresource == "resize";
        let Some(pod) = object.and_then(cast::<Pod>).filter(|_| resizes) else { return Ok(()) };
        let Some(spec) = &pod.spec else { return Ok(()) };
        let name = spec.node_name.as_deref().unwrap_or("");
        let changed = at.old.is_some_and(|old| old.meta().generation != pod.metadata.generation);
        if name.is_empty() || !changed {
            return Ok(());
        }
        let Some(node) = server.read::<Node>("", name).await? else {
            return Err(at.forbidden(&format!("node {name:?} not found")));
        };
        let system = node.metadata.labels.as_ref().and_then(|labels| labels.get(SYSTEM));
        if let Some(system) = system.filter(|system| *system != "linux") {
            let text = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return Err(refusal(at, &text, "UnsupportedPlatform"));
        }
        let lacking = lacking(spec, &node);
        if lacking.is_empty() {
            return Ok(());
        }
        let text = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
        Err(refusal(at, &text, "NodeCapacity"))
    }
}

fn refusal(at: &Attributes<'_>, text: &str, reason: &str) -> Status {
    let mut status = at.forbidden(text);
    let cause = StatusCause { reason: Some(reason.to_owned()), ..StatusCause::default() };
    status.0.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
    status
}

/// Of what the pod asks for more than the node has.
fn lacking(spec: &PodSpec, node: &Node) -> Vec<String> {
    let wanted = requests(spec);
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let mut list = vec![];
    for (name, show) in [("cpu", Quantity::millis as fn(&Quantity) -> i64), ("memory", Quantity::value)] {
        let wanted = wanted.get(name).copied().unwrap_or_default();
        let given = allocatable.and_then(|list| list.get(name));
        let given = given.and_then(|text| Quantity::of(text).ok()).unwrap_or_default();
        if wanted > given {
            list.push(format!("{name}, requested: {}, allocatable: {}", show(&wanted), show(&given)));
        }
    }
    list
}

/// What a pod asks for: of its containers or, where it says so, as a whole, and what it costs beside that.
fn requests(spec: &PodSpec) -> BTreeMap<String, Quantity> {
    let mut sum = requests_of_containers(spec);
    let whole = spec.resources.as_ref().and_then(|given| given.requests.as_ref());
    for (name, amount) in whole.into_iter().flatten() {
        if let Ok(amount) = Quantity::of(amount) {
            sum.insert(name.clone(), amount);
        }
    }
    for (name, amount) in spec.overhead.iter().flatten() {
        if let Ok(amount) = Quantity::of(amount) {
            sum.entry(name.clone()).or_default().add(&amount);
        }
    }
    sum
}
