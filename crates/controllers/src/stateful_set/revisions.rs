//! The revisions of a StatefulSet: the one that its pods come from, the one that they go to, and those before.

use super::Controller;
use crate::history::{self, Created, Revision};
use crate::pods::PodView;
use crate::{hash, meta};
use krate_api::Status;
use krate_api::labels::Selector;
use krate_api::types::apps::v1::StatefulSet;
use krate_api::types::core::v1::PodTemplateSpec;
use std::collections::HashSet;
use std::sync::Arc;

/// The label that tells a set's revisions apart.
const HASH: &str = "controller.kubernetes.io/hash";

pub struct Revisions {
    /// What the set comes from.
    pub current: Revision,
    /// What it goes to: that of its template.
    pub update: Revision,
    /// How many hashes were found to be taken.
    pub collisions: i32,
    /// All that were there, the oldest first.
    all: Vec<Revision>,
}

impl Controller {
    pub(super) async fn revisions(
        &self,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<Revisions, Status> {
        let all = self.history.of(set, selector, &self.api).await?;
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let data = history::data(&template);
        let mut collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let next = history::next(&all);
        let same = all.iter().rposition(|r| history::holds(r, &data)).and_then(|n| Some((n, all.get(n)?)));
        let update = match same {
            Some((n, last)) if n + 1 == all.len() => last.clone(),
            Some((_, earlier)) => self.history.renumber(earlier, next).await?,
            None => self.snapshot(set, &template, next, &mut collisions).await?,
        };
        let named = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
        let current = all.iter().find(|r| r.metadata.name.as_deref() == named).unwrap_or(&update).clone();
        Ok(Revisions { current, update, collisions, all })
    }

    /// Makes a revision, with another hash for as long as the hash is that of another template.
    async fn snapshot(
        &self,
        set: &StatefulSet,
        template: &PodTemplateSpec,
        number: i64,
        collisions: &mut i32,
    ) -> Result<Revision, Status> {
        let text = history::data(template).to_string();
        loop {
            let hash = hash::of_text(&text, Some(*collisions));
            match self.history.create(history::revision(set, template, number, &hash, HASH)).await? {
                Created::Is(revision) => return Ok(revision),
                Created::Collides => *collisions += 1,
            }
        }
    }

    /// Deletes the oldest revisions that nothing is of and that exceed the limit.
    pub(super) async fn clean_up(
        &self,
        set: &StatefulSet,
        revisions: &Revisions,
        pods: &[Arc<PodView>],
    ) -> Result<(), Status> {
        let mut live: HashSet<&str> = pods.iter().map(|pod| super::plan::revision(pod)).collect();
        live.extend([meta::name(&revisions.current.metadata), meta::name(&revisions.update.metadata)]);
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
        let lives = |r: &Revision| live.contains(meta::name(&r.metadata));
        for surplus in history::surplus(&revisions.all, limit, lives) {
            self.history.delete(&surplus).await?;
        }
        Ok(())
    }
}
