//! ControllerRevisions.

use super::check::Check;
use super::{Behaviour, Typed, names};
use crate::field::{Error, Errors, Path};
use crate::types::apps::v1::ControllerRevision;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ControllerRevision> {
        validate,
        validate_update: |_, new, old| {
            let mut errors = validate(new);
            errors.unchanged(&Path::new("data"), &new.data, &old.data);
            errors
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(revision: &ControllerRevision) -> Errors {
    let mut errors = Errors::new();
    if revision.data.is_none() {
        errors.push(Error::required(&Path::new("data"), "data is mandatory"));
    }
    errors.not_negative(&Path::new("revision"), Some(revision.revision));
    errors
}
