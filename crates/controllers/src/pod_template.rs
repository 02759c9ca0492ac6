//! Pods made from templates.

use krate_api::meta::OwnerReference;
use krate_api::types::core::v1::{Pod, PodTemplateSpec};

/// A pod as its template says, owned by `owner`, with a generated name.
#[must_use]
pub fn pod(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    pod.metadata.labels = from.labels;
    pod.metadata.annotations = from.annotations;
    pod.metadata.finalizers = from.finalizers;
    pod.metadata.namespace = Some(namespace.to_owned());
    pod.metadata.generate_name = Some(prefix(&owner.name));
    pod.metadata.owner_references = Some(vec![owner]);
    pod
}

/// The prefix of generated names: the owner's name and a dash, unless that is no prefix of a valid name.
fn prefix(owner: &str) -> String {
    let fits = owner.len() < 253 && !owner.ends_with('.');
    if fits { format!("{owner}-") } else { owner.to_owned() }
}
