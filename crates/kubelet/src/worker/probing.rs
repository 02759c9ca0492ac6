//! Which probes run: those of the containers that run.

use super::{Stage, Worker};
use crate::events;
use crate::observed::PodRuntime;
use crate::probe::task::Task;
use crate::probe::{Kind, Results, ask};
use crate::spec::{self, Role};
use crate::status::containers::RUNTIME_NAME;
use krate_api::types::core::v1::PodStatus;
use krate_base::Timestamp;
use std::collections::HashMap;
use tokio::task::AbortHandle;

/// The running tasks, by container id and kind. They end with the worker.
#[derive(Default)]
pub struct Probes(HashMap<(String, Kind), AbortHandle>);

impl Drop for Probes {
    fn drop(&mut self) {
        self.0.values().for_each(AbortHandle::abort);
    }
}

/// What the published status says of containers that still run: a restarted kubelet does not take it back
/// until it knows better.
pub fn seed(status: &PodStatus) -> Results {
    let mut results = Results::default();
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    for container in all {
        let id = container
            .container_id
            .as_deref()
            .and_then(|id| id.strip_prefix(RUNTIME_NAME)?.strip_prefix("://"));
        let Some(id) = id.filter(|_| container.state.as_ref().is_some_and(|s| s.running.is_some())) else {
            continue;
        };
        if container.started == Some(true) {
            results.set(Kind::Startup, id, true);
        }
        if container.ready {
            results.set(Kind::Readiness, id, true);
        }
    }
    results
}

impl Worker {
    /// Starts and ends tasks so that they are those of the running containers. A pod that ends is asked
    /// only whether it is ready.
    pub(super) fn update_probes(&mut self, runtime: &PodRuntime) {
        let running: Vec<&str> = runtime.running().map(|c| c.id()).collect();
        let ending = self.stage != Stage::Running;
        self.probes.0.retain(|(id, kind), task| {
            let keep = running.contains(&id.as_str()) && (!ending || *kind == Kind::Readiness);
            if !keep {
                task.abort();
            }
            keep
        });
        if self.stage == Stage::Ended {
            return;
        }
        self.results.send_if_modified(|results| {
            results.keep(&running);
            false
        });
        let ip = ask::address(&runtime.ips(), &self.context.node_ips, &self.pod);
        for observed in runtime.running() {
            let Some((role, container)) = spec::find_container(&self.pod, observed.name()) else { continue };
            if role == Role::Ephemeral || (role == Role::Init && !spec::is_restartable_init(&container)) {
                continue;
            }
            for kind in Kind::ALL {
                let Some(probe) = kind.of(&container) else { continue };
                let key = (observed.id().to_owned(), kind);
                let known = kind == Kind::Startup && self.results.borrow().passed_startup(observed.id());
                if self.probes.0.contains_key(&key) || (ending && kind != Kind::Readiness) || known {
                    continue;
                }
                let task = Task {
                    runtime: self.context.runtime.clone(),
                    recorder: self.context.recorder.clone(),
                    clock: self.context.clock.clone(),
                    metrics: self.context.metrics.clone(),
                    about: events::about_container(&self.pod, role, &container.name),
                    container: container.clone(),
                    id: observed.id().to_owned(),
                    ip: ip.clone(),
                    kind,
                    probe: probe.clone(),
                    started_at: Timestamp::from_nanosecond(i128::from(observed.status.started_at))
                        .unwrap_or_default(),
                    results: self.results.clone(),
                    wake: self.mailbox.waker(),
                };
                self.probes.0.insert(key, tokio::spawn(task.run()).abort_handle());
            }
        }
    }
}
