//! PodTemplates.

use super::fill;
use super::pod_spec::defaults;
use super::{Behaviour, Typed, names};
use crate::types::core::v1::PodTemplate;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PodTemplate> {
        default: |t| defaults::template(t.template.get_or_insert_default()),
        prepare_create: |t| t.metadata.generation = Some(1),
        prepare_update: |new, old| {
            let changed = !fill::same(&new.template, &old.template);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}
