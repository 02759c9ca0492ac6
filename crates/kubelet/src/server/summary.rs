//! `/stats/summary`: what the node's containers use, in the kubelet's own form (`stats/v1alpha1`).

use super::find::{CONTAINER_NAME, Finder, NotFound, POD_UID};
use super::{Body, Server};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use krate_base::Timestamp;
use krate_runtime::cri::{ContainerStats, ContainerStatsFilter};
use serde_json::{Value, json};

pub async fn summary(server: &Server, finder: &Finder<'_>) -> Result<Response<Body>, NotFound> {
    let stats = server.runtime.list_container_stats(&ContainerStatsFilter::default()).await;
    let stats = stats.map_err(|e| NotFound(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let pods: Vec<Value> = finder
        .pods
        .list()
        .iter()
        .map(|pod| {
            let uid = finder.pods.runtime_uid(pod);
            let own = stats.iter().filter(|s| s.labels.get(POD_UID) == Some(&uid));
            json!({
                "podRef": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid},
                "startTime": pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0.to_string()),
                "containers": own.map(container).collect::<Vec<Value>>(),
            })
        })
        .collect();
    let body = json!({"node": {}, "pods": pods}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn container(s: &ContainerStats) -> Value {
    let time =
        |nanos: i64| Timestamp::from_nanosecond(i128::from(nanos)).map(|t| t.to_string()).unwrap_or_default();
    json!({
        "name": s.labels.get(CONTAINER_NAME),
        "cpu": {"time": time(s.cpu.timestamp), "usageCoreNanoSeconds": s.cpu.usage_core_nano_seconds},
        "memory": {"time": time(s.memory.timestamp), "workingSetBytes": s.memory.working_set_bytes,
            "usageBytes": s.memory.usage_bytes, "rssBytes": s.memory.rss_bytes},
        "rootfs": {"time": time(s.writable_layer.timestamp), "usedBytes": s.writable_layer.used_bytes,
            "inodesUsed": s.writable_layer.inodes_used},
    })
}
