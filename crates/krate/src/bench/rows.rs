//! What is measured, row by row. Everything is made in a namespace of its own and removed at the end.

use super::{Row, Target, load, running, schedule};
use crate::ui::{Explain, Outcome};
use futures::StreamExt as _;
use krate_api::types::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use krate_api::{Kind, Status};
use krate_client::remote::Remote;
use krate_client::{Body, PatchKind, Request, Transport, Verb, WatchEvent};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

pub(super) const NAMESPACE: &str = "krate-bench";
/// Objects that the single-object rows work on.
const OBJECTS: usize = 2_000;
/// Pods of a whole collection, and how often it is read.
const PODS: usize = 5_000;
const LISTS: usize = 10;
const WATCHERS: usize = 100;
const WATCHED: usize = 500;
/// How long a new namespace may take to get its service account.
const SETTLING: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(10);
const WATCH: &str = "watch: 100 watchers, one event delivered";
/// How many requests are under way at a time.
const IN_FLIGHT: [usize; 3] = [1, 16, 64];

/// Runs every row that is wanted by its name.
/// `image` is what the pods run that are waited for.
pub async fn run_all(
    target: &Target,
    image: &str,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(&str),
) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    let failed = |name: &str, e: Status| {
        crate::ui::Failure::new(format!("{name}: {e}"), "Is the server healthy and empty?")
    };
    create_namespace(&target.remote)
        .await
        .explain("the namespace for the load cannot be made", "Does the user have all rights?")?;
    if wanted("idle") && !target.pids.is_empty() {
        progress("idle");
        rows.push(idle(target, "idle").await);
    }
    for in_flight in IN_FLIGHT {
        let name = format!("create ConfigMap of 1 KiB, {in_flight} in flight");
        if wanted(&name) {
            progress(&name);
            rows.push(create_configmaps(target, &name, in_flight).await.map_err(|e| failed(&name, e))?);
        }
    }
    rows.extend(running::rows(target, image, wanted, progress).await.map_err(|e| failed("running pods", e))?);
    pod_rows(target, wanted, progress, &mut rows).await.map_err(|e| failed("pods", e))?;
    rows.extend(schedule::rows(target, wanted, progress).await.map_err(|e| failed("schedule", e))?);
    let _ = target.remote.send(Request::of::<Namespace>(Verb::Delete, "", NAMESPACE)).await;
    Ok(rows)
}

/// Makes the namespace of the load, and waits until pods may be made in it.
pub(super) async fn create_namespace(remote: &Remote) -> Result<(), Status> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    match create::<Namespace>(remote, "", &body).await {
        Err(status) if !status.is_already_exists() => return Err(status),
        _ => {}
    }
    let mut request = Request::of::<ServiceAccount>(Verb::List, NAMESPACE, "");
    request.options.resource_version = "0".to_owned();
    request.options.field_selector = "metadata.name=default".to_owned();
    let mut accounts = remote.watch(request).await?;
    let made = async { while !matches!(accounts.next().await, None | Some(Ok(WatchEvent::Added(_)))) {} };
    // A server that makes none may not ask for one either.
    let _ = tokio::time::timeout(SETTLING, made).await;
    Ok(())
}

pub(super) async fn create<K: Kind>(remote: &Remote, namespace: &str, body: &Value) -> Result<(), Status> {
    let mut request = Request::of::<K>(Verb::Create, namespace, "");
    request.body = Some(Body::Bytes(body.to_string().into()));
    remote.send(request).await.map(drop)
}

/// Runs a load and counts the server's CPU time beside it.
pub(super) async fn measured<F, Fut>(
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

/// What the server spends on nothing.
pub(super) async fn idle(target: &Target, name: &str) -> Row {
    let before = target.cpu().unwrap_or_default();
    tokio::time::sleep(IDLE).await;
    let cpu = target.cpu().unwrap_or_default().saturating_sub(before);
    let minute = cpu.as_secs_f64() * 60.0 / IDLE.as_secs_f64();
    let resident = target.resident() >> 20;
    Row::total(name, 1, IDLE, None).noting(format!("{resident} MiB resident, {minute:.2} s of CPU a minute"))
}

async fn create_configmaps(target: &Target, name: &str, in_flight: usize) -> Result<Row, Status> {
    let row = measured(target, name, count(in_flight), in_flight, |i| {
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
    for in_flight in IN_FLIGHT {
        let [created, deleted] =
            ["create pod of 2 KiB", "delete pod"].map(|what| format!("{what}, {in_flight} in flight"));
        // The collection on which the other rows work is made by the last.
        let inner = if in_flight == 64 { collection_rows(wanted) } else { vec![] };
        if inner.is_empty() && !wanted(&created) && !wanted(&deleted) {
            continue;
        }
        let pods = if in_flight == 64 { PODS } else { count(in_flight) };
        progress(&created);
        let remote = &target.remote;
        let row = measured(target, &created, pods, in_flight, |i| async move {
            create::<Pod>(remote, NAMESPACE, &pod(&format!("p-{i}"), "none")).await
        });
        rows.extend(Some(row.await?).filter(|_| wanted(&created)));
        for (name, work, in_flight) in inner {
            progress(&name);
            rows.push(work.row(target, &name, in_flight).await?);
        }
        progress(&deleted);
        let row = measured(target, &deleted, pods, in_flight, |i| async move {
            remote.send(Request::of::<Pod>(Verb::Delete, NAMESPACE, &format!("p-{i}"))).await.map(drop)
        });
        rows.extend(Some(row.await?).filter(|_| wanted(&deleted)));
    }
    Ok(())
}

/// What is done to a collection of pods.
#[derive(Clone, Copy)]
enum Work {
    /// To one of them.
    One(Verb),
    List,
    Watch,
}

/// The rows on a collection of pods that are wanted.
fn collection_rows(wanted: &dyn Fn(&str) -> bool) -> Vec<(String, Work, usize)> {
    let list = format!("list {PODS} pods");
    let works = [
        ("get pod", Work::One(Verb::Get)),
        ("merge-patch pod", Work::One(Verb::Patch(PatchKind::Merge))),
        ("strategic-patch pod", Work::One(Verb::Patch(PatchKind::StrategicMerge))),
        ("replace pod", Work::One(Verb::Update)),
        (list.as_str(), Work::List),
    ];
    let each = IN_FLIGHT
        .into_iter()
        .flat_map(|n| works.map(|(what, work)| (format!("{what}, {n} in flight"), work, n)));
    each.chain([(WATCH.to_owned(), Work::Watch, 64)]).filter(|(name, ..)| wanted(name)).collect()
}

impl Work {
    async fn row(self, target: &Target, name: &str, in_flight: usize) -> Result<Row, Status> {
        let remote = &target.remote;
        match self {
            Self::One(verb) => {
                measured(target, name, count(in_flight), in_flight, |i| change(remote, verb, i, in_flight))
                    .await
            }
            Self::List => {
                let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
                let path = &path;
                measured(target, name, LISTS.max(in_flight), in_flight, |_| async move {
                    remote.raw(http::Method::GET, path, None, Default::default()).await.map(drop)
                })
                .await
            }
            Self::Watch => watch_fan_out(target).await,
        }
    }
}

/// How many objects a row of so many requests in flight works on.
fn count(in_flight: usize) -> usize {
    if in_flight == 1 { OBJECTS / 4 } else { OBJECTS }
}

/// Reads or changes pod number `i`.
async fn change(remote: &Remote, verb: Verb, i: usize, in_flight: usize) -> Result<(), Status> {
    let key = format!("p-{i}");
    let mut request = Request::of::<Pod>(verb, NAMESPACE, &key);
    request.body = match verb {
        Verb::Update => Some(Body::Bytes(replaced(remote, &key, in_flight).await?.into())),
        Verb::Patch(kind) => {
            let patch = json!({"metadata": {"labels": {"turn": format!("{kind:?}-{in_flight}")}}});
            Some(Body::Bytes(patch.to_string().into()))
        }
        _ => None,
    };
    remote.send(request).await.map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_there_for_one_some_and_many_requests() {
        let all = collection_rows(&|_| true);
        for what in ["get", "merge-patch", "strategic-patch", "replace"] {
            for n in [1, 16, 64] {
                assert!(all.iter().any(|row| row.0 == format!("{what} pod, {n} in flight") && row.2 == n));
            }
        }
        assert_eq!(all.len(), 5 * 3 + 1);
        let some = collection_rows(&|name| name.contains("list"));
        assert_eq!(some.iter().map(|row| row.2).collect::<Vec<_>>(), IN_FLIGHT);
        assert!(collection_rows(&|_| false).is_empty());
    }
}
