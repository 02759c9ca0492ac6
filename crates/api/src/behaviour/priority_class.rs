//! PriorityClasses.

use super::fill::value;
use super::{Behaviour, Typed, names};
use crate::types::scheduling::v1::PriorityClass;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PriorityClass> {
        default: |class| {
            value(&mut class.value, 0);
            value(&mut class.preemption_policy, "PreemptLowerPriority".to_owned());
        },
        prepare_create: |class| class.metadata.generation = Some(1),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}
