//! The faults of a change to the resources of a running pod (`pods/resize`).

use super::qos_class;
use crate::behaviour::check::Check;
use crate::behaviour::fill::{self, Resources, items, str_of};
use crate::field::{Errors, Path};
use crate::types::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

pub fn validate(errors: &mut Errors, new: &Pod, old: &Pod) {
    super::validate::pod(errors, new);
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror")) {
        errors.clear();
        errors.forbidden(&Path::new(""), "static pods cannot be resized");
        return;
    }
    let (Some(wanted), Some(was)) = (&new.spec, &old.spec) else { return };
    if was.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.clear();
        errors.forbidden(&Path::new(""), "windows pods cannot be resized");
        return;
    }
    let path = Path::new("spec");
    let class = old.status.as_ref().map_or("", |s| str_of(&s.qos_class));
    if class != qos_class(wanted) {
        let shown = new.status.as_ref().map_or("", |s| str_of(&s.qos_class));
        errors.invalid(&path, shown, "Pod QOS Class may not change as a result of resizing");
    }
    if !supported(old) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    let before = errors.len();
    same_order(errors, &path.child("containers"), "containers", &wanted.containers, &was.containers);
    let (init, old_init) = (items(&wanted.init_containers), items(&was.init_containers));
    same_order(errors, &path.child("initContainers"), "initContainers", init, old_init);
    if errors.len() == before {
        changes(errors, &path, wanted, was);
    }
}

/// A node that reports the resources of running containers can change them.
fn supported(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().map_or(&[][..], |s| items(&s.container_statuses));
    let running = statuses.iter().find(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()));
    running.is_none_or(|s| s.resources.is_some())
}

fn same_order(errors: &mut Errors, path: &Path, what: &str, new: &[Container], old: &[Container]) {
    if new.len() != old.len() {
        errors.forbidden(path, &format!("{what} may not be added or removed on resize"));
        return;
    }
    for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (n, o))| n.name != o.name) {
        let text = format!("{what} may not be renamed or reordered on resize");
        errors.forbidden(&path.index(i).child("name"), &text);
    }
}

fn changes(errors: &mut Errors, path: &Path, new: &PodSpec, old: &PodSpec) {
    let mut rest = new.clone();
    let sidecar = |c: &Container| c.restart_policy.as_deref() == Some("Always");
    let pairs = fill::items_mut(&mut rest.init_containers).iter_mut().zip(items(&old.init_containers));
    for (i, (container, was)) in pairs.enumerate() {
        if sidecar(was) {
            removed(errors, &path.child("initContainers").index(i).child("resources"), container, was);
            mask(&mut container.resources, &was.resources);
            if !fill::same(container, was) {
                errors.forbidden(path, "only cpu and memory resources for sidecar containers are mutable");
            }
        } else if !fill::same(container, was) {
            errors.forbidden(path, "resources for non-sidecar init containers are immutable");
        }
    }
    for (i, (container, was)) in rest.containers.iter_mut().zip(&old.containers).enumerate() {
        removed(errors, &path.child("containers").index(i).child("resources"), container, was);
        mask(&mut container.resources, &was.resources);
        container.resize_policy.clone_from(&was.resize_policy);
        if !fill::same(container, was) {
            errors.forbidden(path, "only cpu and memory resources are mutable");
        }
    }
    mask(&mut rest.resources, &old.resources);
    if errors.is_empty() && !fill::same(&rest, old) {
        errors.forbidden(path, "only cpu and memory resources are mutable");
    }
}

fn removed(errors: &mut Errors, path: &Path, new: &Container, old: &Container) {
    let lost = |new: Option<&Resources>, old: Option<&Resources>| {
        old.is_some_and(|old| old.keys().any(|name| !new.is_some_and(|new| new.contains_key(name))))
    };
    let (now, was) = (new.resources.as_ref(), old.resources.as_ref());
    let requests = |r: Option<&'_ ResourceRequirements>| r.and_then(|r| r.requests.clone());
    let limits = |r: Option<&'_ ResourceRequirements>| r.and_then(|r| r.limits.clone());
    if lost(requests(now).as_ref(), requests(was).as_ref()) {
        errors.forbidden(&path.child("requests"), "resource requests cannot be removed");
    }
    if lost(limits(now).as_ref(), limits(was).as_ref()) {
        errors.forbidden(&path.child("limits"), "resource limits cannot be removed");
    }
}

/// Gives processor and memory their old amounts, so that only other changes remain.
fn mask(new: &mut Option<ResourceRequirements>, old: &Option<ResourceRequirements>) {
    let Some(now) = new else { return };
    let empty = ResourceRequirements::default();
    let was = old.as_ref().unwrap_or(&empty);
    for (now, was) in [(&mut now.requests, &was.requests), (&mut now.limits, &was.limits)] {
        let list = now.get_or_insert_default();
        for name in ["cpu", "memory"] {
            list.remove(name);
            if let Some(amount) = was.as_ref().and_then(|w| w.get(name)) {
                list.insert(name.to_owned(), amount.clone());
            }
        }
        if list.is_empty() {
            *now = None;
        }
    }
    if old.is_none() && *now == empty {
        *new = None;
    }
}
