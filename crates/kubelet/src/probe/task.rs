//! The task of one probe of one running container: when to ask, and when answers become a verdict.

use super::ask::{self, Answer, Target, seconds};
use super::{Kind, Results};
use krate_api::types::core::v1::{Container, Probe};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Timestamp};
use krate_client::recorder::{Recorder, Reference};
use krate_runtime::cri::Runtime;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often a question that could not be asked is asked again at once.
const ATTEMPTS: usize = 3;

/// Counts equal answers until there are enough of them for a verdict.
#[derive(Debug, Default)]
pub struct Threshold {
    last: Option<bool>,
    run: i32,
}

impl Threshold {
    /// Notes an answer; the verdict when it is due.
    pub fn note(&mut self, probe: &Probe, passed: bool) -> Option<bool> {
        if self.last == Some(passed) {
            self.run = self.run.saturating_add(1);
        } else {
            (self.last, self.run) = (Some(passed), 1);
        }
        let needed =
            if passed { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        (self.run >= needed.max(1)).then_some(passed)
    }
}

/// Everything that a probe's task needs.
pub struct Task {
    pub runtime: Arc<dyn Runtime>,
    pub recorder: Recorder,
    pub clock: Clock,
    pub metrics: Metrics,
    pub about: Reference,
    pub container: Container,
    pub id: String,
    pub ip: String,
    pub kind: Kind,
    pub probe: Probe,
    pub started_at: Timestamp,
    /// Where verdicts go; a change wakes the pod's worker.
    pub results: watch::Sender<Results>,
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

impl Task {
    /// Asks until the task is dropped or there is nothing more to find out.
    pub async fn run(self) {
        self.wait_for_its_time().await;
        let mut ticks = tokio::time::interval(seconds(self.probe.period_seconds, 10));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut threshold = Threshold::default();
        loop {
            ticks.tick().await;
            let Some(passed) = self.ask().await else { continue };
            let Some(verdict) = threshold.note(&self.probe, passed) else { continue };
            let mut changed = false;
            self.results.send_modify(|results| changed = results.set(self.kind, &self.id, verdict));
            if changed {
                (self.wake)();
            }
            // A container that has started is not asked again whether it has; one that is to be killed
            // is not asked whether it lives.
            let over = match self.kind {
                Kind::Startup => true,
                Kind::Liveness => !verdict,
                Kind::Readiness => false,
            };
            if over {
                return;
            }
        }
    }

    /// Waits for the initial delay, and, with a startup probe, for its success.
    async fn wait_for_its_time(&self) {
        if self.kind != Kind::Startup && self.container.startup_probe.is_some() {
            let mut results = self.results.subscribe();
            // The sender lives in `self`.
            let _ = results.wait_for(|r| r.passed_startup(&self.id)).await;
        }
        let delay = u64::try_from(self.probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0);
        let due = self.started_at.checked_add(Duration::from_secs(delay)).unwrap_or(Timestamp::MAX);
        let left = Duration::try_from(due.duration_since(self.clock.now())).unwrap_or_default();
        tokio::time::sleep(left).await;
    }

    /// One answer, with its event if it is none to be glad of. `None` when it cannot be asked.
    async fn ask(&self) -> Option<bool> {
        let target =
            Target { runtime: &*self.runtime, container: &self.container, id: &self.id, ip: &self.ip };
        let mut answer = ask::ask(&target, &self.probe).await;
        for _ in 1..ATTEMPTS {
            if !matches!(answer, Answer::Unknown(_)) {
                break;
            }
            answer = ask::ask(&target, &self.probe).await;
        }
        self.count(&answer);
        let word = self.kind.word();
        match &answer {
            Answer::Success => {}
            Answer::Warning(text) => {
                self.recorder.warning(&self.about, "ProbeWarning", format!("{word} probe warning: {text}"));
            }
            Answer::Failure(text) => {
                self.recorder.warning(&self.about, "Unhealthy", format!("{word} probe failed: {text}"));
            }
            Answer::Unknown(text) => {
                let text = format!("{word} probe errored and resulted in unknown state: {text}");
                self.recorder.warning(&self.about, "Unhealthy", text);
                return None;
            }
        }
        Some(answer.passed())
    }

    fn count(&self, answer: &Answer) {
        let result = match answer {
            Answer::Failure(_) => "failed",
            Answer::Unknown(_) => "unknown",
            _ => "successful",
        };
        let labels = vec![
            ("container", self.container.name.clone()),
            ("probe_type", self.kind.word().to_owned()),
            ("result", result.to_owned()),
            ("pod", self.about.name.clone().unwrap_or_default()),
            ("namespace", self.about.namespace.clone().unwrap_or_default()),
        ];
        let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
        self.metrics.add("prober_probe_total", help, labels, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let probe = Probe { failure_threshold: Some(3), success_threshold: Some(2), ..Default::default() };
        let mut threshold = Threshold::default();
        let verdicts: Vec<Option<bool>> = [false, false, true, false, false, false, true, true]
            .into_iter()
            .map(|passed| threshold.note(&probe, passed))
            .collect();
        assert_eq!(verdicts, [None, None, None, None, None, Some(false), None, Some(true)]);
    }
}
