//! All containers of a pod restart in its sandbox because one of them ended in the way that a rule names (KEP-5532):
//! whatever runs is killed, without its preStop hook and its grace, and what the runtime has of init and regular
//! containers is removed, so that the pod starts as a new one does. Its address and its volumes stay.

use super::start::{ended_at, key};
use super::stop::LEAST;
use super::{Next, Worker};
use crate::observed::{Observed, PodRuntime};
use crate::spec::{self, Role};
use crate::status::conditions;
use crate::sync::backoff::Turn;
use crate::sync::restart;

impl Worker {
    /// What the status says of a restart of all that an earlier kubelet began.
    pub(super) fn begun_restart(status: &krate_api::types::core::v1::PodStatus) -> Option<String> {
        let begun = status.conditions.iter().flatten().find(|c| c.type_ == conditions::ALL_RESTARTING)?;
        (begun.status == "True").then(|| begun.message.clone().unwrap_or_default())
    }

    /// One step of a restart of all containers: when to look again, or `None` if the pod goes on as it is. `runtime`
    /// is without the containers that this has removed.
    pub(super) async fn restart_all(&mut self, runtime: &mut PodRuntime) -> Option<Next> {
        if self.restarting.is_none() {
            let (container, observed) = restart::source(&self.pod, runtime)?;
            let (key, ended) = (key(container), ended_at(observed));
            // Until its turn comes it waits in its crash loop like any other, and the others go on.
            if self.restarts.turn(&key, ended, self.now()) != Turn::Now {
                return None;
            }
            self.restarting = Some(format!(
                "Container {} exited with code {}, triggering pod restart",
                container.name, observed.status.exit_code
            ));
            self.restarts.next(&key, ended, self.now());
            self.forced.extend(spec::containers(&self.pod).iter().map(|c| c.name.clone()));
        }
        let running: Vec<Observed> = runtime.running().cloned().collect();
        for observed in &running {
            if self.stops.is_stopping(observed.id()) {
                self.stop_to_end(observed, LEAST, runtime);
            } else {
                let message = format!("Stopping container {}", observed.name());
                self.stop_now(observed.id(), observed.name(), LEAST, &message);
            }
        }
        self.publish(runtime);
        if !running.is_empty() {
            return Some(Next::default());
        }
        self.remove_for_restart(runtime).await;
        match self.observe().await {
            Ok(fresh) if !fresh.containers.iter().any(|c| self.starts_again(c)) => *runtime = fresh,
            _ => return Some(Next(self.after(super::RETRY))),
        }
        self.restarting = None;
        self.waiting.clear();
        self.hold.clear();
        None
    }

    /// Removes what is to start again; the one that asked for it last, so that a kubelet that is interrupted here
    /// knows why.
    async fn remove_for_restart(&self, runtime: &PodRuntime) {
        let source = restart::source(&self.pod, runtime).map(|(container, _)| container.name.as_str());
        let mut all: Vec<&Observed> = runtime.containers.iter().filter(|c| self.starts_again(c)).collect();
        all.sort_by_key(|c| Some(c.name()) == source);
        for old in all {
            self.remove_container(old).await;
        }
    }

    fn starts_again(&self, observed: &Observed) -> bool {
        spec::find_container(&self.pod, observed.name()).is_none_or(|(role, _)| role != Role::Ephemeral)
    }
}
