//! StatefulSets in random scenarios: in order and all at once, with a partition, with claims that stay or go.

use crate::World;
use crate::common::{is_ready, selector};
use crate::end::{Scene, find, key};
use crate::user::{User, delete, image_patch, lively, pick_mut, split};
use krate_api::types::apps::v1::StatefulSet;
use krate_api::types::core::v1::{PersistentVolumeClaim, Pod};
use krate_api::types::storage::v1::StorageClass;
use krate_api::{Kind, Status};
use krate_client::{Informer, PatchKind};
use krate_testing::{ControlPlane, Watchdog};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// `db-0` starts in order and has no claims, `db-1` has claims that stay, `db-2` starts all at once and has claims
/// that go with their pods.
const NAMES: u64 = 3;
const STAYS: &str = "db-1";
const GOES: &str = "db-2";

/// Whether a pod is of the set whose claims go with its replicas. Nobody takes such a pod away by hand: were the
/// set scaled down while nobody looks, there would be no pod any more that its claims could go with.
pub fn is_left_alone(pod: &str) -> bool {
    pod.strip_prefix(GOES).is_some_and(|rest| rest.starts_with('-'))
}

#[derive(Clone, Debug)]
pub struct Wish {
    pub replicas: i32,
    pub image: String,
    pub partition: i32,
}

/// The class that claims without one get.
pub async fn prepare(cluster: &ControlPlane) {
    let class = json!({
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "krate.io/folder",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    cluster.of::<StorageClass>().create(StorageClass::from_value(class).unwrap()).await.unwrap();
}

pub async fn step(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    match world.rng.below(6) {
        0 | 1 => create(user, world).await,
        2..=4 => change(user, world).await,
        _ => {
            let Some((key, _)) = pick_mut(world, &mut user.stateful) else { return Ok(None) };
            delete::<StatefulSet>(world, &key).await?;
            user.stateful.remove(&key);
            Ok(Some(format!("delete stateful set {key}")))
        }
    }
}

async fn create(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    let name = format!("db-{}", world.rng.below(NAMES));
    let replicas = i32::try_from(world.rng.below(4)).unwrap_or(1);
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "serviceName": name},
    });
    if name == GOES {
        object["spec"]["podManagementPolicy"] = json!("Parallel");
        object["spec"]["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    }
    if name == GOES || name == STAYS {
        object["spec"]["volumeClaimTemplates"] = json!([{
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }]);
    }
    let mut object = StatefulSet::from_value(object).unwrap();
    let spec = object.spec.get_or_insert_default();
    spec.selector = selector(&name);
    spec.template = lively(world, &name);
    world.cluster.of::<StatefulSet>().create(object).await?;
    let wish = Wish { replicas, image: format!("{name}:1"), partition: 0 };
    let what = format!("create stateful set {name} {wish:?}");
    user.stateful.insert(format!("default/{name}"), wish);
    Ok(Some(what))
}

async fn change(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    let Some((key, wish)) = pick_mut(world, &mut user.stateful) else { return Ok(None) };
    let mut new = wish.clone();
    let (namespace, name) = split(&key);
    let patch = match world.rng.below(3) {
        0 => {
            new.replicas = i32::try_from(world.rng.below(5)).unwrap_or(0);
            format!(r#"{{"spec":{{"replicas":{}}}}}"#, new.replicas)
        }
        1 => {
            new.image = format!("{name}:{}", 1 + world.rng.below(4));
            image_patch(&new.image)
        }
        _ => {
            new.partition = i32::try_from(world.rng.below(3)).unwrap_or(0);
            let rolling = json!({"rollingUpdate": {"partition": new.partition}});
            json!({"spec": {"updateStrategy": rolling}}).to_string()
        }
    };
    world.cluster.of::<StatefulSet>().patch(namespace, name, PatchKind::StrategicMerge, patch).await?;
    *wish = new;
    Ok(Some(format!("change stateful set {key} {wish:?}")))
}

pub async fn facts(cluster: &ControlPlane) -> Vec<(&'static str, Watchdog)> {
    vec![("order", cluster.always(in_order()).await), ("claims", cluster.always(claims_are_kept()).await)]
}

/// The set and the ordinal that a pod's name tells.
fn ordinal(pod: &Pod) -> Option<(&str, i32)> {
    let (set, number) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    Some((set, number.parse().ok()?))
}

fn owner(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.as_ref()?;
    owners.iter().find(|o| o.kind == "StatefulSet").map(|o| o.uid.as_str())
}

/// Where order is kept, no pod comes before the one below it was ready once.
fn in_order() -> impl Fn(&Informer<Pod>) -> Result<(), String> + Send + Sync {
    let was_ready: Mutex<BTreeSet<(String, i32)>> = Mutex::default();
    move |pods| {
        let mut was_ready = was_ready.lock();
        let pods = pods.list();
        for pod in pods.iter().filter(|p| is_ready(p)) {
            if let (Some(uid), Some((_, number))) = (owner(pod), ordinal(pod)) {
                was_ready.insert((uid.to_owned(), number));
            }
        }
        for pod in &pods {
            let (Some(uid), Some((set, number))) = (owner(pod), ordinal(pod)) else { continue };
            if set != GOES && number > 0 && !was_ready.contains(&(uid.to_owned(), number - 1)) {
                return Err(format!("{set}-{number} is there, {set}-{} was never ready", number - 1));
            }
        }
        Ok(())
    }
}

/// A claim that stays is always the same one, and no two claims have one volume.
fn claims_are_kept() -> impl Fn(&Informer<PersistentVolumeClaim>) -> Result<(), String> + Send + Sync {
    let seen: Mutex<BTreeMap<String, String>> = Mutex::default();
    move |claims| {
        let mut seen = seen.lock();
        let (mut volumes, mut there) = (BTreeMap::new(), BTreeSet::new());
        for claim in claims.list() {
            let name = claim.metadata.name.clone().unwrap_or_default();
            if let Some(volume) = claim.spec.as_ref().and_then(|s| s.volume_name.clone())
                && let Some(other) = volumes.insert(volume.clone(), name.clone())
            {
                return Err(format!("{name} and {other} both have {volume}"));
            }
            if !name.starts_with(&format!("data-{STAYS}-")) {
                continue;
            }
            let uid = claim.metadata.uid.clone().unwrap_or_default();
            there.insert(name.clone());
            if seen.insert(name.clone(), uid.clone()).is_some_and(|before| before != uid) {
                return Err(format!("{name} is another one"));
            }
        }
        seen.keys().find(|name| !there.contains(*name)).map_or(Ok(()), |name| Err(format!("{name} is gone")))
    }
}

pub fn end(scene: &Scene, name: &str, wish: &Wish) -> Result<(), String> {
    let set = find(&scene.stateful, name)?;
    let status = set.status.clone().unwrap_or_default();
    let n = wish.replicas;
    let counts = [Some(status.replicas), status.ready_replicas, status.available_replicas];
    if counts.iter().any(|count| count.unwrap_or(0) != n) {
        return Err(format!("{counts:?} of {n}"));
    }
    if status.observed_generation != set.metadata.generation {
        return Err("its generation was not observed".to_owned());
    }
    let pods = scene.owned(set.metadata.uid.as_deref().unwrap_or_default());
    let found: BTreeSet<_> = pods.iter().map(|p| key(&p.metadata)).collect();
    let wanted: BTreeSet<_> = (0..n).map(|number| format!("{name}-{number}")).collect();
    if found != wanted || pods.iter().any(|p| !is_ready(p)) {
        return Err(format!("pods {found:?}, {} ready", pods.iter().filter(|p| is_ready(p)).count()));
    }
    for pod in pods {
        let image = pod.spec.as_ref().and_then(|s| s.containers.first()?.image.clone());
        let above = ordinal(pod).is_some_and(|(_, number)| number >= wish.partition);
        if above && image.as_deref() != Some(wish.image.as_str()) {
            return Err(format!("{} has {image:?} instead of {}", key(&pod.metadata), wish.image));
        }
    }
    let updated = status.updated_replicas.unwrap_or(0);
    if wish.partition == 0 && (status.current_revision != status.update_revision || updated != n) {
        return Err(format!("the update has not ended: {status:?}"));
    }
    claims(scene, split(name).1, n)
}

fn claims(scene: &Scene, set: &str, replicas: i32) -> Result<(), String> {
    if set != GOES && set != STAYS {
        return Ok(());
    }
    for number in 0..replicas {
        let claim = find(&scene.claims, &format!("default/data-{set}-{number}"))?;
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
            return Err(format!("{} is not bound", key(&claim.metadata)));
        }
    }
    let mine = |claim: &&std::sync::Arc<PersistentVolumeClaim>| {
        claim.metadata.name.as_deref().is_some_and(|name| name.starts_with(&format!("data-{set}-")))
    };
    let there = scene.claims.iter().filter(mine).count();
    if set == GOES && i32::try_from(there) != Ok(replicas) {
        return Err(format!("{there} claims for {replicas} replicas"));
    }
    Ok(())
}

/// What goes with its set has gone.
pub fn nothing_is_left(scene: &Scene, user: &User) -> Result<(), String> {
    if !user.stateful.contains_key(&format!("default/{GOES}")) {
        return claims(scene, GOES, 0);
    }
    Ok(())
}
