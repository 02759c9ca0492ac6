//! CertificateSigningRequests: approves what a node may have, signs what is approved, removes what is done.
//!
//! The authority's key is not here: the program gives a function that signs. Requests of signers that are not
//! the cluster's own are left to theirs.

pub mod approve;
pub mod clean;
mod request;
pub mod sign;

pub use sign::{Certify, Order};

use krate_api::types::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

/// The service account of all three.
const ACCOUNT: &str = "certificate-controller";

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    request.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn is(request: &CertificateSigningRequest, kind: &str) -> bool {
    condition(request, kind).is_some()
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    certificate(request).is_some()
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    (!certificate.0.is_empty()).then_some(certificate.0.as_slice())
}
