//! Who may speak to the kubelet: the API server, and members of `system:masters`.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The name in the API server's certificate for kubelets.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
const MASTERS: &str = "system:masters";

/// Whether the bearer of these (verified) certificates may enter.
pub fn may_enter(certificates: Option<&[CertificateDer<'_>]>) -> bool {
    let Some(first) = certificates.and_then(<[_]>::first) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(first) else { return false };
    let subject = certificate.subject();
    let mut names = subject.iter_common_name().filter_map(|n| n.as_str().ok());
    let mut groups = subject.iter_organization().filter_map(|n| n.as_str().ok());
    names.any(|n| n == API_SERVER) || groups.any(|g| g == MASTERS)
}
