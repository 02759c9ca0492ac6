//! Jobs.

mod policy;
mod validate;

use super::fill::{self, items_mut, text, value};
use super::pod_spec::{defaults, warnings};
use super::{Behaviour, Typed, names};
use crate::field::Path;
use crate::types::batch::v1::{Job, JobSpec};
use std::sync::Arc;
pub use validate::template_spec as validate_template_spec;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Job> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        validate: validate::create,
        validate_update: validate::update,
        warnings: |job, _| {
            let path = Path::new("spec").child("template");
            job.spec.as_ref().map(|s| warnings::template(&path, &s.template)).unwrap_or_default()
        },
        fields,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(job: &mut Job) {
    let spec = job.spec.get_or_insert_default();
    default_spec(spec);
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).filter(|l| !l.is_empty());
    if let Some(labels) = labels
        && job.metadata.labels.as_ref().is_none_or(|l| l.is_empty())
    {
        job.metadata.labels = Some(labels);
    }
    job.status.get_or_insert_default();
}

fn default_spec(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    value(&mut spec.parallelism, 1);
    let limit = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
    value(&mut spec.backoff_limit, limit);
    value(&mut spec.completion_mode, "NonIndexed".to_owned());
    value(&mut spec.suspend, false);
    let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    value(&mut spec.pod_replacement_policy, replacement.to_owned());
    value(&mut spec.manual_selector, false);
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|p| &mut p.rules) {
        for condition in items_mut(&mut rule.on_pod_conditions) {
            text(&mut condition.status, "True");
        }
    }
    defaults::template(&mut spec.template);
}

/// Defaults of a job's specification inside a cron job: only those of the pod template.
pub fn default_template(spec: &mut JobSpec) {
    defaults::template(&mut spec.template);
}

fn prepare_create(job: &mut Job) {
    job.status = Some(Default::default());
    job.metadata.generation = Some(1);
    generate_selector(job);
}

/// Names the job's pods by labels that no other job has, unless the user names them.
fn generate_selector(job: &mut Job) {
    let uid = fill::str_of(&job.metadata.uid).to_owned();
    let name = fill::str_of(&job.metadata.name).to_owned();
    let Some(spec) = &mut job.spec else { return };
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in
        [(OLD_JOB_NAME, &name), (OLD_CONTROLLER_UID, &uid), (JOB_NAME, &name), (CONTROLLER_UID, &uid)]
    {
        labels.entry(key.to_owned()).or_insert_with(|| value.clone());
    }
    let wanted = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    if !wanted.contains_key(CONTROLLER_UID) && !wanted.contains_key(OLD_CONTROLLER_UID) {
        wanted.insert(CONTROLLER_UID.to_owned(), uid);
    }
}

fn prepare_update(new: &mut Job, old: &Job) {
    new.status.clone_from(&old.status);
    let changed = !fill::same(&new.spec, &old.spec);
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn prepare_subresource(_: &str, new: &mut Job, old: &Job) {
    new.spec.clone_from(&old.spec);
}

fn fields(job: &Job) -> Vec<(&'static str, String)> {
    let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
    vec![("status.successful", succeeded.to_string())]
}
