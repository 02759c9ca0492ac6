//! CertificateSigningRequests. Who asks is filled in by the API server, before preparation.

use super::check::Check;
use super::fill::items;
use super::{Behaviour, Typed, names};
use crate::field::{Error, Errors, Path};
use crate::types::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestStatus};
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
        fields: |request| vec![("spec.signerName", request.spec.signer_name.clone())],
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

/// `approval` sets the conditions Approved and Denied only, `status` all but those.
fn prepare_subresource(
    subresource: &str,
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
) {
    new.spec = old.spec.clone();
    let was = old.status.clone().unwrap_or_default();
    let status = new.status.take().unwrap_or_default();
    let decides = |kind: &str| matches!(kind, "Approved" | "Denied");
    let (mine, theirs) = if subresource == "approval" { (&status, &was) } else { (&was, &status) };
    let conditions: Vec<_> = mine
        .conditions
        .iter()
        .flatten()
        .filter(|c| decides(&c.type_))
        .chain(theirs.conditions.iter().flatten().filter(|c| !decides(&c.type_)))
        .cloned()
        .collect();
    let certificate = if subresource == "approval" { was.certificate } else { status.certificate };
    new.status = Some(CertificateSigningRequestStatus {
        certificate,
        conditions: (!conditions.is_empty()).then_some(conditions),
    });
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
