//! Whether a quota's scopes hold an object.

use super::cast;
use crate::behaviour::pod::qos_class;
use crate::object::Object;
use crate::types::core::v1::{
    PersistentVolumeClaim, Pod, PodSpec, ResourceQuotaSpec, ScopedResourceSelectorRequirement,
};

/// Whether all scopes of a quota hold the object. Those about pods hold no other object.
#[must_use]
pub fn holds(spec: &ResourceQuotaSpec, object: &dyn Object) -> bool {
    let named = spec.scopes.iter().flatten().map(|name| (name.as_str(), "Exists", &[][..]));
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten()).map(
        |r: &ScopedResourceSelectorRequirement| {
            (r.scope_name.as_str(), r.operator.as_str(), r.values.as_deref().unwrap_or_default())
        },
    );
    named.chain(selected).all(|(scope, operator, values)| holds_one(scope, operator, values, object))
}

fn holds_one(scope: &str, operator: &str, values: &[String], object: &dyn Object) -> bool {
    if let Some(claim) = cast::<PersistentVolumeClaim>(object) {
        let classes = [
            claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref()),
            claim.status.as_ref().and_then(|s| s.current_volume_attributes_class_name.as_deref()),
        ];
        let class = classes.into_iter().flatten().find(|c| !c.is_empty());
        return scope == "VolumeAttributesClass" && selects(class, operator, values);
    }
    let Some(spec) = cast::<Pod>(object).and_then(|pod| pod.spec.as_ref()) else { return false };
    let terminating = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => qos_class(spec) == "BestEffort",
        "NotBestEffort" => qos_class(spec) != "BestEffort",
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().filter(|c| !c.is_empty());
            selects(class, operator, values)
        }
        "CrossNamespacePodAffinity" => looks_elsewhere(spec),
        _ => false,
    }
}

/// A label selector's requirement on a name that may be absent.
fn selects(name: Option<&str>, operator: &str, values: &[String]) -> bool {
    let listed = name.is_some_and(|name| values.iter().any(|value| value == name));
    match operator {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => name.is_some(),
        "DoesNotExist" => name.is_none(),
        _ => false,
    }
}

/// Whether a pod's affinity names other namespaces.
fn looks_elsewhere(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let (with, against) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = with
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(against.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()))
        .flatten();
    let preferred = with
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(against.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()))
        .flatten()
        .map(|weighted| &weighted.pod_affinity_term);
    required.chain(preferred).any(|term| {
        term.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || term.namespace_selector.is_some()
    })
}
