//! DaemonSets in random scenarios, and a node that comes and goes.

use crate::World;
use crate::common::{is_ready, selector};
use crate::end::{Scene, find, key};
use crate::user::{User, delete, image_patch, lively, pick_mut, split};
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::DaemonSet;
use krate_api::types::core::v1::{Node, Pod};
use krate_api::{Kind, Status};
use krate_client::PatchKind;
use serde_json::json;
use std::collections::BTreeSet;

const NAMES: u64 = 2;
/// The node that comes and goes.
pub const GUEST: &str = "node-guest";

pub async fn step(user: &mut User, world: &mut World) -> Result<Option<String>, Status> {
    match world.rng.below(8) {
        0..=2 => create(user, world).await,
        3 | 4 => change(user, world).await,
        5 => {
            let Some((key, _)) = pick_mut(world, &mut user.daemons) else { return Ok(None) };
            delete::<DaemonSet>(world, &key).await?;
            user.daemons.remove(&key);
            Ok(Some(format!("delete daemon set {key}")))
        }
        _ => toggle_node(world).await,
    }
}

async fn create(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    let name = format!("agent-{}", world.rng.below(NAMES));
    let (surge, unavailable) = [(0, 1), (1, 0), (0, 2)][usize::try_from(world.rng.below(3)).unwrap_or(0)];
    let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    let mut object = DaemonSet::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}},
    }))
    .unwrap();
    let spec = object.spec.get_or_insert_default();
    spec.selector = selector(&name);
    spec.template = lively(world, &name);
    world.cluster.of::<DaemonSet>().create(object).await?;
    user.daemons.insert(format!("default/{name}"), format!("{name}:1"));
    Ok(Some(format!("create daemon set {name}, surge {surge}, unavailable {unavailable}")))
}

async fn change(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    let Some((key, image)) = pick_mut(world, &mut user.daemons) else { return Ok(None) };
    let (namespace, name) = split(&key);
    let new = format!("{name}:{}", 1 + world.rng.below(4));
    let patch = image_patch(&new);
    world.cluster.of::<DaemonSet>().patch(namespace, name, PatchKind::StrategicMerge, patch).await?;
    *image = new;
    Ok(Some(format!("change daemon set {key} to {image}")))
}

/// The guest joins, or its machine is taken away and its administrator says so. It joins again when nothing of it
/// is left: a range of addresses is given away at once.
async fn toggle_node(world: &mut World) -> Result<Option<String>, Status> {
    if let Some(node) = world.guest.take() {
        node.vanish().await;
        let deleted = world.cluster.of::<Node>().delete("", GUEST, DeleteOptions::default()).await;
        if let Err(status) = deleted {
            node.come_back();
            world.guest = Some(node);
            return Err(status);
        }
        return Ok(Some(format!("{GUEST} is removed")));
    }
    let pods = world.cluster.of::<Pod>().list("", Default::default()).await?.items;
    if pods.iter().any(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(GUEST)) {
        return Ok(None);
    }
    world.guest = Some(world.cluster.hollow_node(GUEST).await?);
    Ok(Some(format!("{GUEST} joins")))
}

/// A guest that is not there has no Node: a joining may have got half its way.
pub async fn finish(world: &World) {
    match &world.guest {
        Some(node) => {
            node.come_back();
            node.recover();
        }
        None => {
            let _ = world.cluster.of::<Node>().delete("", GUEST, DeleteOptions::default()).await;
        }
    }
}

pub fn end(scene: &Scene, name: &str, wanted: &str) -> Result<(), String> {
    let set = find(&scene.daemons, name)?;
    let status = set.status.clone().unwrap_or_default();
    let n = i32::try_from(scene.nodes.len()).unwrap_or(0);
    let counts = [
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.number_available.unwrap_or(0),
        status.updated_number_scheduled.unwrap_or(0),
    ];
    let bad = (status.number_misscheduled, status.number_unavailable.unwrap_or(0));
    if counts.iter().any(|count| *count != n) || bad != (0, 0) {
        return Err(format!("{counts:?} of {n}, {bad:?} misscheduled and unavailable"));
    }
    if status.observed_generation != set.metadata.generation {
        return Err("its generation was not observed".to_owned());
    }
    let pods = scene.owned(set.metadata.uid.as_deref().unwrap_or_default());
    let on = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
    let places: BTreeSet<String> = pods.iter().map(|p| on(p)).collect();
    let nodes: BTreeSet<String> = scene.nodes.iter().map(|node| key(&node.metadata)).collect();
    if places != nodes || pods.len() != nodes.len() || pods.iter().any(|p| !is_ready(p)) {
        return Err(format!("{} pods on {places:?} of {nodes:?}", pods.len()));
    }
    let image = |p: &Pod| p.spec.as_ref().and_then(|s| s.containers.first()?.image.clone());
    let old = pods.iter().find(|p| image(p).as_deref() != Some(wanted));
    old.map_or(Ok(()), |p| Err(format!("{} has not {wanted}", key(&p.metadata))))
}
