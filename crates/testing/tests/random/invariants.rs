//! What must hold at every step, whatever fails.

use crate::{limits, stateful, timed};
use krate_api::Kind;
use krate_api::types::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use krate_api::types::batch::v1::{CronJob, Job};
use krate_api::types::core::v1::{Node, PersistentVolumeClaim, Pod, ResourceQuota};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_api::types::policy::v1::PodDisruptionBudget;
use krate_client::Informer;
use krate_testing::{ControlPlane, Watchdog};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

pub struct Facts(Vec<(&'static str, Watchdog)>);

impl Facts {
    pub fn result(&self) -> Result<(), String> {
        for (name, fact) in &self.0 {
            fact.result().map_err(|breach| format!("{name}: {breach}"))?;
        }
        Ok(())
    }
}

pub async fn watch(cluster: &ControlPlane, wide: bool) -> Facts {
    // Always subscribed, so that a trace is of the same story as the run without.
    trace::<Node>(cluster).await;
    trace::<Pod>(cluster).await;
    trace::<ReplicaSet>(cluster).await;
    trace::<Deployment>(cluster).await;
    trace::<Job>(cluster).await;
    trace::<EndpointSlice>(cluster).await;
    let mut facts = vec![
        ("addresses", cluster.always(addresses_are_unique).await),
        ("bindings", cluster.always(pods_stay_where_they_are()).await),
        ("jobs", cluster.always(jobs_count_forward()).await),
        ("deployments", cluster.always(deployments_are_consistent).await),
    ];
    if wide {
        trace::<StatefulSet>(cluster).await;
        trace::<DaemonSet>(cluster).await;
        trace::<CronJob>(cluster).await;
        trace::<PersistentVolumeClaim>(cluster).await;
        trace::<PodDisruptionBudget>(cluster).await;
        trace::<ResourceQuota>(cluster).await;
        facts.extend(stateful::facts(cluster).await);
        facts.extend(timed::facts(cluster).await);
        facts.extend(limits::facts(cluster).await);
    }
    Facts(facts)
}

/// No two living pods have one address.
fn addresses_are_unique(pods: &Informer<Pod>) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for pod in pods.list() {
        let status = pod.status.clone().unwrap_or_default();
        let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let Some(ip) = status.pod_ip.filter(|_| !over) else { continue };
        let name = pod.metadata.name.clone().unwrap_or_default();
        if let Some(other) = seen.insert(ip.clone(), name.clone()) {
            return Err(format!("{name} and {other} both have {ip}"));
        }
    }
    Ok(())
}

/// A pod is bound once, and its phase never goes back from an end.
fn pods_stay_where_they_are() -> impl Fn(&Informer<Pod>) -> Result<(), String> + Send + Sync {
    let seen: Mutex<BTreeMap<String, (String, bool)>> = Mutex::default();
    move |pods| {
        let mut seen = seen.lock();
        for pod in pods.list() {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
            let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
            let over = phase == "Succeeded" || phase == "Failed";
            if let Some((before, was_over)) = seen.insert(uid, (node.clone(), over)) {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                if !before.is_empty() && before != node {
                    return Err(format!("{name} moved from {before} to {node}"));
                }
                if was_over && !over {
                    return Err(format!("{name} had ended and is {phase}"));
                }
            }
        }
        Ok(())
    }
}

/// Each pod is counted once: counts grow, and never beyond what was wanted.
fn jobs_count_forward() -> impl Fn(&Informer<Job>) -> Result<(), String> + Send + Sync {
    let seen: Mutex<BTreeMap<String, (i32, i32)>> = Mutex::default();
    move |jobs| {
        let mut seen = seen.lock();
        for job in jobs.list() {
            let status = job.status.clone().unwrap_or_default();
            let now = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
            let name = job.metadata.name.as_deref().unwrap_or_default();
            let wanted = job.spec.as_ref().and_then(|s| s.completions).unwrap_or(1);
            if now.0 > wanted {
                return Err(format!("{name} counts {} successes of {wanted}", now.0));
            }
            let before = seen.insert(job.metadata.uid.clone().unwrap_or_default(), now);
            if before.is_some_and(|before| now.0 < before.0 || now.1 < before.1) {
                return Err(format!("{name} counted {before:?} and now {now:?}"));
            }
            let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
            let good: BTreeSet<_> = uncounted.succeeded.unwrap_or_default().into_iter().collect();
            if let Some(both) = uncounted.failed.unwrap_or_default().iter().find(|uid| good.contains(*uid)) {
                return Err(format!("{name} has {both} both ways"));
            }
        }
        Ok(())
    }
}

/// What a status says of itself adds up.
fn deployments_are_consistent(all: &Informer<Deployment>) -> Result<(), String> {
    for deployment in all.list() {
        let status = deployment.status.clone().unwrap_or_default();
        let (total, updated) = (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0));
        let (ready, available) = (status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
        if updated > total || available > ready {
            let name = deployment.metadata.name.as_deref().unwrap_or_default();
            return Err(format!("{name}: {updated} updated of {total}, {available} available of {ready}"));
        }
        if status.observed_generation > deployment.metadata.generation {
            return Err("a generation was observed before it was".to_owned());
        }
    }
    Ok(())
}

/// Prints every change of a kind's objects as it comes, when `KRATE_TRACE` is set.
async fn trace<K: Kind>(cluster: &ControlPlane) {
    let informer = cluster.informers.of::<K>();
    informer.synced().await;
    let clock = cluster.clock.clone();
    let wanted = std::env::var_os("KRATE_TRACE").is_some();
    informer.subscribe(move |old, new| {
        if !wanted {
            return;
        }
        let at = clock.now().as_millisecond() - krate_testing::START * 1000;
        let value = |object: Option<&std::sync::Arc<K>>| object.map(|o| o.to_value()).unwrap_or_default();
        let (old, new) = (value(old), value(new));
        let name = |v: &serde_json::Value| v.pointer("/metadata/name").map(ToString::to_string);
        let name = name(&new).or_else(|| name(&old)).unwrap_or_default();
        let mut parts = vec![];
        differences("", &old, &new, &mut parts);
        println!("{at:>9} ms {} {name} {}", K::PLURAL, parts.join("; "));
    });
}

fn differences(path: &str, old: &serde_json::Value, new: &serde_json::Value, parts: &mut Vec<String>) {
    use serde_json::Value;
    match (old, new) {
        (a, b) if a == b => {}
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                let (x, y) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                differences(&format!("{path}/{key}"), x, y, parts);
            }
        }
        (Value::Null, Value::Object(_)) if path.is_empty() => parts.push("appears".to_owned()),
        (_, Value::Null) if path.is_empty() => parts.push("is gone".to_owned()),
        _ => parts.push(format!("{path}: {old} > {new}")),
    }
}
