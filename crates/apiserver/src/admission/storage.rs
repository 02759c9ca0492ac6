//! Rules about storage and ingress: the default classes, claims that may grow, and finalizers that keep what is
//! in use.

use super::{Attributes, Operation, Plugin, cast, cast_mut};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::meta::{ObjectMeta, Time};
use krate_api::quantity::Quantity;
use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use krate_api::types::networking::v1::{Ingress, IngressClass};
use krate_api::types::storage::v1::StorageClass;
use krate_api::volumes::{
    CLAIM_PROTECTION, CLASS_BETA, CLASS_DEFAULT, CLASS_DEFAULT_BETA, VOLUME_PROTECTION,
};
use krate_api::{Kind, Object, Status};

const INGRESS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const INGRESS_OLD: &str = "kubernetes.io/ingress.class";

fn annotated(meta: &ObjectMeta, key: &str) -> bool {
    meta.annotations.as_ref().and_then(|a| a.get(key)).is_some_and(|v| v == "true")
}

/// The names of all classes that are marked as default, newest first.
async fn defaults<K: Kind>(server: &Inner, keys: &[&str]) -> Result<Vec<String>, Status> {
    let mut found = Vec::new();
    for class in server.read_all::<K>("").await? {
        let class = class.typed::<K>().map_err(Status::internal)?;
        let meta = class.meta();
        if keys.iter().any(|key| annotated(meta, key)) {
            let created = meta.creation_timestamp.as_ref().map(|t| t.0);
            found.push((std::cmp::Reverse(created), meta.name.clone().unwrap_or_default()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// A volume says since when it is in its phase. No plugin of the original's: its registry does this.
pub(super) struct PhaseTime;

#[async_trait]
impl Plugin for PhaseTime {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        if at.call.subresource != "status" {
            return Ok(());
        }
        let old = at.old.and_then(cast::<PersistentVolume>).and_then(|volume| volume.status.as_ref());
        if let (Some(old), Some(volume)) = (old, cast_mut::<PersistentVolume>(object)) {
            since(volume.status.get_or_insert_default(), old, Time(server.clock.now_seconds()));
        }
        Ok(())
    }
}

/// Whoever changes the phase may say since when it is so.
fn since(new: &mut PersistentVolumeStatus, old: &PersistentVolumeStatus, now: Time) {
    let said = new.last_phase_transition_time.is_some()
        && new.last_phase_transition_time != old.last_phase_transition_time;
    if new.phase != old.phase && !said {
        new.last_phase_transition_time = Some(now);
    }
}

/// StorageObjectInUseProtection: claims and volumes begin with the finalizers that keep them while they are
/// used.
pub(super) struct InUseProtection;

#[async_trait]
impl Plugin for InUseProtection {
    async fn admit(&self, _: &Inner, at: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        if at.operation != Operation::Create || !at.call.subresource.is_empty() {
            return Ok(());
        }
        let finalizer = if cast::<PersistentVolumeClaim>(object).is_some() {
            CLAIM_PROTECTION
        } else if cast::<PersistentVolume>(object).is_some() {
            VOLUME_PROTECTION
        } else {
            return Ok(());
        };
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
        Ok(())
    }
}

/// DefaultStorageClass: a claim that names no class gets the default one.
pub(super) struct DefaultStorageClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        let creates = at.operation == Operation::Create && at.is_core("persistentvolumeclaims");
        let Some(claim) = cast_mut::<PersistentVolumeClaim>(object).filter(|_| creates) else {
            return Ok(());
        };
        let by_annotation = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS_BETA));
        let spec = claim.spec.get_or_insert_default();
        if by_annotation || spec.storage_class_name.is_some() {
            return Ok(());
        }
        let found = defaults::<StorageClass>(server, &[CLASS_DEFAULT, CLASS_DEFAULT_BETA]).await?;
        spec.storage_class_name = found.into_iter().next();
        Ok(())
    }
}

/// DefaultIngressClass: the same for an Ingress; two defaults are an error.
pub(super) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        let creates = at.operation == Operation::Create && at.call.subresource.is_empty();
        let Some(ingress) = cast_mut::<Ingress>(object).filter(|_| creates) else { return Ok(()) };
        let old = ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(INGRESS_OLD));
        let spec = ingress.spec.get_or_insert_default();
        if old || spec.ingress_class_name.is_some() {
            return Ok(());
        }
        let found = defaults::<IngressClass>(server, &[INGRESS_DEFAULT]).await?;
        if found.len() > 1 {
            return Err(
                at.forbidden(&format!("{} default IngressClasses were found, only 1 allowed", found.len()))
            );
        }
        spec.ingress_class_name = found.into_iter().next();
        Ok(())
    }
}

/// PersistentVolumeClaimResize: a claim grows only when it is bound and its class allows it.
pub(super) struct ClaimResize;

#[async_trait]
impl Plugin for ClaimResize {
    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let updates = at.operation == Operation::Update && at.is_core("persistentvolumeclaims");
        let (Some(new), Some(old)) = (
            object.and_then(cast::<PersistentVolumeClaim>).filter(|_| updates),
            at.old.and_then(cast::<PersistentVolumeClaim>),
        ) else {
            return Ok(());
        };
        if requested(new) <= requested(old) {
            return Ok(());
        }
        if old.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
            return Err(at.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = new.spec.as_ref().and_then(|s| s.storage_class_name.clone()).unwrap_or_default();
        let allows = match server.read::<StorageClass>("", &class).await? {
            Some(class) => class.allow_volume_expansion == Some(true),
            None => false,
        };
        if allows {
            return Ok(());
        }
        Err(at.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
             support resize",
        ))
    }
}

fn requested(claim: &PersistentVolumeClaim) -> Option<i64> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    Quantity::of(resources.requests.as_ref()?.get("storage")?).ok().map(|q| q.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_says_since_when_it_is_in_its_phase_unless_its_writer_does() {
        let at = |second| Time(krate_base::Timestamp::from_second(second).unwrap());
        let status = |phase: &str, second| PersistentVolumeStatus {
            phase: Some(phase.to_owned()),
            last_phase_transition_time: Some(at(second)),
            ..Default::default()
        };
        for (new, written) in [(status("Bound", 1), 9), (status("Available", 1), 1), (status("Bound", 5), 5)]
        {
            let mut new = new;
            since(&mut new, &status("Available", 1), at(9));
            assert_eq!(new.last_phase_transition_time, Some(at(written)), "{new:?}");
        }
    }
}
