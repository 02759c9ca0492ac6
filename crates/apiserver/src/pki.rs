//! The cluster's own authority: its certificates and the key that signs service-account tokens.
//!
//! Keys are made once and kept in a folder, readable by their owner only. Nothing here trusts anything
//! outside of the cluster. Certificates are ECDSA P-256, tokens ES256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use krate_base::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Validity of the authority, in years.
const CA_YEARS: i64 = 10;
/// Validity of every certificate that it signs, in years.
const LEAF_YEARS: i64 = 1;
/// Seconds by which a certificate that was asked for begins early: clocks of other machines may be behind.
const BACKDATED: i64 = 300;
const DAY: u64 = 86_400;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Certificate(#[from] rcgen::Error),
    #[error("a key could not be read: {0}")]
    Key(String),
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// The cluster's keys. Cheap to clone.
#[derive(Clone)]
pub struct Authority(Arc<Keys>);

struct Keys {
    ca: Pair,
    service_account: String,
    signer: EcdsaKeyPair,
    random: SystemRandom,
    clock: Clock,
}

impl Authority {
    /// New keys that live in memory only.
    pub fn generate(clock: &Clock) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("kubernetes", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, clock, CA_YEARS);
        let ca = Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        Self::from_parts(ca, KeyPair::generate()?.serialize_pem(), clock)
    }

    /// The keys of a folder; made there when the folder has none. Files: `ca.crt`, `ca.key`, `sa.key`.
    pub fn load_or_create(folder: &Path, clock: &Clock) -> Result<Self, Error> {
        let read = |name: &str| std::fs::read_to_string(folder.join(name));
        if let (Ok(certificate), Ok(key), Ok(service_account)) =
            (read("ca.crt"), read("ca.key"), read("sa.key"))
        {
            return Self::from_parts(Pair { certificate, key }, service_account, clock);
        }
        let made = Self::generate(clock)?;
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::Io { path: folder.display().to_string(), error })?;
        write_private(&folder.join("ca.key"), &made.0.ca.key)?;
        write_private(&folder.join("sa.key"), &made.0.service_account)?;
        write_private(&folder.join("ca.crt"), &made.0.ca.certificate)?;
        Ok(made)
    }

    fn from_parts(ca: Pair, service_account: String, clock: &Clock) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let der = pem::parse(&service_account).map_err(|e| Error::Key(e.to_string()))?;
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.contents(), &random)
            .map_err(|e| Error::Key(e.to_string()))?;
        Ok(Self(Arc::new(Keys { ca, service_account, signer, random, clock: clock.clone() })))
    }

    /// The authority's certificate, PEM: what clients trust.
    #[must_use]
    pub fn ca_certificate(&self) -> &str {
        &self.0.ca.certificate
    }

    /// A serving certificate for these names and addresses.
    pub fn serving(&self, common_name: &str, names: &[String]) -> Result<Pair, Error> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = named(common_name, &[]);
        // `*.example` and plain names become DNS names; what parses as an address became one already.
        params.subject_alt_names.retain(|san| !matches!(san, SanType::Rfc822Name(_)));
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate: the common name is the user, the organization is its group. The library that
    /// writes it knows one organization; more than one group is an error.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Pair, Error> {
        if groups.len() > 1 {
            return Err(Error::Key(format!("a certificate for {user} can name one group only")));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = named(user, groups);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The certificate of somebody's request (PEM) for these usages, as CertificateSigningRequests name them. It
    /// lives as long as is asked for, but no longer than other certificates of this authority. Whether the
    /// requester may have the subject and names is not decided here.
    pub fn sign_request(
        &self,
        request: &[u8],
        usages: &[String],
        lifetime: Option<Duration>,
    ) -> Result<String, Error> {
        let text = std::str::from_utf8(request).map_err(|e| Error::Key(e.to_string()))?;
        let mut request = CertificateSigningRequestParams::from_pem(text)?;
        let issuer = Issuer::from_ca_cert_pem(&self.0.ca.certificate, KeyPair::from_pem(&self.0.ca.key)?)?;
        let params = &mut request.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = usages.iter().filter_map(|u| key_usage(u)).collect();
        params.extended_key_usages = usages.iter().filter_map(|u| extended_usage(u)).collect();
        params.use_authority_key_identifier_extension = true;
        let most = Duration::from_secs(LEAF_YEARS.unsigned_abs() * 365 * DAY);
        let now = self.0.clock.now();
        let life = lifetime.map_or(most, |asked| asked.min(most));
        valid_between(params, now, -BACKDATED, i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
        Ok(request.signed_by(&issuer)?.pem())
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Pair, Error> {
        let issuer = Issuer::from_ca_cert_pem(&self.0.ca.certificate, KeyPair::from_pem(&self.0.ca.key)?)?;
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, &self.0.clock, LEAF_YEARS);
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The signature of a token's signing input (ES256: r and s, 32 bytes each).
    pub(crate) fn sign_token(&self, input: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.0.signer.sign(&self.0.random, input).map_err(|e| Error::Key(e.to_string()))?;
        Ok(signature.as_ref().to_vec())
    }

    /// The public point of the token key, uncompressed (0x04, x, y).
    pub(crate) fn token_point(&self) -> &[u8] {
        self.0.signer.public_key().as_ref()
    }

    /// The name of the token key.
    pub(crate) fn token_key_id(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.token_point()))
    }
}

/// A request (PEM) for a certificate with this subject and these names, and the key (PEM) that was made for it.
pub fn request(user: &str, groups: &[&str], names: &[String]) -> Result<(String, String), Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = named(user, groups);
    Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem()))
}

/// Fills a buffer with bytes that nobody can guess.
pub fn random(buffer: &mut [u8]) -> Result<(), Error> {
    use ring::rand::SecureRandom as _;
    SystemRandom::new().fill(buffer).map_err(|_| Error::Key("no randomness".to_owned()))
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        _ => return None,
    })
}

fn extended_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match usage {
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        _ => return None,
    })
}

fn named(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets the time from `from` seconds to `to` seconds of now. The library's type of time has no name here.
fn valid_between(params: &mut CertificateParams, now: jiff::Timestamp, from: i64, to: i64) {
    let second = |seconds: i64| {
        let at = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX);
        let at = at.to_zoned(jiff::tz::TimeZone::UTC);
        let midnight =
            rcgen::date_time_ymd(i32::from(at.year()), at.month().unsigned_abs(), at.day().unsigned_abs());
        let time = at.time();
        let into_day =
            i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
        midnight + Duration::from_secs(into_day.unsigned_abs())
    };
    params.not_before = second(from);
    params.not_after = second(to);
}

/// From yesterday (clocks of other machines may be behind) for so many years.
fn validity(params: &mut CertificateParams, clock: &Clock, years: i64) {
    let day = |days: i64| {
        let at = clock
            .now()
            .checked_add(jiff::SignedDuration::from_hours(24 * days))
            .unwrap_or(jiff::Timestamp::MAX)
            .to_zoned(jiff::tz::TimeZone::UTC);
        rcgen::date_time_ymd(i32::from(at.year()), at.month().unsigned_abs(), at.day().unsigned_abs())
    };
    params.not_before = day(-1);
    params.not_after = day(365 * years + 1);
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let fail = |error| Error::Io { path: path.display().to_string(), error };
    let draft = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(fail)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&draft, path).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    #[test]
    fn a_request_is_signed_for_what_and_for_as_long_as_it_asks() {
        let clock = Clock::system();
        let authority = Authority::generate(&clock).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = named("system:node:a", &["system:nodes"]);
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let usages = ["digital signature".to_owned(), "client auth".to_owned()];
        let sign = |lifetime| authority.sign_request(request.as_bytes(), &usages, lifetime).unwrap();
        let years = |pem: &str| {
            let block = pem::parse(pem).unwrap();
            let (_, certificate) = X509Certificate::from_der(block.contents()).unwrap();
            assert_eq!(certificate.subject().to_string(), "O=system:nodes, CN=system:node:a");
            assert!(!certificate.is_ca());
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth);
            certificate.validity().not_after.timestamp() - clock.now().as_second()
        };
        assert!((595..=600).contains(&years(&sign(Some(Duration::from_secs(600))))));
        assert!(years(&sign(Some(Duration::from_secs(DAY * 4000)))) <= 366 * 86_400);
        assert!(authority.sign_request(b"no request", &usages, None).is_err());
    }

    #[test]
    fn keys_stay_the_same_in_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let first = Authority::load_or_create(folder.path(), &clock).unwrap();
        let second = Authority::load_or_create(folder.path(), &clock).unwrap();
        assert_eq!(first.ca_certificate(), second.ca_certificate());
        assert_eq!(first.token_key_id(), second.token_key_id());
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join("sa.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
