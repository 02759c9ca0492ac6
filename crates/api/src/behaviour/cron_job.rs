//! CronJobs.

use super::fill::{self, text, value};
use super::{Behaviour, Typed, job, names};
use crate::types::batch::v1::CronJob;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<CronJob> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
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

fn prepare_create(cron: &mut CronJob) {
    cron.status = Some(Default::default());
    cron.metadata.generation = Some(1);
}

fn prepare_update(new: &mut CronJob, old: &CronJob) {
    new.status.clone_from(&old.status);
    let changed = !fill::same(&new.spec, &old.spec);
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn prepare_subresource(_: &str, new: &mut CronJob, old: &CronJob) {
    new.spec.clone_from(&old.spec);
}
