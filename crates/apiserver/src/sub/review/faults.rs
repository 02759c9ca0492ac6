//! The faults of reviews of access.

use krate_api::Status;
use krate_api::behaviour::internal::{self, NON_RESOURCE};
use krate_api::field::{Error, Errors, Path};
use krate_api::meta::ObjectMeta;
use krate_api::types::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
    SelfSubjectAccessReviewSpec, SubjectAccessReviewSpec,
};

/// Faults as the answer to a review of some kind.
pub(super) trait OrInvalid {
    fn or_invalid(self, kind: &str) -> Result<(), Status>;
}

impl OrInvalid for Errors {
    fn or_invalid(self, kind: &str) -> Result<(), Status> {
        if self.is_empty() { Ok(()) } else { Err(Status::invalid("authorization.k8s.io", kind, "", &self)) }
    }
}

pub(super) fn subject(spec: &SubjectAccessReviewSpec, meta: &ObjectMeta) -> Errors {
    let mut errors = of_subject(spec);
    errors.extend(no_metadata(meta));
    errors
}

pub(super) fn own(spec: &SelfSubjectAccessReviewSpec, meta: &ObjectMeta) -> Errors {
    let (resource, other) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    let mut errors = either(resource, other);
    errors.extend(resource.map(selectors).unwrap_or_default());
    errors.extend(no_metadata(meta));
    errors
}

/// A review in a namespace asks about that namespace only.
pub(super) fn local(spec: &SubjectAccessReviewSpec, meta: &ObjectMeta) -> Errors {
    let mut errors = of_subject(spec);
    errors.extend(no_metadata(&ObjectMeta { namespace: None, ..meta.clone() }));
    let path = Path::new("spec");
    if let Some(asked) = &spec.resource_attributes
        && asked.namespace.as_deref().unwrap_or("") != meta.namespace.as_deref().unwrap_or("")
    {
        let at = path.child("resourceAttributes").child("namespace");
        let value = asked.namespace.as_deref().unwrap_or("");
        errors.push(Error::invalid(&at, value, "must match metadata.namespace"));
    }
    if let Some(asked) = &spec.non_resource_attributes {
        let value = internal::show(asked, NON_RESOURCE);
        let text = "disallowed on this kind of request";
        errors.push(Error::invalid(&path.child("nonResourceAttributes"), "", text).showing(value));
    }
    errors
}

fn of_subject(spec: &SubjectAccessReviewSpec) -> Errors {
    let resource = spec.resource_attributes.as_ref();
    let mut errors = either(resource, spec.non_resource_attributes.as_ref());
    let named = spec.user.as_ref().is_some_and(|user| !user.is_empty());
    if !named && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        let text = "at least one of user or group must be specified";
        errors.push(Error::invalid(&Path::new("spec").child("user"), "", text));
    }
    errors.extend(resource.map(selectors).unwrap_or_default());
    errors
}

/// Exactly one of the two sorts of attributes.
fn either(resource: Option<&ResourceAttributes>, other: Option<&NonResourceAttributes>) -> Errors {
    let path = Path::new("spec");
    match (resource, other) {
        (Some(_), Some(other)) => {
            let text = "cannot be specified in combination with resourceAttributes";
            let value = internal::show(other, NON_RESOURCE);
            vec![Error::invalid(&path.child("nonResourceAttributes"), "", text).showing(value)]
        }
        (None, None) => {
            let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            vec![Error::invalid(&path.child("resourceAttributes"), &(), text)]
        }
        _ => vec![],
    }
}

fn no_metadata(meta: &ObjectMeta) -> Errors {
    let bare = ObjectMeta { managed_fields: None, ..meta.clone() };
    if bare == ObjectMeta::default() {
        return vec![];
    }
    vec![Error::invalid(&Path::new("metadata"), meta, "must be empty")]
}

fn selectors(asked: &ResourceAttributes) -> Errors {
    let path = Path::new("spec").child("resourceAttributes");
    let mut errors = Errors::new();
    if let Some(FieldSelectorAttributes { raw_selector, requirements }) = &asked.field_selector {
        let requirements: Vec<_> =
            requirements.iter().flatten().map(|r| (r.key.as_str(), r.operator.as_str(), &r.values)).collect();
        selector(&mut errors, &path.child("fieldSelector"), raw_selector.as_deref(), &requirements);
    }
    if let Some(LabelSelectorAttributes { raw_selector, requirements }) = &asked.label_selector {
        let requirements: Vec<_> =
            requirements.iter().flatten().map(|r| (r.key.as_str(), r.operator.as_str(), &r.values)).collect();
        selector(&mut errors, &path.child("labelSelector"), raw_selector.as_deref(), &requirements);
    }
    errors
}

/// Key, operator and values.
type Requirement<'a> = (&'a str, &'a str, &'a Option<Vec<String>>);

fn selector(errors: &mut Errors, path: &Path, raw: Option<&str>, requirements: &[Requirement<'_>]) {
    let raw = raw.unwrap_or("");
    if !raw.is_empty() && !requirements.is_empty() {
        let text = "may not specified at the same time as requirements";
        errors.push(Error::invalid(&path.child("rawSelector"), raw, text));
    }
    let at = path.child("requirements");
    if raw.is_empty() && requirements.is_empty() {
        let text = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(Error::required(&at, &text));
    }
    for (i, (key, operator, values)) in requirements.iter().enumerate() {
        let path = at.index(i);
        let empty = values.as_ref().is_none_or(Vec::is_empty);
        match *operator {
            "In" | "NotIn" if empty => {
                let text = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(Error::required(&path.child("values"), text));
            }
            "Exists" | "DoesNotExist" if !empty => {
                let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Error::forbidden(&path.child("values"), text));
            }
            _ => {}
        }
        if key.is_empty() {
            errors.push(Error::required(&path.child("key"), "must be specified"));
        }
    }
}
