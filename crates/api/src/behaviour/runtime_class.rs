//! RuntimeClasses.

use super::check::Check;
use super::pod_spec::{requirements, tolerations, warnings};
use super::{Behaviour, Typed, fill, internal, meta, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::Toleration;
use crate::types::node::v1::{RuntimeClass, Scheduling};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<RuntimeClass> {
        default: |class| {
            if let Some(overhead) = class.overhead.as_mut() {
                fill::resources(&mut overhead.pod_fixed);
            }
        },
        prepare_create: |class| class.metadata.generation = Some(1),
        validate,
        validate_update: |_, new, old| {
            let mut errors = Errors::new();
            errors.unchanged(&Path::new("handler"), &new.handler, &old.handler);
            errors
        },
        warnings: |class, _| {
            let path = Path::new("scheduling").child("nodeSelector");
            let selector = class.scheduling.as_ref().and_then(|s| s.node_selector.as_ref());
            let keys = selector.into_iter().flat_map(|s| s.keys());
            keys.filter_map(|key| warnings::old_node_label(key))
                .map(|text| format!("{path}: {text}"))
                .collect()
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(class: &RuntimeClass) -> Errors {
    let mut errors = Errors::new();
    errors.faults(&Path::new("handler"), &class.handler, names::dns1123_label(&class.handler));
    if let Some(fixed) = class.overhead.as_ref().and_then(|o| o.pod_fixed.as_ref()) {
        requirements::limits_only(&mut errors, &Path::new("overhead"), fixed);
    }
    if let Some(scheduling) = &class.scheduling {
        validate_scheduling(&mut errors, &Path::new("scheduling"), scheduling);
    }
    errors
}

fn validate_scheduling(errors: &mut Errors, path: &Path, scheduling: &Scheduling) {
    if let Some(selector) = &scheduling.node_selector {
        errors.extend(meta::labels(selector, &path.child("nodeSelector")));
    }
    let given: &[Toleration] = fill::items(&scheduling.tolerations);
    let path = path.child("tolerations");
    tolerations(errors, &path, given);
    for (i, toleration) in given.iter().enumerate() {
        if given[..i].contains(toleration) {
            let value = internal::show(toleration, internal::TOLERATION);
            errors.push(Error::duplicate(&path.index(i), "").showing(value));
        }
    }
}
