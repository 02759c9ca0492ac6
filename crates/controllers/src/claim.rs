//! Adoption and release: an owner manages exactly the objects that its selector matches and that nobody
//! else manages.

use crate::meta::{self, MetaView, controller_reference};
use krate_api::labels::Selector;
use krate_api::{Kind, Status};
use krate_client::{Api, PatchKind};
use std::sync::Arc;

/// What is to become of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's.
    Keep,
    /// It is nobody's and the owner wants it.
    Adopt,
    /// It is the owner's and no longer matches.
    Release,
    /// It is none of the owner's business.
    Ignore,
}

/// Decides about one object. An owner that is being deleted changes nothing.
#[must_use]
pub fn claim(object: &MetaView, owner_uid: &str, owner_deleting: bool, selector: &Selector) -> Claim {
    let matches = selector.matches(&object.labels);
    match object.controller() {
        Some(owner) if owner.uid != owner_uid => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner_deleting => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner_deleting || !matches || object.is_deleting() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// An object that can be claimed.
pub trait Claimed: Send + Sync {
    fn meta(&self) -> MetaView;
}

impl Claimed for crate::pods::PodView {
    fn meta(&self) -> MetaView {
        self.metadata.clone()
    }
}

/// Claims for `owner` what it may of `objects`; returns what it now manages. Adopted objects are returned
/// as they were before.
pub async fn claim_all<T: Claimed, K: Kind, O: Kind>(
    objects: Vec<Arc<T>>,
    owner: &O,
    selector: &Selector,
    api: &Api<K>,
    owners: &Api<O>,
) -> Result<Vec<Arc<T>>, Status> {
    let uid = meta::uid(owner.meta());
    let deleting = owner.meta().deletion_timestamp.is_some();
    let mut may_adopt = None;
    let mut claimed = vec![];
    for object in objects {
        let view = object.meta();
        match claim(&view, uid, deleting, selector) {
            Claim::Ignore => {}
            Claim::Keep => claimed.push(object),
            Claim::Release => release(&view, uid, api).await?,
            Claim::Adopt => {
                if may_adopt.is_none() {
                    may_adopt = Some(still_wants(owner, owners).await?);
                }
                if may_adopt == Some(true) && adopt(&view, owner, api).await? {
                    claimed.push(object);
                }
            }
        }
    }
    Ok(claimed)
}

/// The cache may be behind: an owner that is gone, another by now, or being deleted must not adopt.
async fn still_wants<O: Kind>(owner: &O, owners: &Api<O>) -> Result<bool, Status> {
    let mine = owner.meta();
    let live = owners.get_opt(meta::namespace(mine), meta::name(mine)).await?;
    Ok(live.is_some_and(|live| live.meta().uid == mine.uid && live.meta().deletion_timestamp.is_none()))
}

/// Whether the object is adopted; it may be gone.
async fn adopt<K: Kind, O: Kind>(object: &MetaView, owner: &O, api: &Api<K>) -> Result<bool, Status> {
    let mut owners = object.owner_references.clone();
    owners.push(controller_reference(owner));
    match set_owners(object, owners, api).await {
        Ok(()) => Ok(true),
        Err(status) if status.is_not_found() => Ok(false),
        Err(status) => Err(status),
    }
}

async fn release<K: Kind>(object: &MetaView, uid: &str, api: &Api<K>) -> Result<(), Status> {
    let mut owners = object.owner_references.clone();
    owners.retain(|o| o.uid != uid);
    match set_owners(object, owners, api).await {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}

/// Replaces the owners, if the object is still as it was seen.
async fn set_owners<K: Kind>(
    object: &MetaView,
    owners: Vec<krate_api::meta::OwnerReference>,
    api: &Api<K>,
) -> Result<(), Status> {
    let patch = serde_json::json!({"metadata": {
        "uid": object.uid,
        "resourceVersion": object.resource_version,
        "ownerReferences": owners,
    }});
    api.patch(&object.namespace, &object.name, PatchKind::Merge, patch.to_string()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::meta::{OwnerReference, Time};

    fn object(label: &str, owner: Option<&str>) -> MetaView {
        MetaView {
            labels: [("app".to_owned(), label.to_owned())].into(),
            owner_references: owner
                .map(|uid| OwnerReference {
                    uid: uid.to_owned(),
                    controller: Some(true),
                    ..Default::default()
                })
                .into_iter()
                .collect(),
            ..MetaView::default()
        }
    }

    #[test]
    fn the_table_of_claims() {
        let selector = Selector::parse("app=web").unwrap();
        let decide = |o: &MetaView, deleting| claim(o, "me", deleting, &selector);
        assert_eq!(decide(&object("web", Some("me")), false), Claim::Keep);
        assert_eq!(decide(&object("web", Some("you")), false), Claim::Ignore);
        assert_eq!(decide(&object("db", Some("me")), false), Claim::Release);
        assert_eq!(decide(&object("db", Some("me")), true), Claim::Ignore);
        assert_eq!(decide(&object("web", None), false), Claim::Adopt);
        assert_eq!(decide(&object("web", None), true), Claim::Ignore);
        assert_eq!(decide(&object("db", None), false), Claim::Ignore);
        let going =
            MetaView { deletion_timestamp: Some(Time(jiff::Timestamp::UNIX_EPOCH)), ..object("web", None) };
        assert_eq!(decide(&going, false), Claim::Ignore);
    }
}
