//! Service-account tokens: ES256 JWTs of this cluster, bound to what they were made for.
//!
//! A token is good while it has not expired, was made for an audience of ours, and everything that it
//! names (service account, pod, secret, node) still exists with the uid in the token. Those of Secrets are
//! [`legacy`]'s.

use super::legacy::{self, Legacy};
use crate::pki::{Authority, Error};
use crate::server::Inner;
use crate::user::{AUTHENTICATED, UserInfo};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use krate_api::types::core::v1::{Node, Pod, Secret, ServiceAccount};
use krate_api::{Kind, Status};
use krate_base::Timestamp;
use parking_lot::Mutex;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How long a pod's token may still be used after its deletion time has passed.
const POD_LEEWAY_SECONDS: i64 = 60;

/// A name with the uid that it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

/// The claims of Kubernetes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Private {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// Everything that a token says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Private,
    pub nbf: i64,
    pub sub: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(d)? {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    })
}

/// What a token of this cluster says, by its issuer.
#[derive(Debug)]
pub(crate) enum Said {
    Bound(Claims),
    Legacy(Legacy),
}

/// Why a token is not good. Clients are only told that they are not authorized.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the token is not one of this cluster")]
    Foreign,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    #[error("service account token has been invalidated: {0}")]
    Gone(String),
    #[error("{0}")]
    Legacy(String),
    #[error("{0}")]
    Store(#[from] Status),
}

/// Signs and reads tokens. Knows nothing of what exists.
pub(crate) struct Tokens {
    authority: Authority,
    pub issuer: String,
    /// What tokens whose signature was found good say, by their digest: to verify a signature costs more than
    /// most requests.
    proved: Mutex<HashMap<Digest, Arc<Said>>>,
}

/// The SHA-256 of a token.
type Digest = [u8; 32];
/// Most tokens that are remembered; with one more all are forgotten.
const REMEMBERED: usize = 4096;

impl Tokens {
    pub fn new(authority: Authority, issuer: &str) -> Self {
        Self { authority, issuer: issuer.to_owned(), proved: Mutex::default() }
    }

    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let header = serde_json::json!({"alg": "ES256", "kid": self.authority.token_key_id()});
        let body = serde_json::to_vec(claims).map_err(|e| Error::Key(e.to_string()))?;
        let input =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(body));
        let signature = self.authority.sign_token(input.as_bytes())?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token with a good signature of ours says, at a time when it holds.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Said>, Refusal> {
        let digest: Digest = Sha256::digest(token).into();
        let known = self.proved.lock().get(&digest).cloned();
        let said = match known {
            Some(said) => said,
            None => self.remember(digest, self.prove(token)?),
        };
        if let Said::Bound(claims) = &*said {
            let now = now.as_second();
            if now >= claims.exp {
                return Err(Refusal::Expired);
            }
            if now < claims.nbf {
                return Err(Refusal::NotYet);
            }
        }
        Ok(said)
    }

    fn remember(&self, digest: Digest, said: Said) -> Arc<Said> {
        let mut proved = self.proved.lock();
        if proved.len() >= REMEMBERED {
            proved.clear();
        }
        proved.entry(digest).or_insert_with(|| Arc::new(said)).clone()
    }

    /// What a token with a good signature of ours says.
    fn prove(&self, token: &str) -> Result<Said, Refusal> {
        let (input, signature) = token.rsplit_once('.').ok_or(Refusal::Foreign)?;
        let (header, body) = input.split_once('.').ok_or(Refusal::Foreign)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::Foreign);
        let header: serde_json::Value =
            serde_json::from_slice(&decode(header)?).map_err(|_| Refusal::Foreign)?;
        if header["alg"] != "ES256" {
            return Err(Refusal::Foreign);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.authority.token_point())
            .verify(input.as_bytes(), &decode(signature)?)
            .map_err(|_| Refusal::Foreign)?;
        let body: serde_json::Value = serde_json::from_slice(&decode(body)?).map_err(|_| Refusal::Foreign)?;
        let said = match body["iss"].as_str() {
            Some(legacy::ISSUER) => serde_json::from_value(body).map(Said::Legacy),
            Some(issuer) if issuer == self.issuer => serde_json::from_value(body).map(Said::Bound),
            _ => return Err(Refusal::Foreign),
        };
        said.map_err(|_| Refusal::Foreign)
    }

    /// The public key in the form of `/openid/v1/jwks`.
    pub fn jwks(&self) -> serde_json::Value {
        let point = self.authority.token_point();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len().saturating_sub(1) / 2);
        serde_json::json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.authority.token_key_id(), "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

/// The identity of a token (a service account's or a bootstrap one) and the audiences for which it is good here. Without `audiences` the server's
/// own is meant.
pub(crate) async fn authenticate(
    server: &Inner,
    token: &str,
    audiences: &[String],
) -> Result<(UserInfo, Vec<String>), Refusal> {
    let own = vec![server.authn.tokens.issuer.clone()];
    let wanted = if audiences.is_empty() { own.clone() } else { audiences.to_vec() };
    if let Some((id, secret)) = super::bootstrap::split(token) {
        return Ok((super::bootstrap::authenticate(server, id, secret).await?, wanted));
    }
    let said = server.authn.tokens.verify(token, server.clock.now())?;
    // What names no audience was made for the server itself.
    let made_for = match &*said {
        Said::Bound(claims) => &claims.aud,
        Said::Legacy(_) => &own,
    };
    let common: Vec<String> = wanted.iter().filter(|a| made_for.contains(a)).cloned().collect();
    if common.is_empty() {
        return Err(Refusal::Audience(made_for.clone(), wanted));
    }
    let user = match &*said {
        Said::Bound(claims) => {
            check_bindings(server, &claims.kubernetes).await?;
            user_of(claims)
        }
        Said::Legacy(said) => {
            legacy::check(server, token, said).await?;
            account(&said.namespace, &said.account, &said.uid, BTreeMap::new())
        }
    };
    Ok((user, common))
}

async fn check_bindings(server: &Inner, claims: &Private) -> Result<(), Refusal> {
    let namespace = &claims.namespace;
    let (sa, now) = (&claims.serviceaccount, server.clock.now());
    let account = server.read::<ServiceAccount>(namespace, &sa.name).await?;
    same("ServiceAccount", account.as_deref(), sa, now)?;
    if let Some(secret) = &claims.secret {
        let found = server.read::<Secret>(namespace, &secret.name).await?;
        same("Secret", found.as_deref(), secret, now)?;
    }
    if let Some(pod) = &claims.pod {
        let found = server.read::<Pod>(namespace, &pod.name).await?;
        same("Pod", found.as_deref(), pod, now)?;
    } else if let Some(node) = &claims.node {
        let found = server.read::<Node>("", &node.name).await?;
        same("Node", found.as_deref(), node, now)?;
    }
    Ok(())
}

fn same<K: Kind>(kind: &str, found: Option<&K>, wanted: &Reference, now: Timestamp) -> Result<(), Refusal> {
    let Some(found) = found else { return Err(Refusal::Gone(format!("{kind} {} not found", wanted.name))) };
    let meta = found.meta();
    if meta.uid.as_deref().unwrap_or("") != wanted.uid {
        return Err(Refusal::Gone(format!("{kind} {} has another uid", wanted.name)));
    }
    match &meta.deletion_timestamp {
        Some(at) if at.0.as_second() + POD_LEEWAY_SECONDS < now.as_second() => {
            Err(Refusal::Gone(format!("{kind} {} has been deleted", wanted.name)))
        }
        _ => Ok(()),
    }
}

fn user_of(claims: &Claims) -> UserInfo {
    let private = &claims.kubernetes;
    let (namespace, account) = (&private.namespace, &private.serviceaccount);
    let mut extra = BTreeMap::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        add("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(node) = &private.node {
        add("node-name", &node.name);
        add("node-uid", &node.uid);
    }
    if let Some(pod) = &private.pod {
        add("pod-name", &pod.name);
        add("pod-uid", &pod.uid);
    }
    self::account(namespace, &account.name, &account.uid, extra)
}

/// The identity of a service account.
fn account(namespace: &str, name: &str, uid: &str, extra: BTreeMap<String, Vec<String>>) -> UserInfo {
    UserInfo {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.to_owned(),
        ],
        extra,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_base::Clock;

    #[test]
    fn a_token_is_read_back_until_it_expires() {
        let clock = Clock::system();
        let tokens = Tokens::new(Authority::generate(&clock).unwrap(), "iss");
        let claims = Claims { aud: vec!["iss".into()], exp: 100, iss: "iss".into(), ..Claims::default() };
        let token = tokens.sign(&claims).unwrap();
        let at = |s| Timestamp::from_second(s).unwrap();
        assert!(matches!(&*tokens.verify(&token, at(99)).unwrap(), Said::Bound(said) if said.aud == ["iss"]));
        assert!(matches!(tokens.verify(&token, at(100)), Err(Refusal::Expired)));
        let other = Tokens::new(Authority::generate(&clock).unwrap(), "iss");
        assert!(matches!(other.verify(&token, at(1)), Err(Refusal::Foreign)));
        let bent = token.replace('.', "x.");
        assert!(matches!(tokens.verify(&bent, at(1)), Err(Refusal::Foreign)));
    }
}
