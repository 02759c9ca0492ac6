//! When what an object of endpoints shows has last changed: `endpoints.kubernetes.io/last-change-trigger-time`.
//!
//! It is the earliest of the changes that a write brings: of a pod the time at which its readiness changed, of
//! the Service its creation. What was written before is remembered, so that each change counts once.

use crate::pods::PodView;
use jiff::Timestamp;
use krate_api::meta::ObjectMeta;
use krate_api::types::core::v1::Service;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The changes that were seen, by the key of their Service.
#[derive(Default)]
pub struct Triggers(Mutex<HashMap<String, Seen>>);

#[derive(Default)]
struct Seen {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl Triggers {
    /// The earliest change since the last call for this Service, if there is any that has a time.
    pub fn next<'a>(
        &self,
        key: &str,
        service: &Service,
        pods: impl Iterator<Item = &'a Arc<PodView>>,
    ) -> Option<Timestamp> {
        let changed = |pod: &Arc<PodView>| {
            let ready = pod.status.conditions.iter().find(|c| c.type_ == "Ready")?;
            Some((pod.name().to_owned(), ready.last_transition_time.as_ref()?.0))
        };
        let now = Seen {
            service: service.metadata.creation_timestamp.as_ref().map(|t| t.0),
            pods: pods.filter_map(changed).collect(),
        };
        let mut all = self.0.lock();
        let before = all.entry(key.to_owned()).or_default();
        let news = now.pods.iter().filter(|(name, at)| before.pods.get(*name).is_none_or(|was| was < *at));
        let created = now.service.filter(|at| before.service.is_none_or(|was| was < *at));
        let first = news.map(|(_, at)| *at).chain(created).min();
        *before = now;
        first
    }

    /// The Service is gone.
    pub fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}

/// Writes the time on an object that is about to be written; no time is no annotation.
pub fn annotate(metadata: &mut ObjectMeta, at: Option<Timestamp>) {
    match at {
        Some(at) => {
            metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), at.to_string());
        }
        None => {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.remove(ANNOTATION);
            if annotations.is_empty() {
                metadata.annotations = None;
            }
        }
    }
}

/// The time that an object shows.
#[cfg(test)]
pub fn shown(metadata: &ObjectMeta) -> Option<&str> {
    crate::meta::annotation(metadata, ANNOTATION)
}
