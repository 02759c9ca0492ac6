//! DaemonSets.

use super::fill::{self, text, value};
use super::pod_spec::defaults;
use super::{Behaviour, Typed, names};
use crate::types::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// Where version 1 keeps the count of template changes.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<DaemonSet> {
        default,
        prepare_create,
        prepare_update,
        prepare_subresource,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(set: &mut DaemonSet) {
    let spec = set.spec.get_or_insert_default();
    let strategy = spec.update_strategy.get_or_insert_default();
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        value(&mut rolling.max_unavailable, IntOrString::Int(1));
        value(&mut rolling.max_surge, IntOrString::Int(0));
    }
    value(&mut spec.revision_history_limit, 10);
    defaults::template(&mut spec.template);
    set.status.get_or_insert_default();
}

fn template_generation(set: &DaemonSet) -> i64 {
    let annotation = set.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
    annotation.and_then(|a| a.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, value: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), value.to_string());
}

fn prepare_create(set: &mut DaemonSet) {
    set.status = Some(Default::default());
    set.metadata.generation = Some(1);
    let count = template_generation(set).max(1);
    set_template_generation(set, count);
}

fn prepare_update(new: &mut DaemonSet, old: &DaemonSet) {
    new.status.clone_from(&old.status);
    let template = |s: &DaemonSet| s.spec.as_ref().map(|s| s.template.clone());
    let rolled = !fill::same(&template(new), &template(old));
    set_template_generation(new, template_generation(old) + i64::from(rolled));
    let changed = !fill::same(&new.spec, &old.spec);
    fill::generation(&mut new.metadata, &old.metadata, changed);
}

fn prepare_subresource(_: &str, new: &mut DaemonSet, old: &DaemonSet) {
    new.spec.clone_from(&old.spec);
}
