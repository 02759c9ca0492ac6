//! What is measured, row by row. Everything is made in a namespace of its own and removed at the end.

use super::{Row, Target, load, schedule};
use crate::ui::{Explain, Outcome};
use futures::StreamExt as _;
use krate_api::types::core::v1::{ConfigMap, Namespace, Pod};
use krate_api::{Kind, Status};
use krate_client::remote::Remote;
use krate_client::{Body, PatchKind, Request, Transport, Verb, WatchEvent};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

pub(super) const NAMESPACE: &str = "krate-bench";
/// Objects that the single-object rows work on.
const OBJECTS: usize = 2_000;
const PODS: usize = 5_000;
const WATCHERS: usize = 100;
const WATCHED: usize = 500;
const IDLE: Duration = Duration::from_secs(10);
const CREATE: &str = "create pod of 2 KiB, 64 in flight";
const LIST: &str = "list pods (all)";
const WATCH: &str = "watch: 100 watchers, one event delivered";
const DELETE: &str = "delete pod, 64 in flight";

/// Runs every row whose name contains `only`.
pub async fn run_all(target: &Target, only: Option<&str>, progress: &dyn Fn(&str)) -> Outcome<Vec<Row>> {
    let wanted = |name: &str| only.is_none_or(|o| name.contains(o));
    let mut rows = Vec::new();
    let failed = |name: &str, e: Status| {
        crate::ui::Failure::new(format!("{name}: {e}"), "Is the server healthy and empty?")
    };
    create_namespace(&target.remote)
        .await
        .explain("the namespace for the load cannot be made", "Does the user have all rights?")?;
    if wanted("idle") && !target.pids.is_empty() {
        progress("idle");
        rows.push(idle(target).await);
    }
    for in_flight in [1, 16, 64] {
        let name = format!("create ConfigMap of 1 KiB, {in_flight} in flight");
        if wanted(&name) {
            progress(&name);
            rows.push(create_configmaps(target, &name, in_flight).await.map_err(|e| failed(&name, e))?);
        }
    }
    pod_rows(target, &wanted, progress, &mut rows).await.map_err(|e| failed("pods", e))?;
    rows.extend(schedule::rows(target, &wanted, progress).await.map_err(|e| failed("schedule", e))?);
    let _ = target.remote.send(Request::of::<Namespace>(Verb::Delete, "", NAMESPACE)).await;
    Ok(rows)
}

pub(super) async fn create_namespace(remote: &Remote) -> Result<(), Status> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    match create::<Namespace>(remote, "", &body).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

pub(super) async fn create<K: Kind>(remote: &Remote, namespace: &str, body: &Value) -> Result<(), Status> {
    let mut request = Request::of::<K>(Verb::Create, namespace, "");
    request.body = Some(Body::Bytes(body.to_string().into()));
    remote.send(request).await.map(drop)
}

/// Runs a load and counts the server's CPU time beside it.
async fn measured<F, Fut>(
    target: &Target,
    name: &str,
    count: usize,
    in_flight: usize,
    f: F,
) -> Result<Row, Status>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), Status>>,
{
    let before = target.cpu();
    let (latencies, elapsed) = load::drive(count, in_flight, f).await?;
    let cpu = target.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(Row::of(name, latencies, elapsed, cpu))
}

async fn idle(target: &Target) -> Row {
    let before = target.cpu().unwrap_or_default();
    tokio::time::sleep(IDLE).await;
    let cpu = target.cpu().unwrap_or_default().saturating_sub(before);
    let minute = cpu.as_secs_f64() * 60.0 / IDLE.as_secs_f64();
    let resident = target.resident() >> 20;
    Row::total("idle", 1, IDLE, None)
        .noting(format!("{resident} MiB resident, {minute:.2} s of CPU a minute"))
}

async fn create_configmaps(target: &Target, name: &str, in_flight: usize) -> Result<Row, Status> {
    let count = if in_flight == 1 { OBJECTS / 4 } else { OBJECTS };
    let row = measured(target, name, count, in_flight, |i| {
        let remote = target.remote.clone();
        async move {
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("c-{in_flight}-{i}")}, "data": {"value": "x".repeat(1024)}});
            create::<ConfigMap>(&remote, NAMESPACE, &body).await
        }
    })
    .await?;
    target.remote.send(Request::of::<ConfigMap>(Verb::DeleteCollection, NAMESPACE, "")).await?;
    Ok(row)
}

/// A pod of about 2 KiB that no scheduler takes.
pub(super) fn pod(name: &str, scheduler: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"},
        "annotations": {"filler": "x".repeat(900)}},
        "spec": {"schedulerName": scheduler, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "bench:1", "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}},
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]}})
}

async fn pod_rows(
    target: &Target,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(&str),
    rows: &mut Vec<Row>,
) -> Result<(), Status> {
    let remote = &target.remote;
    let changes = ["get pod", "merge-patch pod", "strategic-patch pod", "replace pod"];
    let names = [1, 16, 64].into_iter().flat_map(|n| changes.map(|what| format!("{what}, {n} in flight")));
    if ![CREATE, LIST, WATCH, DELETE].into_iter().any(wanted) && !names.into_iter().any(|name| wanted(&name))
    {
        return Ok(());
    }
    // The others need the pods.
    progress(CREATE);
    let created = measured(target, CREATE, PODS, 64, |i| async move {
        create::<Pod>(remote, NAMESPACE, &pod(&format!("p-{i}"), "none")).await
    });
    rows.extend(Some(created.await?).filter(|_| wanted(CREATE)));
    for in_flight in [1, 16, 64] {
        let count = if in_flight == 1 { OBJECTS / 4 } else { OBJECTS };
        for (what, verb, body) in [
            ("get pod", Verb::Get, None),
            ("merge-patch pod", Verb::Patch(PatchKind::Merge), Some(())),
            ("strategic-patch pod", Verb::Patch(PatchKind::StrategicMerge), Some(())),
            ("replace pod", Verb::Update, Some(())),
        ] {
            let name = format!("{what}, {in_flight} in flight");
            if !wanted(&name) {
                continue;
            }
            progress(&name);
            rows.push(
                measured(target, &name, count, in_flight, |i| async move {
                    let key = format!("p-{i}");
                    let mut request = Request::of::<Pod>(verb, NAMESPACE, &key);
                    request.body = match (verb, body) {
                        (Verb::Update, _) => Some(Body::Bytes(replaced(remote, &key, in_flight).await?.into())),
                        (_, Some(())) => {
                            let patch = json!({"metadata": {"labels": {"turn": format!("{what}-{in_flight}").replace(' ', "-")}}});
                            Some(Body::Bytes(patch.to_string().into()))
                        }
                        _ => None,
                    };
                    remote.send(request).await.map(drop)
                })
                .await?,
            );
        }
    }
    if wanted(LIST) {
        progress(LIST);
        rows.push(
            measured(target, LIST, 10, 1, |_| async move {
                remote
                    .raw(
                        http::Method::GET,
                        &format!("/api/v1/namespaces/{NAMESPACE}/pods"),
                        None,
                        Default::default(),
                    )
                    .await
                    .map(drop)
            })
            .await?
            .noting(format!("{PODS} pods each")),
        );
    }
    if wanted(WATCH) {
        progress(WATCH);
        rows.push(watch_fan_out(target).await?);
    }
    progress(DELETE);
    let deleted = measured(target, DELETE, PODS, 64, |i| async move {
        remote.send(Request::of::<Pod>(Verb::Delete, NAMESPACE, &format!("p-{i}"))).await.map(drop)
    });
    rows.extend(Some(deleted.await?).filter(|_| wanted(DELETE)));
    Ok(())
}

/// The pod as it is, with a label changed; the read is part of the row, as it is for every client.
async fn replaced(remote: &Remote, name: &str, turn: usize) -> Result<String, Status> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}");
    let (_, body) = remote.raw(http::Method::GET, &path, None, Default::default()).await?;
    let mut value: Value = serde_json::from_slice(&body).map_err(Status::internal)?;
    value["metadata"]["labels"]["replaced"] = json!(turn.to_string());
    Ok(value.to_string())
}

/// So many watchers each receive every event of a burst.
async fn watch_fan_out(target: &Target) -> Result<Row, Status> {
    let remote = &target.remote;
    let mut watches = Vec::new();
    for _ in 0..WATCHERS {
        let mut request = Request::of::<ConfigMap>(Verb::List, NAMESPACE, "");
        request.options.resource_version = "0".to_owned();
        watches.push(remote.watch(request).await?);
    }
    let (before, started) = (target.cpu(), Instant::now());
    let readers: Vec<_> = watches
        .into_iter()
        .map(|mut watch| {
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < WATCHED {
                    match watch.next().await {
                        Some(Ok(WatchEvent::Added(shared))) if shared.view.name.starts_with("w-") => {
                            seen += 1
                        }
                        Some(Ok(_)) => {}
                        Some(Err(status)) => return Err(status),
                        None => return Err(Status::internal("a watch ended")),
                    }
                }
                Ok(())
            })
        })
        .collect();
    load::drive(WATCHED, 64, |i| async move {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("w-{i}")}, "data": {"value": "x".repeat(1024)}});
        create::<ConfigMap>(remote, NAMESPACE, &body).await
    })
    .await?;
    for reader in readers {
        reader.await.map_err(Status::internal)??;
    }
    let elapsed = started.elapsed();
    let cpu = target.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
    let _ = remote.send(Request::of::<ConfigMap>(Verb::DeleteCollection, NAMESPACE, "")).await;
    Ok(Row::total(WATCH, (WATCHERS * WATCHED) as u64, elapsed, cpu).noting("the creates' CPU is included"))
}
