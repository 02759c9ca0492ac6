//! A pod that ends: its containers are stopped, its sandbox and volumes taken down, and what it leaves is
//! removed when the API forgets it.

use super::start::ended_at;
use super::stop::to_duration;
use super::{Next, Stage, Worker};
use crate::observed::PodRuntime;
use crate::spec;
use krate_base::Timestamp;
use krate_runtime::cri::PodSandboxState;
use std::time::Duration;

/// What containers get when their pod is removed by force.
const FORCED_SECONDS: i64 = 2;
/// How long a pod that its peers know by name stays where it is after its last container ended by itself.
/// The original looks for ended containers once a second, and its name server keeps answers for longer:
/// peers that ask for each other once a second, and end when all have answered, count on that.
const FAREWELL: Duration = Duration::from_secs(2);

impl Worker {
    /// A pod whose containers have all ended, and are not to start again.
    pub(super) async fn end_by_itself(&mut self, runtime: PodRuntime) -> Next {
        match self.farewell(&runtime).filter(|at| self.now() < *at) {
            Some(at) => Next(Some(at)).at(self.deadline()),
            None => self.begin_ending(runtime).await,
        }
    }

    /// Until when a pod with a name in a headless Service is kept for its peers.
    fn farewell(&self, runtime: &PodRuntime) -> Option<Timestamp> {
        spec::spec(&self.pod).subdomain.as_ref().filter(|name| !name.is_empty())?;
        runtime.ready_sandbox()?;
        let ended = runtime.containers.iter().filter(|c| c.has_exited()).map(ended_at).max()?;
        ended.checked_add(FAREWELL).ok()
    }

    pub(super) async fn begin_ending(&mut self, runtime: PodRuntime) -> Next {
        self.stage = Stage::Ending;
        self.update_probes(&runtime);
        self.publish(&runtime);
        self.keep_ending(runtime).await
    }

    /// Seconds that containers get from now on. Asked each time: a second deletion may shorten it.
    fn grace(&mut self) -> Duration {
        // Who removes a pod from the API while it is being deleted does not want to wait for it any more.
        let forced = self.gone && spec::is_deleting(&self.pod);
        let evicted = self.verdict.as_ref().and_then(|v| v.evicted);
        let seconds = if forced { FORCED_SECONDS } else { spec::grace_seconds(&self.pod) };
        let seconds = evicted.map_or(seconds, |most| seconds.min(most));
        // A pod that is deleted at once still gets the one second that ends its processes in order.
        let whole = to_duration(seconds.max(1));
        let now = self.now();
        let end = crate::sync::backoff::plus(now, whole);
        let ends_at = self.ends_at.map_or(end, |at| at.min(end));
        self.ends_at = Some(ends_at);
        whole
    }

    pub(super) async fn keep_ending(&mut self, runtime: PodRuntime) -> Next {
        let grace = self.grace();
        if runtime.running().next().is_some() {
            self.stop_running(&runtime, grace);
            self.publish(&runtime);
            return Next::default();
        }
        for sandbox in runtime.sandboxes.iter().filter(|s| s.state == PodSandboxState::Ready) {
            if let Err(error) = self.context.runtime.stop_pod_sandbox(&sandbox.id).await {
                tracing::warn!(sandbox = %sandbox.id, %error, "a sandbox cannot be stopped");
                let at = self.failed("stop");
                return Next(Some(at));
            }
        }
        self.stage = Stage::Ended;
        self.waiting.clear();
        match self.observe().await {
            Ok(runtime) => self.keep_ended(runtime).await,
            Err(_) => Next(self.after(super::RETRY)),
        }
    }

    /// Stops the regular containers, and when they have ended the sidecars, the last one first.
    fn stop_running(&mut self, runtime: &PodRuntime, grace: Duration) {
        let sidecars: Vec<String> = spec::init_containers(&self.pod)
            .iter()
            .filter(|c| spec::is_restartable_init(c))
            .map(|c| c.name.clone())
            .collect();
        let is_sidecar = |name: &str| sidecars.iter().any(|s| s == name);
        let regular: Vec<_> = runtime.running().filter(|c| !is_sidecar(c.name())).cloned().collect();
        if !regular.is_empty() {
            for observed in &regular {
                self.stop_to_end(observed, grace, runtime);
            }
            return;
        }
        let last =
            sidecars.iter().rev().find_map(|name| runtime.latest(name).filter(|o| o.is_running()).cloned());
        if let Some(observed) = last {
            let left = self
                .ends_at
                .map_or(grace, |at| Duration::try_from(at.duration_since(self.now())).unwrap_or_default());
            self.stop_to_end(
                &observed,
                left.max(Duration::from_secs(2)).min(grace.max(Duration::from_secs(2))),
                runtime,
            );
        }
    }

    pub(super) async fn keep_ended(&mut self, runtime: PodRuntime) -> Next {
        let status = self.status(&runtime);
        self.last = status.clone();
        let deleted = spec::is_deleting(&self.pod) || self.gone;
        if deleted {
            // The API must not forget the pod before its volumes are down and its traces gone.
            self.context.publisher.publish(&self.pod, &status, false);
            if let Err(error) = self.remove_everything(&runtime).await {
                tracing::warn!(pod = %spec::describe(&self.pod), %error, "the pod's remains cannot be removed yet");
                return Next(Some(self.failed("remove")));
            }
        }
        self.context.publisher.publish(&self.pod, &status, deleted);
        if self.gone {
            self.stage = Stage::Gone;
            self.context.publisher.forget(self.uid());
            self.context.references.release(spec::namespace(&self.pod), self.uid());
        }
        Next::default()
    }

    /// Removes containers, sandboxes, logs, volumes.
    async fn remove_everything(&mut self, runtime: &PodRuntime) -> Result<(), String> {
        for container in &runtime.containers {
            self.remove_container(container).await;
        }
        for sandbox in &runtime.sandboxes {
            self.context.runtime.remove_pod_sandbox(&sandbox.id).await.map_err(|e| e.to_string())?;
        }
        self.volumes = None;
        self.context.volumes.tear_down(self.uid()).await.map_err(|e| format!("taking down volumes: {e}"))?;
        let logs = self.context.paths.logs(spec::namespace(&self.pod), spec::name(&self.pod), self.uid());
        match tokio::fs::remove_dir_all(&logs).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("removing logs: {error}"))
            }
            _ => Ok(()),
        }
    }
}
