//! The revisions of a DaemonSet: the one of its present template, and those before.

use super::Controller;
use crate::history::{self, Created, REVISION_HASH, Revision};
use crate::pods::PodView;
use crate::{hash, meta};
use krate_api::labels::Selector;
use krate_api::types::apps::v1::{ControllerRevision, DaemonSet};
use krate_api::{Reason, Status};
use krate_client::PatchKind;
use std::collections::HashSet;
use std::sync::Arc;

/// The revisions of one DaemonSet.
pub struct Revisions {
    /// That of the present template.
    current: Revision,
    /// The others, the oldest first.
    old: Vec<Revision>,
}

impl Revisions {
    /// The hash by which pods of the present template are labelled.
    #[must_use]
    pub fn hash(&self) -> &str {
        meta::labels(&self.current.metadata).get(REVISION_HASH).map_or("", String::as_str)
    }
}

impl Controller {
    /// The set's revisions, with that of the present template made or numbered last.
    pub(super) async fn revisions(&self, set: &DaemonSet, selector: &Selector) -> Result<Revisions, Status> {
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let data = history::data(&template);
        let mut all = vec![];
        for revision in self.history.of(set, selector, &self.api).await? {
            all.push(self.labelled(revision).await?);
        }
        let (current, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|r| history::holds(r, &data));
        let number = history::next(&old);
        let current = match self.only_one(set, current).await? {
            Some(current) if current.revision < number => self.history.renumber(&current, number).await?,
            Some(current) => current,
            None => self.snapshot(set, number).await?,
        };
        Ok(Revisions { current, old })
    }

    /// A revision without a hash, such as an adopted one may be, is told by its name.
    async fn labelled(&self, revision: Revision) -> Result<Revision, Status> {
        if meta::labels(&revision.metadata).contains_key(REVISION_HASH) {
            return Ok(revision);
        }
        let mut labelled = ControllerRevision::clone(&revision);
        let name = meta::name(&revision.metadata).to_owned();
        labelled.metadata.labels.get_or_insert_default().insert(REVISION_HASH.to_owned(), name);
        self.history.update(labelled).await
    }

    /// Of several revisions of one template the newest is kept, and the pods of the others are made its own.
    async fn only_one(&self, set: &DaemonSet, mut same: Vec<Revision>) -> Result<Option<Revision>, Status> {
        let Some(kept) = same.pop() else { return Ok(None) };
        let hash = meta::labels(&kept.metadata).get(REVISION_HASH).cloned().unwrap_or_default();
        for duplicate in same {
            for pod in self.by_controller.get(meta::uid(&set.metadata)) {
                if pod.label(REVISION_HASH) != Some(hash.as_str()) {
                    self.relabel(&pod, &hash).await?;
                }
            }
            self.history.delete(&duplicate).await?;
        }
        Ok(Some(kept))
    }

    async fn relabel(&self, pod: &PodView, hash: &str) -> Result<(), Status> {
        let patch = serde_json::json!({"metadata": {"uid": pod.uid(), "labels": {REVISION_HASH: hash}}});
        let patched = self.pod_api.patch(pod.namespace(), pod.name(), PatchKind::Merge, patch.to_string());
        match patched.await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    /// Makes the revision of the present template.
    async fn snapshot(&self, set: &DaemonSet, number: i64) -> Result<Revision, Status> {
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        let hash = hash::hash(&template, collisions);
        let revision = history::revision(set, &template, number, &hash, REVISION_HASH);
        match self.history.create(revision).await? {
            Created::Is(revision) => Ok(revision),
            Created::Collides => {
                let count = collisions.unwrap_or(0) + 1;
                let mut bumped = set.clone();
                bumped.status.get_or_insert_default().collision_count = Some(count);
                self.api.update_status(bumped).await?;
                let message = format!("found a hash collision; collisionCount is now {count}");
                Err(Status::failure(Reason::Conflict, &message))
            }
        }
    }

    /// Deletes the oldest revisions that no pod is of and that exceed the limit.
    pub(super) async fn clean_up(
        &self,
        set: &DaemonSet,
        revisions: &Revisions,
        pods: &[Arc<PodView>],
    ) -> Result<(), Status> {
        let live: HashSet<&str> = pods.iter().filter_map(|p| p.label(REVISION_HASH)).collect();
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
        let lives = |r: &Revision| {
            meta::labels(&r.metadata).get(REVISION_HASH).is_some_and(|hash| live.contains(hash.as_str()))
        };
        for surplus in history::surplus(&revisions.old, limit, lives) {
            self.history.delete(&surplus).await?;
        }
        Ok(())
    }
}
