//! PodTemplates.

use super::fill;
use super::pod_spec::{self, defaults};
use super::{Behaviour, Typed, names, workload};
use crate::field::{Errors, Path};
use crate::types::core::v1::PodTemplate;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PodTemplate> {
        default: |t| defaults::template(t.template.get_or_insert_default()),
        prepare_create: |t| {
            t.metadata.generation = Some(1);
            t.template.iter_mut().for_each(|template| workload::drop_disabled(template, None));
        },
        prepare_update: |new, old| {
            if let Some(template) = &mut new.template {
                workload::drop_disabled(template, old.template.as_ref());
            }
            let changed = !fill::same(&new.template, &old.template);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        validate,
        validate_update: |_, new, _| validate(new),
        warnings: |new, old| {
            if workload::is_untouched(&new.metadata, old.map(|old| &old.metadata)) {
                return vec![];
            }
            let path = Path::new("template");
            new.template.iter().flat_map(|t| pod_spec::warnings::template(&path, t)).collect()
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(template: &PodTemplate) -> Errors {
    let mut errors = Errors::new();
    let none = Default::default();
    pod_spec::template(&mut errors, &Path::new("template"), template.template.as_ref().unwrap_or(&none));
    errors
}
