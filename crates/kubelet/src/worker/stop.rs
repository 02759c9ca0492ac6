//! Stopping containers: preStop, the grace, the end. Each stop goes on beside the worker.

use super::Worker;
use crate::observed::{Observed, PodRuntime};
use crate::spec::{self, Role};
use crate::sync::backoff::plus;
use crate::sync::plan::{Cause, Stop};
use crate::{events, hooks};
use krate_api::types::core::v1::{Container, LifecycleHandler};
use krate_base::Timestamp;
use krate_runtime::cri::Error;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Least time that a container gets after its stop signal, even if its preStop hook used up the grace.
pub(super) const LEAST: Duration = Duration::from_secs(2);

struct Stopping {
    name: String,
    /// When it is killed.
    ends_at: Timestamp,
    task: AbortHandle,
}

/// The stops that go on, by container id.
#[derive(Default)]
pub struct Stops(BTreeMap<String, Stopping>);

impl Stops {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn is_stopping(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    pub fn is_stopping_name(&self, name: &str) -> bool {
        self.0.values().any(|s| s.name == name)
    }

    /// Whether a stop goes on that would end later than at `ends_at`, by a second at least: graces are whole
    /// seconds, and what is left of one shrinks while one looks.
    fn is_slower_than(&self, id: &str, ends_at: Timestamp) -> bool {
        self.0.get(id).is_some_and(|s| plus(ends_at, Duration::from_secs(1)) <= s.ends_at)
    }
}

impl Worker {
    /// Stops a running container that is to be replaced.
    pub(super) fn stop_to_replace(&mut self, stop: &Stop, runtime: &PodRuntime) {
        if self.stops.is_stopping(&stop.id) {
            return;
        }
        let found = spec::find_container(&self.pod, &stop.name);
        let (role, container) = found.map_or((Role::Regular, None), |(role, c)| (role, Some(c)));
        if stop.again {
            self.forced.insert(stop.name.clone());
        }
        let probe = container.as_ref().and_then(|c| match stop.cause {
            Cause::Liveness => c.liveness_probe.as_ref(),
            Cause::Startup => c.startup_probe.as_ref(),
            Cause::Changed | Cause::Unknown => None,
        });
        let own = probe.and_then(|p| p.termination_grace_period_seconds);
        let grace = own.unwrap_or_else(|| spec::grace_seconds(&self.pod));
        let pre_stop = container.as_ref().and_then(|c| self.pre_stop(c, &stop.id, runtime));
        self.begin_stop(&stop.id, &stop.name, role, to_duration(grace), pre_stop, &stop.message);
    }

    /// Stops a container of a pod that ends, within `grace`. A stop that goes on is hurried if it would
    /// take longer.
    pub(super) fn stop_to_end(&mut self, observed: &Observed, grace: Duration, runtime: &PodRuntime) {
        if self.stops.is_slower_than(observed.id(), plus(self.now(), grace)) {
            if let Some(slow) = self.stops.0.remove(observed.id()) {
                slow.task.abort();
            }
            let role =
                spec::find_container(&self.pod, observed.name()).map_or(Role::Regular, |(role, _)| role);
            self.spawn_stop(observed.id(), observed.name(), role, grace, None);
            return;
        }
        if self.stops.is_stopping(observed.id()) {
            return;
        }
        let found = spec::find_container(&self.pod, observed.name());
        let (role, container) = found.map_or((Role::Regular, None), |(role, c)| (role, Some(c)));
        let pre_stop = container.as_ref().and_then(|c| self.pre_stop(c, observed.id(), runtime));
        let message = format!("Stopping container {}", observed.name());
        self.begin_stop(observed.id(), observed.name(), role, grace, pre_stop, &message);
    }

    /// Stops a container for a reason of its own, without its preStop hook.
    pub(super) fn stop_now(&mut self, id: &str, name: &str, grace: Duration, message: &str) {
        let role = spec::find_container(&self.pod, name).map_or(Role::Regular, |(role, _)| role);
        self.begin_stop(id, name, role, grace, None, message);
    }

    fn pre_stop(
        &self,
        container: &Container,
        id: &str,
        runtime: &PodRuntime,
    ) -> Option<(hooks::Place, LifecycleHandler)> {
        let hook = container.lifecycle.as_ref()?.pre_stop.clone()?;
        Some((self.place(container, id, runtime), hook))
    }

    fn begin_stop(
        &mut self,
        id: &str,
        name: &str,
        role: Role,
        grace: Duration,
        pre_stop: Option<(hooks::Place, LifecycleHandler)>,
        message: &str,
    ) {
        let about = events::about_container(&self.pod, role, name);
        self.context.recorder.normal(&about, events::KILLING, message);
        self.spawn_stop(id, name, role, grace, pre_stop);
    }

    fn spawn_stop(
        &mut self,
        id: &str,
        name: &str,
        role: Role,
        grace: Duration,
        pre_stop: Option<(hooks::Place, LifecycleHandler)>,
    ) {
        let (context, mailbox, container) = (self.context.clone(), self.mailbox.clone(), id.to_owned());
        let about = events::about_container(&self.pod, role, name);
        let shutdown = self.shutdown.clone();
        let work = async move {
            let begun = Instant::now();
            if let Some((place, hook)) = pre_stop.filter(|_| !grace.is_zero()) {
                let result = tokio::time::timeout(grace, hooks::run(&place, &hook)).await;
                if matches!(result, Ok(Err(_))) {
                    context.recorder.warning(&about, events::FAILED_PRE_STOP, "PreStopHook failed");
                }
            }
            let left = grace.saturating_sub(begun.elapsed()).max(if grace.is_zero() {
                grace
            } else {
                LEAST.min(grace)
            });
            let result = context.runtime.stop_container(&container, left).await;
            mailbox.leave(|news| {
                news.stops.insert(container, result);
            });
        };
        // When the kubelet ends, the next one goes on with the stop.
        let task = tokio::spawn(async move { shutdown.run_until_cancelled(work).await });
        let ends_at = plus(self.now(), grace);
        let stopping = Stopping { name: name.to_owned(), ends_at, task: task.abort_handle() };
        self.stops.0.insert(id.to_owned(), stopping);
    }

    /// A stop has ended.
    pub(super) fn stop_ended(&mut self, id: &str, result: Result<(), Error>) {
        self.stops.0.remove(id);
        if let Err(error) = result {
            // The next step sees that it still runs, and stops it again.
            tracing::warn!(container = %id, %error, "a container cannot be stopped");
        }
    }
}

pub(super) fn to_duration(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
