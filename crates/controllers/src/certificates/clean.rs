//! Removes requests that nobody needs any more: answered ones an hour after the answer, those that nobody
//! answered after a day, and those whose certificate has expired.

use super::{ACCOUNT, certificate, condition};
use crate::env::{Env, synced, wake_due};
use crate::meta;
use jiff::{SignedDuration, Timestamp};
use krate_api::Status;
use krate_api::types::certificates::v1::CertificateSigningRequest;
use krate_client::api::delete_uid;
use krate_client::{Api, Outcome, Queue};
use x509_parser::prelude::{FromDer as _, X509Certificate};

const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

pub fn start(env: &Env) {
    let requests = env.informers.of::<CertificateSigningRequest>();
    let queue: Queue = env.queue("certificate_cleaning");
    wake_due(&requests, &queue, |_| true);
    let (api, clock): (Api<CertificateSigningRequest>, _) = (env.api(ACCOUNT), env.clock.clone());
    env.run(&queue, 1, synced!(requests), move |name: String| {
        let (requests, api, clock) = (requests.clone(), api.clone(), clock.clone());
        async move {
            let Some(request) = requests.get(&name) else { return Ok(Outcome::Done) };
            let Some(end) = end_of(&request) else { return Ok(Outcome::Done) };
            let left = end.duration_since(clock.now());
            if left > SignedDuration::ZERO {
                return Ok(Outcome::After(left.unsigned_abs()));
            }
            let gone = |s: Status| if s.is_not_found() { Ok(()) } else { Err(s) };
            api.delete("", &name, delete_uid(meta::uid(&request.metadata))).await.or_else(gone)?;
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

/// When a request is to go.
fn end_of(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let after = |at: Timestamp, by| at.checked_add(by).ok();
    let answered = ["Approved", "Denied", "Failed"].iter().filter_map(|kind| condition(request, kind));
    let since = answered.filter_map(|c| c.last_update_time.as_ref()).map(|at| at.0).min();
    let waits_for_signer = condition(request, "Approved").is_some() && certificate(request).is_none();
    let limit = match since {
        Some(at) if !waits_for_signer => after(at, ANSWERED),
        _ => after(request.metadata.creation_timestamp.as_ref()?.0, PENDING),
    };
    let expires = certificate(request).and_then(expiry);
    [limit, expires].into_iter().flatten().min()
}

fn expiry(pem: &[u8]) -> Option<Timestamp> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::meta::Time;
    use krate_api::types::certificates::v1::CertificateSigningRequestCondition;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn answered_requests_go_after_an_hour_and_others_after_a_day() {
        let mut request = CertificateSigningRequest::default();
        request.metadata.creation_timestamp = Some(Time(at(0)));
        assert_eq!(end_of(&request), Some(at(86_400)));
        let status = request.status.get_or_insert_default();
        status.conditions = Some(vec![CertificateSigningRequestCondition {
            type_: "Denied".to_owned(),
            last_update_time: Some(Time(at(60))),
            ..Default::default()
        }]);
        assert_eq!(end_of(&request), Some(at(3_660)));
        if let Some(conditions) = request.status.as_mut().and_then(|s| s.conditions.as_mut()) {
            conditions[0].type_ = "Approved".to_owned();
        }
        assert_eq!(end_of(&request), Some(at(86_400)), "the signer has not answered yet");
    }
}
