//! ConfigMaps.

use super::{Behaviour, Typed, names};
use crate::types::core::v1::ConfigMap;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ConfigMap> { check_name: names::subdomain_name, ..Default::default() })
}
