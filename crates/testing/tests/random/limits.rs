//! What limits others in random scenarios: quotas and disruption budgets, with what runs into them.

use crate::World;
use crate::common::{is_ready, selector};
use crate::end::{Scene, find, key};
use crate::user::{User, lively, split};
use jiff::SignedDuration;
use krate_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::ReplicaSet;
use krate_api::types::core::v1::{ConfigMap, Namespace, Pod, ResourceQuota};
use krate_api::types::policy::v1::PodDisruptionBudget;
use krate_api::{Kind, Status};
use krate_base::Clock;
use krate_client::{Informer, PatchKind};
use krate_testing::{ControlPlane, Watchdog};
use serde_json::json;
use std::sync::Arc;

/// The namespace with a quota, and the set in there that wants more than it allows.
pub const TIGHT: &str = "tight";
const CROWD: &str = "crowd";
const PODS: i32 = 4;
/// One more than the two that the user makes and the one that every namespace has.
const MAPS: i32 = 3;

pub async fn prepare(world: &World) {
    let cluster = &world.cluster;
    let namespace = json!({"metadata": {"name": TIGHT}});
    cluster.of::<Namespace>().create(Namespace::from_value(namespace).unwrap()).await.unwrap();
    let quota = json!({
        "metadata": {"name": "q", "namespace": TIGHT},
        "spec": {"hard": {"pods": PODS.to_string(), "count/configmaps": MAPS.to_string(), "requests.cpu": "1"}},
    });
    cluster.of::<ResourceQuota>().create(ResourceQuota::from_value(quota).unwrap()).await.unwrap();
    let counted = |q: Option<&ResourceQuota>| q.and_then(|q| q.status.as_ref()?.used.as_ref()).is_some();
    cluster.until(TIGHT, "q", counted).await;
    let mut crowd = ReplicaSet::default();
    crowd.metadata.name = Some(CROWD.to_owned());
    crowd.metadata.namespace = Some(TIGHT.to_owned());
    let spec = crowd.spec.get_or_insert_default();
    spec.replicas = Some(0);
    spec.selector = selector(CROWD);
    spec.template = Some(lively(world, CROWD));
    cluster.of::<ReplicaSet>().create(crowd).await.unwrap();
}

pub async fn step(user: &mut User, world: &mut World) -> Result<Option<String>, Status> {
    match world.rng.below(8) {
        0 | 1 => {
            let replicas = i32::try_from(world.rng.below(8)).unwrap_or(0);
            let patch = json!({"spec": {"replicas": replicas}}).to_string();
            world.cluster.of::<ReplicaSet>().patch(TIGHT, CROWD, PatchKind::Merge, patch).await?;
            user.crowd = replicas;
            Ok(Some(format!("scale the crowd to {replicas}")))
        }
        2 => toggle_map(user, world).await,
        3 | 4 => toggle_budget(user, world).await,
        _ => evict(world).await,
    }
}

async fn toggle_map(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    let name = format!("map-{}", world.rng.below(4));
    let maps = world.cluster.of::<ConfigMap>();
    if user.maps.contains(&name) {
        maps.delete(TIGHT, &name, DeleteOptions::default()).await?;
        user.maps.remove(&name);
        return Ok(Some(format!("delete config map {name}")));
    }
    let map = json!({"metadata": {"name": name, "namespace": TIGHT}});
    maps.create(ConfigMap::from_value(map).unwrap()).await?;
    user.maps.insert(name.clone());
    Ok(Some(format!("create config map {name}")))
}

async fn toggle_budget(user: &mut User, world: &World) -> Result<Option<String>, Status> {
    let name = format!("{}-{}", ["web", "db"][usize::from(world.rng.below(2) == 0)], world.rng.below(3));
    let budgets = world.cluster.of::<PodDisruptionBudget>();
    let key = format!("default/{name}");
    if user.budgets.contains(&key) {
        budgets.delete("default", &name, DeleteOptions::default()).await?;
        user.budgets.remove(&key);
        return Ok(Some(format!("delete budget {name}")));
    }
    let bound = if world.rng.below(2) == 0 { "minAvailable" } else { "maxUnavailable" };
    let budget = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {bound: 1, "selector": {"matchLabels": {"app": name}}},
    });
    budgets.create(PodDisruptionBudget::from_value(budget).unwrap()).await?;
    user.budgets.insert(key);
    Ok(Some(format!("create budget {name}, {bound} 1")))
}

/// A pod is evicted, and its budget is held against what it was before. Only when the controller did not write
/// in between, which the version tells.
async fn evict(world: &mut World) -> Result<Option<String>, Status> {
    let pods = world.cluster.of::<Pod>().list("default", Default::default()).await?.items;
    let Some(pod) = pods.get(usize::try_from(world.rng.below(pods.len() as u64)).unwrap_or(0)) else {
        return Ok(None);
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    if crate::stateful::is_left_alone(&name) {
        return Ok(None);
    }
    let app = pod.metadata.labels.as_ref().and_then(|l| l.get("app").cloned()).unwrap_or_default();
    let budgets = world.cluster.of::<PodDisruptionBudget>();
    let before = budgets.get_opt("default", &app).await?;
    let counts = is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
    world.cluster.of::<Pod>().evict("default", &name, None).await?;
    let after = budgets.get_opt("default", &app).await?;
    if let (true, Some(before), Some(after)) = (counts, before, after)
        && before.metadata.uid == after.metadata.uid
        && before.metadata.resource_version == after.metadata.resource_version
    {
        world.breaches.push(format!("{name} was evicted and not charged to {app}: {:?}", after.status));
    }
    Ok(Some(format!("evict pod {name}")))
}

pub async fn facts(cluster: &ControlPlane) -> Vec<(&'static str, Watchdog)> {
    let clock = cluster.clock.clone();
    vec![
        ("quota", cluster.always(never_above_hard).await),
        ("pods of the quota", cluster.always(move |pods| never_more_pods(pods, &clock)).await),
        ("budgets", cluster.always(never_overdrawn).await),
    ]
}

fn never_above_hard(quotas: &Informer<ResourceQuota>) -> Result<(), String> {
    for quota in quotas.list() {
        let status = quota.status.clone().unwrap_or_default();
        let hard = status.hard.unwrap_or_default();
        for (name, used) in status.used.iter().flatten() {
            let milli = |text: &str| match text.strip_suffix('m') {
                Some(milli) => milli.parse::<i64>().ok(),
                None => text.parse::<i64>().ok().map(|n| n * 1000),
            };
            let most = hard.get(name).and_then(|q| milli(&q.0));
            if milli(&used.0).is_none() || milli(&used.0) > most {
                return Err(format!("{name}: {} of {:?} are used", used.0, hard.get(name)));
            }
        }
    }
    Ok(())
}

fn in_quota(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.namespace.as_deref() == Some(TIGHT) && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod should be gone for as long as it had time to go: its node is lost, and it is not charged any more.
fn is_overdue(pod: &Pod, clock: &Clock) -> bool {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    pod.metadata.deletion_timestamp.as_ref().is_some_and(|at| clock.now() > at.0 + grace)
}

fn never_more_pods(pods: &Informer<Pod>, clock: &Clock) -> Result<(), String> {
    let count = pods.list().iter().filter(|p| in_quota(p) && !is_overdue(p, clock)).count();
    if count > PODS.unsigned_abs() as usize { Err(format!("{count} of {PODS}")) } else { Ok(()) }
}

fn never_overdrawn(budgets: &Informer<PodDisruptionBudget>) -> Result<(), String> {
    for budget in budgets.list() {
        let status = budget.status.clone().unwrap_or_default();
        let allowed = status.disruptions_allowed.unwrap_or(0);
        let (healthy, desired) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
        if allowed < 0 || allowed > (healthy - desired).max(0) {
            let name = key(&budget.metadata);
            return Err(format!("{name} allows {allowed} with {healthy} healthy of {desired}"));
        }
    }
    Ok(())
}

pub fn end(scene: &Scene, user: &User) -> Result<(), String> {
    for name in &user.budgets {
        budget(scene, name).map_err(|why| format!("budget {name}: {why}"))?;
    }
    let quota = find(&scene.quotas, "tight/q")?;
    let used = quota.status.clone().unwrap_or_default().used.unwrap_or_default();
    let used = |name: &str| used.get(name).map_or("", |q| q.0.as_str());
    let maps = user.maps.len() + 1;
    if used("count/configmaps") != maps.to_string() {
        return Err(format!("{} config maps are charged, there are {maps}", used("count/configmaps")));
    }
    let pods = scene.pods.iter().filter(|p| in_quota(p)).count();
    if used("pods") != pods.to_string() {
        return Err(format!("{} pods are charged, there are {pods}", used("pods")));
    }
    let crowd = find(&scene.sets, "tight/crowd")?;
    let there = user.crowd.min(PODS);
    let status = crowd.status.clone().unwrap_or_default();
    if i32::try_from(pods) != Ok(there)
        || status.replicas != there
        || status.ready_replicas.unwrap_or(0) != there
    {
        return Err(format!("{pods} pods of the crowd, {there} have room: {status:?}"));
    }
    Ok(())
}

fn budget(scene: &Scene, name: &str) -> Result<(), String> {
    let budget = find(&scene.budgets, name)?;
    let (namespace, app) = split(name);
    let covered = |pod: &&Arc<Pod>| {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        pod.metadata.namespace.as_deref() == Some(namespace) && labels.get("app").is_some_and(|l| l == app)
    };
    let pods: Vec<_> = scene.pods.iter().filter(covered).collect();
    let (expected, healthy) = (pods.len(), pods.iter().filter(|p| is_ready(p)).count());
    let int = |value: &Option<IntOrString>| match value {
        Some(IntOrString::Int(n)) => usize::try_from(*n).ok(),
        _ => None,
    };
    let spec = budget.spec.clone().unwrap_or_default();
    let desired = int(&spec.min_available)
        .unwrap_or_else(|| expected.saturating_sub(int(&spec.max_unavailable).unwrap_or(0)));
    let allowed = if expected == 0 { 0 } else { healthy.saturating_sub(desired) };
    let status = budget.status.clone().unwrap_or_default();
    let number = |n: Option<i32>| usize::try_from(n.unwrap_or(0)).unwrap_or(usize::MAX);
    let told =
        (number(status.current_healthy), number(status.desired_healthy), number(status.disruptions_allowed));
    if told != (healthy, desired, allowed) || number(status.expected_pods) != expected {
        return Err(format!(
            "says {told:?} of {:?} instead of {:?}",
            status.expected_pods,
            (healthy, desired, allowed)
        ));
    }
    if status.disrupted_pods.is_some_and(|pods| !pods.is_empty()) {
        return Err("still expects pods to go".to_owned());
    }
    Ok(())
}
