//! What workloads share: what a write may change of them, and the faults of replica counts, percentages, and
//! the pod template of what keeps a number of pods running.

use super::check::Check;
use super::internal::{self, Form};
use super::{Typed, fill, names, pod_spec, selector};
use crate::field::{Error, ErrorType, Errors, Path};
use crate::meta::{LabelSelector, ObjectMeta};
use crate::object::{Kind, Object};
use crate::types::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetStatus, Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet,
    ReplicaSetSpec, ReplicaSetStatus, StatefulSet, StatefulSetSpec, StatefulSetStatus,
};
use crate::types::batch::v1::{Job, JobSpec, JobStatus};
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
    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec>;
}

macro_rules! workloads {
    ($($kind:ty, $spec:ty, $status:ty, $template:expr, $template_mut:expr;)*) => {$(
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
            fn template_mut(&mut self) -> Option<&mut PodTemplateSpec> {
                let template: fn(&mut $spec) -> Option<&mut PodTemplateSpec> = $template_mut;
                self.spec.as_mut().and_then(template)
            }
        }
    )*};
}

workloads! {
    DaemonSet, DaemonSetSpec, DaemonSetStatus, |s| Some(&s.template), |s| Some(&mut s.template);
    Deployment, DeploymentSpec, DeploymentStatus, |s| Some(&s.template), |s| Some(&mut s.template);
    Job, JobSpec, JobStatus, |s| Some(&s.template), |s| Some(&mut s.template);
    ReplicaSet, ReplicaSetSpec, ReplicaSetStatus, |s| s.template.as_ref(), |s| s.template.as_mut();
    ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
        |s| s.template.as_ref(), |s| s.template.as_mut();
    StatefulSet, StatefulSetSpec, StatefulSetStatus, |s| Some(&s.template), |s| Some(&mut s.template);
}

/// What all workloads do alike; each kind says what else it does.
pub fn shell<W: Workload>() -> Typed<W> {
    Typed {
        prepare_create,
        prepare_update,
        prepare_subresource,
        warnings,
        check_name: names::subdomain_name,
        ..Default::default()
    }
}

/// A new workload has no status yet.
pub fn prepare_create<W: Workload>(workload: &mut W) {
    *workload.status() = Some(W::Status::default());
    workload.meta_mut().generation = Some(1);
    if let Some(template) = workload.template_mut() {
        drop_disabled(template, None);
    }
}

/// An update of the spec leaves the status alone.
pub fn prepare_update<W: Workload>(new: &mut W, old: &W) {
    new.status().clone_from(old.the_status());
    if let Some(template) = new.template_mut() {
        drop_disabled(template, old.template());
    }
    let changed = !fill::same(new.the_spec(), old.the_spec());
    fill::generation(new.meta_mut(), old.meta(), changed);
}

/// Drops from a template what belongs to features that are off.
pub fn drop_disabled(template: &mut PodTemplateSpec, old: Option<&PodTemplateSpec>) {
    if let Some(spec) = &mut template.spec {
        pod_spec::drop_disabled(spec, old.and_then(|old| old.spec.as_ref()));
    }
}

/// A write of the status leaves the spec alone.
pub fn prepare_subresource<W: Workload>(_: &str, new: &mut W, old: &W) {
    new.spec().clone_from(old.the_spec());
}

/// What is deprecated in the template, and a new name that makes no good host names. Nothing is said of a write
/// that leaves the spec alone.
#[must_use]
pub fn warnings<W: Workload>(workload: &W, old: Option<&W>) -> Vec<String> {
    if is_untouched(workload.meta(), old.map(Object::meta)) {
        return vec![];
    }
    let told =
        ["Deployment", "Job", "ReplicaSet", "ReplicationController"].contains(&W::KIND) && old.is_none();
    let name = workload.meta().name.as_deref().filter(|_| told);
    let mut list: Vec<String> = name.and_then(pod_spec::warnings::name).into_iter().collect();
    let path = Path::new("spec").child("template");
    list.extend(workload.template().map(|t| pod_spec::warnings::template(&path, t)).unwrap_or_default());
    list
}

/// Whether an update counts no change.
#[must_use]
pub fn is_untouched(new: &ObjectMeta, old: Option<&ObjectMeta>) -> bool {
    old.is_some_and(|old| old.generation == new.generation)
}

/// An update of what a user writes: valid in itself, and with the selector that it had.
pub fn keeps_selector<S: PartialEq + Serialize>(errors: &mut Errors, new: &S, old: &S) {
    errors.unchanged(&Path::new("spec").child("selector"), new, old);
}

/// Counts that may not be negative.
pub fn counts(errors: &mut Errors, path: &Path, counts: &[(&str, Option<i64>)]) {
    for (field, value) in counts {
        errors.not_negative(&path.child(field), *value);
    }
}

/// The counts of a status that cannot exceed `replicas`, in the order in which they are looked at. `ready` is how
/// the error about more available than ready pods names the latter.
pub fn within_replicas(
    errors: &mut Errors,
    path: &Path,
    replicas: i32,
    parts: &[(&str, Option<i32>)],
    ready: &str,
) {
    for (field, value) in parts {
        if let Some(value) = value.filter(|v| *v > replicas) {
            errors.invalid(&path.child(field), &value, "cannot be greater than status.replicas");
        }
    }
    let part = |name: &str| parts.iter().find(|(field, _)| *field == name).and_then(|(_, v)| *v).unwrap_or(0);
    let available = part("availableReplicas");
    if available > part("readyReplicas") {
        let path = path.child("availableReplicas");
        errors.invalid(&path, &available, &format!("cannot be greater than {ready}"));
    }
}

/// The counts of what keeps a number of alike pods running.
pub struct ReplicasStatus {
    pub replicas: i32,
    pub fully_labeled: Option<i32>,
    pub ready: Option<i32>,
    pub available: Option<i32>,
    pub terminating: Option<i32>,
    pub observed_generation: Option<i64>,
}

/// The faults of the status of a ReplicaSet or ReplicationController.
pub fn replicas_status(status: &ReplicasStatus) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status"));
    let parts = [
        ("fullyLabeledReplicas", status.fully_labeled),
        ("readyReplicas", status.ready),
        ("availableReplicas", status.available),
    ];
    let [labelled, ready, available] = parts.map(|(field, value)| (field, value.map(i64::from)));
    let replicas = ("replicas", Some(status.replicas.into()));
    let terminating = ("terminatingReplicas", status.terminating.map(i64::from));
    let generation = ("observedGeneration", status.observed_generation);
    counts(&mut errors, &path, &[replicas, labelled, ready, available, terminating, generation]);
    within_replicas(&mut errors, &path, status.replicas, &parts, "readyReplicas");
    errors
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

/// The numbers of rolling updates, as the original shows them.
pub static ROLLING: &Form = &[
    ("maxUnavailable", "MaxUnavailable", internal::Field::Null),
    ("maxSurge", "MaxSurge", internal::Field::Null),
];
pub static ROLLING_ORDERED: &Form = &[
    ("partition", "Partition", internal::Field::Number),
    ("maxUnavailable", "MaxUnavailable", internal::Field::Null),
];

/// An update strategy of an unknown type, shown as the original shows the whole of it.
#[must_use]
pub fn unknown_strategy<T: Serialize>(
    path: &Path,
    kind: &str,
    rolling: &Option<T>,
    form: &Form,
    supported: &[&str],
) -> Error {
    let rolling = internal::show(rolling, form);
    let mut error = Error::not_supported(path, kind, supported);
    error.kind = ErrorType::NotSupported;
    error.showing(format!("{{\"Type\":\"{kind}\",\"RollingUpdate\":{rolling}}}"))
}
