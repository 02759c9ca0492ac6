//! How fast pods are placed on hollow nodes: while they are being created, as a user sees it, and alone, when
//! all of them are there before the scheduler is.

use super::rows::{NAMESPACE, create, create_namespace, pod};
use super::{Row, Server, Target, load};
use crate::ui::{Explain, Outcome};
use futures::StreamExt as _;
use krate_api::types::core::v1::{Event, Node, Pod};
use krate_api::{Kind, Status};
use krate_client::remote::Remote;
use krate_client::{Body, PatchKind, Request, Transport, Verb, WatchEvent, WatchStream};
use serde::Deserialize;
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
/// How often a row looks whether the events are written.
const GLANCE: Duration = Duration::from_millis(100);

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

/// The rows in which creation is included, those of them that are wanted.
pub(super) async fn rows(
    target: &Target,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(&str),
) -> Result<Vec<Row>, Status> {
    let remote = &target.remote;
    let wants = WANTS.into_iter().filter(|want| wanted(&want.title()));
    let wants: Vec<Want> = wants.collect();
    if wants.is_empty() {
        return Ok(vec![]);
    }
    create_nodes(remote).await?;
    let mut rows = Vec::new();
    for want in wants {
        progress(&want.title());
        let watch = watch(remote, "0").await?;
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

/// The rows of scheduling alone that are wanted, each on a server of its own that first runs without a
/// scheduler. The time begins when the server with the scheduler is ready, and ends when a watcher has been told
/// of the last binding. Nodes are objects without a kubelet: nobody sets a pod's status.
///
/// The CPU time counts to the same moment. The events that tell of it (`Scheduled`) are written meanwhile and
/// afterwards; what all is together when the last of them is there is in the note.
pub async fn alone(dir: &Path, wanted: &dyn Fn(&str) -> bool, progress: &dyn Fn(&str)) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for want in WANTS {
        let title = format!("{}, alone", want.title());
        if !wanted(&title) {
            continue;
        }
        progress(&title);
        let failed = |e: Status| crate::ui::Failure::new(format!("{title}: {e}"), "");
        let mut server = Server::start(dir, &["--disable-scheduler"])?;
        let remote = server.target()?.remote;
        create_namespace(&remote).await.explain("the namespace for the load cannot be made", "")?;
        // The nodes last: nobody renews their leases, and after a while they would be taken for lost.
        create_pods(&remote, want).await.map_err(failed)?;
        create_nodes(&remote).await.map_err(failed)?;
        let (revision, _) = newest::<Pod>(&remote).await.map_err(failed)?;
        server.restart(&[])?;
        let target = server.target()?;
        rows.push(one_alone(&target, &title, &revision).await.map_err(failed)?);
    }
    Ok(rows)
}

async fn one_alone(target: &Target, title: &str, revision: &str) -> Result<Row, Status> {
    let (before, started) = (target.cpu(), Instant::now());
    let spent = || target.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
    all_bound(watch(&target.remote, revision).await?).await?;
    let (elapsed, cpu) = (started.elapsed(), spent());
    told(&target.remote).await?;
    let (later, all) = (started.elapsed() - elapsed, spent().unwrap_or_default());
    let note = format!(
        "{:.2} s; {:.0} us with the events, the last {:.1} s later; {} MiB resident",
        elapsed.as_secs_f64(),
        all.as_secs_f64() * 1e6 / PODS as f64,
        later.as_secs_f64(),
        target.resident() >> 20
    );
    Ok(Row::total(title, PODS as u64, elapsed, cpu).noting(note))
}

/// Returns when there is an event about every pod.
async fn told(remote: &Remote) -> Result<(), Status> {
    let started = Instant::now();
    while newest::<Event>(remote).await?.1 < PODS {
        if started.elapsed() > PATIENCE {
            return Err(Status::internal("the events of two minutes ago are not written"));
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// The revision of a collection, and how many objects are in it.
async fn newest<K: Kind>(remote: &Remote) -> Result<(String, usize), Status> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Meta {
        resource_version: String,
        remaining_item_count: usize,
    }
    #[derive(Deserialize)]
    struct Page {
        metadata: Meta,
        items: Vec<serde::de::IgnoredAny>,
    }
    let path = format!("/api/v1/namespaces/{NAMESPACE}/{}?limit=1", K::PLURAL);
    let (_, body) = remote.raw(http::Method::GET, &path, None, Default::default()).await?;
    let page: Page = serde_json::from_slice(&body).map_err(Status::internal)?;
    Ok((page.metadata.resource_version, page.metadata.remaining_item_count + page.items.len()))
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

async fn watch(remote: &Remote, from: &str) -> Result<WatchStream, Status> {
    let mut request = Request::of::<Pod>(Verb::List, NAMESPACE, "");
    request.options.resource_version = from.to_owned();
    remote.watch(request).await
}

/// As much of a pod as tells whether it is bound: the client shares the server's cores.
#[derive(Deserialize)]
struct Placed {
    spec: PlacedSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlacedSpec {
    node_name: Option<String>,
}

async fn all_bound(mut watch: WatchStream) -> Result<(), Status> {
    let follow = async {
        let mut bound = HashSet::new();
        while bound.len() < PODS {
            match watch.next().await {
                Some(Ok(WatchEvent::Added(shared) | WatchEvent::Modified(shared))) => {
                    let pod: Placed = serde_json::from_slice(&shared.bytes).map_err(Status::internal)?;
                    if pod.spec.node_name.is_some() {
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
