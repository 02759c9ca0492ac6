//! Identity from a client certificate of the cluster's authority: common name and organizations.
//!
//! The handshake takes any certificate whose key the client has; whether it is one of ours is decided here
//! with the first request of a connection (a signature to verify, which costs more than most requests), and
//! whether it is valid now with every one. A bad one is a `401` and not a broken connection.

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
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
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

    /// The identity of a connection's chain, if it is ours and valid at `now`.
    pub fn user(&self, peer: &Peer, now: Timestamp) -> Option<Arc<UserInfo>> {
        let proved = match peer.proved.get() {
            Some(proved) => proved,
            // What fails is not kept: a certificate may become valid while the connection is open.
            None => {
                let proved = self.prove(&peer.chain, now)?;
                peer.proved.get_or_init(|| proved)
            }
        };
        proved.valid.contains(&now.as_second()).then(|| proved.user.clone())
    }

    fn prove(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> Option<Proved> {
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
        let validity = certificate.validity();
        let valid = validity.not_before.timestamp()..=validity.not_after.timestamp();
        let user = UserInfo { name, groups, extra, ..UserInfo::default() };
        (!user.name.is_empty()).then(|| Proved { user: Arc::new(user), valid })
    }
}

/// The client at the other end of a connection: what it showed, and who that proved it to be.
#[derive(Default)]
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    proved: OnceLock<Proved>,
}

struct Proved {
    user: Arc<UserInfo>,
    /// Seconds since the epoch at which the certificate holds.
    valid: RangeInclusive<i64>,
}

impl Peer {
    /// A client that showed this chain; an empty one is none.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, proved: OnceLock::new() }
    }

    pub fn has_shown(&self) -> bool {
        !self.chain.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;
    use krate_base::Clock;

    fn peer(authority: &Authority) -> Peer {
        let pair = authority.client("jane", &["dev"]).unwrap();
        Peer::new(vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()])
    }

    #[test]
    fn a_certificate_proves_who_somebody_is_while_it_is_valid() {
        let clock = Clock::system();
        let authority = Authority::generate(&clock).unwrap();
        let certificates = Certificates::new(&authority).unwrap();
        let (peer, now) = (peer(&authority), clock.now());
        let years = |n: i64| Timestamp::from_second(now.as_second() + n * 366 * 86_400).unwrap();
        assert!(certificates.user(&peer, years(5)).is_none(), "it has expired by then");
        let user = certificates.user(&peer, now).unwrap();
        assert_eq!((user.name.as_str(), user.is_in("dev"), user.is_in(AUTHENTICATED)), ("jane", true, true));
        assert!(Arc::ptr_eq(&user, &certificates.user(&peer, now).unwrap()), "it is verified once");
        assert!(certificates.user(&peer, years(5)).is_none(), "it expires on an open connection too");
    }

    #[test]
    fn a_certificate_of_another_authority_proves_nothing() {
        let clock = Clock::system();
        let certificates = Certificates::new(&Authority::generate(&clock).unwrap()).unwrap();
        let stranger = peer(&Authority::generate(&clock).unwrap());
        assert!(certificates.user(&stranger, clock.now()).is_none());
    }
}
