//! PodDisruptionBudgets.

use super::fill;
use super::{Behaviour, Typed, names};
use crate::types::policy::v1::PodDisruptionBudget;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<PodDisruptionBudget> {
        default: |budget| {
            budget.spec.get_or_insert_default();
            budget.status.get_or_insert_default();
        },
        prepare_create: |budget| {
            budget.metadata.generation = Some(1);
            budget.status = Some(Default::default());
        },
        prepare_update: |new, old| {
            new.status.clone_from(&old.status);
            let changed = !fill::same(&new.spec, &old.spec);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}
