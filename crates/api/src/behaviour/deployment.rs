//! Deployments.

use super::fill::{self, text, value};
use super::pod_spec::defaults;
use super::{Behaviour, Typed, names};
use crate::types::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Deployment> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(deployment: &mut Deployment) {
    let spec = deployment.spec.get_or_insert_default();
    value(&mut spec.replicas, 1);
    let strategy = spec.strategy.get_or_insert_default();
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        value(&mut rolling.max_unavailable, IntOrString::String("25%".to_owned()));
        value(&mut rolling.max_surge, IntOrString::String("25%".to_owned()));
    }
    value(&mut spec.revision_history_limit, 10);
    value(&mut spec.progress_deadline_seconds, 600);
    defaults::template(&mut spec.template);
    deployment.status.get_or_insert_default();
}

fn prepare_create(deployment: &mut Deployment) {
    deployment.status = Some(Default::default());
    deployment.metadata.generation = Some(1);
}

fn prepare_update(new: &mut Deployment, old: &Deployment) {
    new.status.clone_from(&old.status);
    // Annotations count: they carry what a rollback asks for.
    let annotations = |d: &Deployment| d.metadata.annotations.clone().unwrap_or_default();
    let changed = !fill::same(&new.spec, &old.spec) || annotations(new) != annotations(old);
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn prepare_subresource(_: &str, new: &mut Deployment, old: &Deployment) {
    new.spec.clone_from(&old.spec);
    new.metadata.labels.clone_from(&old.metadata.labels);
}
