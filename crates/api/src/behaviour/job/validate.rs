//! The faults of jobs.

use super::policy;
use super::{CONTROLLER_UID, JOB_NAME, OLD_CONTROLLER_UID, OLD_JOB_NAME};
use crate::behaviour::check::Check;
use crate::behaviour::fill::{self, str_of};
use crate::behaviour::workload::{self, counts};
use crate::behaviour::{names, pod_spec, selector};
use crate::field::{Error, Errors, Path};
use crate::labels::Selector;
use crate::types::batch::v1::{Job, JobSpec, JobTemplateSpec};
use crate::types::core::v1::Container;
use std::collections::BTreeMap;

/// Parallelism of an indexed job.
const INDEXED_PARALLELISM: i32 = 100_000;
/// Parallelism of a job that counts failures by index and has many indexes.
const FAILING_PARALLELISM: i32 = 10_000;
/// Length of the name of another controller, in bytes.
const MANAGER: usize = 63;
const INDEXED_ONLY: &str = "requires indexed completion mode";

pub fn create(job: &Job) -> Errors {
    let mut errors = Errors::new();
    generated_selector(&mut errors, job);
    let default = JobSpec::default();
    whole(&mut errors, job.spec.as_ref().unwrap_or(&default));
    errors
}

/// The labels that tell a job's pods from those of all others are there, unless the user took care of it.
fn generated_selector(errors: &mut Errors, job: &Job) {
    let Some(spec) = job.spec.as_ref().filter(|s| s.manual_selector != Some(true)) else { return };
    let Some(wanted) = &spec.selector else { return };
    let (uid, name) = (str_of(&job.metadata.uid), str_of(&job.metadata.name));
    if uid.is_empty() {
        errors.push(Error::required(&Path::new("metadata").child("uid"), ""));
    }
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    let none = BTreeMap::new();
    let labels = workload::labels(&spec.template).unwrap_or(&none);
    let expected = [(OLD_CONTROLLER_UID, uid), (OLD_JOB_NAME, name), (CONTROLLER_UID, uid), (JOB_NAME, name)];
    for (key, value) in expected {
        let text = format!("must be '{value}'");
        match labels.get(key) {
            None => errors.push(Error::required(&path.key(key), &text)),
            Some(actual) if actual != value => errors.invalid(&path.key(key), labels, &text),
            Some(_) => {}
        }
    }
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    if Selector::of(Some(wanted)).is_ok_and(|s| !s.matches(&expected)) {
        errors.invalid(&Path::new("spec").child("selector"), wanted, "`selector` not auto-generated");
    }
}

/// The specification of a job.
fn whole(errors: &mut Errors, job: &JobSpec) {
    let path = Path::new("spec");
    spec(errors, &path, job);
    let at = path.child("selector");
    match &job.selector {
        None => errors.push(Error::required(&at, "")),
        Some(wanted) => selector::validate(errors, &at, wanted),
    }
    if let Ok(wanted) = Selector::of(job.selector.as_ref()) {
        let labels = workload::labels(&job.template);
        let none = BTreeMap::new();
        if !wanted.matches(labels.unwrap_or(&none)) {
            let path = path.child("template").child("metadata").child("labels");
            errors.invalid(&path, &labels, "`selector` does not match template `labels`");
        }
    }
}

/// The specification in a cron job's template, where there is no selector yet.
pub fn template_spec(errors: &mut Errors, path: &Path, template: &JobTemplateSpec) {
    let path = path.child("spec");
    let default = JobSpec::default();
    let job = template.spec.as_ref().unwrap_or(&default);
    spec(errors, &path, job);
    if let Some(given) = &job.selector {
        errors.invalid(&path.child("selector"), given, "`selector` will be auto-generated");
    }
    if job.manual_selector == Some(true) {
        let path = path.child("manualSelector");
        errors.push(Error::not_supported(&path, &true, &["nil", "false"]));
    }
}

fn spec(errors: &mut Errors, path: &Path, job: &JobSpec) {
    counts(
        errors,
        path,
        &[
            ("parallelism", job.parallelism.map(i64::from)),
            ("completions", job.completions.map(i64::from)),
            ("activeDeadlineSeconds", job.active_deadline_seconds),
            ("backoffLimit", job.backoff_limit.map(i64::from)),
            ("ttlSecondsAfterFinished", job.ttl_seconds_after_finished.map(i64::from)),
            ("backoffLimitPerIndex", job.backoff_limit_per_index.map(i64::from)),
            ("maxFailedIndexes", job.max_failed_indexes.map(i64::from)),
        ],
    );
    if job.max_failed_indexes.is_some() && job.backoff_limit_per_index.is_none() {
        let text = "when maxFailedIndexes is specified";
        errors.push(Error::required(&path.child("backoffLimitPerIndex"), text));
    }
    if let Some(manager) = &job.managed_by {
        let path = path.child("managedBy");
        names::domain_path(errors, &path, manager);
        if manager.len() > MANAGER {
            errors.push(Error::too_long(&path, MANAGER));
        }
    }
    completion(errors, path, job);
    if let Some(failures) = &job.pod_failure_policy {
        policy::failure(errors, &path.child("podFailurePolicy"), failures, job);
    }
    if let Some(success) = &job.success_policy {
        let path = path.child("successPolicy");
        if is_indexed(job) {
            policy::success(errors, &path, success, job.completions.unwrap_or(0));
        } else {
            errors.invalid(&path, success, INDEXED_ONLY);
        }
    }
    if let Some(replacement) = &job.pod_replacement_policy {
        let path = path.child("podReplacementPolicy");
        if job.pod_failure_policy.is_some() {
            errors.one_of(&path, replacement, &["Failed"]);
        } else {
            errors.one_of(&path, replacement, &["Failed", "TerminatingOrFailed"]);
        }
    }
    pod_spec::template(errors, &path.child("template"), &job.template);
    restart_policy(errors, &path.child("template").child("spec").child("restartPolicy"), job);
}

fn is_indexed(job: &JobSpec) -> bool {
    job.completion_mode.as_deref() == Some("Indexed")
}

fn completion(errors: &mut Errors, path: &Path, job: &JobSpec) {
    if let Some(mode) = &job.completion_mode {
        errors.one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    if !is_indexed(job) {
        for (field, value) in [
            ("backoffLimitPerIndex", job.backoff_limit_per_index),
            ("maxFailedIndexes", job.max_failed_indexes),
        ] {
            if let Some(value) = value {
                errors.invalid(&path.child(field), &value, INDEXED_ONLY);
            }
        }
        return;
    }
    let at = path.child("parallelism");
    let parallelism = job.parallelism.unwrap_or(0);
    if job.completions.is_none() {
        errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    if parallelism > INDEXED_PARALLELISM {
        let text =
            format!("must be less than or equal to {INDEXED_PARALLELISM} when completion mode is Indexed");
        errors.invalid(&at, &parallelism, &text);
    }
    let Some(completions) = job.completions.filter(|_| job.backoff_limit_per_index.is_some()) else { return };
    if completions > INDEXED_PARALLELISM {
        if job.max_failed_indexes.is_none() {
            let text = format!("must be specified when completions is above {INDEXED_PARALLELISM}");
            errors.push(Error::required(&path.child("maxFailedIndexes"), &text));
        }
        if parallelism > FAILING_PARALLELISM {
            let text = format!(
                "must be less than or equal to {FAILING_PARALLELISM} when completions are above \
                 {INDEXED_PARALLELISM} and used with backoff limit per index"
            );
            errors.invalid(&at, &parallelism, &text);
        }
    }
    if let Some(failed) = job.max_failed_indexes.filter(|failed| *failed > completions) {
        let text = "must be less than or equal to completions";
        errors.invalid(&path.child("maxFailedIndexes"), &failed, text);
    }
}

fn restart_policy(errors: &mut Errors, path: &Path, job: &JobSpec) {
    let policy = job.template.spec.as_ref().map_or("", |s| str_of(&s.restart_policy));
    match policy {
        "" | "Always" => {
            errors.push(Error::required(path, "valid values: \"OnFailure\", \"Never\""));
        }
        "OnFailure" if job.pod_failure_policy.is_some() => {
            let text = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(path, policy, text);
        }
        _ => errors.one_of(path, policy, &["OnFailure", "Never"]),
    }
}

pub fn update(subresource: &str, new: &Job, old: &Job) -> Errors {
    if subresource == "status" {
        return super::status::update(new, old);
    }
    let mut errors = Errors::new();
    let (Some(wanted), Some(was)) = (&new.spec, &old.spec) else { return errors };
    whole(&mut errors, wanted);
    let path = Path::new("spec");
    completions(&mut errors, &path, wanted, was);
    errors.unchanged(&path.child("selector"), &wanted.selector, &was.selector);
    template(&mut errors, &path.child("template"), wanted, old);
    errors.unchanged(&path.child("completionMode"), &wanted.completion_mode, &was.completion_mode);
    errors.unchanged(&path.child("podFailurePolicy"), &wanted.pod_failure_policy, &was.pod_failure_policy);
    let (limit, old_limit) = (&wanted.backoff_limit_per_index, &was.backoff_limit_per_index);
    errors.unchanged(&path.child("backoffLimitPerIndex"), limit, old_limit);
    errors.unchanged(&path.child("managedBy"), &wanted.managed_by, &was.managed_by);
    errors.unchanged(&path.child("successPolicy"), &wanted.success_policy, &was.success_policy);
    errors
}

/// The number of an indexed job's completions moves with its parallelism.
fn completions(errors: &mut Errors, path: &Path, new: &JobSpec, old: &JobSpec) {
    let at = path.child("completions");
    if !is_indexed(new) {
        errors.unchanged(&at, &new.completions, &old.completions);
        return;
    }
    if new.completions == old.completions {
        return;
    }
    if new.completions.is_none() {
        errors.push(Error::required(&at, "when completion mode is Indexed"));
    } else if new.completions != new.parallelism {
        let text = format!("can only be modified in tandem with {}", path.child("parallelism"));
        errors.invalid(&at, &new.completions, &text);
    }
}

/// Whether no pod of the job exists yet, or all have been taken away since it was suspended.
fn is_at_rest(old: &Job) -> bool {
    let status = old.status.clone().unwrap_or_default();
    let begun = status.start_time.is_some();
    let conditions = status.conditions.iter().flatten();
    let suspended = conditions.into_iter().any(|c| c.type_ == "Suspended" && c.status == "True");
    !begun || (suspended && status.active.unwrap_or(0) == 0)
}

/// The template stays, but for where the pods go and what they need while the job is suspended and at rest.
fn template(errors: &mut Errors, path: &Path, new: &JobSpec, old: &Job) {
    let Some(was) = &old.spec else { return };
    let mut rest = new.template.clone();
    if was.suspend == Some(true) && is_at_rest(old) {
        let wanted = was.template.spec.clone().unwrap_or_default();
        let spec = rest.spec.get_or_insert_default();
        let mut affinity = spec.affinity.take().unwrap_or_default();
        affinity.node_affinity = wanted.affinity.as_ref().and_then(|a| a.node_affinity.clone());
        let nothing = affinity == Default::default() && wanted.affinity.is_none();
        spec.affinity = (!nothing).then_some(affinity);
        spec.node_selector = wanted.node_selector;
        spec.tolerations = wanted.tolerations;
        spec.scheduling_gates = wanted.scheduling_gates;
        keep_resources(&mut spec.containers, &wanted.containers);
        let init = wanted.init_containers.as_deref().unwrap_or_default();
        keep_resources(spec.init_containers.as_deref_mut().unwrap_or_default(), init);
        let metadata = rest.metadata.get_or_insert_default();
        let old_metadata = was.template.metadata.clone().unwrap_or_default();
        metadata.annotations = old_metadata.annotations;
        metadata.labels = old_metadata.labels;
    }
    if !fill::same(&rest, &was.template) {
        errors.invalid(path, &new.template, crate::behaviour::check::IMMUTABLE);
    }
}

fn keep_resources(containers: &mut [Container], were: &[Container]) {
    for (container, was) in containers.iter_mut().zip(were).filter(|(c, was)| c.name == was.name) {
        container.resources.clone_from(&was.resources);
    }
}
