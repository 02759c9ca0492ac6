//! HorizontalPodAutoscalers.

use super::check::{self, Check};
use super::fill::{items, str_of, value};
use super::{Behaviour, Typed, names, resources};
use crate::catalogue::autoscaling::{to_v1, to_v2};
use crate::field::{Error, Errors, Path};
use crate::quantity::Quantity;
use crate::types::autoscaling::v1::HorizontalPodAutoscaler as Old;
use crate::types::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    MetricIdentifier, MetricSpec, MetricTarget, ResourceMetricSource,
};
use std::sync::Arc;

/// Processor use that is aimed at when nothing is said, in percent of the request.
const CPU_PERCENT: i32 = 80;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<HorizontalPodAutoscaler> {
        default,
        prepare_create: |hpa| hpa.status = Some(Default::default()),
        prepare_update: |new, old| new.status.clone_from(&old.status),
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        validate: |hpa| validate(hpa, None),
        validate_update,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

/// The older version: what it says is what the newer one says of the same object.
pub fn old_behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Old> {
        default: |old| *old = through(old, default),
        prepare_create: |old| old.status = Some(Default::default()),
        prepare_update: |old, was| {
            let was = to_v2(was.clone());
            *old = through(old, |new| new.status.clone_from(&was.status));
        },
        prepare_subresource: |_, old, was| {
            let was = to_v2(was.clone());
            *old = through(old, |new| new.spec.clone_from(&was.spec));
        },
        validate: |old| validate(&to_v2(old.clone()), None),
        validate_update: |subresource, old, was| {
            validate_update(subresource, &to_v2(old.clone()), &to_v2(was.clone()))
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn through(old: &Old, change: impl FnOnce(&mut HorizontalPodAutoscaler)) -> Old {
    let mut new = to_v2(old.clone());
    change(&mut new);
    to_v1(new)
}

fn default(hpa: &mut HorizontalPodAutoscaler) {
    let spec = &mut hpa.spec;
    value(&mut spec.min_replicas, 1);
    if items(&spec.metrics).is_empty() {
        spec.metrics = Some(vec![cpu()]);
    }
    if let Some(behavior) = &mut spec.behavior {
        let up = behavior.scale_up.get_or_insert_default();
        value(&mut up.stabilization_window_seconds, 0);
        default_rules(up, &[("Pods", 4), ("Percent", 100)]);
        default_rules(behavior.scale_down.get_or_insert_default(), &[("Percent", 100)]);
    }
    hpa.status.get_or_insert_default();
}

fn cpu() -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(CPU_PERCENT),
                ..Default::default()
            },
        }),
        ..Default::default()
    }
}

fn default_rules(rules: &mut HPAScalingRules, policies: &[(&str, i32)]) {
    value(&mut rules.select_policy, "Max".to_owned());
    if items(&rules.policies).is_empty() {
        let policy = |(kind, amount): &(&str, i32)| HPAScalingPolicy {
            type_: (*kind).to_owned(),
            value: *amount,
            period_seconds: 15,
        };
        rules.policies = Some(policies.iter().map(policy).collect());
    }
}

const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// Longest time that recommendations are held, in seconds.
const WINDOW: i32 = 3600;
/// Longest period of a scaling policy, in seconds.
const PERIOD: i32 = 1800;

fn validate_update(
    subresource: &str,
    new: &HorizontalPodAutoscaler,
    old: &HorizontalPodAutoscaler,
) -> Errors {
    if subresource == "status" { validate_status(new) } else { validate(new, Some(old)) }
}

/// What the version of a referenced kind must be.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    /// Anything, since it was accepted once.
    Any,
    Readable,
    /// Readable and of a named group.
    Grouped,
}

/// The one kind of the core group that can be scaled has no group.
fn version_of(target: &CrossVersionObjectReference, old: Option<&HorizontalPodAutoscaler>) -> Version {
    let was = old.map(|old| &old.spec.scale_target_ref);
    match target.kind.as_str() {
        _ if was.is_some_and(|was| was.kind == target.kind && was.api_version == target.api_version) => {
            Version::Any
        }
        "ReplicationController" => Version::Readable,
        _ => Version::Grouped,
    }
}

fn validate(hpa: &HorizontalPodAutoscaler, old: Option<&HorizontalPodAutoscaler>) -> Errors {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), &hpa.spec);
    let min = spec.min_replicas;
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.invalid(&path.child("minReplicas"), &min, "must be greater than or equal to 1");
    }
    let at = path.child("maxReplicas");
    if spec.max_replicas < 1 {
        errors.invalid(&at, &spec.max_replicas, "must be greater than 0");
    }
    if min.is_some_and(|min| spec.max_replicas < min) {
        errors.invalid(&at, &spec.max_replicas, "must be greater than or equal to `minReplicas`");
    }
    let target = &spec.scale_target_ref;
    reference(&mut errors, &path.child("scaleTargetRef"), target, version_of(target, old));
    for (i, one) in items(&spec.metrics).iter().enumerate() {
        metric(&mut errors, &path.child("metrics").index(i), one);
    }
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                scaling(&mut errors, &path.child(field), rules);
            }
        }
    }
    errors
}

fn reference(errors: &mut Errors, path: &Path, target: &CrossVersionObjectReference, version: Version) {
    for (field, value) in [("kind", &target.kind), ("name", &target.name)] {
        if errors.required(&path.child(field), value) {
            errors.faults(&path.child(field), value, names::path_segment(value));
        }
    }
    let (path, given) = (path.child("apiVersion"), str_of(&target.api_version));
    match given.matches('/').count() {
        _ if version == Version::Any => {}
        0 | 1 if version == Version::Readable => {}
        1 if !given.starts_with('/') => {}
        0 | 1 => errors.invalid(&path, given, "apiVersion must specify API group"),
        _ => errors.invalid(&path, given, &format!("unexpected GroupVersion string: {given}")),
    }
}

/// `ContainerResource` as the field is called.
fn field_of(kind: &str) -> String {
    let mut chars = kind.chars();
    chars.next().map(|first| first.to_ascii_lowercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn metric(errors: &mut Errors, path: &Path, spec: &MetricSpec) {
    let kind = path.child("type");
    if spec.type_.is_empty() {
        errors.push(Error::required(&kind, "must specify a metric source type"));
    }
    errors.one_of(&kind, &spec.type_, &TYPES);
    let present = [
        ("object", spec.object.is_some()),
        ("external", spec.external.is_some()),
        ("pods", spec.pods.is_some()),
        ("resource", spec.resource.is_some()),
        ("containerResource", spec.container_resource.is_some()),
    ];
    let present: Vec<&str> = present.iter().filter(|(_, set)| *set).map(|(field, _)| *field).collect();
    if let Some(first) = present.first() {
        source(errors, &path.child(first), spec, first);
    }
    let expected = field_of(&spec.type_);
    if !TYPES.contains(&spec.type_.as_str()) {
        errors.one_of(&kind, &spec.type_, &TYPES);
    } else if !present.contains(&expected.as_str()) {
        let text = "must populate information for the given metric source";
        errors.push(Error::required(&path.child(&expected), text));
    }
    if present.len() > 1 {
        for extra in present.iter().filter(|field| **field != expected) {
            errors.forbidden(&path.child(extra), "must populate the given metric source only");
        }
    }
}

fn source(errors: &mut Errors, path: &Path, spec: &MetricSpec, field: &str) {
    const EITHER: &str = "must set either a target value for metric or a per-pod target";
    const EITHER_OF_OBJECT: &str = "must set either a target value or averageValue";
    let at = path.child("target");
    if let Some(s) = spec.object.as_ref().filter(|_| field == "object") {
        reference(errors, &path.child("describedObject"), &s.described_object, Version::Readable);
        identifier(errors, &path.child("metric"), &s.metric);
        target(errors, &at, &s.target);
        if s.target.value.is_none() && s.target.average_value.is_none() {
            errors.push(Error::required(&at.child("averageValue"), EITHER_OF_OBJECT));
        }
    } else if let Some(s) = spec.external.as_ref().filter(|_| field == "external") {
        identifier(errors, &path.child("metric"), &s.metric);
        target(errors, &at, &s.target);
        match (&s.target.value, &s.target.average_value) {
            (None, None) => errors.push(Error::required(&at.child("averageValue"), EITHER)),
            (Some(_), Some(_)) => errors.forbidden(
                &at.child("value"),
                "may not set both a target value for metric and a per-pod target",
            ),
            _ => {}
        }
    } else if let Some(s) = spec.pods.as_ref().filter(|_| field == "pods") {
        identifier(errors, &path.child("metric"), &s.metric);
        target(errors, &at, &s.target);
        if s.target.average_value.is_none() {
            let text = "must specify a positive target averageValue";
            errors.push(Error::required(&at.child("averageValue"), text));
        }
    } else if let Some(s) = spec.resource.as_ref().filter(|_| field == "resource") {
        resource_name(errors, &path.child("name"), &s.name);
        resource_target(errors, &at, &s.target);
    } else if let Some(s) = spec.container_resource.as_ref().filter(|_| field == "containerResource") {
        resource_name(errors, &path.child("name"), &s.name);
        if !s.name.is_empty() {
            resources::container_name(errors, &path.child("name"), &s.name);
        }
        let at = path.child("container");
        if s.container.is_empty() {
            errors.push(Error::required(&at, "must specify a container"));
        } else {
            errors.faults(&at, &s.container, names::dns1123_label(&s.container));
        }
        resource_target(errors, &path.child("target"), &s.target);
    }
}

fn resource_name(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.push(Error::required(path, "must specify a resource name"));
    }
}

fn resource_target(errors: &mut Errors, path: &Path, wanted: &MetricTarget) {
    target(errors, path, wanted);
    match (&wanted.average_utilization, &wanted.average_value) {
        (None, None) => errors.push(Error::required(
            &path.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        )),
        (Some(_), Some(_)) => errors.forbidden(
            &path.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        ),
        _ => {}
    }
}

fn identifier(errors: &mut Errors, path: &Path, metric: &MetricIdentifier) {
    if metric.name.is_empty() {
        errors.push(Error::required(&path.child("name"), "must specify a metric name"));
    } else {
        errors.faults(&path.child("name"), &metric.name, names::path_segment(&metric.name));
    }
}

fn target(errors: &mut Errors, path: &Path, target: &MetricTarget) {
    let kind = path.child("type");
    if target.type_.is_empty() {
        errors.push(Error::required(&kind, "must specify a metric target type"));
    }
    if !matches!(target.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&kind, &target.type_, "must be either Utilization, Value, or AverageValue");
    }
    for (field, amount) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(amount) = amount
            && !Quantity::of(amount).is_ok_and(|q| q.signum() == 1)
        {
            errors.invalid(&path.child(field), &amount.0, "must be positive");
        }
    }
    if let Some(percent) = target.average_utilization.filter(|p| *p < 1) {
        errors.invalid(&path.child("averageUtilization"), &percent, "must be greater than 0");
    }
}

fn scaling(errors: &mut Errors, path: &Path, rules: &HPAScalingRules) {
    if let Some(seconds) = rules.stabilization_window_seconds {
        let path = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.invalid(&path, &seconds, "must be greater than or equal to zero");
        }
        if seconds > WINDOW {
            errors.invalid(&path, &seconds, &format!("must be less than or equal to {WINDOW}"));
        }
    }
    if let Some(select) = &rules.select_policy {
        errors.one_of(&path.child("selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    let at = path.child("policies");
    let policies = items(&rules.policies);
    if policies.is_empty() {
        errors.push(Error::required(&at, "must specify at least one Policy"));
    }
    for (i, policy) in policies.iter().enumerate() {
        let path = at.index(i);
        errors.one_of(&path.child("type"), &policy.type_, &["Percent", "Pods"]);
        for (field, value) in [("value", policy.value), ("periodSeconds", policy.period_seconds)] {
            if value <= 0 {
                errors.invalid(&path.child(field), &value, "must be greater than zero");
            }
        }
        if policy.period_seconds > PERIOD {
            let text = format!("must be less than or equal to {PERIOD}");
            errors.invalid(&path.child("periodSeconds"), &policy.period_seconds, &text);
        }
    }
    if let Some(tolerance) = &rules.tolerance {
        check::amount(errors, &path.child("tolerance"), "", tolerance);
    }
}

fn validate_status(hpa: &HorizontalPodAutoscaler) -> Errors {
    let mut errors = Errors::new();
    let status = hpa.status.clone().unwrap_or_default();
    let path = Path::new("status");
    errors.not_negative(&path.child("currentReplicas"), status.current_replicas.map(i64::from));
    errors.not_negative(&path.child("desiredReplicas"), Some(status.desired_replicas.into()));
    errors
}
