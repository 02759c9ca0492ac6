//! IPAddresses and ServiceCIDRs.

use super::{Behaviour, Typed, names};
use crate::types::networking::v1::{IPAddress, ServiceCIDR};
use std::sync::Arc;

pub fn ip_address() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<IPAddress> { check_name: |name, _| names::ip(name), ..Default::default() })
}

pub fn service_cidr() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ServiceCIDR> {
        default: |cidr| {
            cidr.spec.get_or_insert_default();
            cidr.status.get_or_insert_default();
        },
        prepare_create: |cidr| cidr.status = Some(Default::default()),
        prepare_update: |new, old| new.status.clone_from(&old.status),
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}
