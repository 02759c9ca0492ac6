//! IngressClasses.

use super::check::Check;
use super::fill::{self, str_of, value};
use super::{Behaviour, Typed, ingress, names};
use crate::field::{Error, Errors, Path};
use crate::types::networking::v1::{IngressClass, IngressClassParametersReference, IngressClassSpec};
use std::sync::Arc;

/// Length of a controller's name, in bytes.
const CONTROLLER: usize = 250;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<IngressClass> {
        default: |class| {
            if let Some(parameters) = class.spec.get_or_insert_default().parameters.as_mut() {
                value(&mut parameters.scope, "Cluster".to_owned());
            }
        },
        prepare_create: |class| class.metadata.generation = Some(1),
        prepare_update: |new, old| {
            let changed = !fill::same(&new.spec, &old.spec);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        validate,
        validate_update: |_, new, old| {
            let mut errors = Errors::new();
            let controller =
                |c: &IngressClass| c.spec.as_ref().and_then(|s| s.controller.clone()).unwrap_or_default();
            errors.unchanged(&Path::new("spec").child("controller"), &controller(new), &controller(old));
            errors.extend(validate(new));
            errors
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(class: &IngressClass) -> Errors {
    let mut errors = Errors::new();
    let default = IngressClassSpec::default();
    let spec = class.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    let controller = str_of(&spec.controller);
    let at = path.child("controller");
    if controller.len() > CONTROLLER {
        errors.push(Error::too_long(&at, CONTROLLER));
    }
    names::domain_path(&mut errors, &at, controller);
    if let Some(parameters) = &spec.parameters {
        validate_parameters(&mut errors, &path.child("parameters"), parameters);
    }
    errors
}

fn validate_parameters(errors: &mut Errors, path: &Path, parameters: &IngressClassParametersReference) {
    if let Some(group) = &parameters.api_group {
        errors.faults(&path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    ingress::named(errors, path, &parameters.kind, &parameters.name);
    let at = path.child("namespace");
    match (parameters.scope.as_deref(), &parameters.namespace) {
        (None, _) => errors.push(Error::required(&path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(Error::required(&at, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(namespace)) => {
            errors.faults(&at, namespace, names::dns1123_label(namespace));
        }
        (Some("Cluster"), Some(_)) => errors.forbidden(&at, "`parameters.scope` is set to 'Cluster'"),
        (Some("Cluster"), None) => {}
        (Some(other), _) => errors.one_of(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}
