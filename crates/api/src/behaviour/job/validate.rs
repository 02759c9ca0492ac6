//! The faults of jobs.

use super::policy;
use super::{CONTROLLER_UID, JOB_NAME, OLD_CONTROLLER_UID, OLD_JOB_NAME};
use crate::behaviour::check::{self, Check};
use crate::behaviour::fill::{self, str_of};
use crate::behaviour::workload::{self, counts};
use crate::behaviour::{internal, names, pod_spec, selector};
use crate::field::{Error, Errors, Path};
use crate::labels::Selector;
use crate::types::batch::v1::{Job, JobSpec, JobTemplateSpec};
use crate::types::core::v1::Container;
use std::collections::BTreeMap;

/// Parallelism and failed indexes of an indexed job, and its completions before other limits hold.
const INDEXED_MOST: i32 = 100_000;
/// Parallelism and failed indexes of a job that counts failures by index and has more completions than that.
const FAILING_MOST: i32 = 10_000;
/// Length of the name of another controller, in bytes.
const MANAGER: usize = 63;
const INDEXED_ONLY: &str = "requires indexed completion mode";

pub fn create(job: &Job) -> Errors {
    complete(job, true)
}

/// The faults of a Job on its own. Jobs made long ago lack the labels with a prefix.
fn complete(job: &Job, prefixed: bool) -> Errors {
    let mut errors = Errors::new();
    generated_selector(&mut errors, job, prefixed);
    let default = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&default);
    whole(&mut errors, spec);
    if let Some(completions) = spec.completions.filter(|n| *n > 0 && is_indexed(spec)) {
        let name = str_of(&job.metadata.name);
        let last = format!("{name}-{}", completions - 1);
        if !names::dns1123_label(&last).is_empty() {
            let text = format!("will not able to create pod with invalid DNS label: {last}");
            errors.invalid(&Path::new("metadata").child("name"), name, &text);
        }
    }
    errors
}

/// The labels that tell a job's pods from those of all others are there, unless the user took care of it.
fn generated_selector(errors: &mut Errors, job: &Job, prefixed: bool) {
    let Some(spec) = job.spec.as_ref().filter(|s| s.manual_selector != Some(true)) else { return };
    let Some(wanted) = &spec.selector else { return };
    let (uid, name) = (str_of(&job.metadata.uid), str_of(&job.metadata.name));
    if uid.is_empty() {
        errors.push(Error::required(&Path::new("metadata").child("uid"), ""));
    }
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    let none = BTreeMap::new();
    let labels = workload::labels(&spec.template).unwrap_or(&none);
    let mut expected = vec![(OLD_CONTROLLER_UID, uid), (OLD_JOB_NAME, name)];
    if prefixed {
        expected.extend([(CONTROLLER_UID, uid), (JOB_NAME, name)]);
    }
    for (key, value) in &expected {
        let text = format!("must be '{value}'");
        match labels.get(*key) {
            None => errors.push(Error::required(&path.key(key), &text)),
            Some(actual) if actual != value => errors.invalid(&path.key(key), labels, &text),
            Some(_) => {}
        }
    }
    let expected = expected.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
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
            let value = internal::show(success, internal::SUCCESS_POLICY);
            errors.push(Error::invalid(&path, "", INDEXED_ONLY).showing(value));
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
    match job.completion_mode.as_deref() {
        Some("Indexed") => indexed(errors, path, job),
        None | Some("NonIndexed") => {
            for (field, value) in [
                ("backoffLimitPerIndex", job.backoff_limit_per_index),
                ("maxFailedIndexes", job.max_failed_indexes),
            ] {
                if let Some(value) = value {
                    errors.invalid(&path.child(field), &value, INDEXED_ONLY);
                }
            }
        }
        Some(mode) => errors.one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]),
    }
}

fn indexed(errors: &mut Errors, path: &Path, job: &JobSpec) {
    let most = |errors: &mut Errors, field: &str, value: Option<i32>, limit: i32, when: &str| {
        if let Some(value) = value.filter(|value| *value > limit) {
            errors.invalid(
                &path.child(field),
                &value,
                &format!("must be less than or equal to {limit}{when}"),
            );
        }
    };
    if job.completions.is_none() {
        errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    let when = " when completion mode is Indexed";
    most(errors, "parallelism", job.parallelism, INDEXED_MOST, when);
    let completions = job.completions.unwrap_or(i32::MAX);
    if let Some(failed) = job.max_failed_indexes.filter(|failed| *failed > completions) {
        let text = "must be less than or equal to completions";
        errors.invalid(&path.child("maxFailedIndexes"), &failed, text);
    }
    most(errors, "maxFailedIndexes", job.max_failed_indexes, INDEXED_MOST, "");
    if job.backoff_limit_per_index.is_none() || job.completions.is_none_or(|n| n <= INDEXED_MOST) {
        return;
    }
    if job.max_failed_indexes.is_none() {
        let text = format!("must be specified when completions is above {INDEXED_MOST}");
        errors.push(Error::required(&path.child("maxFailedIndexes"), &text));
    }
    let when = format!(" when completions are above {INDEXED_MOST} and used with backoff limit per index");
    most(errors, "parallelism", job.parallelism, FAILING_MOST, &when);
    most(errors, "maxFailedIndexes", job.max_failed_indexes, FAILING_MOST, &when);
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
    let (Some(wanted), Some(was)) = (&new.spec, &old.spec) else { return vec![] };
    let labels = workload::labels(&was.template);
    let prefixed = labels.is_some_and(|l| l.contains_key(JOB_NAME) && l.contains_key(CONTROLLER_UID));
    let mut errors = complete(new, prefixed);
    let path = Path::new("spec");
    completions(&mut errors, &path, wanted, was);
    errors.unchanged(&path.child("selector"), &wanted.selector, &was.selector);
    template(&mut errors, &path.child("template"), wanted, old);
    errors.unchanged(&path.child("completionMode"), &wanted.completion_mode, &was.completion_mode);
    let (policy, old_policy) = (&wanted.pod_failure_policy, &was.pod_failure_policy);
    let form = internal::FAILURE_POLICY;
    check::kept(&mut errors, &path.child("podFailurePolicy"), policy, old_policy, form);
    let (limit, old_limit) = (&wanted.backoff_limit_per_index, &was.backoff_limit_per_index);
    errors.unchanged(&path.child("backoffLimitPerIndex"), limit, old_limit);
    errors.unchanged(&path.child("managedBy"), &wanted.managed_by, &was.managed_by);
    let (policy, old_policy) = (&wanted.success_policy, &was.success_policy);
    let form = internal::SUCCESS_POLICY;
    check::kept(&mut errors, &path.child("successPolicy"), policy, old_policy, form);
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
        errors.invalid(path, &new.template, check::IMMUTABLE);
    }
}

fn keep_resources(containers: &mut [Container], were: &[Container]) {
    for (container, was) in containers.iter_mut().zip(were).filter(|(c, was)| c.name == was.name) {
        container.resources.clone_from(&was.resources);
    }
}
