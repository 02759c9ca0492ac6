//! Who asks? A client certificate, or a bearer token; otherwise the anonymous user.
//!
//! A credential that is shown and not good is `401 Unauthorized`, never anonymous. Nothing here decides
//! what somebody may do.

pub(crate) mod bootstrap;
pub(crate) mod certificate;
pub(crate) mod impersonate;
pub(crate) mod legacy;
pub(crate) mod token;

use crate::pki::Authority;
use crate::server::{Inner, StartError};
use crate::user::{AUTHENTICATED, UserInfo};
pub(crate) use certificate::Peer;
use http::HeaderMap;
use krate_api::Status;
use std::sync::Arc;

/// The authenticators with what they trust.
pub(crate) struct Authenticator {
    pub certificates: certificate::Certificates,
    pub tokens: token::Tokens,
}

impl Authenticator {
    pub fn new(authority: &Authority, issuer: &str) -> Result<Self, StartError> {
        Ok(Self {
            certificates: certificate::Certificates::new(authority)?,
            tokens: token::Tokens::new(authority.clone(), issuer),
        })
    }
}

/// The identity behind a connection's certificates and a request's headers.
pub(crate) async fn authenticate(
    server: &Inner,
    peer: &Peer,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, Status> {
    if peer.has_shown()
        && let Some(user) = server.authn.certificates.user(peer, server.clock.now())
    {
        return Ok(user);
    }
    match bearer(headers) {
        Some(token) => {
            let mut user =
                token::authenticate(server, token, &[]).await.map_err(|_| Status::unauthorized())?.0;
            if !user.is_in(AUTHENTICATED) {
                user.groups.push(AUTHENTICATED.to_owned());
            }
            Ok(Arc::new(user))
        }
        None if peer.has_shown() => Err(Status::unauthorized()),
        None => Ok(Arc::new(UserInfo::anonymous())),
    }
}

/// The token of an `Authorization: Bearer` header, or of a WebSocket protocol as browsers send it.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
