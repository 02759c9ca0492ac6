//! Approves requests that a node makes for itself, if whoever asks may: the API server is asked whether they may
//! `create` a virtual subresource of CertificateSigningRequests, one for each sort of request.

use super::request::Requested;
use super::{ACCOUNT, CLIENT, KUBELET_CLIENT, KUBELET_SERVING, is, is_issued};
use crate::env::{Env, synced, wake_due};
use krate_api::Status;
use krate_api::types::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use krate_api::types::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use krate_api::{Kind as _, meta::Time};
use krate_client::{Api, Outcome, Queue};

/// The user of a node's service proxy and DNS.
const NETWORK_USER: &str = "system:kube-proxy";

/// One sort of request.
struct Sort {
    signer: &'static str,
    /// What the requester must be allowed to create: `certificatesigningrequests/<this>`.
    subresource: &'static str,
    fits: fn(&CertificateSigningRequestSpec, &Requested) -> bool,
    message: &'static str,
}

/// The first sort that fits and is permitted decides. The first two are the original's; the others approve what
/// nodes that joined by a token need besides, where an add-on's role permits it.
const SORTS: &[Sort] = &[
    Sort {
        signer: KUBELET_CLIENT,
        subresource: "selfnodeclient",
        fits: asks_for_itself,
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
    },
    Sort {
        signer: KUBELET_CLIENT,
        subresource: "nodeclient",
        fits: |_, _| true,
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    },
    Sort {
        signer: KUBELET_SERVING,
        subresource: "selfnodeserving",
        fits: asks_for_itself,
        message: "Auto approving self kubelet serving certificate after SubjectAccessReview.",
    },
    Sort {
        signer: CLIENT,
        subresource: "nodenetwork",
        fits: |_, requested| requested.common_name == NETWORK_USER && requested.organizations.is_empty(),
        message: "Auto approving client certificate of a node's network after SubjectAccessReview.",
    },
];

fn asks_for_itself(spec: &CertificateSigningRequestSpec, requested: &Requested) -> bool {
    spec.username.as_deref() == Some(&requested.common_name)
}

pub fn start(env: &Env) {
    let requests = env.informers.of::<CertificateSigningRequest>();
    let queue: Queue = env.queue("certificate_approving");
    wake_due(&requests, &queue, is_open);
    let (api, reviews): (Api<CertificateSigningRequest>, Api<SubjectAccessReview>) =
        (env.api(ACCOUNT), env.api(ACCOUNT));
    let clock = env.clock.clone();
    env.run(&queue, 1, synced!(requests), move |name: String| {
        let (requests, api, reviews, clock) = (requests.clone(), api.clone(), reviews.clone(), clock.clone());
        async move {
            let Some(request) = requests.get(&name).filter(|r| is_open(r)) else { return Ok(Outcome::Done) };
            let Ok(requested) = Requested::parse(&request.spec.request.0) else { return Ok(Outcome::Done) };
            let usages = request.spec.usages.as_deref().unwrap_or_default();
            if requested.refusal(&request.spec.signer_name, usages).is_some() {
                return Ok(Outcome::Done);
            }
            let fitting = |sort: &&Sort| {
                sort.signer == request.spec.signer_name && (sort.fits)(&request.spec, &requested)
            };
            for sort in SORTS.iter().filter(fitting) {
                if permitted(&reviews, &request.spec, sort.subresource).await? {
                    let mut approved = (*request).clone();
                    let now = Time(clock.now_seconds());
                    approved.status.get_or_insert_default().conditions.get_or_insert_default().push(
                        CertificateSigningRequestCondition {
                            type_: "Approved".to_owned(),
                            status: "True".to_owned(),
                            reason: Some("AutoApproved".to_owned()),
                            message: Some(sort.message.to_owned()),
                            last_update_time: Some(now.clone()),
                            last_transition_time: Some(now),
                        },
                    );
                    api.update_at(approved, "approval").await?;
                    break;
                }
            }
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

/// Whether nothing has been decided yet.
fn is_open(request: &CertificateSigningRequest) -> bool {
    !is(request, "Approved") && !is(request, "Denied") && !is_issued(request)
}

async fn permitted(
    reviews: &Api<SubjectAccessReview>,
    spec: &CertificateSigningRequestSpec,
    subresource: &str,
) -> Result<bool, Status> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some(CertificateSigningRequest::GROUP.to_owned()),
                resource: Some(CertificateSigningRequest::PLURAL.to_owned()),
                verb: Some("create".to_owned()),
                subresource: Some(subresource.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = reviews.create(review).await?;
    Ok(answer.status.as_ref().is_some_and(|status: &SubjectAccessReviewStatus| status.allowed))
}
