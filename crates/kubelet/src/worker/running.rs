//! A pod that should run: one step of keeping it so.

use super::{Next, Worker};
use crate::env::Referenced;
use crate::events;
use crate::observed::PodRuntime;
use crate::spec;
use crate::sync::plan::{Plan, plan};

/// Plans that are carried out in one step: a sandbox, then init containers that end at once, and so on.
/// Whatever is left is done in the next step, which comes at once.
const ROUNDS: usize = 16;

impl Worker {
    pub(super) async fn keep_running(&mut self, mut runtime: PodRuntime) -> Next {
        if let Some(next) = self.restart_all(&mut runtime).await {
            return next.at(self.deadline());
        }
        let plan = self.plan(&runtime);
        if plan.end {
            return self.end_by_itself(runtime).await;
        }
        self.publish(&runtime);
        let mut next = Next::default().at(self.deadline());
        let Some(referenced) = self.ready_inputs() else { return next };
        match self.mount(&referenced, &runtime).await {
            Ok(refresh) => next = next.at(refresh),
            Err(at) => return next.at(Some(at)),
        }
        let mut plan = plan;
        for _ in 0..ROUNDS {
            if plan.end {
                return self.end_by_itself(runtime).await;
            }
            let (changed, later) = self.carry_out(&plan, &runtime, &referenced).await;
            next = next.at(later);
            if !changed {
                break;
            }
            match self.observe().await {
                Ok(fresh) => runtime = fresh,
                Err(_) => return next.at(self.after(super::RETRY)),
            }
            plan = self.plan(&runtime);
        }
        next = next.at(self.resize(&runtime).await);
        self.publish(&runtime);
        next
    }

    fn plan(&self, runtime: &PodRuntime) -> Plan {
        plan(&self.pod, runtime, &self.results.borrow(), &self.forced)
    }

    /// What the pod refers to, once it has all been read. Whatever is still missing wakes the worker.
    fn ready_inputs(&self) -> Option<Referenced> {
        if !self.context.services.has_synced() && !spec::is_static(&self.pod) {
            return None;
        }
        self.referenced()
    }

    /// Does what the plan says; whether anything changed, and when to look again.
    async fn carry_out(
        &mut self,
        plan: &Plan,
        runtime: &PodRuntime,
        referenced: &Referenced,
    ) -> (bool, Option<krate_base::Timestamp>) {
        if let Some(attempt) = plan.new_sandbox {
            return match self.new_sandbox(attempt, runtime).await {
                Ok(()) => (true, None),
                Err(at) => (false, Some(at)),
            };
        }
        for stop in &plan.stop {
            self.stop_to_replace(stop, runtime);
        }
        self.start_all(plan, runtime, referenced).await
    }

    /// Makes the volumes what they should be; when a token has to be replaced, or when to try again.
    async fn mount(
        &mut self,
        referenced: &Referenced,
        runtime: &PodRuntime,
    ) -> Result<Option<krate_base::Timestamp>, krate_base::Timestamp> {
        if let Some(at) = self.held("mount") {
            return Err(at);
        }
        let due = self.volumes.as_ref().and_then(|v| v.refresh_at).is_some_and(|at| at <= self.now());
        if let Some(volumes) = self.volumes.as_ref().filter(|_| !self.volumes_changed && !due) {
            return Ok(volumes.refresh_at);
        }
        let ips = runtime.ips();
        let ips = if ips.is_empty() {
            self.last.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect()
        } else {
            ips
        };
        match self.context.volumes.set_up(&self.pod, &self.context.facts(ips), referenced).await {
            Ok(done) => {
                self.volumes_changed = false;
                self.retry.remove("mount");
                let refresh = done.refresh_at;
                self.volumes = Some(done);
                Ok(refresh)
            }
            Err(error) => {
                let about = events::about(&self.pod);
                self.context.recorder.warning(&about, events::FAILED_MOUNT, error.to_string());
                let at = self.failed("mount");
                if self.volumes.is_some() {
                    // The volumes are there with what they held before: the containers go on.
                    self.volumes_changed = true;
                    return Ok(Some(at));
                }
                Err(at)
            }
        }
    }
}
