//! What workloads share: what a write may change of them, and the faults of replica counts, percentages, and
//! the pod template of what keeps a number of pods running.

use super::check::Check;
use super::{fill, names, pod_spec, selector};
use crate::field::{Error, ErrorType, Errors, Path};
use crate::meta::LabelSelector;
use crate::object::Kind;
use crate::types::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetStatus, Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet,
    ReplicaSetSpec, ReplicaSetStatus, StatefulSet, StatefulSetSpec, StatefulSetStatus,
};
use crate::types::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

/// A kind that runs pods of a template, with a spec of its user and a status of its controller.
pub trait Workload: Kind {
    type Spec: Clone + PartialEq + Serialize;
    type Status: Clone + Default;
    fn spec(&mut self) -> &mut Option<Self::Spec>;
    fn status(&mut self) -> &mut Option<Self::Status>;
    fn the_spec(&self) -> &Option<Self::Spec>;
    fn the_status(&self) -> &Option<Self::Status>;
    fn template(&self) -> Option<&PodTemplateSpec>;
}

macro_rules! workloads {
    ($($kind:ty, $spec:ty, $status:ty, $template:expr;)*) => {$(
        impl Workload for $kind {
            type Spec = $spec;
            type Status = $status;
            fn spec(&mut self) -> &mut Option<$spec> {
                &mut self.spec
            }
            fn status(&mut self) -> &mut Option<$status> {
                &mut self.status
            }
            fn the_spec(&self) -> &Option<$spec> {
                &self.spec
            }
            fn the_status(&self) -> &Option<$status> {
                &self.status
            }
            fn template(&self) -> Option<&PodTemplateSpec> {
                let template: fn(&$spec) -> Option<&PodTemplateSpec> = $template;
                self.spec.as_ref().and_then(template)
            }
        }
    )*};
}

workloads! {
    DaemonSet, DaemonSetSpec, DaemonSetStatus, |s| Some(&s.template);
    Deployment, DeploymentSpec, DeploymentStatus, |s| Some(&s.template);
    ReplicaSet, ReplicaSetSpec, ReplicaSetStatus, |s| s.template.as_ref();
    ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus, |s| s.template.as_ref();
    StatefulSet, StatefulSetSpec, StatefulSetStatus, |s| Some(&s.template);
}

/// A new workload has no status yet.
pub fn prepare_create<W: Workload>(workload: &mut W) {
    *workload.status() = Some(W::Status::default());
    workload.meta_mut().generation = Some(1);
}

/// An update of the spec leaves the status alone.
pub fn prepare_update<W: Workload>(new: &mut W, old: &W) {
    new.status().clone_from(old.the_status());
    let changed = !fill::same(new.the_spec(), old.the_spec());
    fill::generation(new.meta_mut(), old.meta(), changed);
}

/// A write of the status leaves the spec alone.
pub fn prepare_subresource<W: Workload>(_: &str, new: &mut W, old: &W) {
    new.spec().clone_from(old.the_spec());
}

/// What is deprecated in the template, and a new name that makes no good host names.
#[must_use]
pub fn warnings<W: Workload>(workload: &W, old: Option<&W>) -> Vec<String> {
    let names = matches!(W::KIND, "Deployment" | "ReplicaSet" | "ReplicationController") && old.is_none();
    let name = workload.meta().name.as_deref().filter(|_| names);
    let mut list: Vec<String> = name.and_then(pod_spec::warnings::name).into_iter().collect();
    let path = Path::new("spec").child("template");
    list.extend(workload.template().map(|t| pod_spec::warnings::template(&path, t)).unwrap_or_default());
    list
}

/// Counts that may not be negative.
pub fn counts(errors: &mut Errors, path: &Path, counts: &[(&str, Option<i64>)]) {
    for (field, value) in counts {
        errors.not_negative(&path.child(field), *value);
    }
}

/// The counts of a status, and those of them that cannot exceed `replicas`.
pub fn status_counts(errors: &mut Errors, path: &Path, replicas: i32, parts: &[(&str, Option<i32>)]) {
    errors.not_negative(&path.child("replicas"), Some(i64::from(replicas)));
    for (field, value) in parts {
        errors.not_negative(&path.child(field), value.map(i64::from));
    }
    for (field, value) in parts {
        if let Some(value) = value.filter(|v| *v > replicas) {
            errors.invalid(&path.child(field), &value, "cannot be greater than status.replicas");
        }
    }
    let part = |name: &str| parts.iter().find(|(field, _)| *field == name).and_then(|(_, v)| *v);
    if let (Some(available), ready) = (part("availableReplicas"), part("readyReplicas").unwrap_or(0))
        && available > ready
    {
        let path = path.child("availableReplicas");
        errors.invalid(&path, &available, "cannot be greater than readyReplicas");
    }
}

/// A count of collisions only grows.
pub fn collisions(errors: &mut Errors, path: &Path, new: Option<i32>, old: Option<i32>) {
    if old.is_some_and(|old| new.is_none_or(|new| new < old)) {
        errors.invalid(&path.child("collisionCount"), &new.unwrap_or(0), "cannot be decremented");
    }
}

/// A number of pods, or a percentage of them.
pub fn int_or_percent(errors: &mut Errors, path: &Path, value: &IntOrString) {
    match value {
        IntOrString::String(text) => {
            for fault in names::percent(text) {
                errors.invalid(path, text, &fault);
            }
        }
        IntOrString::Int(number) => errors.not_negative(path, Some(i64::from(*number))),
    }
}

pub fn at_most_100_percent(errors: &mut Errors, path: &Path, value: &IntOrString) {
    if let IntOrString::String(text) = value
        && text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).is_some_and(|n| n > 100)
    {
        errors.invalid(path, text, "must not be greater than 100%");
    }
}

/// Whether it is no pod at all.
#[must_use]
pub fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').unwrap_or(text).parse::<i64>().map_or(true, |n| n == 0)
        }
    }
}

/// Selector and template of a workload. `named` is the kind in the error of an empty selector.
pub fn selector_and_template(
    errors: &mut Errors,
    path: &Path,
    wanted: &LabelSelector,
    template: &PodTemplateSpec,
    named: &str,
    kind: &str,
) {
    if let Some(selector) = selector::validate_workload(errors, &path.child("selector"), wanted, named) {
        let path = path.child("template");
        selector::matches_template(errors, &path, &selector, labels(template));
        pod_spec::template(errors, &path, template);
        runs_for_ever(errors, &path, template, kind);
    }
}

#[must_use]
pub fn labels(template: &PodTemplateSpec) -> Option<&std::collections::BTreeMap<String, String>> {
    template.metadata.as_ref()?.labels.as_ref()
}

/// What is kept running has no end of its own.
pub fn runs_for_ever(errors: &mut Errors, path: &Path, template: &PodTemplateSpec, kind: &str) {
    let path = path.child("spec");
    let spec = template.spec.as_ref();
    let policy = spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or("");
    errors.one_of(&path.child("restartPolicy"), policy, &["Always"]);
    if spec.is_some_and(|s| s.active_deadline_seconds.is_some()) {
        let text = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), &text);
    }
}

/// An update strategy of an unknown type, shown as the original shows the whole of it.
#[must_use]
pub fn unknown_strategy<T: Serialize>(
    path: &Path,
    kind: &str,
    rolling: &Option<T>,
    supported: &[&str],
) -> Error {
    let rolling = serde_json::to_string(rolling).unwrap_or_default();
    let mut error = Error::not_supported(path, kind, supported);
    error.kind = ErrorType::NotSupported;
    error.value = format!("{{\"Type\":\"{kind}\",\"RollingUpdate\":{rolling}}}");
    error
}
