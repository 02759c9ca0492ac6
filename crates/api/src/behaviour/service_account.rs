//! ServiceAccounts.

use super::{Behaviour, Typed, names};
use crate::types::core::v1::ServiceAccount;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ServiceAccount> { check_name: names::subdomain_name, ..Default::default() })
}
