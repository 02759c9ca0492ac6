//! Names of resources: which there are, which may be overcommitted, which come in whole numbers.

use super::check::Check;
use super::names;
use crate::field::{Errors, Path};

const HUGE_PAGES: &str = "hugepages-";
const ATTACHABLE: &str = "attachable-volumes-";
const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const OBJECT_COUNTS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const QUOTA_ONLY: [&str; 8] = [
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "storage",
];

#[must_use]
pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

fn is_quota_huge_pages(name: &str) -> bool {
    is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// Whether the name belongs to Kubernetes itself.
#[must_use]
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the name is of an extended resource, such as `example.com/gpu`.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether requests may be lower than limits.
#[must_use]
pub fn allows_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Whether only whole numbers of it can be had.
#[must_use]
pub fn is_integer(name: &str) -> bool {
    OBJECT_COUNTS.contains(&name) || is_extended(name)
}

fn is_standard_container(name: &str) -> bool {
    CONTAINER.contains(&name) || is_huge_pages(name)
}

#[must_use]
pub fn is_standard_quota(name: &str) -> bool {
    CONTAINER.contains(&name)
        || OBJECT_COUNTS.contains(&name)
        || QUOTA_ONLY.contains(&name)
        || is_quota_huge_pages(name)
}

fn is_standard(name: &str) -> bool {
    is_standard_quota(name) || name.starts_with(ATTACHABLE)
}

/// Any resource name.
pub fn name(errors: &mut Errors, path: &Path, name: &str) -> bool {
    let faults = names::qualified_name(name);
    if !faults.is_empty() {
        errors.faults(path, name, faults);
        return false;
    }
    if !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// The name of a resource that containers can have.
pub fn container_name(errors: &mut Errors, path: &Path, resource: &str) {
    name(errors, path, resource);
    if !resource.contains('/') {
        if !is_standard_container(resource) {
            errors.invalid(path, resource, "must be a standard resource for containers");
        }
    } else if !is_native(resource) && !is_extended(resource) {
        errors.invalid(path, resource, "doesn't follow extended resource name standard");
    }
}

/// The name of a resource that a pod as a whole can have.
pub fn pod_name(errors: &mut Errors, path: &Path, resource: &str) {
    if name(errors, path, resource) && !matches!(resource, "cpu" | "memory") && !is_huge_pages(resource) {
        let error = crate::field::Error::not_supported(path, resource, &["cpu", "hugepages-", "memory"]);
        errors.push(error);
    }
}

/// The name of a resource that a quota can limit.
pub fn quota_name(errors: &mut Errors, path: &Path, resource: &str) {
    name(errors, path, resource);
    if !resource.contains('/') && !is_standard_quota(resource) {
        errors.invalid(path, resource, "must be a standard resource for quota");
    }
}
