//! ResourceQuotas.

use super::fill;
use super::{Behaviour, Typed, names};
use crate::types::core::v1::ResourceQuota;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ResourceQuota> {
        default: |quota| {
            fill::resources(&mut quota.spec.get_or_insert_default().hard);
            let status = quota.status.get_or_insert_default();
            fill::resources(&mut status.hard);
            fill::resources(&mut status.used);
        },
        prepare_create: |quota| quota.status = Some(Default::default()),
        prepare_update: |new, old| new.status.clone_from(&old.status),
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}
