//! Identity from a client certificate of the cluster's authority: common name and organizations.
//!
//! The handshake takes any certificate whose key the client has; whether it is one of ours and valid now
//! is decided here per request, so that a bad one is a `401` and not a broken connection.

use crate::pki::Authority;
use crate::server::StartError;
use crate::user::{AUTHENTICATED, UserInfo};
use krate_base::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring as provider};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Verifies client certificates against the cluster's authority.
pub(crate) struct Certificates {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Certificates {
    pub fn new(authority: &Authority) -> Result<Self, StartError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.ca_certificate().as_bytes()) {
            let certificate =
                certificate.map_err(|e| StartError::Keys(crate::pki::Error::Key(e.to_string())))?;
            roots.add(certificate)?;
        }
        let provider = Arc::new(provider::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| StartError::Tls(rustls::Error::General(e.to_string())))?;
        Ok(Self { verifier })
    }

    /// What the TLS handshake uses: ask for a certificate, take any.
    pub fn handshake(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(AskForAny {
            hints: self.verifier.root_hint_subjects().to_vec(),
            algorithms: provider::default_provider().signature_verification_algorithms,
        })
    }

    /// The identity of a chain, if it is ours and valid at `now`.
    pub fn user(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> Option<UserInfo> {
        let (leaf, rest) = chain.split_first()?;
        let seconds = u64::try_from(now.as_second()).ok()?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.verifier.verify_client_cert(leaf, rest, at).ok()?;
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let mut groups: Vec<String> =
            subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        groups.push(AUTHENTICATED.to_owned());
        let extra =
            [("authentication.kubernetes.io/credential-id".to_owned(), vec![credential(leaf)])].into();
        (!name.is_empty()).then(|| UserInfo { name, groups, extra, ..UserInfo::default() })
    }
}

/// What tells this certificate from others in audit logs and reviews.
fn credential(leaf: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(leaf);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("X509SHA256={hex}")
}

/// Asks for a certificate, and verifies only that the client has its key.
#[derive(Debug)]
struct AskForAny {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AskForAny {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
