//! Signs approved requests of the cluster's own signers; one that its signer may not give is marked Failed.

use super::request::Requested;
use super::{ACCOUNT, CLIENT, KUBELET_CLIENT, KUBELET_SERVING, is, is_issued};
use crate::env::{Env, synced, wake_due};
use k8s_openapi::ByteString;
use krate_api::Status;
use krate_api::meta::Time;
use krate_api::types::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use krate_client::{Api, Outcome, Queue};
use std::sync::Arc;
use std::time::Duration;

/// Makes the certificate (PEM) of an order that was checked, with the cluster's authority.
pub type Certify = Arc<dyn Fn(&Order<'_>) -> Result<String, String> + Send + Sync>;

/// A certificate to be made.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The PEM request: subject, names and key.
    pub request: &'a [u8],
    /// `client auth`, `digital signature` and their like.
    pub usages: &'a [String],
    /// The life that is asked for; the authority has an upper bound of its own.
    pub lifetime: Option<Duration>,
}

pub fn start(env: &Env) {
    let Some(certify) = env.certify.clone() else { return };
    let requests = env.informers.of::<CertificateSigningRequest>();
    let queue: Queue = env.queue("certificate_signing");
    wake_due(&requests, &queue, waits);
    let (api, clock): (Api<CertificateSigningRequest>, _) = (env.api(ACCOUNT), env.clock.clone());
    env.run(&queue, 1, synced!(requests), move |name: String| {
        let (requests, api, clock, certify) = (requests.clone(), api.clone(), clock.clone(), certify.clone());
        async move {
            let Some(request) = requests.get(&name).filter(|r| waits(r)) else { return Ok(Outcome::Done) };
            let signed = match issue(&request, &certify) {
                Ok(certificate) => {
                    let mut signed = (*request).clone();
                    let status = signed.status.get_or_insert_default();
                    status.certificate = Some(ByteString(certificate.into_bytes()));
                    signed
                }
                Err(why) => failed(&request, why, Time(clock.now_seconds())),
            };
            api.update_status(signed).await?;
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

/// Whether it is approved, of a signer of ours, and not answered.
fn waits(request: &CertificateSigningRequest) -> bool {
    let ours = matches!(request.spec.signer_name.as_str(), CLIENT | KUBELET_CLIENT | KUBELET_SERVING);
    ours && is(request, "Approved") && !is(request, "Denied") && !is(request, "Failed") && !is_issued(request)
}

fn issue(request: &CertificateSigningRequest, certify: &Certify) -> Result<String, String> {
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    if let Some(why) = Requested::parse(&request.spec.request.0)?.refusal(&request.spec.signer_name, usages) {
        return Err(why);
    }
    let seconds = request.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok());
    certify(&Order { request: &request.spec.request.0, usages, lifetime: seconds.map(Duration::from_secs) })
}

fn failed(request: &CertificateSigningRequest, why: String, now: Time) -> CertificateSigningRequest {
    let mut failed = request.clone();
    failed.status.get_or_insert_default().conditions.get_or_insert_default().push(
        CertificateSigningRequestCondition {
            type_: "Failed".to_owned(),
            status: "True".to_owned(),
            reason: Some("SignerValidationFailure".to_owned()),
            message: Some(why),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        },
    );
    failed
}
