//! What a pod uses.

use super::{Usage, things};
use crate::behaviour::pod_spec::requirements::{limits_of_containers, requests_of_containers};
use crate::behaviour::resources::{is_extended, is_huge_pages};
use crate::quantity::Quantity;
use crate::types::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 10] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const SHARED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// What every container has to say, once it is limited.
const EXPLICIT: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

pub(super) fn concerns(name: &str) -> bool {
    let requested = name.strip_prefix("requests.");
    NAMES.contains(&name)
        || is_huge_pages(name)
        || requested.is_some_and(|asked| is_huge_pages(asked) || is_extended(asked))
}

/// Whether the pod still takes anything but its place: it has not ended, and its grace is not over.
fn lives(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let overdue = pod.metadata.deletion_timestamp.as_ref().is_some_and(|at| {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        at.0.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now > end)
    });
    !matches!(phase, "Succeeded" | "Failed") && !overdue
}

pub(super) fn usage(pod: &Pod, now: Timestamp, usage: &mut Usage) {
    let Some(spec) = pod.spec.as_ref().filter(|_| lives(pod, now)) else { return };
    usage.insert("pods".to_owned(), things(1));
    let (mut requests, mut limits) = (requests_of_containers(spec), limits_of_containers(spec));
    let whole = spec.resources.as_ref();
    override_with(&mut requests, whole.and_then(|r| r.requests.as_ref()));
    override_with(&mut limits, whole.and_then(|r| r.limits.as_ref()));
    for (name, text) in spec.overhead.iter().flatten() {
        let Ok(amount) = Quantity::of(text) else { continue };
        requests.entry(name.clone()).or_default().add(&amount);
        if let Some(limit) = limits.get_mut(name) {
            limit.add(&amount);
        }
    }
    spread(&requests, &limits, usage);
}

fn override_with(
    amounts: &mut Usage,
    given: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) {
    for (name, text) in given.into_iter().flatten() {
        if let Ok(amount) = Quantity::of(text) {
            amounts.insert(name.clone(), amount);
        }
    }
}

/// Requests and limits under all the names that quotas have for them.
fn spread(requests: &Usage, limits: &Usage, usage: &mut Usage) {
    for (name, amount) in requests {
        if SHARED.contains(&name.as_str()) || is_huge_pages(name) {
            usage.insert(name.clone(), *amount);
            usage.insert(format!("requests.{name}"), *amount);
        } else if is_extended(name) {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in SHARED {
        if let Some(amount) = limits.get(name) {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
}

fn said(resources: Option<&ResourceRequirements>) -> BTreeSet<String> {
    let (mut requests, mut limits, mut names) = (Usage::new(), Usage::new(), Usage::new());
    override_with(&mut requests, resources.and_then(|r| r.requests.as_ref()));
    override_with(&mut limits, resources.and_then(|r| r.limits.as_ref()));
    spread(&requests, &limits, &mut names);
    names.into_keys().collect()
}

/// `must specify limits.cpu for: a,b; memory for: a`.
pub(super) fn missing(limited: &[String], pod: &Pod) -> Option<String> {
    let required: Vec<&String> = limited.iter().filter(|name| EXPLICIT.contains(&name.as_str())).collect();
    let spec: &PodSpec = pod.spec.as_ref()?;
    let whole = said(spec.resources.as_ref());
    let mut silent: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    for container in containers {
        let own = said(container.resources.as_ref());
        for name in required.iter().filter(|name| !own.contains(**name) && !whole.contains(**name)) {
            silent.entry(name).or_default().insert(&container.name);
        }
    }
    if silent.is_empty() {
        return None;
    }
    let part = |(name, containers): (&str, BTreeSet<&str>)| {
        format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
    };
    Some(format!("must specify {}", silent.into_iter().map(part).collect::<Vec<_>>().join("; ")))
}
