//! What the scheduler says about pods: the condition `PodScheduled`, nominations, events. One task per
//! write, beside the loop.

use crate::plugins::GATED;
use crate::view::PodView;
use krate_api::Status;
use krate_api::types::core::v1::Pod;
use krate_base::Clock;
use krate_client::{Api, PatchKind, Recorder, Reference};
use serde_json::{Value, json};

/// Longest message of an event or a condition, in bytes.
const LONGEST: usize = 1024;

/// Cut at a character's end, with an ellipsis.
#[must_use]
pub fn shortened(message: &str) -> String {
    const SUFFIX: &str = " ...";
    if message.len() <= LONGEST {
        return message.to_owned();
    }
    let end = (0..=LONGEST - SUFFIX.len()).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{SUFFIX}", &message[..end])
}

#[must_use]
pub fn reference(pod: &PodView) -> Reference {
    Reference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid: Some(pod.uid.to_string()),
        resource_version: Some(pod.revision.to_string()),
        field_path: None,
    }
}

/// The patch of a pod's status that says why it is not scheduled; `None` when the API says so already.
#[must_use]
pub fn unscheduled(
    pod: &PodView,
    reason: &str,
    message: &str,
    nominate: Option<&str>,
    clock: &Clock,
) -> Option<Value> {
    let before = pod.scheduled.as_ref();
    let generation = (pod.generation > 0).then_some(pod.generation);
    let same = before.is_some_and(|c| {
        c.status == "False"
            && c.reason == reason
            && c.message == message
            && c.observed_generation == generation
    });
    let mut status = serde_json::Map::new();
    if !same {
        let mut condition =
            json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
        if before.is_none_or(|c| c.status != "False") {
            condition["lastProbeTime"] = Value::Null;
            condition["lastTransitionTime"] = json!(clock.now_seconds().to_string());
        }
        if let Some(generation) = generation {
            condition["observedGeneration"] = json!(generation);
        }
        status.insert("conditions".to_owned(), json!([condition]));
    }
    if let Some(node) = nominate.filter(|node| *node != pod.nominated.as_deref().unwrap_or_default()) {
        let node = if node.is_empty() { Value::Null } else { json!(node) };
        status.insert("nominatedNodeName".to_owned(), node);
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": &*pod.uid}, "status": status}))
}

/// Writes to the status of pods.
#[derive(Clone)]
pub struct Reporter {
    pub api: Api<Pod>,
    pub clock: Clock,
}

impl Reporter {
    /// Says that a pod could not be placed. `nominate` is a node to nominate, or empty to clear that.
    pub async fn refused(&self, pod: &PodView, message: &str, nominate: Option<&str>) {
        let patch = unscheduled(pod, "Unschedulable", &shortened(message), nominate, &self.clock);
        self.patch(pod, patch).await;
    }

    /// Says that something other than the cluster's state kept a pod from being placed.
    pub async fn failed(&self, pod: &PodView, message: &str) {
        let patch = unscheduled(pod, "SchedulerError", &shortened(message), None, &self.clock);
        self.patch(pod, patch).await;
    }

    /// Says that a pod waits for its gates.
    pub async fn gated(&self, pod: &PodView) {
        self.patch(pod, unscheduled(pod, "SchedulingGated", GATED, None, &self.clock)).await;
    }

    /// Takes a pod away so that a more important one has its place.
    pub async fn evict(&self, victim: &PodView, preemptor: &PodView, scheduler: &str) -> Result<(), Status> {
        let message = format!("{scheduler}: preempting to accommodate a higher priority pod");
        let mut condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": self.clock.now_seconds().to_string(),
        });
        if victim.generation > 0 {
            condition["observedGeneration"] = json!(victim.generation);
        }
        self.patch(victim, Some(json!({"status": {"conditions": [condition]}}))).await;
        tracing::debug!(victim = %victim.key(), preemptor = %preemptor.key(), "preempting");
        let options = krate_client::api::delete_uid(&victim.uid);
        match self.api.delete(&victim.namespace, &victim.name, options).await {
            Err(status) if status.is_not_found() => Ok(()),
            result => result,
        }
    }

    async fn patch(&self, pod: &PodView, patch: Option<Value>) {
        let Some(patch) = patch else { return };
        let patch = patch.to_string();
        let written =
            self.api.patch_status(&pod.namespace, &pod.name, PatchKind::StrategicMerge, patch).await;
        if let Err(status) = written
            && !status.is_not_found()
        {
            tracing::warn!(pod = %pod.key(), %status, "cannot write the status of a pod");
        }
    }
}

/// `Successfully assigned default/web-x to node-1`.
pub fn scheduled(recorder: &Recorder, pod: &PodView, node: &str) {
    let message = format!("Successfully assigned {} to {node}", pod.key());
    recorder.normal(&reference(pod), "Scheduled", message);
}

/// A warning with the reason why the pod is not placed.
pub fn failed_scheduling(recorder: &Recorder, pod: &PodView, message: &str) {
    recorder.warning(&reference(pod), "FailedScheduling", shortened(message));
}

/// `Preempted by pod <uid> on node <node>`.
pub fn preempted(recorder: &Recorder, victim: &PodView, preemptor: &PodView, node: &str) {
    let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
    recorder.normal(&reference(victim), "Preempted", message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use krate_base::Timestamp;

    fn clock() -> Clock {
        Clock::starting_at(Timestamp::from_second(1_000_000).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_condition_is_written_when_it_differs() {
        let fresh = pod("web").view();
        let patch = unscheduled(&fresh, "Unschedulable", "no room", None, &clock()).unwrap();
        let condition = &patch["status"]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], "1970-01-12T13:46:40Z");
        assert_eq!(condition["message"], "no room");
        let said = json!([{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room",
        }]);
        let told = pod("web").status("conditions", said).view();
        assert_eq!(unscheduled(&told, "Unschedulable", "no room", None, &clock()), None);
        assert_eq!(unscheduled(&told, "Unschedulable", "no room", Some(""), &clock()), None);
        let patch = unscheduled(&told, "Unschedulable", "still none", None, &clock()).unwrap();
        assert_eq!(patch["status"]["conditions"][0].get("lastTransitionTime"), None, "it is False still");
        let patch = unscheduled(&told, "Unschedulable", "no room", Some("n1"), &clock()).unwrap();
        assert_eq!(patch["status"], json!({"nominatedNodeName": "n1"}));
    }

    #[test]
    fn long_messages_are_cut() {
        assert_eq!(shortened("short"), "short");
        let cut = shortened(&"ä".repeat(1000));
        assert!(cut.len() <= LONGEST && cut.ends_with("ä ..."));
    }
}
