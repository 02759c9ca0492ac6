//! Leases.

use super::check::Check;
use super::fill::is_empty;
use super::{Behaviour, Typed, names};
use crate::field::{Errors, Path};
use crate::types::coordination::v1::Lease;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Lease> {
        default: |lease| {
            lease.spec.get_or_insert_default();
        },
        validate,
        validate_update: |_, new, _| validate(new),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(lease: &Lease) -> Errors {
    let mut errors = Errors::new();
    let Some(spec) = &lease.spec else { return errors };
    let path = Path::new("spec");
    if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
        errors.invalid(&path.child("leaseDurationSeconds"), &seconds, "must be greater than 0");
    }
    errors.not_negative(&path.child("leaseTransitions"), spec.lease_transitions.map(i64::from));
    if let Some(strategy) = &spec.strategy {
        // The original names the field twice.
        let path = path.child("strategy").child("strategy");
        if strategy.contains('/') {
            errors.faults(&path, strategy, names::qualified_name(strategy));
        } else {
            errors.one_of(&path, strategy, &["OldestEmulationVersion"]);
        }
    }
    if !is_empty(&spec.preferred_holder) && is_empty(&spec.strategy) {
        let text = "may only be specified if `strategy` is defined";
        errors.forbidden(&path.child("preferredHolder"), text);
    }
    errors
}
