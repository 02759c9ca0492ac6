//! Images for containers: whether to pull, with whose credentials, and how many at a time.
//!
//! The decision is pure ([`need`]); [`Puller`] carries it out. Back-off between failed pulls is the pod
//! worker's.

pub mod auth;
pub mod garbage;

use krate_api::types::core::v1::Secret;
use krate_runtime::cri::{AuthConfig, Error, Image, ImageSpec, Images};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Pulls that go on at the same time on one node.
pub const PARALLEL_PULLS: usize = 5;

pub const ERR_PULL: &str = "ErrImagePull";
pub const BACK_OFF: &str = "ImagePullBackOff";
pub const ERR_NEVER: &str = "ErrImageNeverPull";
pub const INVALID_NAME: &str = "InvalidImageName";

/// What to do for a container's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is there; this is its id.
    Present(String),
    Pull,
    /// It is not there and must not be pulled.
    Absent,
}

/// Decides by the pull policy. Without one, `Always` counts for the tag `latest` and `IfNotPresent` else.
pub fn need(policy: Option<&str>, reference: &auth::Reference, present: Option<&Image>) -> Need {
    let latest = reference.rest == ":latest";
    match (policy.unwrap_or(if latest { "Always" } else { "IfNotPresent" }), present) {
        ("Always", _) => Need::Pull,
        (_, Some(image)) => Need::Present(image.id.clone()),
        ("Never", None) => Need::Absent,
        (_, None) => Need::Pull,
    }
}

/// A finished pull.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    pub id: String,
    /// Of the pull itself, and with the wait for its turn.
    pub took: Duration,
    pub with_wait: Duration,
    /// Bytes.
    pub size: u64,
}

/// Pulls images, a few at a time and never the same one twice at a time.
pub struct Puller {
    images: Arc<dyn Images>,
    slots: Semaphore,
    /// One lock per image that is being pulled or waited for.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Puller {
    pub fn new(images: Arc<dyn Images>) -> Self {
        Self { images, slots: Semaphore::new(PARALLEL_PULLS), turns: Mutex::default() }
    }

    pub fn images(&self) -> &Arc<dyn Images> {
        &self.images
    }

    /// Pulls with the first credentials that work; without any if there are none.
    pub async fn pull(&self, image: &str, secrets: &[Arc<Secret>]) -> Result<Pulled, Error> {
        let reference = auth::parse(image).map_err(Error::InvalidArgument)?;
        let asked = Instant::now();
        let turn = self.turns.lock().entry(image.to_owned()).or_default().clone();
        let result = {
            let _turn = turn.lock().await;
            let _slot = self.slots.acquire().await.map_err(|e| Error::Internal(e.to_string()))?;
            self.pull_now(image, &reference, secrets, asked).await
        };
        drop(turn);
        self.turns.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
        result
    }

    async fn pull_now(
        &self,
        image: &str,
        reference: &auth::Reference,
        secrets: &[Arc<Secret>],
        asked: Instant,
    ) -> Result<Pulled, Error> {
        let started = Instant::now();
        let spec = ImageSpec {
            image: image.to_owned(),
            user_specified_image: image.to_owned(),
            ..Default::default()
        };
        let known = auth::credentials(reference, secrets.iter().map(|s| &**s));
        let attempts: Vec<Option<&AuthConfig>> =
            if known.is_empty() { vec![None] } else { known.iter().map(Some).collect() };
        let mut last = Error::Internal("no credentials were tried".to_owned());
        for auth in attempts {
            match self.images.pull_image(&spec, auth).await {
                Ok(id) => {
                    let size = self.images.image_status(&id).await.ok().flatten().map_or(0, |i| i.size);
                    return Ok(Pulled { id, took: started.elapsed(), with_wait: asked.elapsed(), size });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A duration in milliseconds as Go prints it after truncation: `1.234s`, `250ms`, `1m2.5s`.
pub fn go_millis(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let image = Image { id: "sha256:1".into(), ..Default::default() };
        let tagged = auth::parse("nginx:1").unwrap();
        let latest = auth::parse("nginx").unwrap();
        let there = Need::Present("sha256:1".into());
        assert_eq!(need(Some("Always"), &tagged, Some(&image)), Need::Pull);
        assert_eq!(need(Some("IfNotPresent"), &tagged, Some(&image)), there);
        assert_eq!(need(Some("IfNotPresent"), &tagged, None), Need::Pull);
        assert_eq!(need(Some("Never"), &tagged, None), Need::Absent);
        assert_eq!(need(None, &latest, Some(&image)), Need::Pull);
        assert_eq!(need(None, &tagged, Some(&image)), there);
    }

    #[test]
    fn durations_as_go_prints_them() {
        let text = |ms| go_millis(Duration::from_millis(ms));
        assert_eq!(
            [text(0), text(250), text(1234), text(1500), text(62_500)],
            ["0s", "250ms", "1.234s", "1.5s", "1m2.5s"]
        );
    }
}
