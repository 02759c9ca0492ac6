//! Endpoints.

use super::fill::{items_mut, text};
use super::{Behaviour, Typed, names};
use crate::types::core::v1::Endpoints;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Endpoints> { default, check_name: names::subdomain_name, ..Default::default() })
}

fn default(endpoints: &mut Endpoints) {
    for subset in items_mut(&mut endpoints.subsets) {
        for port in items_mut(&mut subset.ports) {
            text(&mut port.protocol, "TCP");
        }
    }
}
