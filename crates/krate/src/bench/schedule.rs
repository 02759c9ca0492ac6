//! How fast pods are placed on hollow nodes: while they are being created, as a user sees it, and alone, when
//! all of them are there before the scheduler is.

use super::rows::{NAMESPACE, create, create_namespace, pod};
use super::{Row, Server, Target, load};
use crate::ui::{Explain, Outcome};
use futures::StreamExt as _;
use krate_api::types::core::v1::{Node, Pod};
use krate_api::{Kind, Status};
use krate_client::remote::Remote;
use krate_client::{Body, PatchKind, Request, Transport, Verb, WatchEvent, WatchStream};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const NODES: usize = 5_000;
const PODS: usize = 10_000;
const ZONES: usize = 3;
/// Groups of pods of which no two may share a node.
const GROUPS: usize = 10;
/// How long a row may wait for the server to catch up.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the pods ask for beside their resources.
#[derive(Clone, Copy)]
enum Want {
    Nothing,
    Spread,
    Apart,
}

const WANTS: [Want; 3] = [Want::Nothing, Want::Spread, Want::Apart];

impl Want {
    fn title(self) -> String {
        let what = match self {
            Self::Nothing => "pods",
            Self::Spread => "spread pods",
            Self::Apart => "anti-affine pods",
        };
        format!("schedule {PODS} {what} on {NODES} nodes")
    }

    fn pod(self, number: usize) -> Value {
        let group = format!("g{}", number % GROUPS);
        let mut pod = pod(&format!("s-{number}"), "default-scheduler");
        pod["metadata"]["labels"]["group"] = json!(group);
        match self {
            Self::Nothing => {}
            Self::Spread => {
                pod["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 5,
                    "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": "bench"}}}]);
            }
            Self::Apart => {
                pod["spec"]["affinity"] = json!({"podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [{
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"group": group}}}]}});
            }
        }
        pod
    }
}

/// The rows in which creation is included.
pub(super) async fn rows(target: &Target, progress: &dyn Fn(&str)) -> Result<Vec<Row>, Status> {
    let remote = &target.remote;
    create_nodes(remote).await?;
    let mut rows = Vec::new();
    for want in WANTS {
        progress(&want.title());
        let watch = watch(remote).await?;
        let (before, started) = (target.cpu(), Instant::now());
        let creates = async {
            create_pods(remote, want).await?;
            Ok(started.elapsed())
        };
        let (created, bound): (Result<_, Status>, _) = tokio::join!(creates, all_bound(watch));
        let created = created?;
        bound?;
        let elapsed = started.elapsed();
        let cpu = target.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        let note = format!(
            "creation included ({:.1} s of {:.1} s); {} MiB resident",
            created.as_secs_f64(),
            elapsed.as_secs_f64(),
            target.resident() >> 20
        );
        rows.push(Row::total(&want.title(), PODS as u64, elapsed, cpu).noting(note));
        remote.send(Request::of::<Pod>(Verb::DeleteCollection, NAMESPACE, "")).await?;
    }
    load::drive(NODES, 64, |i| async move {
        remote.send(Request::of::<Node>(Verb::Delete, "", &format!("hollow-{i}"))).await.map(drop)
    })
    .await?;
    Ok(rows)
}

/// The rows of scheduling alone, each on a server of its own that first runs without a scheduler. The time
/// begins when the server with the scheduler is ready.
pub async fn alone(dir: &Path, progress: &dyn Fn(&str)) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for want in WANTS {
        let title = format!("{}, alone", want.title());
        progress(&title);
        let failed = |e: Status| crate::ui::Failure::new(format!("{title}: {e}"), "");
        let mut server = Server::start(dir, &["--disable-scheduler"])?;
        let remote = server.target()?.remote;
        create_namespace(&remote).await.explain("the namespace for the load cannot be made", "")?;
        create_nodes(&remote).await.map_err(failed)?;
        create_pods(&remote, want).await.map_err(failed)?;
        server.restart(&[])?;
        let target = server.target()?;
        let (before, started) = (target.cpu(), Instant::now());
        let watch = watch(&target.remote).await.map_err(failed)?;
        all_bound(watch).await.map_err(failed)?;
        let elapsed = started.elapsed();
        let cpu = target.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        let note = format!("{:.2} s; {} MiB resident", elapsed.as_secs_f64(), target.resident() >> 20);
        rows.push(Row::total(&title, PODS as u64, elapsed, cpu).noting(note));
    }
    Ok(rows)
}

async fn create_nodes(remote: &Remote) -> Result<(), Status> {
    load::drive(NODES, 64, |i| async move {
        let capacity = json!({"cpu": "8", "memory": "32Gi", "pods": "110"});
        let labels = json!({"kubernetes.io/hostname": format!("hollow-{i}"),
            "topology.kubernetes.io/zone": format!("zone-{}", i % ZONES)});
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("hollow-{i}"), "labels": labels},
            "status": {"capacity": capacity, "allocatable": capacity,
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
        create::<Node>(remote, "", &node).await
    })
    .await?;
    load::drive(NODES, 64, |i| async move {
        // Nodes are born tainted; a hollow one is ready at once.
        let mut request = Request::of::<Node>(Verb::Patch(PatchKind::Merge), "", &format!("hollow-{i}"));
        request.body = Some(Body::Bytes(json!({"spec": {"taints": null}}).to_string().into()));
        remote.send(request).await.map(drop)
    })
    .await?;
    Ok(())
}

async fn create_pods(remote: &Remote, want: Want) -> Result<(), Status> {
    let create = |i| async move { create::<Pod>(remote, NAMESPACE, &want.pod(i)).await };
    load::drive(PODS, 64, create).await.map(drop)
}

async fn watch(remote: &Remote) -> Result<WatchStream, Status> {
    let mut request = Request::of::<Pod>(Verb::List, NAMESPACE, "");
    request.options.resource_version = "0".to_owned();
    remote.watch(request).await
}

async fn all_bound(mut watch: WatchStream) -> Result<(), Status> {
    let follow = async {
        let mut bound = HashSet::new();
        while bound.len() < PODS {
            match watch.next().await {
                Some(Ok(WatchEvent::Added(shared) | WatchEvent::Modified(shared))) => {
                    let pod = Pod::decode(&shared.bytes).map_err(Status::internal)?;
                    if pod.spec.is_some_and(|s| s.node_name.is_some()) {
                        bound.insert(shared.view.name.clone());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(status)) => return Err(status),
                None => return Err(Status::internal("the watch ended")),
            }
        }
        Ok(())
    };
    let bound = tokio::time::timeout(PATIENCE, follow).await;
    bound.map_err(|_| Status::internal("not every pod was scheduled in two minutes"))?
}
