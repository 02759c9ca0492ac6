//! How long a pod takes from its creation until its container runs, as a client sees it.
//!
//! Needs a server with a node that is Ready and has the image, or may pull it.

use super::rows::{NAMESPACE, create, measured};
use super::{Row, Target};
use futures::StreamExt as _;
use krate_api::types::core::v1::Pod;
use krate_api::{Kind as _, Status};
use krate_client::{Request, Transport, Verb, WatchEvent, WatchStream};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;

/// Pods of a row, and how many of them are on their way at a time: few enough for one node.
const ROWS: [(usize, usize); 2] = [(20, 1), (64, 16)];
/// How long a pod may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn title(in_flight: usize) -> String {
    format!("create pod to Running, {in_flight} in flight")
}

/// The names of all rows.
pub(super) fn titles() -> impl Iterator<Item = String> {
    ROWS.into_iter().map(|(_, in_flight)| title(in_flight))
}

/// Whether a row runs pods.
pub fn needs_node(name: &str) -> bool {
    titles().any(|title| title == name)
}

/// The rows that are wanted; a remark where no node can run anything.
pub(super) async fn rows(
    target: &Target,
    image: &str,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(&str),
) -> Result<Vec<Row>, Status> {
    let mut rows = Vec::new();
    for (pods, in_flight) in ROWS {
        let title = title(in_flight);
        if !wanted(&title) {
            continue;
        }
        if !has_node(target).await? {
            rows.push(Row::remark(&title, "no node is Ready"));
            continue;
        }
        progress(&title);
        // A server that cannot run the image is worth measuring for the rest.
        rows.push(match row(target, &title, image, pods, in_flight).await {
            Ok(row) => row,
            Err(status) => Row::remark(&title, format!("{}; is {image} there? (--image)", status.message())),
        });
    }
    Ok(rows)
}

async fn has_node(target: &Target) -> Result<bool, Status> {
    let (_, body) = target.remote.raw(http::Method::GET, "/api/v1/nodes", None, Default::default()).await?;
    let list: Value = serde_json::from_slice(&body).map_err(Status::internal)?;
    let nodes = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(nodes.iter().any(|node| {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.filter(|c| c["type"] == "Ready").any(|c| c["status"] == "True");
        // Hollow nodes of other rows have no kubelet, and no address.
        ready && node["status"]["addresses"].is_array() && node["spec"]["unschedulable"] != true
    }))
}

async fn row(
    target: &Target,
    title: &str,
    image: &str,
    pods: usize,
    in_flight: usize,
) -> Result<Row, Status> {
    let remote = &target.remote;
    let mut request = Request::of::<Pod>(Verb::List, NAMESPACE, "");
    request.options.resource_version = "0".to_owned();
    let (running, seen) = watch::channel(Seen::default());
    let follower = tokio::spawn(follow(remote.watch(request).await?, running));
    let name = |i: usize| format!("r-{in_flight}-{i}");
    let row = measured(target, title, pods, in_flight, |i| {
        let seen = seen.clone();
        async move {
            create::<Pod>(remote, NAMESPACE, &pod(&name(i), image)).await?;
            until(seen, |all| all.running.contains(&name(i)), &format!("the pod {} does not run", name(i)))
                .await
        }
    })
    .await;
    // The next row begins on an empty node, whatever became of this one.
    remote.send(Request::of::<Pod>(Verb::DeleteCollection, NAMESPACE, "")).await?;
    let made = seen.borrow().running.len();
    until(seen, |all| all.gone >= made, "not every pod goes").await?;
    follower.abort();
    row
}

fn pod(name: &str, image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}]}})
}

/// What the watch has told so far.
#[derive(Default)]
struct Seen {
    running: BTreeSet<String>,
    gone: usize,
    ended: bool,
}

async fn follow(mut events: WatchStream, seen: watch::Sender<Seen>) {
    while let Some(Ok(event)) = events.next().await {
        match event {
            WatchEvent::Added(shared) | WatchEvent::Modified(shared) => {
                let pod = Pod::decode(&shared.bytes).unwrap_or_default();
                if pod.status.and_then(|s| s.phase).as_deref() == Some("Running") {
                    let name = shared.view.name.clone();
                    seen.send_modify(|all| _ = all.running.insert(name));
                }
            }
            WatchEvent::Deleted(_) => seen.send_modify(|all| all.gone += 1),
            _ => {}
        }
    }
    seen.send_modify(|all| all.ended = true);
}

async fn until(
    mut seen: watch::Receiver<Seen>,
    enough: impl Fn(&Seen) -> bool,
    otherwise: &str,
) -> Result<(), Status> {
    let wait = seen.wait_for(|all| all.ended || enough(all));
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(Ok(all)) if enough(&all) => Ok(()),
        Ok(_) => Err(Status::internal("the watch of the pods ended")),
        Err(_) => Err(Status::internal(otherwise)),
    }
}
