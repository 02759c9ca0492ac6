//! Workloads, their autoscaling and disruption, revisions, leases and priorities.

use super::text::{
    NONE, UNKNOWN, UNSET, age, containers, human_duration, int_or_string, labels, name, selector, since,
    since_time, some_of, text, text_or,
};
use super::{AGE, CONTAINERS, Column, IMAGES, NAME, Printer, SELECTOR, column, integer, print, string};
use crate::catalogue::autoscaling::to_v2;
use crate::labels::Selector;
use crate::types::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use crate::types::autoscaling::v1::{HorizontalPodAutoscaler as OldAutoscaler, Scale};
use crate::types::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use crate::types::batch::v1::{CronJob, Job};
use crate::types::coordination::v1::Lease;
use crate::types::core::v1::ReplicationController;
use crate::types::node::v1::RuntimeClass;
use crate::types::policy::v1::PodDisruptionBudget;
use crate::types::scheduling::v1::PriorityClass;
use jiff::Timestamp;
use serde_json::{Value, json};

const DESIRED: Column = integer("Desired", "Pods that are wanted.");
const CURRENT: Column = integer("Current", "Pods that there are.");
const READY: Column = integer("Ready", "Pods that are ready.");

const REPLICAS: &[Column] = &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR];

const AUTOSCALER: &[Column] = &[
    NAME,
    string("Reference", "What is scaled."),
    string("Targets", "Measured and wanted values of the metrics."),
    string("MinPods", "The fewest pods."),
    string("MaxPods", "The most pods."),
    string("Replicas", "Pods that there are."),
    AGE,
];

pub(super) const PRINTERS: &[Printer] = &[
    print!(ReplicationController, REPLICAS, |o, now| {
        let (spec, status) = (o.spec.clone().unwrap_or_default(), o.status.clone().unwrap_or_default());
        let [names, images] = containers(spec.template.as_ref());
        vec![
            name(&o.metadata),
            json!(spec.replicas.unwrap_or(0)),
            json!(status.replicas),
            json!(status.ready_replicas.unwrap_or(0)),
            age(&o.metadata, now),
            names,
            images,
            json!(labels(spec.selector.as_ref())),
        ]
    }),
    print!(ReplicaSet, REPLICAS, |o, now| {
        let (spec, status) = (o.spec.clone().unwrap_or_default(), o.status.clone().unwrap_or_default());
        let [names, images] = containers(spec.template.as_ref());
        vec![
            name(&o.metadata),
            json!(spec.replicas.unwrap_or(0)),
            json!(status.replicas),
            json!(status.ready_replicas.unwrap_or(0)),
            age(&o.metadata, now),
            names,
            images,
            json!(selector(Some(&spec.selector))),
        ]
    }),
    print!(Deployment, DEPLOYMENT, deployment),
    print!(
        StatefulSet,
        &[NAME, string("Ready", "Pods that are ready, of those wanted."), AGE, CONTAINERS, IMAGES],
        |o, now| {
            let (spec, status) = (o.spec.clone().unwrap_or_default(), o.status.clone().unwrap_or_default());
            let [names, images] = containers(Some(&spec.template));
            let ready = status.ready_replicas.unwrap_or(0);
            vec![
                name(&o.metadata),
                json!(format!("{ready}/{}", spec.replicas.unwrap_or(0))),
                age(&o.metadata, now),
                names,
                images,
            ]
        }
    ),
    print!(DaemonSet, DAEMON_SET, daemon_set),
    print!(Job, JOB, job),
    print!(CronJob, CRON_JOB, cron_job),
    print!(
        ControllerRevision,
        &[
            NAME,
            string("Controller", "The object whose state this is."),
            string("Revision", "Number of this state."),
            AGE
        ],
        |o, now| {
            let owners = o.metadata.owner_references.iter().flatten();
            let owner = owners.into_iter().find(|r| r.controller == Some(true));
            let owner = owner.map_or_else(
                || NONE.to_owned(),
                |r| {
                    let group = r.api_version.split_once('/').map_or("", |(group, _)| group);
                    let kind = crate::status::qualified(group, &r.kind).to_lowercase();
                    format!("{kind}/{}", r.name)
                },
            );
            vec![name(&o.metadata), json!(owner), json!(o.revision), age(&o.metadata, now)]
        }
    ),
    print!(HorizontalPodAutoscaler, AUTOSCALER, autoscaler),
    print!(OldAutoscaler, AUTOSCALER, |o, now| autoscaler(&to_v2(o.clone()), now)),
    print!(
        Scale,
        &[Column { format: "", ..NAME }, DESIRED, integer("Available", "Pods that there are."), AGE],
        |o, now| {
            let desired = o.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
            let available = o.status.as_ref().map_or(0, |s| s.replicas);
            vec![name(&o.metadata), json!(desired), json!(available), age(&o.metadata, now)]
        }
    ),
    print!(
        PodDisruptionBudget,
        &[
            NAME,
            string("Min Available", "Pods that must stay available."),
            string("Max Unavailable", "Pods that may be unavailable."),
            integer("Allowed Disruptions", "Pods that may be evicted now."),
            AGE,
        ],
        |o, now| {
            let spec = o.spec.clone().unwrap_or_default();
            let allowed = o.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0);
            let text = |v: Option<&_>| json!(v.map_or_else(|| "N/A".to_owned(), int_or_string));
            vec![
                name(&o.metadata),
                text(spec.min_available.as_ref()),
                text(spec.max_unavailable.as_ref()),
                json!(allowed),
                age(&o.metadata, now),
            ]
        }
    ),
    print!(Lease, &[NAME, string("Holder", "Who holds it."), AGE], |o, now| {
        let holder = o.spec.as_ref().and_then(|s| s.holder_identity.as_ref());
        vec![name(&o.metadata), json!(text(holder)), age(&o.metadata, now)]
    }),
    print!(RuntimeClass, &[NAME, string("Handler", "What runs the pods of this class."), AGE], |o, now| {
        vec![name(&o.metadata), json!(o.handler), age(&o.metadata, now)]
    }),
    print!(
        PriorityClass,
        &[
            NAME,
            integer("Value", "Priority of the pods of this class."),
            column("Global-Default", "boolean", "Whether pods without a class are of this one."),
            AGE,
            string("PreemptionPolicy", "Whether its pods may preempt others."),
        ],
        |o, now| vec![
            name(&o.metadata),
            json!(o.value),
            json!(o.global_default.unwrap_or(false)),
            age(&o.metadata, now),
            json!(text(o.preemption_policy.as_ref())),
        ]
    ),
];

const DEPLOYMENT: &[Column] = &[
    NAME,
    string("Ready", "Pods that are ready, of those wanted."),
    string("Up-to-date", "Pods of the newest template."),
    string("Available", "Pods that have been ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn deployment(o: &Deployment, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (o.spec.clone().unwrap_or_default(), o.status.clone().unwrap_or_default());
    let [names, images] = containers(Some(&spec.template));
    let selector = Selector::of(Some(&spec.selector));
    let ready = status.ready_replicas.unwrap_or(0);
    vec![
        name(&o.metadata),
        json!(format!("{ready}/{}", spec.replicas.unwrap_or(0))),
        json!(status.updated_replicas.unwrap_or(0)),
        json!(status.available_replicas.unwrap_or(0)),
        age(&o.metadata, now),
        names,
        images,
        json!(selector.map_or_else(|_| "<invalid>".to_owned(), |s| s.to_string())),
    ]
}

const DAEMON_SET: &[Column] = &[
    NAME,
    integer("Desired", "Nodes that should run its pod."),
    integer("Current", "Nodes that run its pod."),
    integer("Ready", "Nodes where its pod is ready."),
    integer("Up-to-date", "Nodes that run a pod of the newest template."),
    integer("Available", "Nodes where its pod has been ready for long enough."),
    string("Node Selector", "Labels of the nodes that should run its pod."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn daemon_set(o: &DaemonSet, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (o.spec.clone().unwrap_or_default(), o.status.clone().unwrap_or_default());
    let [names, images] = containers(Some(&spec.template));
    let nodes = spec.template.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    vec![
        name(&o.metadata),
        json!(status.desired_number_scheduled),
        json!(status.current_number_scheduled),
        json!(status.number_ready),
        json!(status.updated_number_scheduled.unwrap_or(0)),
        json!(status.number_available.unwrap_or(0)),
        json!(labels(nodes)),
        age(&o.metadata, now),
        names,
        images,
        json!(selector(Some(&spec.selector))),
    ]
}

const JOB: &[Column] = &[
    NAME,
    string("Status", "Whether it runs, is suspended, or how it ended."),
    string("Completions", "Pods that succeeded, of those that must."),
    string("Duration", "Time that it took, or has taken so far."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn job_status(o: &Job) -> &'static str {
    let conditions = o.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let holds = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if o.metadata.deletion_timestamp.is_some() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn job(o: &Job, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (o.spec.clone().unwrap_or_default(), o.status.clone().unwrap_or_default());
    let succeeded = status.succeeded.unwrap_or(0);
    let completions = match (spec.completions, spec.parallelism.unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, 2..) => format!("{succeeded}/1 of {}", spec.parallelism.unwrap_or(0)),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = status.start_time.map_or_else(String::new, |start| {
        let end = status.completion_time.map_or(now, |t| t.0);
        since(start.0, end)
    });
    let [names, images] = containers(Some(&spec.template));
    vec![
        name(&o.metadata),
        json!(job_status(o)),
        json!(completions),
        json!(duration),
        age(&o.metadata, now),
        names,
        images,
        json!(selector(spec.selector.as_ref())),
    ]
}

const CRON_JOB: &[Column] = &[
    NAME,
    string("Schedule", "When it runs."),
    string("Timezone", "Time zone of the schedule."),
    column("Suspend", "boolean", "Whether it is suspended."),
    integer("Active", "Jobs that are running."),
    string("Last Schedule", "Time since it last ran."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn cron_job(o: &CronJob, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (o.spec.clone(), o.status.clone().unwrap_or_default());
    let job = spec.job_template.spec.unwrap_or_default();
    let [names, images] = containers(Some(&job.template));
    let last = status.last_schedule_time.map_or_else(|| NONE.to_owned(), |t| since_time(Some(&t), now));
    vec![
        name(&o.metadata),
        json!(spec.schedule),
        json!(text_or(spec.time_zone.as_ref(), NONE)),
        json!(spec.suspend.map_or(UNSET, |s| if s { "True" } else { "False" })),
        json!(status.active.map_or(0, |a| a.len())),
        json!(last),
        age(&o.metadata, now),
        names,
        images,
        json!(selector(job.selector.as_ref())),
    ]
}

/// Metrics shown before the rest is only counted.
const METRICS_SHOWN: usize = 2;

fn autoscaler(o: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (o.spec.clone(), o.status.clone().unwrap_or_default());
    let metrics = spec.metrics.unwrap_or_default();
    let current = status.current_metrics.unwrap_or_default();
    let shown = metrics.iter().enumerate().map(|(i, m)| metric(m, current.get(i)));
    let targets = if metrics.is_empty() { NONE.to_owned() } else { some_of(shown, METRICS_SHOWN, ", ") };
    let target = &spec.scale_target_ref;
    vec![
        name(&o.metadata),
        json!(format!("{}/{}", target.kind, target.name)),
        json!(targets),
        json!(spec.min_replicas.map_or_else(|| UNSET.to_owned(), |m| m.to_string())),
        json!(spec.max_replicas),
        json!(status.current_replicas.unwrap_or(0)),
        age(&o.metadata, now),
    ]
}

fn metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let named = |name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>| {
        if target.average_value.is_some() {
            return format!("{name}: {}", values(target, current));
        }
        let percent = |p: Option<i32>, other: &str| p.map_or(other.to_owned(), |p| format!("{p}%"));
        let current = percent(current.and_then(|c| c.average_utilization), UNKNOWN);
        format!("{name}: {current}/{}", percent(target.average_utilization, "<auto>"))
    };
    let averaged = |target: &MetricTarget, current: Option<&MetricValueStatus>| {
        let average = if target.average_value.is_some() { " (avg)" } else { "" };
        format!("{}{average}", values(target, current))
    };
    if let Some(m) = &spec.external {
        return averaged(&m.target, status.and_then(|s| s.external.as_ref()).map(|s| &s.current));
    }
    if let Some(m) = &spec.object {
        return averaged(&m.target, status.and_then(|s| s.object.as_ref()).map(|s| &s.current));
    }
    if let Some(m) = &spec.pods {
        return values(&m.target, status.and_then(|s| s.pods.as_ref()).map(|s| &s.current));
    }
    if let Some(m) = &spec.resource {
        return named(&m.name, &m.target, status.and_then(|s| s.resource.as_ref()).map(|s| &s.current));
    }
    if let Some(m) = &spec.container_resource {
        let status = status.and_then(|s| s.container_resource.as_ref());
        return named(&m.name, &m.target, status.map(|s| &s.current));
    }
    "<unknown type>".to_owned()
}

/// `current/target`, averages if the target is one.
fn values(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    let (target, current) = match &target.average_value {
        Some(average) => (Some(average), current.and_then(|c| c.average_value.as_ref())),
        None => (target.value.as_ref(), current.and_then(|c| c.value.as_ref())),
    };
    format!("{}/{}", current.map_or(UNKNOWN, |q| &q.0), target.map_or("0", |q| &q.0))
}

/// Used by certificates too: `24h`.
pub(super) fn seconds(seconds: i32) -> String {
    human_duration(i64::from(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_deployment() {
        let object = Deployment::from_value(json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers":
                [{"name": "nginx", "image": "nginx:1"}, {"name": "side", "image": "s"}]}}},
            "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}})).unwrap();
        let row = deployment(&object, now());
        let want = json!(["web", "1/3", 2, 1, "60m", "nginx,side", "nginx:1,s", "app=web"]);
        assert_eq!(json!(row), want);
    }

    #[test]
    fn jobs() {
        let with = |spec: Value, status: Value| {
            let mut spec = spec;
            spec["template"] = json!({});
            let object =
                Job::from_value(json!({"metadata": {"name": "j"}, "spec": spec, "status": status})).unwrap();
            let row = job(&object, now());
            [1, 2, 3].map(|i| row[i].as_str().unwrap().to_owned())
        };
        assert_eq!(
            with(json!({"completions": 2}), json!({"succeeded": 1, "startTime": "2026-01-01T00:59:00Z"})),
            ["Running", "1/2", "60s"]
        );
        assert_eq!(
            with(
                json!({"parallelism": 3}),
                json!({"succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:05:10Z",
                    "conditions": [{"type": "Complete", "status": "True"}]})
            ),
            ["Complete", "1/1 of 3", "5m10s"]
        );
    }

    #[test]
    fn an_autoscaler() {
        let object = HorizontalPodAutoscaler::from_value(json!({"metadata": {"name": "h"},
            "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}}]},
            "status": {"currentReplicas": 2, "desiredReplicas": 2, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50}}}]}})).unwrap();
        let row = autoscaler(&object, now());
        let want = json!([
            "h",
            "Deployment/web",
            "cpu: 50%/80%, <unknown>/10 + 1 more...",
            "<unset>",
            5,
            2,
            "<unknown>"
        ]);
        assert_eq!(json!(row), want);
    }
}
