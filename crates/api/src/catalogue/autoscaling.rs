//! HorizontalPodAutoscalers exist in two shapes, `autoscaling/v2` (stored) and `autoscaling/v1`; this is the way
//! between them.
//!
//! What the older shape has no field for it carries in annotations, so that nothing is lost either way. An
//! annotation that cannot be read is as if it were not there.

use crate::object::{DecodeError, Kind as _, Object};
use crate::types::autoscaling::{v1, v2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::any::Any;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// An autoscaler of either shape as the one that is stored.
pub(super) fn to_stored(object: &dyn Object) -> Box<dyn Object> {
    match (object.as_any() as &dyn Any).downcast_ref::<v1::HorizontalPodAutoscaler>() {
        Some(old) => Box::new(to_v2(old.clone())),
        None => object.boxed_clone(),
    }
}

/// Stored bytes as the older shape.
pub(super) fn from_stored(bytes: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
    Ok(Box::new(to_v1(v2::HorizontalPodAutoscaler::decode(bytes)?)))
}

/// The newer shape.
#[must_use]
pub fn to_v2(mut old: v1::HorizontalPodAutoscaler) -> v2::HorizontalPodAutoscaler {
    let mut take = |key: &str| {
        let text = old.metadata.annotations.as_mut()?.remove(key)?;
        serde_json::from_str::<Value>(&text).ok()
    };
    let others: Vec<v2::MetricSpec> = all_of(take(METRICS), |one| newer(one, "target"));
    let measured: Vec<v2::MetricStatus> = all_of(take(CURRENT), |one| newer(one, "current"));
    let conditions: Vec<v2::HorizontalPodAutoscalerCondition> = all_of(take(CONDITIONS), Value::clone);
    let behavior = take(BEHAVIOR).and_then(|v| serde_json::from_value(v).ok());
    if old.metadata.annotations.as_ref().is_some_and(std::collections::BTreeMap::is_empty) {
        old.metadata.annotations = None;
    }
    let cpu = old.spec.target_cpu_utilization_percentage.map(|percent| v2::MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(v2::ResourceMetricSource {
            name: "cpu".to_owned(),
            target: v2::MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..Default::default()
            },
        }),
        ..Default::default()
    });
    let status = old.status.unwrap_or_default();
    let cpu_now = status.current_cpu_utilization_percentage.map(|percent| v2::MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(v2::ResourceMetricStatus {
            name: "cpu".to_owned(),
            current: v2::MetricValueStatus { average_utilization: Some(percent), ..Default::default() },
        }),
        ..Default::default()
    });
    let target = old.spec.scale_target_ref;
    v2::HorizontalPodAutoscaler {
        metadata: old.metadata,
        spec: v2::HorizontalPodAutoscalerSpec {
            behavior,
            max_replicas: old.spec.max_replicas,
            metrics: some(cpu.into_iter().chain(others).collect()),
            min_replicas: old.spec.min_replicas,
            scale_target_ref: v2::CrossVersionObjectReference {
                api_version: target.api_version,
                kind: target.kind,
                name: target.name,
            },
        },
        status: Some(v2::HorizontalPodAutoscalerStatus {
            conditions: some(conditions),
            current_metrics: some(cpu_now.into_iter().chain(measured).collect()),
            current_replicas: Some(status.current_replicas),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }),
    }
}

/// The older shape.
#[must_use]
pub fn to_v1(new: v2::HorizontalPodAutoscaler) -> v1::HorizontalPodAutoscaler {
    let mut metadata = new.metadata;
    let mut put = |key: &str, value: Value| {
        metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_string());
    };
    let cpu = |m: &v2::MetricSpec| {
        m.resource.as_ref().filter(|r| r.name == "cpu").and_then(|r| r.target.average_utilization)
    };
    let metrics = new.spec.metrics.unwrap_or_default();
    let others: Vec<Value> =
        metrics.iter().filter(|m| cpu(m).is_none()).map(|m| older(&as_value(m), "target")).collect();
    if !others.is_empty() {
        put(METRICS, Value::Array(others));
    }
    if let Some(behavior) = &new.spec.behavior {
        put(BEHAVIOR, as_value(behavior));
    }
    let status = new.status.unwrap_or_default();
    let now = |m: &v2::MetricStatus| {
        m.resource.as_ref().filter(|r| r.name == "cpu").and_then(|r| r.current.average_utilization)
    };
    let current = status.current_metrics.unwrap_or_default();
    let measured: Vec<Value> =
        current.iter().filter(|m| now(m).is_none()).map(|m| older(&as_value(m), "current")).collect();
    if !measured.is_empty() {
        put(CURRENT, Value::Array(measured));
    }
    if let Some(conditions) = status.conditions.as_ref().filter(|c| !c.is_empty()) {
        put(CONDITIONS, as_value(conditions));
    }
    let target = new.spec.scale_target_ref;
    v1::HorizontalPodAutoscaler {
        metadata,
        spec: v1::HorizontalPodAutoscalerSpec {
            max_replicas: new.spec.max_replicas,
            min_replicas: new.spec.min_replicas,
            scale_target_ref: v1::CrossVersionObjectReference {
                api_version: target.api_version,
                kind: target.kind,
                name: target.name,
            },
            target_cpu_utilization_percentage: metrics.iter().find_map(cpu),
        },
        status: Some(v1::HorizontalPodAutoscalerStatus {
            current_cpu_utilization_percentage: current.iter().find_map(now),
            current_replicas: status.current_replicas.unwrap_or(0),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }),
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn as_value<T: Serialize>(part: &T) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// The list that an annotation holds, if all of it can be read.
fn all_of<T: DeserializeOwned>(value: Option<Value>, shape: impl Fn(&Value) -> Value) -> Vec<T> {
    let list = value.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let read = list.iter().map(|one| serde_json::from_value(shape(one)));
    read.collect::<Result<_, _>>().unwrap_or_default()
}

/// The sources of a metric, each with its fields in the older shape beside the place in the newer one.
/// `{}` is `target` (of a spec) or `current` (of a status), in whose part the amounts are.
const SOURCES: [(&str, &[(&str, &[&str])]); 5] = [
    (
        "resource",
        &[
            ("name", &["name"]),
            ("{}AverageUtilization", &["{}", "averageUtilization"]),
            ("{}AverageValue", &["{}", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("{}AverageUtilization", &["{}", "averageUtilization"]),
            ("{}AverageValue", &["{}", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("{}AverageValue", &["{}", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("{}Value", &["{}", "value"]),
            ("averageValue", &["{}", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("{}Value", &["{}", "value"]),
            ("{}AverageValue", &["{}", "averageValue"]),
        ],
    ),
];

fn older(metric: &Value, amounts: &str) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, fields) in SOURCES.iter().filter(|(source, _)| metric[*source].is_object()) {
        for (old, new) in *fields {
            let part = new.iter().fold(&metric[*source], |part, step| &part[step.replace("{}", amounts)]);
            if !part.is_null() {
                out[*source][old.replace("{}", amounts)] = part.clone();
            }
        }
    }
    out
}

fn newer(metric: &Value, amounts: &str) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, fields) in SOURCES.iter().filter(|(source, _)| metric[*source].is_object()) {
        for (old, new) in *fields {
            let value = &metric[*source][old.replace("{}", amounts)];
            // The older shape writes an amount that is not aimed at as nothing or as zero.
            let is_none = value.is_null() || (old.ends_with("Value") && value == "0" && amounts == "target");
            if !is_none {
                let place =
                    new.iter().fold(&mut out[*source], |place, step| &mut place[step.replace("{}", amounts)]);
                *place = value.clone();
            }
        }
        if amounts == "target" {
            let target = &mut out[*source]["target"];
            let kind = ["averageUtilization", "averageValue"].iter().find(|f| !target[**f].is_null());
            target["type"] = match kind {
                Some(&"averageUtilization") => json!("Utilization"),
                Some(_) => json!("AverageValue"),
                None => json!("Value"),
            };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_survives_both_ways() {
        let new = json!({
            "metadata": {"name": "web", "annotations": {"a": "b"}},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
                "minReplicas": 1, "maxReplicas": 3,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Pods", "pods": {"metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "main"},
                        "metric": {"name": "rps"}, "target": {"type": "Value", "value": "2k"}}},
                    {"type": "External", "external": {"metric": {"name": "queue"},
                        "target": {"type": "AverageValue", "averageValue": "30"}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            },
            "status": {
                "currentReplicas": 2, "desiredReplicas": 3,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 70, "averageValue": "7"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let mut new = v2::HorizontalPodAutoscaler::from_value(new).unwrap();
        let old = to_v1(new.clone());
        assert_eq!(old.spec.target_cpu_utilization_percentage, Some(60));
        let annotations = old.metadata.annotations.clone().unwrap();
        assert_eq!(annotations.len(), 4, "{annotations:?}");
        let metrics: Value = serde_json::from_str(&annotations[METRICS]).unwrap();
        assert_eq!(
            metrics[0],
            json!({"type": "Pods", "pods": {"metricName": "hits", "selector": {"matchLabels": {"a": "b"}},
                "targetAverageValue": "10"}})
        );
        // Of the processor the older shape knows the percentage alone.
        let current = new.status.as_mut().and_then(|s| s.current_metrics.as_mut()).unwrap();
        current[0].resource.as_mut().unwrap().current.average_value = None;
        assert_eq!(to_v2(old), new);
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let mut old = v1::HorizontalPodAutoscaler::default();
        old.metadata.annotations = Some([(METRICS.to_owned(), "nonsense".to_owned())].into());
        let new = to_v2(old);
        assert_eq!((new.spec.metrics, new.metadata.annotations), (None, None));
    }
}
