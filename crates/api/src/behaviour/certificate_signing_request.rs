//! CertificateSigningRequests. Who asks is filled in by the API server, before preparation.

use super::check::Check;
use super::fill::items;
use super::{Behaviour, Typed, names, pem};
use crate::field::{Error, Errors, Path};
use crate::types::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition,
};
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
        check_name: names::path_name,
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
    let decides = |c: &Condition| matches!(c.type_.as_str(), APPROVED | DENIED);
    let kept = was.conditions.into_iter().flatten().filter(decides);
    let others = status.conditions.take().into_iter().flatten().filter(|c| !decides(c));
    let conditions: Vec<_> = kept.chain(others).collect();
    status.conditions = (!conditions.is_empty()).then_some(conditions);
}

fn conditions(request: &CertificateSigningRequest) -> &[Condition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn validate_update(
    subresource: &str,
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
) -> Errors {
    let mut errors = whole(new, Some(old));
    let path = Path::new("status").child("conditions");
    let count = |request, kind: &str| conditions(request).iter().filter(|c| c.type_ == kind).count();
    for kind in ANSWERS {
        if count(new, kind) < count(old, kind) {
            errors.forbidden(&path, &format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
    let had = certificate(old);
    if subresource == "status" && !had.is_empty() && certificate(new) != had {
        let text = "updates may not modify existing certificate content";
        errors.forbidden(&Path::new("status").child("certificate"), text);
    }
    errors
}

fn certificate(request: &CertificateSigningRequest) -> &[u8] {
    let certificate = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    certificate.map_or(&[], |c| &c.0)
}

/// Why something is not a chain of certificates.
fn chain_fault(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let blocks = pem::blocks(&text);
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.has_headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        if block.content.is_empty() {
            return Some("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
    }
    blocks.is_empty().then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

/// What was wrong with the conditions before may stay so.
fn validate_conditions(errors: &mut Errors, path: &Path, list: &[Condition], old: &[Condition]) {
    let had = |kind: &str| old.iter().any(|c| c.type_ == kind);
    let contradicted = had(APPROVED) && had(DENIED);
    let repeated = (1..old.len()).any(|i| old[..i].iter().any(|c| c.type_ == old[i].type_));
    for (i, condition) in list.iter().enumerate() {
        let at = path.index(i);
        let kind = condition.type_.as_str();
        if !had("") {
            errors.required(&at.child("type"), kind);
        }
        let allowed: &[&str] =
            if ANSWERS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        errors.required_one_of(&at.child("status"), &condition.status, allowed);
        let before = |other: &str| list[..i].iter().any(|c| c.type_ == other);
        let contradicts = (kind == APPROVED && before(DENIED)) || (kind == DENIED && before(APPROVED));
        if contradicts && !contradicted {
            errors.invalid(path, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if before(kind) && !repeated {
            errors.push(Error::duplicate(&at.child("type"), kind));
        }
    }
}

/// Shortest life of a certificate that can be asked for, in seconds.
const SHORTEST: i32 = 600;
/// A signer of older versions of the kind.
const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// All that keys can be used for, as the error names them.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn validate(request: &CertificateSigningRequest) -> Errors {
    whole(request, None)
}

/// The faults of a request; what an earlier version of it got away with is not told again. The content of the
/// request is read by the signers.
fn whole(request: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>) -> Errors {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), &request.spec);
    let text = String::from_utf8_lossy(&spec.request.0);
    if pem::blocks(&text).first().is_none_or(|block| block.label != "CERTIFICATE REQUEST") {
        errors.invalid(&path.child("request"), &spec.request, "PEM block type must be CERTIFICATE REQUEST");
    }
    usages(&mut errors, &path.child("usages"), items(&spec.usages), old);
    let at = path.child("signerName");
    if spec.signer_name == LEGACY && old.is_none_or(|old| old.spec.signer_name != LEGACY) {
        errors.invalid(&at, LEGACY, "the legacy signerName is not allowed via this API version");
    } else {
        signer(&mut errors, &at, &spec.signer_name);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < SHORTEST) {
        let text = format!("may not specify a duration less than {SHORTEST} seconds (10 minutes)");
        errors.invalid(&path.child("expirationSeconds"), &seconds, &text);
    }
    let was = old.map_or(&[][..], conditions);
    validate_conditions(&mut errors, &Path::new("status").child("conditions"), conditions(request), was);
    let (had, has) = (old.map_or(&[][..], certificate), certificate(request));
    let was_good = had.is_empty() || chain_fault(had).is_none();
    if let Some(fault) = chain_fault(has).filter(|_| has != had && !has.is_empty() && was_good) {
        errors.invalid(&Path::new("status").child("certificate"), "<certificate data>", &fault);
    }
    errors
}

fn usages(errors: &mut Errors, path: &Path, list: &[String], old: Option<&CertificateSigningRequest>) {
    let old = old.map_or(&[][..], |old| items(&old.spec.usages));
    let unknown = |usage: &String| !USAGES.contains(&usage.as_str());
    let repeated = |list: &[String], i: usize| list[..i].contains(&list[i]);
    if list.is_empty() {
        errors.push(Error::required(path, ""));
    }
    for (i, usage) in list.iter().enumerate().filter(|_| !old.iter().any(unknown)) {
        errors.one_of(&path.index(i), usage, &USAGES);
    }
    let was_repeated = (0..old.len()).any(|i| repeated(old, i));
    for i in (0..list.len()).filter(|i| !was_repeated && repeated(list, *i)) {
        errors.push(Error::duplicate(&path.index(i), &list[i]));
    }
}

/// Length of the two parts of a signer's name: a domain, and a name in a namespace.
const SIGNER: usize = 253 + 1 + 63 + 1 + 253;

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
    if domain.len() > 253 {
        errors.push(Error::too_long(path, 253));
    }
    labels(errors, path, domain, names::dns1123_label);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    labels(errors, path, rest, names::dns1123_subdomain);
    if name.len() > SIGNER {
        errors.push(Error::too_long(path, SIGNER));
    }
}

/// The faults of the first bad part of what dots part.
fn labels(errors: &mut Errors, path: &Path, value: &str, check: impl Fn(&str) -> Vec<String>) {
    for label in value.split('.') {
        let faults = check(label);
        for fault in &faults {
            errors.invalid(path, value, &format!("validating label {label:?}: {fault}"));
        }
        if !faults.is_empty() {
            return;
        }
    }
}
