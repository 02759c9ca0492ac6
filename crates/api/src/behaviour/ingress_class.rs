//! IngressClasses.

use super::fill::{self, value};
use super::{Behaviour, Typed, names};
use crate::types::networking::v1::IngressClass;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<IngressClass> {
        default: |class| {
            if let Some(parameters) = class.spec.get_or_insert_default().parameters.as_mut() {
                value(&mut parameters.scope, "Cluster".to_owned());
            }
        },
        prepare_create: |class| class.metadata.generation = Some(1),
        prepare_update: |new, old| {
            let changed = !fill::same(&new.spec, &old.spec);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}
