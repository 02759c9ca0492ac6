//! PriorityClasses.

use super::check::Check;
use super::fill::{str_of, value};
use super::{Behaviour, Typed, names};
use crate::field::{Errors, Path};
use crate::types::scheduling::v1::PriorityClass;
use std::sync::Arc;

/// The highest priority that users can give.
const HIGHEST: i32 = 1_000_000_000;
const PREFIX: &str = "system-";
const SYSTEM: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PriorityClass> {
        default: |class| {
            value(&mut class.value, 0);
            value(&mut class.preemption_policy, "PreemptLowerPriority".to_owned());
        },
        prepare_create: |class| class.metadata.generation = Some(1),
        validate,
        validate_update: |_, new, old| {
            let mut errors = Errors::new();
            if new.value.unwrap_or(0) != old.value.unwrap_or(0) {
                errors.forbidden(&Path::new("value"), "may not be changed in an update.");
            }
            errors.unchanged(&Path::new("preemptionPolicy"), &new.preemption_policy, &old.preemption_policy);
            errors
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(class: &PriorityClass) -> Errors {
    let mut errors = Errors::new();
    let (name, value) = (str_of(&class.metadata.name), class.value.unwrap_or(0));
    if name.starts_with(PREFIX) {
        if let Some(fault) = system_fault(name, value, class.global_default.unwrap_or(false)) {
            let text = format!(
                "priority class names with '{PREFIX}' prefix are reserved for system use only. error: {fault}"
            );
            errors.forbidden(&Path::new("metadata").child("name"), &text);
        }
    } else if value > HIGHEST {
        let text = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        errors.forbidden(&Path::new("value"), &text);
    }
    if let Some(policy) = &class.preemption_policy {
        let supported = ["PreemptLowerPriority", "Never"];
        errors.required_one_of(&Path::new("preemptionPolicy"), policy, &supported);
    }
    errors
}

/// Why a class with a name of the system is not one of the system's.
fn system_fault(name: &str, value: i32, global: bool) -> Option<String> {
    match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, wanted)) if value != *wanted => {
            Some(format!("value of {name} PriorityClass must be {wanted}"))
        }
        Some(_) if global => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
    }
}
