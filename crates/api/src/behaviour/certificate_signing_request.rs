//! CertificateSigningRequests. Who asks is filled in by the API server, before preparation.

use super::check::Check;
use super::fill::items;
use super::{Behaviour, Typed, names};
use crate::field::{Error, Errors, Path};
use crate::types::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<CertificateSigningRequest> {
        default: |request| {
            request.status.get_or_insert_default();
        },
        prepare_create: |request| request.status = Some(Default::default()),
        // Neither the request nor its answer can be changed by a plain update.
        prepare_update: |new, old| {
            new.spec = old.spec.clone();
            new.status.clone_from(&old.status);
        },
        prepare_subresource,
        validate,
        validate_update,
        fields: |request| vec![("spec.signerName", request.spec.signer_name.clone())],
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

/// Conditions that answer a request, in the order in which they are looked at.
const ANSWERS: [&str; 3] = [APPROVED, DENIED, "Failed"];
const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";

/// `approval` sets the conditions and nothing else, `status` all but Approved and Denied.
fn prepare_subresource(
    subresource: &str,
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
) {
    new.spec = old.spec.clone();
    let was = old.status.clone().unwrap_or_default();
    let status = new.status.get_or_insert_default();
    if subresource == "approval" {
        status.certificate = was.certificate;
        return;
    }
    let decides = |c: &CertificateSigningRequestCondition| matches!(c.type_.as_str(), APPROVED | DENIED);
    let kept = was.conditions.into_iter().flatten().filter(decides);
    let others = status.conditions.take().into_iter().flatten().filter(|c| !decides(c));
    let conditions: Vec<_> = kept.chain(others).collect();
    status.conditions = (!conditions.is_empty()).then_some(conditions);
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn validate_update(
    subresource: &str,
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status").child("conditions");
    let count = |request, kind: &str| conditions(request).iter().filter(|c| c.type_ == kind).count();
    for kind in ANSWERS {
        if count(new, kind) < count(old, kind) {
            errors.forbidden(&path, &format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
    let certificate = |r: &CertificateSigningRequest| {
        r.status.as_ref().and_then(|s| s.certificate.clone()).filter(|c| !c.0.is_empty())
    };
    let at = Path::new("status").child("certificate");
    match (certificate(old), certificate(new)) {
        (Some(had), Some(has)) if had != has => {
            errors.forbidden(&at, "updates may not modify existing certificate content");
        }
        (Some(_), None) => errors.forbidden(&at, "updates may not remove existing certificate content"),
        (None, Some(has)) if subresource == "status" && !is_certificate(&has.0) => {
            let text = "must contain at least one CERTIFICATE PEM block";
            errors.invalid(&at, "<certificate data>", text);
        }
        _ => {}
    }
    if conditions(new) != conditions(old) {
        validate_conditions(&mut errors, &path, conditions(new));
    }
    errors
}

fn is_certificate(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("-----BEGIN CERTIFICATE-----")
}

fn validate_conditions(errors: &mut Errors, path: &Path, list: &[CertificateSigningRequestCondition]) {
    for (i, condition) in list.iter().enumerate() {
        let path = path.index(i);
        let kind = condition.type_.as_str();
        errors.required(&path.child("type"), kind);
        let allowed: &[&str] =
            if ANSWERS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        errors.required_one_of(&path.child("status"), &condition.status, allowed);
        let before = |other: &str| list[..i].iter().any(|c| c.type_ == other);
        if (kind == APPROVED && before(DENIED)) || (kind == DENIED && before(APPROVED)) {
            let text = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&path.child("type"), kind, text);
        }
        if before(kind) {
            errors.push(Error::duplicate(&path.child("type"), kind));
        }
    }
}

/// Shortest life of a certificate that can be asked for, in seconds.
const SHORTEST: i32 = 600;

/// The request itself is read by the signers.
fn validate(request: &CertificateSigningRequest) -> Errors {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), &request.spec);
    if spec.request.0.is_empty() {
        errors.invalid(&path.child("request"), &spec.request, "PEM block type must be CERTIFICATE REQUEST");
    }
    if items(&spec.usages).is_empty() {
        errors.push(Error::required(&path.child("usages"), "usages are required"));
    }
    signer(&mut errors, &path.child("signerName"), &spec.signer_name);
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < SHORTEST) {
        let text = format!("may not specify a duration less than {SHORTEST} seconds (10 minutes)");
        errors.invalid(&path.child("expirationSeconds"), &seconds, &text);
    }
    errors
}

/// `domain/path`, with a domain of at least two labels.
fn signer(errors: &mut Errors, path: &Path, name: &str) {
    if !errors.required(path, name) {
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.invalid(path, name, text);
        return;
    };
    errors.faults(path, domain, names::dns1123_subdomain(domain));
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    errors.faults(path, rest, names::dns1123_subdomain(rest));
}
