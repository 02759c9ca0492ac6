//! Getting to know a server's authority by the digest of its key: what a machine that joins with a token is
//! told beside it. The connection is given up before a byte of ours has been sent to anybody else.

use crate::tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio::net::TcpStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const PREFIX: &str = "sha256:";

/// Why an authority could not be got to know.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not of the form https://host:port")]
    Address(String),
    #[error("{0:?} is not of the form sha256: and 64 hexadecimal digits")]
    Hash(String),
    #[error("the certificate is not readable")]
    Certificate,
    #[error("cannot connect to {0}: {1}")]
    Connect(String, std::io::Error),
    #[error("{0}")]
    Verify(rustls::Error),
}

/// `sha256:` and the digest of a certificate's public key (its SubjectPublicKeyInfo), as `kubeadm` writes it.
pub fn key_hash(certificate_pem: &[u8]) -> Result<String, Error> {
    let block = pem::parse(certificate_pem).map_err(|_| Error::Certificate)?;
    hash_of(block.contents()).ok_or(Error::Certificate)
}

fn hash_of(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let digest = Sha256::digest(certificate.public_key().raw);
    Some(digest.iter().fold(PREFIX.to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// The authority (PEM) of the server at `https://host:port`, when the server shows one with this digest that
/// has signed its certificate for this host.
pub async fn authority(server: &str, hash: &str) -> Result<String, Error> {
    let digits = hash.strip_prefix(PREFIX).filter(|d| d.len() == 64);
    if digits.is_none_or(|d| !d.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(Error::Hash(hash.to_owned()));
    }
    let wrong = || Error::Address(server.to_owned());
    let target = server.strip_prefix("https://").map(|t| t.trim_end_matches('/')).ok_or_else(wrong)?;
    let (host, _) = target.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|_| wrong())?;
    let failed = |error| Error::Connect(target.to_owned(), error);
    let tls = tls::any_server().map_err(Error::Verify)?;
    let stream = TcpStream::connect(target).await.map_err(failed)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(name.clone(), stream).await.map_err(failed)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let authority = verified(chain, &hash.to_ascii_lowercase(), &name).map_err(Error::Verify)?;
    Ok(pem::encode(&pem::Pem::new("CERTIFICATE", authority.to_vec())))
}

/// The authority of a chain that has the digest and has signed the chain's first certificate for this name.
fn verified<'c>(
    chain: &'c [CertificateDer<'c>],
    hash: &str,
    name: &ServerName<'_>,
) -> Result<&'c CertificateDer<'c>, rustls::Error> {
    let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let (leaf, rest) = chain.split_first().ok_or_else(unknown)?;
    let pinned = |c: &&CertificateDer<'_>| hash_of(c).is_some_and(|h| h == hash);
    let authority = rest.iter().find(pinned).ok_or_else(unknown)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.build().map_err(|e| rustls::Error::General(e.to_string()))?;
    verifier.verify_server_cert(leaf, rest, name, &[], UnixTime::now())?;
    Ok(authority)
}
