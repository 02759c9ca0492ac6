//! CertificateSigningRequests: the requester is whoever asks; approving and signing need rights on the signer;
//! nobody gets a certificate of the group that may do everything.

use super::{Attributes, Operation, Plugin, cast, cast_mut};
use crate::authz;
use crate::server::Inner;
use crate::user::MASTERS;
use async_trait::async_trait;
use krate_api::meta::Time;
use krate_api::types::certificates::v1::CertificateSigningRequest;
use krate_api::{Object, Status};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

pub(super) struct Certificates;

#[async_trait]
impl Plugin for Certificates {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        let answers = matches!(at.call.subresource.as_str(), "approval" | "status");
        if let Some(request) = cast_mut::<CertificateSigningRequest>(object).filter(|_| answers) {
            date(request, at.old.and_then(cast), &Time(server.clock.now_seconds()));
        }
        let creates = at.operation == Operation::Create && at.call.subresource.is_empty();
        if let Some(request) = cast_mut::<CertificateSigningRequest>(object).filter(|_| creates) {
            let user = &at.call.user;
            request.spec.username = Some(user.name.clone());
            request.spec.uid = Some(user.uid.clone()).filter(|uid| !uid.is_empty());
            request.spec.groups = Some(user.groups.clone());
            request.spec.extra = Some(user.extra.clone()).filter(|extra| !extra.is_empty());
        }
        Ok(())
    }

    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(request) = object.and_then(cast::<CertificateSigningRequest>) else { return Ok(()) };
        match (at.operation, at.call.subresource.as_str()) {
            (Operation::Create, "") if asks_for_everything(request) => {
                Err(at.forbidden(&format!("use of {CLIENT} signer with {MASTERS} group is not allowed")))
            }
            (Operation::Update, "approval") => permitted(server, at, request, "approve"),
            (Operation::Update, "status") if signs(request, at.old.and_then(cast)) => {
                permitted(server, at, request, "sign")
            }
            _ => Ok(()),
        }
    }
}

/// Says of each condition that does not say it when it was written, and since when it is as it is.
fn date(new: &mut CertificateSigningRequest, old: Option<&CertificateSigningRequest>, now: &Time) {
    let was = old.and_then(|o| o.status.as_ref()?.conditions.clone()).unwrap_or_default();
    let status = new.status.get_or_insert_default();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_update_time.get_or_insert_with(|| now.clone());
        if condition.last_transition_time.is_none() {
            let same = was.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
            let since = same.and_then(|c| c.last_transition_time.clone());
            condition.last_transition_time = since.or_else(|| Some(now.clone()));
        }
    }
}

/// Whether the subject is of the group of those who may do everything.
fn asks_for_everything(request: &CertificateSigningRequest) -> bool {
    let read = || {
        let (_, pem) = x509_parser::pem::parse_x509_pem(&request.spec.request.0).ok()?;
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        let subject = &parsed.certification_request_info.subject;
        let mut groups = subject.iter_organization().filter_map(|o| o.as_str().ok());
        Some(groups.any(|group| group == MASTERS))
    };
    request.spec.signer_name == CLIENT && read().unwrap_or(false)
}

/// Whether a change of the status answers the request.
fn signs(new: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>) -> bool {
    let answer = |request: &CertificateSigningRequest| {
        let status = request.status.clone().unwrap_or_default();
        let failed = status.conditions.into_iter().flatten().any(|c| c.type_ == "Failed");
        (status.certificate, failed)
    };
    old.is_none_or(|old| answer(old) != answer(new))
}

/// Whether the user has a verb on the signer, by its name or by all of its domain.
fn permitted(
    server: &Inner,
    at: &Attributes<'_>,
    request: &CertificateSigningRequest,
    verb: &str,
) -> Result<(), Status> {
    let signer = request.spec.signer_name.as_str();
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let may = |name: &str| {
        let attributes = authz::Attributes {
            user: &at.call.user,
            verb,
            group: "certificates.k8s.io",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            field_selector: "",
            label_selector: "",
            path: None,
        };
        server.authz.check(&attributes).is_ok()
    };
    if may(signer) || may(&domain) {
        return Ok(());
    }
    Err(at.forbidden(&format!("user not permitted to {verb} requests with signerName \"{signer}\"")))
}
