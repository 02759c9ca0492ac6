//! Tokens that live in Secrets of type `kubernetes.io/service-account-token`: without an end, an audience and an
//! identity of their own, good while the Secret holds them and its service account is there.
//!
//! When one was used last is written on its Secret, by the day: so an administrator sees which may go.

use super::token::Refusal;
use crate::admission::cast_mut;
use crate::call::Call;
use crate::codec::Rows;
use crate::rest::create::COMMIT_ATTEMPTS;
use crate::rest::{list, update};
use crate::server::Inner;
use crate::user::UserInfo;
use krate_api::types::core::v1::{Secret, ServiceAccount};
use krate_api::{Kind, Status};
use krate_client::Options;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Who says what such tokens say.
pub(crate) const ISSUER: &str = "kubernetes/serviceaccount";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where a Secret keeps its token.
const TOKEN_KEY: &str = "token";
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Everything that such a token says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Legacy {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
    pub sub: String,
}

impl Legacy {
    pub fn new(namespace: &str, account: (&str, &str), secret: &str) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.0.to_owned(),
            uid: account.1.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.0),
        }
    }
}

/// Whether the token still holds; notes that it was used.
pub(super) async fn check(server: &Inner, token: &str, said: &Legacy) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::Legacy(why.to_owned()));
    let Some(secret) = server.read::<Secret>(&said.namespace, &said.secret).await? else {
        return refuse("Token has been invalidated");
    };
    if secret.metadata.deletion_timestamp.is_some() {
        return refuse("Token has been invalidated");
    }
    if secret.data.as_ref().and_then(|data| data.get(TOKEN_KEY)).is_none_or(|kept| kept.0 != token.as_bytes())
    {
        return refuse("Token does not match server's copy");
    }
    let Some(account) = server.read::<ServiceAccount>(&said.namespace, &said.account).await? else {
        return refuse(&format!("serviceaccounts {:?} not found", said.account));
    };
    if account.metadata.deletion_timestamp.is_some() {
        return refuse(&format!("ServiceAccount {}/{} has been deleted", said.namespace, said.account));
    }
    let uid = account.metadata.uid.as_deref().unwrap_or_default();
    if uid != said.uid {
        return refuse(&format!("ServiceAccount UID ({uid}) does not match claim ({})", said.uid));
    }
    if let Err(error) = note_use(server, &secret, said).await {
        tracing::warn!(secret = %said.secret, %error, "the use of a token cannot be noted");
    }
    match secret.metadata.labels.as_ref().and_then(|labels| labels.get(INVALID_SINCE)) {
        Some(since) => refuse(&format!("Token has been invalidated since {since}")),
        None => Ok(()),
    }
}

/// Writes today's date on the Secret, unless it is there.
async fn note_use(server: &Inner, secret: &Secret, said: &Legacy) -> Result<(), Status> {
    let now = server.clock.now();
    let day = |at: krate_base::Timestamp| at.strftime("%Y-%m-%d").to_string();
    let today = day(now);
    let noted = secret.metadata.labels.as_ref().and_then(|labels| labels.get(LAST_USED));
    // Another server's clock may be ahead of this one.
    let tomorrow = now.checked_add(DAY).map(day).unwrap_or_default();
    if noted.is_some_and(|noted| *noted == today || *noted == tomorrow) {
        return Ok(());
    }
    let catalogue = server.catalogue();
    let row = catalogue.get(Secret::GROUP, Secret::VERSION, Secret::PLURAL);
    let row = row.ok_or_else(|| Status::internal("secrets are not served"))?;
    let call = Call {
        user: Arc::new(UserInfo::apiserver()),
        rows: Rows::of(&catalogue, row),
        namespace: said.namespace.clone(),
        name: said.secret.clone(),
        subresource: String::new(),
        options: Options::default(),
        found: Vec::new(),
        warnings: Default::default(),
    };
    for _ in 0..COMMIT_ATTEMPTS {
        let Some(entry) = list::entry(server, &call).await? else { return Ok(()) };
        let mut object = call.rows.copy(&entry)?;
        let Some(secret) = cast_mut::<Secret>(&mut *object) else { return Ok(()) };
        secret.metadata.labels.get_or_insert_default().insert(LAST_USED.to_owned(), today.clone());
        if update::replace(server, &call, &entry, object).await?.is_some() {
            return Ok(());
        }
    }
    Ok(())
}
