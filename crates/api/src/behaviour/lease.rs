//! Leases.

use super::{Behaviour, Typed, names};
use crate::types::coordination::v1::Lease;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Lease> {
        default: |lease| {
            lease.spec.get_or_insert_default();
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}
