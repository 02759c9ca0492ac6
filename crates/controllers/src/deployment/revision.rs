//! Revisions: what the annotations of a Deployment and its ReplicaSets say, and the ReplicaSet of a new
//! template. Pure.
//!
//! A rollback is no operation of its own: the template becomes that of an old ReplicaSet, which is then the
//! new one, gets the next revision, and remembers the one it had.

use super::model::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY, Set, Sets, Wanted};
use super::rollout;
use crate::hash::{self, HASH_LABEL};
use crate::meta;
use krate_api::types::apps::v1::{Deployment, ReplicaSet};

/// Annotations of a Deployment that are its own and not handed to its ReplicaSets.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Longest text of the history of revisions; the oldest go first.
const HISTORY_LENGTH: usize = 2000;

/// The revision that the set of the present template has, or is to get.
#[must_use]
pub fn next(sets: &Sets) -> i64 {
    sets.max_old_revision() + 1
}

/// The present set as its annotations and `minReadySeconds` should be, if it is not so.
#[must_use]
pub fn refreshed(deployment: &Deployment, sets: &Sets) -> Option<ReplicaSet> {
    let new = sets.new.as_ref()?;
    let mut wanted = (*new.object).clone();
    annotate(deployment, &mut wanted, next(sets), true);
    let spec = wanted.spec.get_or_insert_default();
    if spec.min_ready_seconds.unwrap_or(0) != deployment.min_ready_seconds() {
        spec.min_ready_seconds = Some(deployment.min_ready_seconds());
    }
    (wanted != *new.object).then_some(wanted)
}

/// Gives a set the Deployment's annotations and its revision.
fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64, exists: bool) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let theirs = deployment.metadata.annotations.iter().flatten();
    for (key, value) in theirs.filter(|(key, _)| !OWN.contains(&key.as_str())) {
        annotations.insert(key.clone(), value.clone());
    }
    let before = annotations.get(REVISION).cloned();
    let number = before.as_deref().and_then(|r| r.parse::<i64>().ok()).unwrap_or(0);
    if number < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(before) = before.filter(|_| exists) {
            let history = annotations.get(REVISION_HISTORY).map(String::as_str).unwrap_or_default();
            annotations.insert(REVISION_HISTORY.to_owned(), remember(history, &before));
        }
    }
    if annotations.is_empty() {
        set.metadata.annotations = None;
    }
}

fn remember(history: &str, revision: &str) -> String {
    let mut all: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    all.push(revision);
    while all.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_LENGTH && all.len() > 1 {
        all.remove(0);
    }
    all.join(",")
}

/// Says in a set's annotations what the Deployment wanted when it was scaled.
pub fn note_scale(deployment: &Deployment, set: &mut ReplicaSet) {
    let (wanted, most) = (deployment.replicas(), deployment.replicas() + deployment.max_surge());
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.to_owned(), wanted.to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), most.to_string());
}

/// A set for the present template, scaled as far as it may be at once.
#[must_use]
pub fn new_set(deployment: &Deployment, sets: &Sets) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = hash::hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut set = ReplicaSet::default();
    set.metadata.name = Some(format!("{}-{hash}", meta::name(&deployment.metadata)));
    set.metadata.namespace.clone_from(&deployment.metadata.namespace);
    set.metadata.labels = Some(labels);
    set.metadata.owner_references = Some(vec![meta::controller_reference(deployment)]);
    let inner = set.spec.get_or_insert_default();
    inner.replicas = Some(rollout::new_replicas(deployment, sets.total(), 0));
    inner.min_ready_seconds = spec.min_ready_seconds;
    inner.selector = selector;
    inner.template = Some(template);
    annotate(deployment, &mut set, next(sets), false);
    note_scale(deployment, &mut set);
    set
}

/// The Deployment's revision annotation, if it is not that of the present set.
#[must_use]
pub fn of_deployment(deployment: &Deployment, new: &Set) -> Option<String> {
    let revision = new.annotation(REVISION)?;
    (meta::annotation(&deployment.metadata, REVISION) != Some(revision)).then(|| revision.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_loses_the_oldest() {
        assert_eq!(remember("", "1"), "1");
        assert_eq!(remember("1,4", "7"), "1,4,7");
        let long = (0..700).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let text = remember(&long, "700");
        assert!(text.len() <= HISTORY_LENGTH && text.ends_with(",699,700") && !text.starts_with("0,"));
    }
}
