//! Ingresses.

use super::fill;
use super::{Behaviour, Typed, names};
use crate::types::networking::v1::{Ingress, IngressStatus};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Ingress> {
        default: |ingress| {
            ingress.spec.get_or_insert_default();
            ingress.status.get_or_insert_default().load_balancer.get_or_insert_default();
        },
        prepare_create: |ingress| {
            ingress.metadata.generation = Some(1);
            ingress.status = Some(IngressStatus { load_balancer: Some(Default::default()) });
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
