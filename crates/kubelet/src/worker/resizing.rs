//! Gives running containers what was allocated to them: the pod's group first where it grows, then the
//! containers, then the pod's group where it shrinks.

use super::Worker;
use crate::events;
use crate::generate::container::amounts;
use crate::generate::sandbox::pod_resources;
use crate::observed::PodRuntime;
use crate::resize::Pending;
use crate::spec::{self, resources};
use krate_api::types::core::v1::Container;
use krate_base::Timestamp;
use krate_runtime::cri::LinuxContainerResources;

impl Worker {
    /// Takes in whether what the pod asks for has to wait.
    pub(super) fn note_pending(&mut self, pending: Option<Pending>) {
        if let Some(pending) = pending.as_ref().filter(|p| self.pending.as_ref() != Some(*p)) {
            let reason = if pending.reason == crate::resize::allocate::INFEASIBLE {
                events::INFEASIBLE
            } else {
                events::DEFERRED
            };
            self.context.recorder.warning(&events::about(&self.pod), reason, pending.message.clone());
        }
        self.pending = pending;
    }

    /// One step of a resize; when to try again what could not be done.
    pub(super) async fn resize(&mut self, runtime: &PodRuntime) -> Option<Timestamp> {
        self.given.keep_up(&self.pod, runtime);
        if self.given.is_settled(&self.pod, runtime) {
            self.resize_error = None;
            // A container that was started anew was the last step.
            self.tell_completed(runtime);
            return None;
        }
        self.resizing = true;
        if let Some(at) = self.held("resize") {
            return Some(at);
        }
        let steps = self.given.steps(&self.pod, runtime);
        for stop in &steps.restart {
            self.stop_to_replace(stop, runtime);
        }
        match self.change_all(&steps.change, runtime).await {
            Ok(()) => {
                self.resize_error = None;
                self.retry.remove("resize");
                self.tell_completed(runtime);
                None
            }
            Err(error) => {
                let text = format!("Pod resize error: {error}");
                self.context.recorder.warning(&events::about(&self.pod), events::RESIZE_ERROR, text);
                self.resize_error = Some(error);
                Some(self.failed("resize"))
            }
        }
    }

    async fn change_all(
        &mut self,
        change: &[(String, Container)],
        runtime: &PodRuntime,
    ) -> Result<(), String> {
        let has = pod_resources(&self.given.as_given(&self.pod, runtime));
        let wanted = pod_resources(&self.pod);
        self.fits_in_memory(&has, &wanted, runtime).await?;
        let sandbox = runtime.ready_sandbox().map(|s| s.id.clone()).unwrap_or_default();
        let update = async |amounts: LinuxContainerResources| {
            let done = self.context.runtime.update_pod_sandbox_resources(&sandbox, &amounts).await;
            done.map_err(|e| e.to_string())
        };
        update(larger(&has, &wanted)).await?;
        let runtime_api = self.context.runtime.clone();
        for (id, container) in change {
            let role =
                spec::find_container(&self.pod, &container.name).map_or(spec::Role::Regular, |(r, _)| r);
            let amounts = LinuxContainerResources {
                oom_score_adj: 0,
                ..amounts(&self.pod, role, container, self.context.memory)
            };
            runtime_api.update_container_resources(id, &amounts).await.map_err(|e| e.to_string())?;
            self.given.note(id, container.resources.as_ref());
        }
        if self.stops.is_empty() {
            let done = self.context.runtime.update_pod_sandbox_resources(&sandbox, &wanted).await;
            done.map_err(|e| e.to_string())?;
            self.given.pod.clone_from(&spec::spec(&self.pod).resources);
        }
        Ok(())
    }

    /// A limit below what is in use would kill: that is refused.
    async fn fits_in_memory(
        &self,
        has: &LinuxContainerResources,
        wanted: &LinuxContainerResources,
        runtime: &PodRuntime,
    ) -> Result<(), String> {
        let limit = wanted.memory_limit_in_bytes;
        if limit <= 0 || (has.memory_limit_in_bytes > 0 && limit >= has.memory_limit_in_bytes) {
            return self.containers_fit(runtime).await;
        }
        let Some(sandbox) = runtime.ready_sandbox() else { return Ok(()) };
        if let Ok(stats) = self.context.runtime.pod_sandbox_stats(&sandbox.id).await {
            let used = stats.memory.usage_bytes;
            if i64::try_from(used).is_ok_and(|used| limit < used) {
                return Err(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
        self.containers_fit(runtime).await
    }

    async fn containers_fit(&self, runtime: &PodRuntime) -> Result<(), String> {
        for (id, container) in self.given.steps(&self.pod, runtime).change {
            let Some(limit) = resources::limit(container.resources.as_ref(), "memory").map(resources::value)
            else {
                continue;
            };
            let before = resources::limit(self.given.of(&id), "memory").map_or(i64::MAX, resources::value);
            if limit >= before {
                continue;
            }
            let Ok(stats) = self.context.runtime.container_stats(&id).await else { continue };
            let used = stats.memory.usage_bytes;
            if i64::try_from(used).is_ok_and(|used| limit < used) {
                let name = &container.name;
                return Err(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
        Ok(())
    }

    /// Says once that a resize has come to its end.
    fn tell_completed(&mut self, runtime: &PodRuntime) {
        // One that is between its end and its new start has not got its amounts yet.
        let runs = |name: &str| runtime.latest(name).is_some_and(|latest| latest.is_running());
        let all_run = spec::containers(&self.pod).iter().all(|c| runs(&c.name));
        if self.resizing && all_run && self.given.is_settled(&self.pod, runtime) {
            self.resizing = false;
            let generation = self.pod.metadata.generation.unwrap_or_default();
            let text = format!("Pod resize completed: {{\"generation\":{generation}}}");
            self.context.recorder.normal(&events::about(&self.pod), events::RESIZE_COMPLETED, text);
        }
    }
}

/// What holds both before and after: no limit where one of them has none.
fn larger(a: &LinuxContainerResources, b: &LinuxContainerResources) -> LinuxContainerResources {
    let limit = |a: i64, b: i64| if a == 0 || b == 0 { 0 } else { a.max(b) };
    LinuxContainerResources {
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        cpu_quota: limit(a.cpu_quota, b.cpu_quota),
        memory_limit_in_bytes: limit(a.memory_limit_in_bytes, b.memory_limit_in_bytes),
        ..b.clone()
    }
}
