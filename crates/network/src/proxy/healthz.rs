//! Whether the node's proxy keeps up, and whether load balancers should send it new connections: answered at
//! `/healthz` and `/livez` of port [`PORT`], to whoever asks.
//!
//! The proxy is healthy while no change has waited for longer than [`PATIENCE`]. `/healthz` also says no as soon as
//! the node is being removed, so that balancers drain it: <https://kep.k8s.io/3836>.

use super::http::{self, Reply};
use crate::nft::Family;
use krate_api::types::core::v1::Node;
use krate_base::Clock;
use krate_base::metrics::Metrics;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where the original answers.
pub const PORT: u16 = 10256;
/// By this taint the cluster's autoscaler says that it will remove a node.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// How long a change may wait for the kernel to know it: twice the longest time between the original's syncs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before a port that cannot be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The time of what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Whether a node may be sent new connections.
#[must_use]
pub fn is_eligible(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    node.metadata.deletion_timestamp.is_none() && !taints.into_iter().any(|t| t.key == TO_BE_DELETED)
}

/// What the proxy has done and has to do; clones share it.
#[derive(Clone)]
pub struct Health {
    clock: Clock,
    families: Vec<Family>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    updated: Option<jiff::Timestamp>,
    /// Since when a change waits.
    pending: Option<jiff::Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, FamilyReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyReport {
    last_updated: String,
    healthy: bool,
}

impl Health {
    #[must_use]
    pub fn new(clock: Clock, families: Vec<Family>) -> Self {
        Self { clock, families, state: Arc::default() }
    }

    /// A change has come.
    pub fn queued(&self) {
        let now = self.clock.now();
        self.state.lock().pending.get_or_insert(now);
    }

    /// The kernel knows all changes.
    pub fn updated(&self) {
        let now = self.clock.now();
        *self.state.lock() = State { updated: Some(now), pending: None };
    }

    /// Whether the proxy keeps up; it does while it starts.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let (now, state) = (self.clock.now(), self.state.lock());
        let late = |since| now.duration_since(since).unsigned_abs() >= PATIENCE;
        state.updated.is_none() || !state.pending.is_some_and(late)
    }

    fn report(&self, node_eligible: Option<bool>) -> Reply {
        let healthy = self.is_healthy();
        let well = healthy && node_eligible != Some(false);
        let now = self.clock.now().to_string();
        let updated = self.state.lock().updated.map(|at| at.to_string());
        let each = |family: &Family| {
            let name = if *family == Family::Ip { "IPv4" } else { "IPv6" };
            Some((name, FamilyReport { last_updated: updated.clone()?, healthy }))
        };
        let report = Report {
            status: self.families.iter().filter_map(each).collect(),
            last_updated: if well {
                now.clone()
            } else {
                updated.clone().unwrap_or_else(|| NEVER.to_owned())
            },
            current_time: now,
            node_eligible,
            healthy,
        };
        Reply::health(well, serde_json::to_string(&report).unwrap_or_default())
    }

    fn answer(&self, path: &str, is_eligible: bool, metrics: &Metrics) -> Reply {
        let (name, help, reply) = match path {
            "/healthz" => (
                "kubeproxy_proxy_healthz_total",
                "Cumulative proxy healthz HTTP status",
                self.report(Some(is_eligible)),
            ),
            "/livez" => {
                ("kubeproxy_proxy_livez_total", "Cumulative proxy livez HTTP status", self.report(None))
            }
            _ => return Reply::not_found(),
        };
        let code = reply.status.chars().take(3).collect();
        metrics.add(name, help, vec![("code", code)], 1.0);
        reply
    }

    /// Answers for as long as it is polled. A port that cannot be opened is tried again.
    pub async fn serve(self, metrics: Metrics, is_eligible: impl Fn() -> bool + Send + Sync + 'static) {
        let listener = loop {
            match http::listen(PORT).await {
                Ok(listener) => break listener,
                Err(error) => tracing::warn!(port = PORT, %error, "cannot open the proxy's health port"),
            }
            tokio::time::sleep(RETRY).await;
        };
        http::serve(listener, move |path| self.answer(path, is_eligible(), &metrics)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::Kind;

    #[tokio::test(start_paused = true)]
    async fn a_change_that_waits_too_long_is_no_health() {
        let health = Health::new(Clock::starting_at(jiff::Timestamp::UNIX_EPOCH), vec![Family::Ip]);
        let metrics = Metrics::default();
        let status = |path| health.answer(path, true, &metrics).status;
        let starting = health.answer("/livez", true, &metrics).body;
        assert_eq!(
            starting,
            r#"{"lastUpdated":"1970-01-01T00:00:00Z","currentTime":"1970-01-01T00:00:00Z","healthy":true}"#
        );
        health.updated();
        health.queued();
        tokio::time::advance(PATIENCE / 2).await;
        health.queued();
        assert_eq!(status("/healthz"), "200 OK");
        tokio::time::advance(PATIENCE / 2).await;
        assert_eq!(
            (status("/healthz"), status("/livez")),
            ("503 Service Unavailable", "503 Service Unavailable")
        );
        let late = health.answer("/livez", true, &metrics).body;
        assert_eq!(
            late,
            concat!(
                r#"{"lastUpdated":"1970-01-01T00:00:00Z","currentTime":"1970-01-01T00:01:00Z","healthy":false,"#,
                r#""status":{"IPv4":{"lastUpdated":"1970-01-01T00:00:00Z","healthy":false}}}"#
            )
        );
        health.updated();
        assert_eq!(status("/healthz"), "200 OK");
        assert_eq!(status("/"), "404 Not Found");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_goes_is_not_eligible_but_alive() {
        let health = Health::new(Clock::starting_at(jiff::Timestamp::UNIX_EPOCH), vec![Family::Ip]);
        let metrics = Metrics::default();
        let answer = health.answer("/healthz", false, &metrics);
        assert_eq!(answer.status, "503 Service Unavailable");
        assert!(answer.body.contains(r#""nodeEligible":false,"healthy":true"#), "{}", answer.body);
        assert_eq!(health.answer("/livez", false, &metrics).status, "200 OK");
        let node = |json: &str| is_eligible(&Node::decode(json.as_bytes()).unwrap());
        assert!(node(r#"{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}"#));
        let taint = r#"{"spec":{"taints":[{"key":"ToBeDeletedByClusterAutoscaler","effect":"NoSchedule"}]}}"#;
        assert!(!node(taint));
        assert!(!node(r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}"#));
    }
}
