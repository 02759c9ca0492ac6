//! Resizing pods in place: what a pod asks for, what the node has given it, and what its containers have.
//!
//! Three amounts can differ for a while. *Asked* is the specification of the API. *Allocated* is what this
//! node has set aside ([`allocate`]); everything else in the kubelet sees the pod with these amounts. *Given*
//! is what the containers' control groups hold ([`Given`]); the worker brings it to what is allocated. All of
//! it is found again after a restart in the status that was published. Pure.

pub mod allocate;
pub mod given;

pub use allocate::Pending;
pub use given::Given;

use crate::spec;
use krate_api::types::core::v1::{Container, Pod, ResourceRequirements};

/// The resources that can be changed while a pod runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Whether both give the same of one resource.
fn same_amount(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>, name: &str) -> bool {
    let amount = |q: Option<&_>| q.map_or(0, |q| spec::resources::amount(name, q));
    amount(spec::resources::request(a, name)) == amount(spec::resources::request(b, name))
        && amount(spec::resources::limit(a, name)) == amount(spec::resources::limit(b, name))
}

fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    RESIZABLE.iter().all(|name| same_amount(a, b, name))
}

/// The containers whose resources may change: the regular ones and the sidecars.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_restartable_init(c));
    sidecars.chain(spec::containers(pod))
}

/// The same pod with resources that `of` names for its containers, and of its own.
fn with_resources(
    pod: &Pod,
    own: Option<ResourceRequirements>,
    of: impl Fn(&str) -> Option<ResourceRequirements>,
) -> Pod {
    let mut out = pod.clone();
    let Some(spec) = &mut out.spec else { return out };
    spec.resources = own;
    let init = spec.init_containers.iter_mut().flatten().filter(|c| spec::is_restartable_init(c));
    for container in init.chain(&mut spec.containers) {
        if let Some(resources) = of(&container.name) {
            container.resources = Some(resources);
        }
    }
    out
}
