//! NodeRestriction: a kubelet writes its own node and the pods bound to it, and nothing that would let it
//! reach further.

use super::{Attributes, Operation, Plugin, cast};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::types::authentication::v1::TokenRequest;
use krate_api::types::core::v1::{Node, PersistentVolume, Pod};
use krate_api::volumes::{PROVISIONER_FINALIZER, is_folder_of};
use krate_api::{Object, Status};
use std::collections::BTreeMap;

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels of the `kubernetes.io` and `k8s.io` namespaces that a kubelet may set.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];

pub(super) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(node) = at.call.user.node() else { return Ok(()) };
        let resource = at.call.resource();
        match (resource.group.as_str(), resource.plural.as_str(), at.call.subresource.as_str()) {
            ("", "pods", "") => pods(at, node, object),
            ("", "pods", "status") => own_pod(
                at,
                node,
                at.old,
                "can only update pod status for pods with spec.nodeName set to itself",
            ),
            ("", "pods", "eviction") => eviction(server, at, node).await,
            ("", "persistentvolumes", "") => folder(at, node, object),
            ("", "nodes", _) => nodes(at, node, object),
            ("", "serviceaccounts", "token") => token(server, at, node, object).await,
            _ => Ok(()),
        }
    }
}

fn refuse(at: &Attributes<'_>, node: &str, why: &str) -> Status {
    at.forbidden(&format!("node \"{node}\" {why}"))
}

fn node_of(pod: Option<&Pod>) -> &str {
    pod.and_then(|p| p.spec.as_ref()).and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

fn own_pod(at: &Attributes<'_>, node: &str, object: Option<&dyn Object>, why: &str) -> Result<(), Status> {
    if node_of(object.and_then(cast::<Pod>)) == node { Ok(()) } else { Err(refuse(at, node, why)) }
}

/// A node may say of a folder of its own that it is removed, and nothing else.
fn folder(at: &Attributes<'_>, node: &str, object: Option<&dyn Object>) -> Result<(), Status> {
    let (Some(old), Some(new)) =
        (at.old.and_then(cast::<PersistentVolume>), object.and_then(cast::<PersistentVolume>))
    else {
        return Err(refuse(at, node, "can only update persistent volumes"));
    };
    let going = old.metadata.deletion_timestamp.is_some();
    let mut said = old.clone();
    said.metadata.finalizers.get_or_insert_default().retain(|f| f != PROVISIONER_FINALIZER);
    said.metadata.finalizers = said.metadata.finalizers.take().filter(|f| !f.is_empty());
    said.metadata.managed_fields.clone_from(&new.metadata.managed_fields);
    said.metadata.resource_version.clone_from(&new.metadata.resource_version);
    let mut new = new.clone();
    new.metadata.finalizers = new.metadata.finalizers.take().filter(|f| !f.is_empty());
    if going && is_folder_of(old, node) && new == said {
        Ok(())
    } else {
        Err(refuse(
            at,
            node,
            "can only say of a deleted persistent volume in a folder of its own that it is removed",
        ))
    }
}

fn pods(at: &Attributes<'_>, node: &str, object: Option<&dyn Object>) -> Result<(), Status> {
    match at.operation {
        Operation::Create => {
            let pod = object.and_then(cast::<Pod>);
            let mirror =
                pod.and_then(|p| p.metadata.annotations.as_ref()).is_some_and(|a| a.contains_key(MIRROR));
            if !mirror {
                let why = format!(
                    "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
                );
                return Err(at.forbidden(&why));
            }
            own_pod(at, node, object, "can only create pods with spec.nodeName set to itself")
        }
        Operation::Delete => {
            own_pod(at, node, at.old, "can only delete pods with spec.nodeName set to itself")
        }
        _ => Err(at.forbidden("unexpected operation \"UPDATE\"")),
    }
}

async fn eviction(server: &Inner, at: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let pod = server.read::<Pod>(&at.call.namespace, &at.call.name).await?;
    if pod.is_none() || node_of(pod.as_deref()) == node {
        return Ok(());
    }
    Err(refuse(at, node, "can only evict pods with spec.nodeName set to itself"))
}

fn nodes(at: &Attributes<'_>, node: &str, object: Option<&dyn Object>) -> Result<(), Status> {
    let new = object.and_then(cast::<Node>);
    let old = at.old.and_then(cast::<Node>);
    let name = new.and_then(|n| n.metadata.name.as_deref()).unwrap_or(&at.call.name);
    if name != node {
        return Err(refuse(at, node, &format!("is not allowed to modify node \"{name}\"")));
    }
    let Some(new) = new else { return Ok(()) };
    let empty = BTreeMap::new();
    let labels = new.metadata.labels.as_ref().unwrap_or(&empty);
    let before = old.and_then(|o| o.metadata.labels.as_ref()).unwrap_or(&empty);
    let mut bad: Vec<&str> = labels
        .iter()
        .filter(|(k, v)| before.get(*k) != Some(*v))
        .map(|(k, _)| k.as_str())
        .chain(before.keys().filter(|k| !labels.contains_key(*k)).map(String::as_str))
        .filter(|k| is_restricted(k))
        .collect();
    if !bad.is_empty() {
        bad.sort_unstable();
        let why = format!("is not allowed to modify labels: {}", bad.join(", "));
        return Err(refuse(at, node, &why));
    }
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if at.call.subresource.is_empty() && old.is_some_and(|old| taints(old) != taints(new)) {
        return Err(refuse(at, node, "is not allowed to modify taints"));
    }
    Ok(())
}

fn is_restricted(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let under = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if under(RESTRICTED) {
        return true;
    }
    let own = OWN_LABELS.contains(&label) || under("kubelet.kubernetes.io") || under("node.kubernetes.io");
    (under("kubernetes.io") || under("k8s.io")) && !own
}

async fn token(
    server: &Inner,
    at: &Attributes<'_>,
    node: &str,
    object: Option<&dyn Object>,
) -> Result<(), Status> {
    let bound = object
        .and_then(cast::<TokenRequest>)
        .and_then(|t| t.spec.as_ref())
        .and_then(|s| s.bound_object_ref.as_ref())
        .filter(|b| b.kind.as_deref() == Some("Pod"));
    let Some(bound) = bound else { return Err(refuse(at, node, "requested token not bound to a pod")) };
    let name = bound.name.as_deref().unwrap_or("");
    let pod = server.read::<Pod>(&at.call.namespace, name).await?;
    let Some(pod) = pod else { return Err(Status::not_found("", "pods", name)) };
    if pod.metadata.uid != bound.uid {
        let have = pod.metadata.uid.as_deref().unwrap_or("");
        let wanted = bound.uid.as_deref().unwrap_or("");
        return Err(at.forbidden(&format!("the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated: {have}")));
    }
    own_pod(at, node, Some(&*pod), "requested token bound to a pod scheduled on a different node")
}
