//! CertificateSigningRequests. Who asks is filled in by the API server, before preparation.

use super::{Behaviour, Typed, names};
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
