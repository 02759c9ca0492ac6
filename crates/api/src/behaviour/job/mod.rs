//! Jobs.

mod indexes;
mod policy;
mod status;
mod validate;

use super::fill::{self, items_mut, text, value};
use super::pod_spec::{defaults, warnings};
use super::{Behaviour, Typed, workload};
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
        validate: validate::create,
        validate_update: validate::update,
        warnings: |job, old| {
            if workload::is_untouched(&job.metadata, old.map(|old| &old.metadata)) {
                return vec![];
            }
            let name = job.metadata.name.as_deref().filter(|_| old.is_none());
            let mut list: Vec<String> = name.and_then(warnings::name).into_iter().collect();
            list.extend(job.spec.iter().flat_map(|spec| spec_warnings(&Path::new("spec"), spec)));
            list
        },
        fields,
        ..workload::shell()
    })
}

/// Completions and parallelism from which on an indexed Job's indexes may be too many to write down.
const MANY_COMPLETIONS: i32 = 100_000;
const MANY_AT_ONCE: i32 = 10_000;

/// What is dubious in a specification, of a Job or of a CronJob's Jobs.
pub fn spec_warnings(path: &Path, spec: &JobSpec) -> Vec<String> {
    let mut list = vec![];
    let more = |n: Option<i32>, than: i32| n.is_some_and(|n| n > than);
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    if indexed && more(spec.completions, MANY_COMPLETIONS) && more(spec.parallelism, MANY_AT_ONCE) {
        list.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than \
             10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    list.extend(warnings::template(&path.child("template"), &spec.template));
    list
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
    workload::prepare_create(job);
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
    wanted.entry(CONTROLLER_UID.to_owned()).or_insert(uid);
}

fn fields(job: &Job) -> Vec<(&'static str, String)> {
    let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
    vec![("status.successful", succeeded.to_string())]
}
