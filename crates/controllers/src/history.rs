//! Controller history: the templates that a DaemonSet or StatefulSet has had, kept as ControllerRevisions.
//!
//! A revision holds a patch that puts its template in place of another (`kubectl rollout undo` sends it back
//! as it is), so its bytes are part of the contract: compact, with sorted keys. Revisions are numbered; the
//! one of the present template has the highest number. Beside [`History`] everything here is pure.

use crate::claim::{Claimed, claim_all};
use crate::env::Env;
use crate::hash;
use crate::meta::{self, MetaView};
use crate::owners::Owners;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use krate_api::labels::Selector;
use krate_api::types::apps::v1::ControllerRevision;
use krate_api::types::core::v1::PodTemplateSpec;
use krate_api::{Kind, Status};
use krate_client::api::delete_uid;
use krate_client::{Api, Index, Informer};
use serde_json::{Value, json};
use std::sync::Arc;

/// The label of pods and revisions that tells the revisions of one owner apart.
pub const REVISION_HASH: &str = "controller-revision-hash";

/// One revision.
pub type Revision = Arc<ControllerRevision>;

impl Claimed for ControllerRevision {
    fn meta(&self) -> MetaView {
        MetaView::of(&self.metadata)
    }
}

/// What a revision holds of a template.
#[must_use]
pub fn data(template: &PodTemplateSpec) -> Value {
    let mut template = hash::to_value(template.clone());
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision holds.
#[must_use]
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    hash::from_value(template)
}

/// Whether a revision holds this.
#[must_use]
pub fn holds(revision: &ControllerRevision, data: &Value) -> bool {
    let canonical = |value: &Value| hash::canonical_value(value);
    revision.data.as_ref().is_some_and(|held| held.0 == *data || canonical(&held.0) == canonical(data))
}

/// From the oldest to the newest.
pub fn sort(revisions: &mut [Revision]) {
    revisions.sort_by(|a, b| {
        let key = |r: &Revision| (r.revision, meta::created(&r.metadata));
        key(a).cmp(&key(b)).then_with(|| meta::name(&a.metadata).cmp(meta::name(&b.metadata)))
    });
}

/// The number that comes after those of these revisions.
#[must_use]
pub fn next<'a>(revisions: impl IntoIterator<Item = &'a Revision>) -> i64 {
    revisions.into_iter().map(|r| r.revision).max().unwrap_or(0) + 1
}

/// The oldest of the revisions, in order, that nothing lives by and that exceed the limit.
#[must_use]
pub fn surplus(sorted: &[Revision], limit: Option<i32>, live: impl Fn(&Revision) -> bool) -> Vec<Revision> {
    let dead: Vec<_> = sorted.iter().filter(|r| !live(r)).cloned().collect();
    let keep = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let excess = dead.len().saturating_sub(keep);
    dead.into_iter().take(excess).collect()
}

/// A revision of `owner` that is still to be created. Its labels are the template's and the one given; its
/// annotations the owner's, where `kubectl rollout history` finds the cause of the change.
#[must_use]
pub fn revision<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    number: i64,
    hash: &str,
    label: &str,
) -> ControllerRevision {
    let mut revision = ControllerRevision { revision: number, ..ControllerRevision::default() };
    revision.data = Some(RawExtension(data(template)));
    let of_template = template.metadata.as_ref().and_then(|m| m.labels.clone());
    let mut labels = of_template.unwrap_or_default();
    labels.insert(label.to_owned(), hash.to_owned());
    revision.metadata.name = Some(name(meta::name(owner.meta()), hash));
    revision.metadata.namespace.clone_from(&owner.meta().namespace);
    revision.metadata.labels = Some(labels);
    revision.metadata.annotations.clone_from(&owner.meta().annotations);
    revision.metadata.owner_references = Some(vec![meta::controller_reference(owner)]);
    revision
}

/// The name of a revision; a long name of the owner is cut.
fn name(owner: &str, hash: &str) -> String {
    const LONGEST: usize = 223;
    let end = (0..=owner.len().min(LONGEST)).rev().find(|n| owner.is_char_boundary(*n)).unwrap_or(0);
    format!("{}-{hash}", &owner[..end])
}

/// What became of a revision that was to be created.
pub enum Created {
    /// It is there, by this call or from before.
    Is(Revision),
    /// Its name is that of a revision with other contents: another hash is needed.
    Collides,
}

/// The revisions of the owners of one kind, and how to change them.
pub struct History {
    api: Api<ControllerRevision>,
    informer: Informer<ControllerRevision>,
    by_owner: Index<ControllerRevision>,
}

impl History {
    /// Watches revisions. Owners are not woken by revisions of their own that come or change, for they make
    /// them; but by the loss of one, and by one without owner that they want.
    #[must_use]
    pub fn watch<K: Kind>(env: &Env, account: &str, owners: &Arc<Owners<K>>) -> Self {
        let informer = env.informers.of::<ControllerRevision>();
        let by_owner = informer.index("owner or orphan", |r: &ControllerRevision| {
            let orphan = || crate::pods::orphans(meta::namespace(&r.metadata));
            vec![meta::controller_of(&r.metadata).map_or_else(orphan, |o| o.uid.clone())]
        });
        let owners = owners.clone();
        informer.subscribe(move |old, new| {
            let Some(revision) = new.or(old) else { return };
            let namespace = meta::namespace(&revision.metadata);
            match meta::controller_of(&revision.metadata) {
                Some(owner) if new.is_none() => {
                    if let Some(key) = owners.key_of(owner, namespace) {
                        owners.queue.add(key);
                    }
                }
                None if new.is_some() => owners.wake_all(namespace, meta::labels(&revision.metadata)),
                _ => {}
            }
        });
        Self { api: env.api(account), informer, by_owner }
    }

    #[must_use]
    pub fn informer(&self) -> &Informer<ControllerRevision> {
        &self.informer
    }

    /// The revisions of an owner in order, orphans that it wants adopted and strangers let go.
    pub async fn of<K: Kind>(
        &self,
        owner: &K,
        selector: &Selector,
        owners: &Api<K>,
    ) -> Result<Vec<Revision>, Status> {
        let mut all = self.by_owner.get(meta::uid(owner.meta()));
        all.extend(self.by_owner.get(&crate::pods::orphans(meta::namespace(owner.meta()))));
        let mut mine = claim_all(all, owner, selector, &self.api, owners).await?;
        sort(&mut mine);
        Ok(mine)
    }

    pub async fn create(&self, revision: ControllerRevision) -> Result<Created, Status> {
        let (namespace, name) = (revision.metadata.namespace.clone(), revision.metadata.name.clone());
        let wanted = revision.data.clone().unwrap_or_default().0;
        match self.api.create(revision).await {
            Ok(created) => Ok(Created::Is(created)),
            Err(status) if status.is_already_exists() => {
                let found = self.api.get(&namespace.unwrap_or_default(), &name.unwrap_or_default()).await?;
                Ok(if holds(&found, &wanted) { Created::Is(found) } else { Created::Collides })
            }
            Err(status) => Err(status),
        }
    }

    /// Gives a revision another number, if it has not that number.
    pub async fn renumber(&self, revision: &Revision, number: i64) -> Result<Revision, Status> {
        if revision.revision == number {
            return Ok(revision.clone());
        }
        self.update(ControllerRevision { revision: number, ..(**revision).clone() }).await
    }

    pub async fn update(&self, revision: ControllerRevision) -> Result<Revision, Status> {
        self.api.update(revision).await
    }

    pub async fn delete(&self, revision: &ControllerRevision) -> Result<(), Status> {
        let m = &revision.metadata;
        match self.api.delete(meta::namespace(m), meta::name(m), delete_uid(meta::uid(m))).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{self, deployment};

    fn numbered(name: &str, number: i64) -> Revision {
        let owner = deployment("web", 1);
        let mut r = revision(&owner, &world::template("web", name), number, name, REVISION_HASH);
        r.metadata.name = Some(name.to_owned());
        Arc::new(r)
    }

    #[test]
    fn a_revision_gives_back_its_template_and_knows_it() {
        let (one, two) = (world::template("web", "nginx:1"), world::template("web", "nginx:2"));
        let r = revision(&deployment("web", 1), &one, 3, "abc", REVISION_HASH);
        assert_eq!(template(&r).as_ref().map(hash::canonical), Some(hash::canonical(&one)));
        assert!(holds(&r, &data(&one)) && !holds(&r, &data(&two)));
        assert_eq!(r.metadata.name.as_deref(), Some("web-abc"));
        let labels = r.metadata.labels.clone().unwrap();
        assert_eq!((labels["app"].as_str(), labels[REVISION_HASH].as_str()), ("web", "abc"));
        let text = serde_json::to_string(&r.data.unwrap().0).unwrap();
        assert!(
            text.starts_with(r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels""#),
            "{text}"
        );
    }

    #[test]
    fn names_fit() {
        assert_eq!(name(&"a".repeat(250), "xyz").len(), 227);
    }

    #[test]
    fn the_oldest_that_nothing_lives_by_are_too_many() {
        let mut all = vec![numbered("c", 3), numbered("a", 1), numbered("d", 4), numbered("b", 2)];
        sort(&mut all);
        assert_eq!(next(&all), 5);
        let names =
            |of: Vec<Revision>| of.iter().map(|r| meta::name(&r.metadata).to_owned()).collect::<Vec<_>>();
        let live = |r: &Revision| meta::name(&r.metadata) == "a" || r.revision == 4;
        assert_eq!(names(surplus(&all, Some(1), live)), ["b"]);
        assert_eq!(names(surplus(&all, Some(0), live)), ["b", "c"]);
        assert!(surplus(&all, None, live).is_empty());
    }
}
