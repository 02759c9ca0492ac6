//! The Node object and its Lease: what this node is, whether it is well, and that it is alive.
//!
//! [`status`] computes the whole status from what was observed (pure); [`NodeAgent`] registers the node, writes
//! the status when it changes (and every five minutes), and renews the lease in a task of its own, so that
//! nothing that is slow can make the node look dead.

mod facts;
pub(crate) mod lease;
pub mod status;

pub use facts::Facts;
pub use status::{NodeSpec, Observed};

use crate::eviction::Pressure;
use krate_api::meta::ObjectMeta;
use krate_api::types::core::v1::{Node, NodeSpec as ApiSpec, NodeStatus, ObjectReference};
use krate_api::{Kind as _, Status};
use krate_base::{Clock, Rng, Shutdown, Timestamp};
use krate_client::recorder::Recorder;
use krate_client::{Api, Informer, PatchKind, Transport};
use krate_runtime::cri::{Images, Runtime};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often a node that is not well looks at itself (`nodeStatusUpdateFrequency`).
pub const UPDATE_EVERY: Duration = Duration::from_secs(10);
/// How often it reports when nothing changed (`nodeStatusReportFrequency`).
pub const REPORT_EVERY: Duration = Duration::from_secs(5 * 60);
/// First and longest pause before another try to register.
const REGISTER_FIRST: Duration = Duration::from_millis(100);
const REGISTER_MAX: Duration = Duration::from_secs(7);

/// Registers the node and keeps its status and lease.
pub struct NodeAgent {
    pub spec: NodeSpec,
    pub transport: Arc<dyn Transport>,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn Images>,
    /// The node itself, as the API has it.
    pub own: Informer<Node>,
    /// What the node runs out of.
    pub pressures: watch::Receiver<BTreeSet<Pressure>>,
    pub recorder: Recorder,
    pub clock: Clock,
    pub rng: Rng,
}

impl NodeAgent {
    /// Runs until shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let api: Api<Node> = Api::new(self.transport.clone()).managed_by("kubelet");
        self.recorder.normal(&self.reference(), "Starting", "Starting kubelet.");
        let registered = self.register(&api).await;
        self.tell_schedulable();
        let uid = registered.metadata.uid.clone().unwrap_or_default();
        tokio::join!(
            lease::keep(&self.spec.name, &uid, self.transport.clone(), &self.clock),
            self.report(&api, registered),
        );
    }

    /// Creates the Node, or takes over the one that is there; tries until the API answers.
    async fn register(&self, api: &Api<Node>) -> Arc<Node> {
        let mut pause = REGISTER_FIRST;
        loop {
            match self.try_register(api).await {
                Ok(node) => {
                    tracing::info!(node = %self.spec.name, "the node is registered");
                    return node;
                }
                Err(error) => tracing::warn!(%error, "the node could not be registered; trying again"),
            }
            tokio::time::sleep(self.rng.jitter(pause, 0.2)).await;
            pause = (pause * 2).min(REGISTER_MAX);
        }
    }

    async fn try_register(&self, api: &Api<Node>) -> Result<Arc<Node>, Status> {
        let labels = self.spec.all_labels();
        if let Some(present) = api.get_opt("", &self.spec.name).await? {
            let have = present.metadata.labels.clone().unwrap_or_default();
            if labels.iter().all(|(k, v)| have.get(k) == Some(v)) {
                return Ok(present);
            }
            let patch = json!({"metadata": {"labels": labels}}).to_string();
            return api.patch("", &self.spec.name, PatchKind::Merge, patch).await;
        }
        let node = Node {
            metadata: ObjectMeta {
                name: Some(self.spec.name.clone()),
                labels: Some(labels),
                annotations: Some(
                    [(
                        "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                        "true".to_owned(),
                    )]
                    .into(),
                ),
                ..Default::default()
            },
            spec: Some(ApiSpec::default()),
            status: Some(status::compute(&self.spec, &self.observe().await, None, self.clock.now_seconds())),
        };
        match api.create(node).await {
            Err(status) if status.is_already_exists() => api.get("", &self.spec.name).await,
            Ok(node) => {
                // A new node is told of in full: what it is now, it was not before.
                self.tell_transitions(None, node.status.as_ref().unwrap_or(&NodeStatus::default()));
                Ok(node)
            }
            Err(status) => Err(status),
        }
    }

    async fn report(&self, api: &Api<Node>, mut last: Arc<Node>) {
        let mut reported: Option<Instant> = None;
        let (mut images, mut pressures) = (self.images.changes(), self.pressures.clone());
        let mut foreign = self.foreign();
        loop {
            let now = self.clock.now_seconds();
            let wanted = status::compute(&self.spec, &self.observe().await, last.status.as_ref(), now);
            let changed = last.status.as_ref().is_none_or(|have| status::differs(have, &wanted));
            if changed || reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
                self.tell_transitions(last.status.as_ref(), &wanted);
                match self.write(api, last.status.as_ref(), &wanted, now).await {
                    Ok(node) => {
                        last = node;
                        reported = Some(Instant::now());
                    }
                    Err(error) => tracing::warn!(%error, "the node's status could not be written"),
                }
            }
            // Images, pressure and what others write tell of themselves. A runtime that is not ready, or an API that does not take
            // the status, is asked again.
            let well = status::is_ready(&wanted) && reported.is_some_and(|at| at.elapsed() < REPORT_EVERY);
            let pause = if well { REPORT_EVERY } else { UPDATE_EVERY };
            let told = tokio::select! {
                () = tokio::time::sleep(pause) => Ok(()),
                told = images.changed() => told,
                told = pressures.changed() => told,
                told = foreign.changed() => {
                    if let Some(node) = foreign.borrow_and_update().clone() {
                        last = node;
                    }
                    told
                }
            };
            if told.is_err() {
                tokio::time::sleep(UPDATE_EVERY).await;
            }
        }
    }

    /// The node whenever somebody has written that nothing is known of it, or that it has more to give: to be
    /// answered at once.
    fn foreign(&self) -> watch::Receiver<Option<Arc<Node>>> {
        let (tell, foreign) = watch::channel(None);
        self.own.subscribe(move |_, new: Option<&Arc<Node>>| {
            if let Some(node) = new.filter(|n| status::is_doubted(n) || status::is_advertised_anew(n)) {
                tell.send_replace(Some(node.clone()));
            }
        });
        foreign
    }

    async fn write(
        &self,
        api: &Api<Node>,
        have: Option<&NodeStatus>,
        wanted: &NodeStatus,
        now: Timestamp,
    ) -> Result<Arc<Node>, Status> {
        let mut node = Node { status: Some(wanted.clone()), ..Default::default() };
        for condition in node.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
            condition.last_heartbeat_time = Some(krate_api::meta::Time(now));
        }
        let mut value = node.to_value();
        for name in have.iter().flat_map(|have| status::withdrawn(have, wanted)) {
            value["status"]["allocatable"][name] = serde_json::Value::Null;
        }
        let patch = json!({"status": value["status"]}).to_string();
        api.patch_status("", &self.spec.name, PatchKind::StrategicMerge, patch).await
    }

    /// What events are about. The original names the node by its name where a uid belongs; `kubectl describe
    /// node` looks for that.
    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.spec.name.clone()),
            uid: Some(self.spec.name.clone()),
            ..Default::default()
        }
    }

    /// The events of a node that somebody cordons or opens again.
    fn tell_schedulable(&self) {
        let (recorder, node, name) = (self.recorder.clone(), self.reference(), self.spec.name.clone());
        self.own.subscribe(move |old, new| {
            let closed = |node: &Arc<Node>| node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
            let (Some(before), Some(now)) = (old.map(closed), new.map(closed)) else { return };
            if before != now {
                let reason = if now { "NodeNotSchedulable" } else { "NodeSchedulable" };
                recorder.normal(&node, reason, format!("Node {name} status is now: {reason}"));
            }
        });
    }

    /// The events of a node that becomes ready or not, or meets pressure.
    fn tell_transitions(&self, have: Option<&NodeStatus>, wanted: &NodeStatus) {
        let node = self.reference();
        for (kind, reason) in status::transitions(have, wanted) {
            tracing::info!(condition = kind, reason, "the node's condition changed");
            self.recorder.normal(&node, reason, format!("Node {} status is now: {reason}", self.spec.name));
        }
    }

    async fn observe(&self) -> Observed {
        let runtime = self.runtime.status().await;
        let version = self.runtime.version().await.ok();
        let images = self.images.list_images(None).await.unwrap_or_default();
        Observed {
            facts: Facts::read(&self.spec.root_dir),
            runtime,
            version,
            images,
            pressures: self.pressures.borrow().clone(),
        }
    }
}
