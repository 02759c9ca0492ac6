//! HorizontalPodAutoscalers.

use super::fill::{items, value};
use super::{Behaviour, Typed, names};
use crate::types::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use std::sync::Arc;

/// Processor use that is aimed at when nothing is said, in percent of the request.
const CPU_PERCENT: i32 = 80;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<HorizontalPodAutoscaler> {
        default,
        prepare_create: |hpa| hpa.status = Some(Default::default()),
        prepare_update: |new, old| new.status.clone_from(&old.status),
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(hpa: &mut HorizontalPodAutoscaler) {
    let spec = &mut hpa.spec;
    value(&mut spec.min_replicas, 1);
    if items(&spec.metrics).is_empty() {
        spec.metrics = Some(vec![cpu()]);
    }
    if let Some(behavior) = &mut spec.behavior {
        let up = behavior.scale_up.get_or_insert_default();
        value(&mut up.stabilization_window_seconds, 0);
        default_rules(up, &[("Pods", 4), ("Percent", 100)]);
        default_rules(behavior.scale_down.get_or_insert_default(), &[("Percent", 100)]);
    }
    hpa.status.get_or_insert_default();
}

fn cpu() -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(CPU_PERCENT),
                ..Default::default()
            },
        }),
        ..Default::default()
    }
}

fn default_rules(rules: &mut HPAScalingRules, policies: &[(&str, i32)]) {
    value(&mut rules.select_policy, "Max".to_owned());
    if items(&rules.policies).is_empty() {
        let policy = |(kind, amount): &(&str, i32)| HPAScalingPolicy {
            type_: (*kind).to_owned(),
            value: *amount,
            period_seconds: 15,
        };
        rules.policies = Some(policies.iter().map(policy).collect());
    }
}
