//! TokenRequest: a token of a service account, for a time, an audience and, when asked, one object.

use crate::authn::legacy::Legacy;
use crate::authn::token::{Claims, Private, Reference};
use crate::call::{Call, Outcome};
use crate::server::Inner;
use krate_api::field::{Error, Path};
use krate_api::meta::Time;
use krate_api::types::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use krate_api::types::core::v1::{Node, Pod, Secret, ServiceAccount};
use krate_api::{Kind, Status};
use krate_base::Timestamp;
use krate_client::Body;

/// Lifetime when none is asked for, and the least that may be asked for, seconds.
const DEFAULT_SECONDS: i64 = 3_600;
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;
/// A lifetime that only pods' own volumes ask for: such tokens live longer than they say, so that old
/// clients which do not read them again go on working.
const EXTENDED_ASKED: i64 = 3_607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3_600;

pub(crate) async fn create(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let mut request: TokenRequest = super::admitted(server, call, body).await?;
    let Some(account) = server.read::<ServiceAccount>(&call.namespace, &call.name).await? else {
        return Err(call.not_found());
    };
    request.metadata.name = Some(call.name.clone());
    request.metadata.creation_timestamp = Some(Time(server.clock.now_seconds()));
    let own = server.authn.tokens.issuer.clone();
    let spec = request.spec.get_or_insert_default();
    if spec.audiences.as_ref().is_none_or(Vec::is_empty) {
        spec.audiences = Some(vec![own.clone()]);
    }
    let seconds = *spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    check(seconds, &call.name)?;
    let mut claims = claims(server, call, spec, seconds)?;
    let private = &mut claims.kubernetes;
    private.serviceaccount = reference(&*account);
    if let Some(bound) = &spec.bound_object_ref {
        bind(server, call, bound, private).await?;
    }
    let token = server.authn.tokens.sign(&claims).map_err(Status::internal)?;
    let expires = Timestamp::from_second(claims.iat + seconds).unwrap_or(Timestamp::MAX);
    request.status =
        Some(TokenRequestStatus { expiration_timestamp: Some(Time(expires)), token: Some(token) });
    super::answer(&request, true)
}

/// The token of a Secret, as it is told by name. Empty when the key cannot sign.
pub(crate) fn of_secret(server: &Inner, namespace: &str, account: (&str, &str), secret: &str) -> String {
    let claims = Legacy::new(namespace, account, secret);
    server.authn.tokens.sign(&claims).unwrap_or_else(|error| {
        tracing::error!(%error, "the token of a secret cannot be signed");
        String::new()
    })
}

fn check(seconds: i64, name: &str) -> Result<(), Status> {
    let path = Path::new("spec").child("expirationSeconds");
    let why = if seconds < LEAST_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MOST_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let fault = Error::invalid(&path, &seconds, why);
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, &[fault]))
}

fn claims(server: &Inner, call: &Call, spec: &TokenRequestSpec, seconds: i64) -> Result<Claims, Status> {
    let now = server.clock.now().as_second();
    let issuer = server.authn.tokens.issuer.clone();
    let audiences = spec.audiences.clone().unwrap_or_default();
    let extended = seconds == EXTENDED_ASKED && audiences == [issuer.clone()];
    let lifetime = if extended { EXTENDED_SECONDS } else { seconds };
    Ok(Claims {
        aud: audiences,
        exp: now + lifetime,
        iat: now,
        iss: issuer,
        jti: server.rng.uuid(),
        nbf: now,
        sub: format!("system:serviceaccount:{}:{}", call.namespace, call.name),
        kubernetes: Private {
            namespace: call.namespace.clone(),
            warnafter: extended.then_some(now + seconds),
            ..Private::default()
        },
    })
}

fn reference<K: Kind>(object: &K) -> Reference {
    let meta = object.meta();
    Reference { name: meta.name.clone().unwrap_or_default(), uid: meta.uid.clone().unwrap_or_default() }
}

/// Binds the token to an object that must exist with the uid that was asked for.
async fn bind(
    server: &Inner,
    call: &Call,
    bound: &BoundObjectReference,
    private: &mut Private,
) -> Result<(), Status> {
    let name = bound.name.as_deref().unwrap_or("");
    let namespace = call.namespace.as_str();
    match (bound.api_version.as_deref(), bound.kind.as_deref()) {
        (Some("v1"), Some("Pod")) => {
            let pod = found::<Pod>(server, namespace, name, bound).await?;
            let spec = pod.spec.as_ref();
            if spec.and_then(|s| s.service_account_name.as_deref()) != Some(call.name.as_str()) {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                    call.name
                )));
            }
            private.pod = Some(reference(&*pod));
            if let Some(node) = spec.and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty()) {
                let uid = server.read::<Node>("", node).await?.and_then(|n| n.metadata.uid.clone());
                private.node = Some(Reference { name: node.to_owned(), uid: uid.unwrap_or_default() });
            }
        }
        (Some("v1"), Some("Secret")) => {
            private.secret = Some(reference(&*found::<Secret>(server, namespace, name, bound).await?));
        }
        (Some("v1"), Some("Node")) => {
            private.node = Some(reference(&*found::<Node>(server, "", name, bound).await?));
        }
        (version, kind) => {
            let version = version.unwrap_or("");
            let group = if version.contains('/') { "" } else { "/" };
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {group}{version}, Kind={}",
                kind.unwrap_or("")
            )));
        }
    }
    Ok(())
}

async fn found<K: Kind>(
    server: &Inner,
    namespace: &str,
    name: &str,
    bound: &BoundObjectReference,
) -> Result<std::sync::Arc<K>, Status> {
    let object = server.read::<K>(namespace, name).await?;
    let object = object.ok_or_else(|| Status::not_found(K::GROUP, K::PLURAL, name))?;
    let have = object.meta().uid.as_deref().unwrap_or("");
    match bound.uid.as_deref() {
        Some(uid) if !uid.is_empty() && uid != have => Err(Status::conflict(
            K::GROUP,
            K::PLURAL,
            name,
            &format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object \
                 might have been deleted and then recreated"
            ),
        )),
        _ => Ok(object),
    }
}
