//! ControllerRevisions.

use super::{Behaviour, Typed, names};
use crate::types::apps::v1::ControllerRevision;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ControllerRevision> { check_name: names::subdomain_name, ..Default::default() })
}
