//! The heartbeat: a Lease in `kube-node-lease`, renewed every ten seconds whatever else the node does.

use krate_api::Status;
use krate_api::meta::{MicroTime, ObjectMeta, OwnerReference};
use krate_api::types::coordination::v1::{Lease, LeaseSpec};
use krate_base::Clock;
use krate_client::{Api, Transport};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const NAMESPACE: &str = "kube-node-lease";
/// `nodeLeaseDurationSeconds`; renewed after a quarter of it.
pub const DURATION_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Pause before another try after a failure; shorter than the renewal, so that one failure costs nothing.
const RETRY: Duration = Duration::from_secs(2);

/// Renews for ever.
pub async fn keep(node: &str, uid: &str, transport: Arc<dyn Transport>, clock: &Clock) {
    let api: Api<Lease> = Api::new(transport).managed_by("kubelet");
    let mut last: Option<Arc<Lease>> = None;
    loop {
        // A request that hangs must not cost more than one renewal.
        let pause = match timeout(RENEW_EVERY, renew(&api, node, uid, last.take(), clock)).await {
            Ok(Ok(lease)) => {
                last = Some(lease);
                RENEW_EVERY
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the node's lease could not be renewed");
                RETRY
            }
            Err(late) => {
                tracing::warn!(error = %late, "the node's lease could not be renewed");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(
    api: &Api<Lease>,
    node: &str,
    uid: &str,
    last: Option<Arc<Lease>>,
    clock: &Clock,
) -> Result<Arc<Lease>, Status> {
    let spec = LeaseSpec {
        holder_identity: Some(node.to_owned()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        renew_time: Some(MicroTime(clock.now_micros())),
        ..Default::default()
    };
    let present = match last {
        Some(lease) => Some(lease),
        None => api.get_opt(NAMESPACE, node).await?,
    };
    match present {
        Some(lease) => api.update(Lease { spec: Some(spec), ..(*lease).clone() }).await,
        None => api.create(Lease { metadata: owned(node, uid), spec: Some(spec) }).await,
    }
}

/// The lease goes with its node.
fn owned(node: &str, uid: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(node.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.to_owned(),
            uid: uid.to_owned(),
            ..Default::default()
        }]),
        ..Default::default()
    }
}
