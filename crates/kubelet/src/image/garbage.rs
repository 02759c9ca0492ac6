//! Images that nobody uses are removed when the disk fills: the longest unused first. What is in use, pinned
//! or too young stays.

use krate_base::Timestamp;
use krate_runtime::cri::{Container, Image, Images, Runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// When images are removed.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Per cent of the disk in use at which removing begins (`imageGCHighThresholdPercent`), and to which it
    /// goes (`imageGCLowThresholdPercent`).
    pub high: u64,
    pub low: u64,
    /// An image younger than this stays (`imageMinimumGCAge`).
    pub least_age: Duration,
    /// One unused for longer goes, however much room there is (`imageMaximumGCAge`).
    pub most_age: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { high: 85, low: 80, least_age: Duration::from_secs(120), most_age: None }
    }
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Timestamp,
    used: Option<Timestamp>,
}

/// What is known of the images' use, and the way to remove them.
pub struct Collector {
    pub images: Arc<dyn Images>,
    pub runtime: Arc<dyn Runtime>,
    pub policy: Policy,
    seen: BTreeMap<String, Seen>,
}

impl Collector {
    pub fn new(images: Arc<dyn Images>, runtime: Arc<dyn Runtime>, policy: Policy) -> Self {
        Self { images, runtime, policy, seen: BTreeMap::new() }
    }

    /// Looks which images there are and which are used; those that may go, the longest unused first.
    async fn unused(&mut self, now: Timestamp, least_age: Duration) -> Result<Vec<Image>, String> {
        let images = self.images.list_images(None).await.map_err(|e| e.to_string())?;
        let containers =
            self.runtime.list_containers(&Default::default()).await.map_err(|e| e.to_string())?;
        let used = in_use(&images, &containers);
        self.seen.retain(|id, _| images.iter().any(|i| i.id == *id));
        for image in &images {
            let seen = self.seen.entry(image.id.clone()).or_insert(Seen { first: now, used: None });
            if used.contains(&image.id) {
                seen.used = Some(now);
            }
        }
        let mut idle: Vec<(Seen, Image)> = images
            .into_iter()
            .filter(|i| !used.contains(&i.id) && !i.pinned)
            .filter_map(|i| Some((*self.seen.get(&i.id)?, i)))
            .filter(|(seen, _)| crate::sync::backoff::plus(seen.first, least_age) <= now)
            .collect();
        idle.sort_by_key(|(seen, image)| (seen.used, seen.first, image.id.clone()));
        Ok(idle.into_iter().map(|(_, image)| image).collect())
    }

    /// The regular look: `available` and `capacity` are the disk's. An error says that too little went.
    pub async fn collect(&mut self, available: u64, capacity: u64, now: Timestamp) -> Result<(), String> {
        let idle = self.unused(now, self.policy.least_age).await?;
        if let Some(most) = self.policy.most_age {
            let old = |image: &&Image| {
                let seen = self.seen.get(&image.id);
                let last = seen.map_or(now, |s| s.used.unwrap_or(s.first));
                crate::sync::backoff::plus(last, most) <= now
            };
            for image in idle.iter().filter(old) {
                self.remove(image).await;
            }
        }
        let wanted = to_free(available, capacity, self.policy);
        if wanted == 0 {
            return Ok(());
        }
        tracing::info!(wanted, "the disk fills: removing unused images");
        let mut freed = 0;
        for image in &idle {
            if freed >= wanted {
                break;
            }
            if self.remove(image).await {
                freed += image.size;
            }
        }
        if freed < wanted {
            return Err(format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
            ));
        }
        Ok(())
    }

    /// Removes every unused image: the node needs the room.
    pub async fn remove_all_unused(&mut self, now: Timestamp) -> Result<u64, String> {
        let mut freed = 0;
        for image in self.unused(now, self.policy.least_age).await? {
            if self.remove(&image).await {
                freed += image.size;
            }
        }
        Ok(freed)
    }

    async fn remove(&self, image: &Image) -> bool {
        match self.images.remove_image(&image.id).await {
            Ok(()) => {
                tracing::info!(image = %image.id, "an unused image is removed");
                true
            }
            Err(error) => {
                tracing::warn!(image = %image.id, %error, "an image cannot be removed");
                false
            }
        }
    }
}

/// Bytes to free: from the high mark down to the low one, nothing below the high one.
fn to_free(available: u64, capacity: u64, policy: Policy) -> u64 {
    let used = capacity.saturating_sub(available);
    if capacity == 0 || used * 100 < capacity * policy.high {
        return 0;
    }
    (capacity / 100 * (100 - policy.low)).saturating_sub(available)
}

/// The ids of images that containers use, also as volumes.
fn in_use(images: &[Image], containers: &[Container]) -> BTreeSet<String> {
    let named = |name: &str| {
        let is = |image: &&Image| {
            image.id == name || image.repo_tags.iter().chain(&image.repo_digests).any(|tag| tag == name)
        };
        images.iter().find(is).map(|i| i.id.clone())
    };
    containers
        .iter()
        .flat_map(|c| [&c.image_id, &c.image.image, &c.image_ref])
        .filter(|name| !name.is_empty())
        .filter_map(|name| named(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRuntime;
    use krate_base::Clock;

    #[test]
    fn from_the_high_mark_to_the_low_one() {
        let policy = Policy::default();
        assert_eq!(to_free(16, 100, policy), 0);
        assert_eq!(to_free(15, 100, policy), 5);
        assert_eq!(to_free(0, 1000, policy), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_young_stays_and_the_rest_goes_until_there_is_room() {
        let clock = Clock::starting_at(Timestamp::from_second(1_000).unwrap());
        let runtime = FakeRuntime::new(clock.clone());
        let mut collector =
            Collector::new(Arc::new(runtime.clone()), Arc::new(runtime.clone()), Policy::default());
        assert!(collector.collect(0, 1000, clock.now()).await.unwrap_err().contains("only found 0 bytes"));
        tokio::time::sleep(Duration::from_secs(121)).await;
        collector.collect(0, 1000, clock.now()).await.unwrap();
        assert!(runtime.image_status("nginx:1").await.unwrap().is_none());
    }
}
