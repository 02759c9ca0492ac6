//! Tokens of service accounts for projected volumes: asked for once, kept, and replaced in time.

use crate::spec;
use krate_api::Status;
use krate_api::types::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use krate_api::types::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use krate_base::{Clock, Timestamp};
use krate_client::Api;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

/// Lifetime asked for where the volume names none: an hour and a little.
const DEFAULT_SECONDS: i64 = 3607;
/// A token is replaced at the latest after this time.
const OLDEST: Duration = Duration::from_secs(24 * 3600);

/// Pod uid, path-independent parts of the request: audience and lifetime.
type Key = (String, String, i64);

#[derive(Clone)]
struct Held {
    token: String,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of all pods of the node.
pub struct Tokens {
    api: Api<ServiceAccount>,
    clock: Clock,
    held: Mutex<HashMap<Key, Held>>,
}

impl Tokens {
    pub fn new(api: Api<ServiceAccount>, clock: Clock) -> Self {
        Self { api, clock, held: Mutex::default() }
    }

    /// A valid token and the time at which to ask for the next one.
    pub async fn get(
        &self,
        pod: &Pod,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), Status> {
        let audience = wanted.audience.clone().unwrap_or_default();
        let seconds = wanted.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (spec::uid(pod).to_owned(), audience.clone(), seconds);
        let present = self.held.lock().get(&key).cloned();
        let now = self.clock.now();
        if let Some(held) = present.as_ref().filter(|h| now < h.refresh_at) {
            return Ok((held.token.clone(), held.refresh_at));
        }
        match self.request(pod, audience, seconds).await {
            Ok(held) => {
                self.held.lock().insert(key, held.clone());
                Ok((held.token, held.refresh_at))
            }
            // An old token that still works is better than none; ask again in a while.
            Err(_) if present.as_ref().is_some_and(|h| now < h.expires_at) => {
                let again = now.checked_add(Duration::from_secs(10)).unwrap_or(now);
                Ok((present.map(|h| h.token).unwrap_or_default(), again))
            }
            Err(status) => Err(status),
        }
    }

    async fn request(&self, pod: &Pod, audience: String, seconds: i64) -> Result<Held, Status> {
        let account = spec::spec(pod).service_account_name.as_deref().unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(spec::name(pod).to_owned()),
                    uid: Some(spec::uid(pod).to_owned()),
                }),
                expiration_seconds: Some(seconds),
            }),
            ..Default::default()
        };
        let answer = self.api.request_token(spec::namespace(pod), account, request).await?;
        let status = answer.status.clone().unwrap_or_default();
        let now = self.clock.now();
        let expires_at = status
            .expiration_timestamp
            .map_or_else(|| after(now, Duration::from_secs(seconds.unsigned_abs())), |t| t.0);
        let life = Duration::try_from(expires_at.duration_since(now)).unwrap_or_default();
        Ok(Held {
            token: status.token.unwrap_or_default(),
            refresh_at: after(now, life.mul_f64(0.8).min(OLDEST)),
            expires_at,
        })
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.held.lock().retain(|(of, _, _), _| of != uid);
    }
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
