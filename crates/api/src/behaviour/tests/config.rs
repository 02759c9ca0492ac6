//! Config maps, secrets, namespaces, nodes, quotas and limits.

use crate::behaviour::testing::Sample;
use serde_json::json;

#[test]
fn names() {
    let sample = Sample::new("v1", "ConfigMap", json!({}));
    sample.creates(&[
        (
            json!({"metadata": {"name": "My_Map"}}),
            &["metadata.name: Invalid value: \"My_Map\": a lowercase RFC 1123 subdomain must consist of lower case \
               alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
               'example.com', regex used for validation is \
               '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"],
        ),
        (
            json!({"metadata": {"labels": {"a": "b c"}}}),
            &["metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric \
               characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
               'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"],
        ),
        (
            json!({"metadata": {"ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": true},
                {"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "", "controller": true}]}}),
            &[
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\",\"controller\":true,\"kind\":\"Pod\",\
                 \"name\":\"a\",\"uid\":\"1\"},{\"apiVersion\":\"v1\",\"controller\":true,\"kind\":\"Pod\",\"name\":\"b\",\
                 \"uid\":\"\"}]: Only one reference can have Controller set to true. Found \"true\" in references for \
                 Pod/a and Pod/b",
            ],
        ),
    ]);
}

#[test]
fn config_maps() {
    let sample = Sample::new("v1", "ConfigMap", json!({"data": {"a": "1"}}));
    sample.creates(&[
        (
            json!({"data": {"..": "x"}}),
            &["data[..]: Invalid value: \"..\": must not be '..'"],
        ),
        (
            json!({"data": {"a b": "x"}, "binaryData": {"a": "eA=="}}),
            &[
                "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
                "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' \
                 or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
                 '[-._a-zA-Z0-9]+')",
            ],
        ),
        (
            json!({"data": {"big": "x".repeat(1 << 20)}}),
            &[": Too long: may not be more than 1048576 bytes"],
        ),
    ]);
    let sealed = json!({"immutable": true});
    assert_eq!(
        sample.change_errors("", &sealed, &json!({"immutable": false, "data": {"a": "2"}})),
        [
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set"
        ]
    );
}

#[test]
fn secrets() {
    let sample = Sample::new("v1", "Secret", json!({"stringData": {"a": "1"}}));
    sample.creates(&[
        (
            json!({"type": "kubernetes.io/tls"}),
            &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        ),
        (
            json!({"type": "kubernetes.io/dockerconfigjson"}),
            &["data[.dockerconfigjson]: Required value"],
        ),
        (
            json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{"}}),
            &["data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": unexpected end of JSON input"],
        ),
        (
            json!({"type": "kubernetes.io/basic-auth"}),
            &["data[username]: Required value", "data[password]: Required value"],
        ),
        (json!({"type": "kubernetes.io/ssh-auth"}), &["data[ssh-privatekey]: Required value"]),
        (
            json!({"type": "kubernetes.io/service-account-token"}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
    ]);
    sample.updates(&[(json!({"type": "other"}), &["type: Invalid value: \"other\": field is immutable"])]);
}

#[test]
fn namespaces() {
    let sample = Sample::new("v1", "Namespace", json!({}));
    sample.creates(&[(
        json!({"metadata": {"name": "a.b"}}),
        &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
    )]);
    let stored: serde_json::Value =
        serde_json::from_slice(&sample.stored(&json!({})).encode()).expect("JSON");
    assert_eq!(stored["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(stored["metadata"]["labels"]["kubernetes.io/metadata.name"], "web");
    assert_eq!(
        sample.update_errors("status", &json!({"status": {"phase": "Terminating"}})),
        [
            "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
        ]
    );
    assert_eq!(
        sample.update_errors("finalize", &json!({"spec": {"finalizers": ["odd"]}})),
        [
            "spec.finalizers[0]: Invalid value: \"odd\": name is neither a standard finalizer name nor is it fully \
          qualified"
        ]
    );
}

#[test]
fn nodes() {
    let sample =
        Sample::new("v1", "Node", json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "podCIDR": "10.0.0.0/24"}}));
    sample.creates(&[(
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"},
            {"key": "b", "effect": "x"}]}}),
        &[
            "metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":\"\",\"Effect\":\"NoSchedule\",\"TimeAdded\":null}: taints must be unique by key \
             and effect pair",
            "metadata.taints[2].effect: Unsupported value: \"x\": supported values: \"NoSchedule\", \
             \"PreferNoSchedule\", \"NoExecute\"",
        ],
    )]);
    // Where both are given, the one range wins.
    sample.updates(&[
        (json!({"spec": {"podCIDRs": ["10.0.1.0/24"]}}), &[]),
        (
            json!({"spec": {"podCIDR": "10.0.1.0/24"}}),
            &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
        ),
    ]);
}

#[test]
fn limit_ranges() {
    let sample = Sample::new(
        "v1",
        "LimitRange",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
    );
    sample.creates(&[
        (
            json!({"spec": {"limits": {"0": {"min": {"cpu": "2"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2"}}}}}),
            &[
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than max \
                 value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 2 is greater than max value 1",
            ],
        ),
        (
            json!({"spec": {"limits": [{"type": "PersistentVolumeClaim"}]}}),
            &["spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither \
               was provided"],
        ),
    ]);
}

#[test]
fn quotas() {
    Sample::new("v1", "ResourceQuota", json!({"spec": {"hard": {"pods": "3"}}})).creates(&[
        (
            json!({"spec": {"hard": {"pods": "-1", "bananas": "1", "services": "1500m"}}}),
            &[
                "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource type or fully qualified",
                "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[services]: Invalid value: \"1500m\": must be an integer",
            ],
        ),
        (
            json!({"spec": {"hard": {"services": "1"}, "scopes": ["BestEffort", "NotBestEffort", "x"]}}),
            &[
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"x\"]: unsupported scope applied to \
                 resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"x\"]: unsupported scope applied to \
                 resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"x\"]: unsupported scope",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"x\"]: conflicting scopes",
            ],
        ),
    ]);
}
