//! The claims of a StatefulSet's pods: made before the pod, kept after it, and owned as the retention policy
//! says, so that the garbage collector takes them away with the set or with the pod that is scaled away.

use super::identity;
use super::plan::Claims;
use crate::meta::{self, Slim, controller_reference};
use crate::pods::PodView;
use krate_api::meta::OwnerReference;
use krate_api::types::apps::v1::StatefulSet;
use krate_api::types::core::v1::{PersistentVolumeClaim, Pod};
use krate_api::{Kind, Reason, Status};
use krate_client::recorder::reference;
use krate_client::{Api, Informer, Recorder};
use std::sync::Arc;

/// Who owns a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    pub by_set: bool,
    pub by_pod: bool,
}

/// Who is to own the claims of a pod.
#[must_use]
pub fn wanted(set: &StatefulSet, condemned: bool) -> Owned {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let delete = |field: Option<&str>| field == Some("Delete");
    let by_pod = condemned && delete(policy.and_then(|p| p.when_scaled.as_deref()));
    Owned { by_set: delete(policy.and_then(|p| p.when_deleted.as_deref())) && !by_pod, by_pod }
}

/// Who owns a claim now; none when somebody else manages it, who is not interfered with.
#[must_use]
pub fn owned(owners: &[OwnerReference], set: &StatefulSet, pod_uid: &str) -> Option<Owned> {
    let set_uid = meta::uid(&set.metadata);
    let ours = |o: &OwnerReference| o.uid == set_uid || meta::refers_to::<Pod>(o);
    if meta::controller(owners).is_some_and(|controller| !ours(controller)) {
        return None;
    }
    let by = |uid: &str| owners.iter().any(|o| o.uid == uid);
    Some(Owned { by_set: by(set_uid), by_pod: by(pod_uid) })
}

/// Changes the owners among set and pod. Whether anything changed.
fn set_owners(owners: &mut Vec<OwnerReference>, set: &StatefulSet, pod: (&str, &str), wanted: Owned) -> bool {
    let (name, uid) = pod;
    if owned(owners, set, uid).is_none_or(|is| is == wanted) {
        return false;
    }
    owners.retain(|o| o.uid != uid && o.uid != meta::uid(&set.metadata));
    if wanted.by_set {
        owners.push(controller_reference(set));
    }
    if wanted.by_pod {
        let mut owner = Pod::default();
        owner.metadata.name = Some(name.to_owned());
        owner.metadata.uid = Some(uid.to_owned());
        owners.push(controller_reference(&owner));
    }
    true
}

/// All claims, and how to make and change them.
pub struct Store {
    pub api: Api<PersistentVolumeClaim>,
    pub cache: Informer<Slim>,
    pub recorder: Recorder,
}

/// The claims of one set.
pub struct OfSet<'a> {
    pub store: &'a Store,
    pub set: &'a StatefulSet,
}

impl OfSet<'_> {
    /// The claims of an ordinal that are there.
    fn present(&self, ordinal: i32) -> impl Iterator<Item = Arc<Slim>> {
        identity::claims(self.set, ordinal).filter_map(|c| self.store.cache.get(&meta::key(&c.metadata)))
    }

    /// Makes what is missing for a pod.
    pub async fn create(&self, ordinal: i32) -> Result<(), Status> {
        for claim in identity::claims(self.set, ordinal) {
            match self.store.cache.get(&meta::key(&claim.metadata)) {
                Some(found) if found.0.is_deleting() => {
                    let message = format!("pvc {} is being deleted", found.0.name);
                    return Err(Status::failure(Reason::Conflict, &message));
                }
                Some(_) => {}
                None => {
                    let pod = identity::pod_name(self.set, ordinal);
                    self.create_one(self.with_owner(claim, &pod), &pod).await?;
                }
            }
        }
        Ok(())
    }

    /// A new claim with its owner: a set that is deleted before its controller sees the claim takes it away, too.
    fn with_owner(&self, mut claim: PersistentVolumeClaim, pod: &str) -> PersistentVolumeClaim {
        let mut owners = claim.metadata.owner_references.take().unwrap_or_default();
        set_owners(&mut owners, self.set, (pod, ""), wanted(self.set, false));
        claim.metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
        claim
    }

    async fn create_one(&self, claim: PersistentVolumeClaim, pod: &str) -> Result<(), Status> {
        let (name, about) = (meta::name(&claim.metadata).to_owned(), reference(self.set));
        let set = meta::name(&self.set.metadata);
        match self.store.api.create(claim).await {
            Ok(_) => {
                let message = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                self.store.recorder.normal(&about, "SuccessfulCreate", message);
                Ok(())
            }
            Err(status) if status.is_already_exists() => Ok(()),
            Err(status) => {
                let message =
                    format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {status}");
                self.store.recorder.warning(&about, "FailedCreate", message);
                Err(status)
            }
        }
    }

    /// Gives the claims of a pod the owners that the policy asks for.
    pub async fn retain(&self, ordinal: i32, pod_uid: &str, condemned: bool) -> Result<(), Status> {
        let (wanted, pod) = (wanted(self.set, condemned), identity::pod_name(self.set, ordinal));
        for claim in identity::claims(self.set, ordinal) {
            let (namespace, name) = (meta::namespace(&claim.metadata), meta::name(&claim.metadata));
            let Some(found) = self.store.cache.get(&meta::key(&claim.metadata)) else { continue };
            match owned(&found.0.owner_references, self.set, pod_uid) {
                Some(is) if is == wanted => continue,
                Some(_) => {}
                None => {
                    self.tell_conflict(name);
                    continue;
                }
            }
            let change = |claim: &mut PersistentVolumeClaim| {
                let owners = claim.metadata.owner_references.get_or_insert_default();
                set_owners(owners, self.set, (&pod, pod_uid), wanted)
            };
            match self.store.api.modify(namespace, name, change).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    fn tell_conflict(&self, claim: &str) {
        let message = format!(
            "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a manging controller, \
             the retention policy is ignored for this claim"
        );
        self.store.recorder.warning(&reference(self.set), "ConflictingController", message);
    }
}

impl Claims for OfSet<'_> {
    fn retained_rightly(&self, ordinal: i32, pod: &PodView, condemned: bool) -> bool {
        let wanted = wanted(self.set, condemned);
        let right =
            |c: &Slim| owned(&c.0.owner_references, self.set, pod.uid()).is_none_or(|is| is == wanted);
        self.present(ordinal).all(|claim| right(&claim))
    }

    fn stale(&self, ordinal: i32) -> bool {
        let policy = self.set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
        if policy.and_then(|p| p.when_scaled.as_deref()) != Some("Delete") {
            return false;
        }
        let pod = identity::pod_name(self.set, ordinal);
        let of_pod = |o: &OwnerReference| o.kind == Pod::KIND && o.name == pod;
        self.present(ordinal).any(|claim| claim.0.owner_references.iter().any(of_pod))
    }

    fn missing(&self, ordinal: i32) -> bool {
        identity::claims(self.set, ordinal).any(|c| self.store.cache.get(&meta::key(&c.metadata)).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stateful_set::testing::{retention, set};

    #[test]
    fn the_policy_says_who_owns_the_claims() {
        let owned = |by_set, by_pod| Owned { by_set, by_pod };
        for (deleted, scaled, condemned, is) in [
            ("Retain", "Retain", false, owned(false, false)),
            ("Retain", "Retain", true, owned(false, false)),
            ("Delete", "Retain", false, owned(true, false)),
            ("Delete", "Retain", true, owned(true, false)),
            ("Retain", "Delete", false, owned(false, false)),
            ("Retain", "Delete", true, owned(false, true)),
            ("Delete", "Delete", false, owned(true, false)),
            ("Delete", "Delete", true, owned(false, true)),
        ] {
            let set = retention(set("web", 1), deleted, scaled);
            assert_eq!(wanted(&set, condemned), is, "{deleted} {scaled} {condemned}");
        }
    }

    #[test]
    fn other_owners_stay_and_other_managers_are_not_interfered_with() {
        let set = set("web", 1);
        let other = |controller| OwnerReference {
            kind: "Backup".to_owned(),
            uid: "b".to_owned(),
            controller,
            ..OwnerReference::default()
        };
        let mut owners = vec![other(None)];
        let wanted = Owned { by_set: true, by_pod: false };
        assert!(set_owners(&mut owners, &set, ("web-0", "p"), wanted));
        assert_eq!((owners.len(), owned(&owners, &set, "p")), (2, Some(wanted)));
        assert!(!set_owners(&mut owners, &set, ("web-0", "p"), wanted));
        assert!(set_owners(&mut owners, &set, ("web-0", "p"), Owned { by_set: false, by_pod: true }));
        assert_eq!(owners[1].name, "web-0");
        let mut managed = vec![other(Some(true))];
        assert!(!set_owners(&mut managed, &set, ("web-0", "p"), wanted));
    }
}
