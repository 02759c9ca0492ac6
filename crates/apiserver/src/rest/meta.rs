//! The rules of `metadata` that hold for every kind: what the system fills in, what may not change.
//!
//! Checks of names, labels and annotations are `krate-api`'s; this file puts them in order.

use crate::call::Call;
use krate_api::field::{self, Errors, Path};
use krate_api::meta::{ObjectMeta, Time};
use krate_api::{Object, Resource, Status};

/// Kinds whose PUT creates what does not exist.
pub(crate) fn creates_on_update(resource: &Resource) -> bool {
    matches!(
        (resource.group.as_str(), resource.plural.as_str()),
        ("", "endpoints" | "events" | "limitranges" | "services")
            | ("events.k8s.io", "events")
            | ("coordination.k8s.io", "leases")
            | (
                "rbac.authorization.k8s.io",
                "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings"
            )
    )
}

/// Kinds whose PUT must say which version it replaces.
pub(crate) fn needs_revision(resource: &Resource) -> bool {
    matches!(
        resource.plural.as_str(),
        "leases"
            | "csidrivers"
            | "csinodes"
            | "csistoragecapacities"
            | "volumeattachments"
            | "poddisruptionbudgets"
    )
}

/// Kinds whose deletion answers with the object instead of a `Status`.
pub(crate) fn returns_deleted(resource: &Resource) -> bool {
    matches!(
        resource.plural.as_str(),
        "pods"
            | "podtemplates"
            | "persistentvolumes"
            | "persistentvolumeclaims"
            | "resourcequotas"
            | "serviceaccounts"
            | "services"
            | "storageclasses"
            | "csidrivers"
            | "csinodes"
            | "volumeattachments"
            | "volumeattributesclasses"
    )
}

/// Fits a new object to the request's namespace and clears what only the system sets.
pub(crate) fn enter_namespace(call: &Call, meta: &mut ObjectMeta) -> Result<(), Status> {
    if !call.resource().namespaced {
        return match meta.namespace.as_deref() {
            None | Some("") => {
                meta.namespace = None;
                Ok(())
            }
            Some(_) => Err(Status::bad_request("namespace is not allowed on cluster scoped objects")),
        };
    }
    match meta.namespace.as_deref() {
        None | Some("") => meta.namespace = Some(call.namespace.clone()),
        Some(namespace) if namespace == call.namespace => {}
        Some(_) => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// What the system writes into a new object.
pub(crate) fn fill(meta: &mut ObjectMeta, uid: String, now: krate_base::Timestamp) {
    krate_api::behaviour::meta::before_create(meta);
    meta.uid = Some(uid);
    meta.creation_timestamp = Some(Time(now));
    meta.resource_version = None;
    meta.managed_fields = None;
}

/// The faults of a new object's metadata.
pub(crate) fn validate(resource: &Resource, object: &dyn Object) -> Errors {
    krate_api::behaviour::meta::validate_create(object.meta(), resource.namespaced, &*resource.behaviour)
}

/// The faults of a change of metadata.
pub(crate) fn validate_update(new: &dyn Object, old: &dyn Object) -> Errors {
    krate_api::behaviour::meta::validate_update(new.meta(), old.meta())
}

/// The fault of a PUT without a resourceVersion where one is needed.
pub(crate) fn revision_required() -> field::Error {
    let mut fault = field::Error::invalid(
        &Path::new("metadata").child("resourceVersion"),
        &0,
        "must be specified for an update",
    );
    fault.value = "0x0".to_owned();
    fault
}
