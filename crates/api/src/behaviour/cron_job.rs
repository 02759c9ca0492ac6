//! CronJobs.

use super::check::Check;
use super::fill::{self, str_of, text, value};
use super::pod_spec::warnings;
use super::workload::{self, counts};
use super::{Behaviour, Typed, job, names};
use crate::cron::{self, Schedule};
use crate::field::{Errors, Path};
use crate::types::batch::v1::CronJob;
use std::sync::Arc;

/// Length of a name: the jobs made of it add a dash and ten digits to it.
const NAME: usize = 52;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<CronJob> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        validate,
        validate_update: |subresource, new, old| match subresource {
            "status" => vec![],
            _ => validate_spec(new, Some(old)),
        },
        warnings: all_warnings,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(cron: &mut CronJob) {
    let spec = &mut cron.spec;
    text(&mut spec.concurrency_policy, "Allow");
    value(&mut spec.suspend, false);
    value(&mut spec.successful_jobs_history_limit, 3);
    value(&mut spec.failed_jobs_history_limit, 1);
    spec.job_template.metadata.get_or_insert_default();
    job::default_template(spec.job_template.spec.get_or_insert_default());
    cron.status.get_or_insert_default();
}

fn all_warnings(cron: &CronJob, old: Option<&CronJob>) -> Vec<String> {
    let path = Path::new("spec").child("jobTemplate").child("spec");
    let name = cron.metadata.name.as_deref().filter(|_| old.is_none());
    let mut list: Vec<String> = name.and_then(warnings::name).into_iter().collect();
    if let Some(spec) = &cron.spec.job_template.spec
        && !workload::is_untouched(&cron.metadata, old.map(|old| &old.metadata))
    {
        list.extend(job::spec_warnings(&path, spec));
    }
    if cron.spec.schedule.contains("TZ") {
        list.push(
            "cannot use TZ or CRON_TZ in spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#limitations for more details"
                .to_owned(),
        );
    }
    list
}

fn prepare_create(cron: &mut CronJob) {
    cron.status = Some(Default::default());
    cron.metadata.generation = Some(1);
    if let Some(job) = &mut cron.spec.job_template.spec {
        workload::drop_disabled(&mut job.template, None);
    }
}

fn prepare_update(new: &mut CronJob, old: &CronJob) {
    new.status.clone_from(&old.status);
    if let Some(job) = &mut new.spec.job_template.spec {
        let was = old.spec.job_template.spec.as_ref();
        workload::drop_disabled(&mut job.template, was.map(|was| &was.template));
    }
    let changed = !fill::same(&new.spec, &old.spec);
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn prepare_subresource(_: &str, new: &mut CronJob, old: &CronJob) {
    new.spec.clone_from(&old.spec);
}

fn validate(cron: &CronJob) -> Errors {
    let mut errors = validate_spec(cron, None);
    let name = str_of(&cron.metadata.name);
    if name.len() > NAME {
        let path = Path::new("metadata").child("name");
        errors.invalid(&path, name, &names::too_long(NAME));
    }
    errors
}

fn validate_spec(cron: &CronJob, old: Option<&CronJob>) -> Errors {
    let mut errors = Errors::new();
    let spec = &cron.spec;
    let path = Path::new("spec");
    if errors.required(&path.child("schedule"), &spec.schedule) {
        let zoned = old.is_some_and(|o| o.spec.schedule.contains("TZ"));
        validate_schedule(&mut errors, &path.child("schedule"), cron, zoned);
    }
    counts(&mut errors, &path, &[("startingDeadlineSeconds", spec.starting_deadline_seconds)]);
    let same_zone = old.is_some_and(|o| o.spec.time_zone == spec.time_zone);
    if let Some(zone) = spec.time_zone.as_ref().filter(|_| !same_zone) {
        validate_zone(&mut errors, &path.child("timeZone"), zone);
    }
    errors.required_one_of(
        &path.child("concurrencyPolicy"),
        str_of(&spec.concurrency_policy),
        &["Allow", "Forbid", "Replace"],
    );
    job::validate_template_spec(&mut errors, &path.child("jobTemplate"), &spec.job_template);
    counts(
        &mut errors,
        &path,
        &[
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit.map(i64::from)),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit.map(i64::from)),
        ],
    );
    errors
}

fn validate_schedule(errors: &mut Errors, path: &Path, cron: &CronJob, zoned_before: bool) {
    let schedule = &cron.spec.schedule;
    if let Err(fault) = Schedule::parse(schedule) {
        errors.invalid(path, schedule, &fault.to_string());
    }
    if !schedule.contains("TZ") {
        return;
    }
    if !zoned_before {
        let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(path, schedule, text);
    } else if cron.spec.time_zone.is_some() {
        let text = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.invalid(path, schedule, text);
    }
}

fn validate_zone(errors: &mut Errors, path: &Path, zone: &str) {
    if zone.is_empty() {
        errors.invalid(path, zone, "timeZone must be nil or non-empty string");
        return;
    }
    if !zone.split('/').all(is_zone_part) {
        errors.invalid(path, zone, &format!("unknown time zone {zone}"));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, zone, text);
    }
    if zone != "Local"
        && let Err(fault) = cron::zone(zone)
    {
        errors.invalid(path, zone, &fault.to_string());
    }
}

/// A name of 1 to 14 characters that is not one of the file system's own.
fn is_zone_part(part: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b".-_+".contains(&c);
    let own = matches!(part, "." | "..") || part.starts_with('-');
    (1..=14).contains(&part.len()) && part.bytes().all(plain) && !own
}
