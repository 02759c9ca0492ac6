//! What the evaluators count.

use super::*;
use crate::object::Kind as _;
use crate::types::core::v1::ResourceQuotaSpec;
use serde_json::json;

fn pod(spec: serde_json::Value) -> Pod {
    Pod::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

fn told(usage: &Usage) -> Vec<String> {
    usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect()
}

fn of(object: &dyn Object, group: &str, plural: &str) -> Vec<String> {
    told(&Evaluator::of(group, plural).usage(object, Timestamp::UNIX_EPOCH))
}

#[test]
fn a_pod_is_counted_under_every_name_of_what_it_asks() {
    let pod = pod(json!({
        "containers": [
            {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2"},
                                       "limits": {"cpu": "1", "example.com/gpu": "2"}}},
            {"name": "b", "resources": {"requests": {"cpu": "200m", "hugepages-2Mi": "4Mi"}}},
        ],
        "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "250m", "memory": "2Gi"}}}],
    }));
    assert_eq!(
        of(&pod, "", "pods"),
        [
            "count/pods=1",
            "cpu=300m",
            "hugepages-2Mi=4Mi",
            "limits.cpu=1",
            "memory=2Gi",
            "pods=1",
            "requests.cpu=300m",
            "requests.example.com/gpu=2",
            "requests.hugepages-2Mi=4Mi",
            "requests.memory=2Gi",
        ]
    );
}

#[test]
fn a_pod_that_ended_takes_its_place_only() {
    let mut ended = pod(json!({"containers": [{"name": "a"}]}));
    ended.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
    assert_eq!(of(&ended, "", "pods"), ["count/pods=1"]);
}

#[test]
fn services_claims_and_others_have_their_names() {
    let service =
        Service::from_value(json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}}));
    assert_eq!(
        of(&service.unwrap(), "", "services"),
        ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"]
    );
    let claim = PersistentVolumeClaim::from_value(
        json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    assert_eq!(
        of(&claim.unwrap(), "", "persistentvolumeclaims"),
        [
            "count/persistentvolumeclaims=1",
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1",
            "gold.storageclass.storage.k8s.io/requests.storage=1Gi",
            "persistentvolumeclaims=1",
            "requests.storage=1Gi",
        ]
    );
    let set = crate::types::apps::v1::ReplicaSet::default();
    assert_eq!(of(&set, "apps", "replicasets"), ["count/replicasets.apps=1"]);
    let secret = crate::types::core::v1::Secret::default();
    assert_eq!(of(&secret, "", "secrets"), ["count/secrets=1", "secrets=1"]);
    assert!(!Evaluator::of("example.com", "secrets").concerns("secrets"));
    assert!(Evaluator::of("", "pods").concerns("requests.example.com/gpu"));
}

#[test]
fn containers_must_say_what_is_limited() {
    let pod = pod(json!({"containers": [
        {"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}));
    let limited = ["limits.cpu", "cpu", "pods"].map(str::to_owned);
    assert_eq!(
        Evaluator::of("", "pods").missing(&limited, &pod).unwrap(),
        "must specify cpu for: b; limits.cpu for: a,b"
    );
}

#[test]
fn scopes_hold_pods() {
    let spec = |value: serde_json::Value| -> ResourceQuotaSpec {
        let quota = json!({"metadata": {"name": "q"}, "spec": value});
        crate::types::core::v1::ResourceQuota::from_value(quota).unwrap().spec.unwrap()
    };
    let scoped = |name: &str| spec(json!({"scopes": [name]}));
    let plain = pod(json!({"containers": [{"name": "a"}]}));
    let timed = pod(json!({"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [
        {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}));
    for (scope, of_plain, of_timed) in [
        ("BestEffort", true, false),
        ("NotBestEffort", false, true),
        ("Terminating", false, true),
        ("NotTerminating", true, false),
        ("PriorityClass", false, true),
        ("CrossNamespacePodAffinity", false, false),
    ] {
        assert_eq!(
            (holds(&scoped(scope), &plain), holds(&scoped(scope), &timed)),
            (of_plain, of_timed),
            "{scope}"
        );
    }
    let classes = |operator: &str, values: &[&str]| {
        spec(json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}}))
    };
    assert!(holds(&classes("In", &["high"]), &timed) && !holds(&classes("In", &["low"]), &timed));
    assert!(holds(&classes("NotIn", &["high"]), &plain) && !holds(&classes("NotIn", &["high"]), &timed));
    assert!(holds(&classes("DoesNotExist", &[]), &plain));
}
