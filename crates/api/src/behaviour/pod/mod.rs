//! Pods.

mod label_keys;
mod resize;
#[cfg(test)]
mod tests;
mod validate;

use super::fill::{self, items, str_of};
use super::pod_spec::{defaults, drop_disabled, warnings};
use super::{Behaviour, Typed, names};
use crate::field::{Error, Errors, Path};
use crate::quantity::Quantity;
use crate::types::core::v1::{Binding, Container, Pod, PodIP, PodSpec};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Pod> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        validate: validate::create,
        validate_update: validate::update,
        // People seldom write pods themselves: nothing is said of their updates.
        warnings: |pod, old| if old.is_none() { warnings_of(pod) } else { vec![] },
        fields,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn warnings_of(pod: &Pod) -> Vec<String> {
    let name = pod.metadata.name.as_deref();
    let mut list: Vec<String> = name.and_then(warnings::pod_name).into_iter().collect();
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    list.extend(pod.spec.iter().flat_map(|s| warnings::whole(warnings::At::Pod, s, &annotations)));
    list
}

fn default(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    defaults::pod_spec(spec);
    defaults::pod_only(spec);
    let status = pod.status.get_or_insert_default();
    fill::agree(&mut status.pod_ip, &mut status.pod_ips, |ip: &PodIP| ip.ip.clone(), |ip| PodIP { ip });
}

fn prepare_create(pod: &mut Pod) {
    pod.metadata.generation = Some(1);
    label_keys::merge(pod);
    let spec = pod.spec.get_or_insert_default();
    drop_disabled(spec, None);
    let qos = qos_class(spec);
    let mut status = crate::types::core::v1::PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class: Some(qos.to_owned()),
        ..Default::default()
    };
    if !items(&spec.scheduling_gates).is_empty() {
        status.conditions = Some(vec![gated()]);
    }
    pod.status = Some(status);
}

/// The faults of a binding, which names the node of a pod.
#[must_use]
pub fn validate_binding(binding: &Binding) -> Errors {
    let mut errors = Errors::new();
    let (path, target) = (Path::new("target"), &binding.target);
    if !matches!(str_of(&target.kind), "" | "Node") {
        errors.push(Error::not_supported(&path.child("kind"), &target.kind, &["Node", "<empty>"]));
    }
    if fill::is_empty(&target.name) {
        errors.push(Error::required(&path.child("name"), ""));
    }
    errors
}

/// The condition of a pod that waits for its scheduling gates.
fn gated() -> crate::types::core::v1::PodCondition {
    crate::types::core::v1::PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..Default::default()
    }
}

fn prepare_update(new: &mut Pod, old: &Pod) {
    new.status.clone_from(&old.status);
    if let Some(spec) = &mut new.spec {
        drop_disabled(spec, old.spec.as_ref());
    }
    let changed = !fill::same(&new.spec, &old.spec);
    fill::generation(&mut new.metadata, &old.metadata, changed);
    let was_gated = old.spec.as_ref().is_some_and(|s| !items(&s.scheduling_gates).is_empty());
    let is_gated = new.spec.as_ref().is_some_and(|s| !items(&s.scheduling_gates).is_empty());
    if was_gated && !is_gated {
        ungate(new);
    }
}

/// The last gate is gone: the condition that told of it goes too.
fn ungate(pod: &mut Pod) {
    if let Some(conditions) = pod.status.as_mut().and_then(|s| s.conditions.as_mut()) {
        conditions.retain(|c| c.type_ != "PodScheduled" || c.reason.as_deref() != Some("SchedulingGated"));
    }
}

fn prepare_subresource(subresource: &str, new: &mut Pod, old: &Pod) {
    match subresource {
        "status" => {
            new.spec.clone_from(&old.spec);
            new.metadata.deletion_timestamp.clone_from(&old.metadata.deletion_timestamp);
            new.metadata.owner_references.clone_from(&old.metadata.owner_references);
            if let (Some(status), Some(was)) = (&mut new.status, &old.status) {
                status.qos_class.clone_from(&was.qos_class);
            }
        }
        "ephemeralcontainers" => only(new, old, |spec, new| {
            spec.ephemeral_containers.clone_from(&new.ephemeral_containers);
        }),
        "resize" => only(new, old, resize),
        _ => {}
    }
}

/// Everything of the old pod but what `take` takes from the new specification.
fn only(new: &mut Pod, old: &Pod, take: fn(&mut PodSpec, &PodSpec)) {
    let mut kept = old.clone();
    if let (Some(spec), Some(wanted)) = (&mut kept.spec, &new.spec) {
        take(spec, wanted);
    }
    kept.metadata.resource_version.clone_from(&new.metadata.resource_version);
    kept.metadata.managed_fields.clone_from(&new.metadata.managed_fields);
    let changed = !fill::same(&kept.spec, &old.spec);
    fill::generation(&mut kept.metadata, &old.metadata, changed);
    *new = kept;
}

/// Containers that were added, removed, renamed or moved stay as they are wanted: the validation tells of them.
fn resize(spec: &mut PodSpec, wanted: &PodSpec) {
    let take = |kept: &mut Vec<Container>, wanted: &[Container]| {
        let same_names = kept.iter().map(|c| &c.name).eq(wanted.iter().map(|c| &c.name));
        if !same_names {
            *kept = wanted.to_vec();
            return;
        }
        for (container, new) in kept.iter_mut().zip(wanted) {
            container.resources.clone_from(&new.resources);
            container.resize_policy.clone_from(&new.resize_policy);
        }
    };
    take(&mut spec.containers, &wanted.containers);
    if spec.init_containers.is_some() || wanted.init_containers.is_some() {
        take(spec.init_containers.get_or_insert_default(), items(&wanted.init_containers));
    }
    spec.resources.clone_from(&wanted.resources);
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the processor and memory of all containers.
#[must_use]
pub fn qos_class(spec: &PodSpec) -> &'static str {
    const COUNTED: [&str; 2] = ["cpu", "memory"];
    let own = spec.resources.as_ref();
    let of_containers =
        spec.containers.iter().chain(items(&spec.init_containers)).map(|c| c.resources.as_ref());
    let all: Vec<_> = if own.is_some() { vec![own] } else { of_containers.collect() };
    let amount = |list: Option<&fill::Resources>, name: &str| {
        list.and_then(|l| l.get(name)).and_then(|q| Quantity::of(q).ok()).filter(|q| !q.is_zero())
    };
    let mut any = false;
    let mut guaranteed = true;
    for resources in all {
        for name in COUNTED {
            let limit = amount(resources.and_then(|r| r.limits.as_ref()), name);
            let request = amount(resources.and_then(|r| r.requests.as_ref()), name);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn fields(pod: &Pod) -> Vec<(&'static str, String)> {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let text = |field: Option<&Option<String>>| field.map_or(String::new(), |f| str_of(f).to_owned());
    let first_ip = status.and_then(|s| items(&s.pod_ips).first()).map(|ip| ip.ip.clone());
    let ip = first_ip.unwrap_or_else(|| text(status.map(|s| &s.pod_ip)));
    vec![
        ("spec.nodeName", text(spec.map(|s| &s.node_name))),
        ("spec.restartPolicy", text(spec.map(|s| &s.restart_policy))),
        ("spec.schedulerName", text(spec.map(|s| &s.scheduler_name))),
        ("spec.serviceAccountName", text(spec.map(|s| &s.service_account_name))),
        ("spec.hostNetwork", spec.and_then(|s| s.host_network).unwrap_or(false).to_string()),
        ("status.phase", text(status.map(|s| &s.phase))),
        ("status.podIP", ip),
        ("status.podIPs", String::new()),
        ("status.nominatedNodeName", text(status.map(|s| &s.nominated_node_name))),
    ]
}
