//! Reviews: who somebody is and what they may do, answered and never stored.

mod faults;

use crate::authn::token;
use crate::authz::{Attributes, Decision};
use crate::call::{Call, Outcome};
use crate::server::Inner;
use crate::user::UserInfo;
use faults::OrInvalid as _;
use krate_api::types::authentication::v1 as authentication;
use krate_api::types::authorization::v1 as authorization;
use krate_api::{Kind, Status};
use krate_client::Body;

pub(crate) async fn create(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    match call.resource().plural.as_str() {
        "tokenreviews" => token_review(server, call, body).await,
        "selfsubjectreviews" => self_review(server, call, body).await,
        "subjectaccessreviews" => subject(server, call, body).await,
        "localsubjectaccessreviews" => local(server, call, body).await,
        "selfsubjectaccessreviews" => self_access(server, call, body).await,
        "selfsubjectrulesreviews" => self_rules(server, call, body).await,
        _ => Err(crate::error::no_such_resource()),
    }
}

fn shown(user: &UserInfo) -> authentication::UserInfo {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    authentication::UserInfo {
        username: some(&user.name),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

async fn token_review(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let mut review: authentication::TokenReview = super::admitted(server, call, body).await?;
    if review.spec.token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = review.spec.audiences.clone().unwrap_or_default();
    let mut status = authentication::TokenReviewStatus::default();
    match token::authenticate(server, &review.spec.token, &audiences).await {
        Ok((user, good_for)) => {
            status.authenticated = Some(true);
            status.user = Some(shown(&user));
            status.audiences = Some(good_for);
        }
        Err(token::Refusal::Foreign) => status.error = Some("invalid bearer token".to_owned()),
        Err(refusal) => status.error = Some(format!("[invalid bearer token, {refusal}]")),
    }
    review.status = Some(status);
    super::answer(&review, true)
}

async fn self_review(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let mut review: authentication::SelfSubjectReview = super::admitted(server, call, body).await?;
    review.status = Some(authentication::SelfSubjectReviewStatus { user_info: Some(shown(&call.user)) });
    review.metadata.creation_timestamp = Some(krate_api::meta::Time(server.clock.now_seconds()));
    super::answer(&review, true)
}

/// The answer to a review that has no fault.
fn decide(
    server: &Inner,
    user: &UserInfo,
    resource: Option<&authorization::ResourceAttributes>,
    path: Option<&authorization::NonResourceAttributes>,
) -> Result<authorization::SubjectAccessReviewStatus, Status> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let attributes = match (resource, path) {
        (Some(r), None) => [
            text(&r.verb),
            text(&r.group),
            text(&r.resource),
            text(&r.subresource),
            text(&r.namespace),
            text(&r.name),
        ],
        (None, Some(n)) => {
            let path = n.path.clone().filter(|p| !p.is_empty()).unwrap_or_default();
            [text(&n.verb), String::new(), path, String::new(), String::new(), String::new()]
        }
        _ => return Err(Status::internal("a review of nothing or of two things")),
    };
    let [verb, group, name_of, subresource, namespace, name] = &attributes;
    let is_path = path.is_some();
    let selector = resource.and_then(|r| r.field_selector.as_ref()).map(selector_text).unwrap_or_default();
    let labels = resource.and_then(|r| r.label_selector.as_ref()?.raw_selector.clone()).unwrap_or_default();
    let decision = server.authz.decide(&Attributes {
        user,
        verb,
        group,
        resource: if is_path { "" } else { name_of },
        subresource,
        namespace,
        name,
        field_selector: &selector,
        label_selector: &labels,
        path: is_path.then_some(name_of.as_str()),
    });
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(match decision {
        Decision::Allow(reason) => authorization::SubjectAccessReviewStatus {
            allowed: true,
            reason: some(reason),
            ..Default::default()
        },
        Decision::NoOpinion(reason) => authorization::SubjectAccessReviewStatus {
            allowed: false,
            reason: some(reason),
            ..Default::default()
        },
    })
}

fn selector_text(selector: &authorization::FieldSelectorAttributes) -> String {
    if let Some(raw) = &selector.raw_selector {
        return raw.clone();
    }
    let terms = selector.requirements.iter().flatten().filter(|r| r.operator == "In").filter_map(|r| {
        let values = r.values.as_deref().unwrap_or_default();
        (values.len() == 1).then(|| format!("{}={}", r.key, values[0]))
    });
    terms.collect::<Vec<_>>().join(",")
}

fn subject_of(spec: &authorization::SubjectAccessReviewSpec) -> UserInfo {
    UserInfo {
        name: spec.user.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    }
}

async fn subject(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let mut review: authorization::SubjectAccessReview = super::admitted(server, call, body).await?;
    let spec = &review.spec;
    let kind = authorization::SubjectAccessReview::KIND;
    faults::subject(spec, &review.metadata).or_invalid(kind)?;
    let user = subject_of(spec);
    let (resource, path) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    review.status = Some(decide(server, &user, resource, path)?);
    super::answer(&review, true)
}

async fn local(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let mut review: authorization::LocalSubjectAccessReview = super::admitted(server, call, body).await?;
    let spec = &review.spec;
    let kind = authorization::LocalSubjectAccessReview::KIND;
    faults::local(spec, &review.metadata).or_invalid(kind)?;
    let user = subject_of(spec);
    let resource = spec.resource_attributes.as_ref();
    review.status = Some(decide(server, &user, resource, spec.non_resource_attributes.as_ref())?);
    super::answer(&review, true)
}

async fn self_access(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let mut review: authorization::SelfSubjectAccessReview = super::admitted(server, call, body).await?;
    let spec = &review.spec;
    let kind = authorization::SelfSubjectAccessReview::KIND;
    faults::own(spec, &review.metadata).or_invalid(kind)?;
    let (resource, path) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    review.status = Some(decide(server, &call.user, resource, path)?);
    super::answer(&review, true)
}

async fn self_rules(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let mut review: authorization::SelfSubjectRulesReview = super::admitted(server, call, body).await?;
    let namespace = review.spec.namespace.clone().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let mut resources = Vec::new();
    let mut paths = Vec::new();
    let mut rules = server.authz.rules(&call.user, &namespace);
    if call.user.is_in(crate::user::MASTERS) {
        rules.extend(server.authz.role_rules("", "ClusterRole", "cluster-admin").unwrap_or_default());
    }
    for rule in rules {
        if rule.non_resource_urls.as_ref().is_some_and(|u| !u.is_empty()) {
            let (verbs, non_resource_urls) = (rule.verbs, rule.non_resource_urls);
            paths.push(authorization::NonResourceRule { verbs, non_resource_urls });
        } else {
            resources.push(authorization::ResourceRule {
                verbs: rule.verbs,
                api_groups: rule.api_groups,
                resources: rule.resources,
                resource_names: rule.resource_names,
            });
        }
    }
    review.status = Some(authorization::SubjectRulesReviewStatus {
        resource_rules: resources,
        non_resource_rules: paths,
        incomplete: call.user.node().is_some(),
        evaluation_error: None,
    });
    super::answer(&review, true)
}
