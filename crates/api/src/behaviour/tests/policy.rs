//! Roles and bindings, budgets, priorities, autoscalers, leases and events.

use crate::behaviour::testing::{Sample, merge};
use crate::object::Object;
use serde_json::json;

const RBAC: &str = "rbac.authorization.k8s.io/v1";

#[test]
fn roles() {
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    Sample::new(RBAC, "Role", json!({"metadata": {"name": "system:Reader"}, "rules": [rule]})).creates(&[
        (
            json!({"rules": [{}]}),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        ),
        (
            json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/a"]}]}),
            &["rules[0].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs"],
        ),
        (
            json!({"metadata": {"name": "a/b"}}),
            &["metadata.name: Invalid value: \"a/b\": may not contain '/'"],
        ),
    ]);
}

#[test]
fn bindings() {
    let sample = Sample::new(
        RBAC,
        "RoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}),
    );
    sample.creates(&[
        (
            json!({"roleRef": {"kind": "X", "name": ""}}),
            &[
                "roleRef.kind: Unsupported value: \"X\": supported values: \"Role\", \"ClusterRole\"",
                "roleRef.name: Required value",
            ],
        ),
        (
            json!({"subjects": [{"kind": "User", "name": ""}, {"kind": "Group", "name": ""}]}),
            &["subjects[0].name: Required value", "subjects[1].name: Required value"],
        ),
        (
            json!({"subjects": [{"kind": "ServiceAccount", "name": "A"}, {"kind": "Y", "name": "y"}]}),
            &[
                "subjects[0].name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "subjects[1].kind: Unsupported value: \"Y\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        ),
    ]);
    sample.updates(&[(
        json!({"roleRef": {"name": "other"}}),
        &["roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"other\"}: \
           cannot change roleRef"],
    )]);
}

#[test]
fn budgets() {
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}});
    let sample = Sample::new("policy/v1", "PodDisruptionBudget", json!({"spec": spec}));
    let condition = json!({"type": "a b", "status": "x", "reason": "1"});
    assert_eq!(
        sample.update_errors(
            "status",
            &json!({"status": {"conditions": [condition, condition], "expectedPods": -1}})
        ),
        {
            let of = |i: usize| {
                let path = format!("status.conditions[{i}]");
                [
                    format!(
                        "{path}.type: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' \
                         or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  \
                         or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
                    ),
                    format!(
                        "{path}.status: Unsupported value: \"x\": supported values: \"False\", \"True\", \"Unknown\""
                    ),
                    format!("{path}.lastTransitionTime: Required value: must be set"),
                    format!(
                        "{path}.reason: Invalid value: \"1\": a condition reason must start with alphabetic character, \
                         optionally followed by a string of alphanumeric characters or '_,:', and must end with an \
                         alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or \
                         'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
                         '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')"
                    ),
                ]
            };
            let mut all = of(0).to_vec();
            all.push("status.conditions[1].type: Duplicate value: \"a b\"".to_owned());
            all.extend(of(1));
            all.push("status.expectedPods: Invalid value: -1: must be greater than or equal to 0".to_owned());
            all
        }
    );
    sample.creates(&[
        (
            json!({"spec": {"minAvailable": "120%"}}),
            &["spec.minAvailable: Invalid value: \"120%\": must not be greater than 100%"],
        ),
        (
            json!({"spec": {"maxUnavailable": "1%"}}),
            &["spec: Invalid value: {\"MinAvailable\":1,\"Selector\":{\"matchLabels\":{\"a\":\"b\"}},\
               \"MaxUnavailable\":\"1%\",\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot \
               be both set"],
        ),
    ]);
}

#[test]
fn priorities() {
    let sample = Sample::new("scheduling.k8s.io/v1", "PriorityClass", json!({"value": 10}));
    sample.creates(&[
        (
            json!({"value": 1000000001}),
            &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        ),
        (
            json!({"metadata": {"name": "system-mine"}}),
            &["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. \
               error: system-mine is not a known system priority class"],
        ),
    ]);
    sample.updates(&[(
        json!({"value": 11, "preemptionPolicy": "Never"}),
        &[
            "value: Forbidden: may not be changed in an update.",
            "preemptionPolicy: Invalid value: \"Never\": field is immutable",
        ],
    )]);
}

#[test]
fn runtime_classes() {
    let sample = Sample::new("node.k8s.io/v1", "RuntimeClass", json!({"handler": "fast"}));
    sample.creates(&[
        (json!({"overhead": {"podFixed": {"cpu": "250m"}}}), &[]),
        (
            json!({"scheduling": {"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]}}),
            &["scheduling.tolerations[1]: Duplicate value: {\"Key\":\"a\",\"Operator\":\"Exists\",\"Value\":\"\",\
               \"Effect\":\"\",\"TolerationSeconds\":null}"],
        ),
    ]);
    sample
        .updates(&[(json!({"handler": "slow"}), &["handler: Invalid value: \"slow\": field is immutable"])]);
}

#[test]
fn autoscalers() {
    let spec = json!({"scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}, "maxReplicas": 3});
    Sample::new("autoscaling/v2", "HorizontalPodAutoscaler", json!({"spec": spec})).creates(&[
        (
            json!({"spec": {"minReplicas": 5, "scaleTargetRef": {"name": ""}}}),
            &[
                "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.name: Required value",
            ],
        ),
        (
            json!({"spec": {"metrics": [{"type": "Pods", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0}}}]}}),
            &[
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            ],
        ),
        (json!({"spec": {"behavior": {"scaleUp": {}}}}), &[]),
        (
            json!({"spec": {"metrics": [{"type": "Disk"}]}}),
            &[NO_METRIC, NO_METRIC],
        ),
        (
            json!({"spec": {"metrics": [{"type": "ContainerResource", "containerResource": {"name": "", "container": "A_",
                "target": {"type": "Utilization", "averageUtilization": 5}}}]}}),
            &[
                "spec.metrics[0].containerResource.name: Required value: must specify a resource name",
                "spec.metrics[0].containerResource.container: Invalid value: \"A_\": a lowercase RFC 1123 label must \
                 consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric \
                 character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
    ]);
}

const NO_METRIC: &str = "spec.metrics[0].type: Unsupported value: \"Disk\": supported values: \"ContainerResource\", \
                         \"External\", \"Object\", \"Pods\", \"Resource\"";

#[test]
fn what_is_scaled_has_a_group() {
    let spec = json!({"scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}, "maxReplicas": 3});
    let sample = Sample::new("autoscaling/v2", "HorizontalPodAutoscaler", json!({"spec": spec}));
    let without = |version: &str| json!({"spec": {"scaleTargetRef": {"apiVersion": version}}});
    sample.creates(&[
        (
            without("v1"),
            &["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"],
        ),
        (
            without("a/b/c"),
            &["spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        ),
        (json!({"spec": {"scaleTargetRef": {"kind": "ReplicationController", "apiVersion": "v1"}}}), &[]),
    ]);
    let change = json!({"spec": {"maxReplicas": 4}});
    assert_eq!(sample.change_errors("", &without("v1"), &change), Vec::<String>::new());
}

#[test]
fn leases() {
    Sample::new("coordination.k8s.io/v1", "Lease", json!({"spec": {"holderIdentity": "a"}})).creates(&[(
        json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
        &[
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        ],
    )]);
}

#[test]
fn events() {
    let event = json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"}, "reason": "Started"});
    Sample::new("v1", "Event", event).creates(&[(
        json!({"involvedObject": {"namespace": "other"}}),
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    )]);
    let event = json!({"regarding": {"namespace": "default"}, "reason": "Started", "action": "Start", "type": "Normal",
        "reportingController": "kubelet", "reportingInstance": "n", "eventTime": "2026-01-01T00:00:00.000000Z"});
    let sample = Sample::new("events.k8s.io/v1", "Event", event);
    sample.creates(&[
        (json!({"eventTime": null}), &["eventTime: Required value"]),
        (json!({"action": null}), &["action: Required value"]),
    ]);
    sample.updates(&[(
        json!({"regarding": {"name": "x"}, "note": "new", "deprecatedCount": 2}),
        &[
            "involvedObject: Invalid value: {\"Kind\":\"\",\"Namespace\":\"default\",\"Name\":\"x\",\"UID\":\"\",\
             \"APIVersion\":\"\",\"ResourceVersion\":\"\",\"FieldPath\":\"\"}: field is immutable",
            "message: Invalid value: \"new\": field is immutable",
            "count: Invalid value: 2: field is immutable",
        ],
    )]);
}

const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----\nYQ==\n-----END CERTIFICATE REQUEST-----\n";

fn signing_request() -> Sample {
    use base64::Engine as _;
    let request = base64::prelude::BASE64_STANDARD.encode(REQUEST);
    let spec = json!({"request": request, "signerName": "example.com/s", "usages": ["client auth"]});
    Sample::new("certificates.k8s.io/v1", "CertificateSigningRequest", json!({"spec": spec}))
}

#[test]
fn signing_requests() {
    signing_request().creates(&[
        (json!({"metadata": {"name": "Any Name"}}), &[]),
        (
            json!({"spec": {"request": "YQ==", "usages": null, "signerName": "a", "expirationSeconds": 1}}),
            &[
                "spec.request: Invalid value: \"YQ==\": PEM block type must be CERTIFICATE REQUEST",
                "spec.usages: Required value",
                "spec.signerName: Invalid value: \"a\": must be a fully qualified domain and path of the form \
                 'example.com/signer-name'",
                "spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        ),
        (
            json!({"spec": {"usages": ["any", "any"], "signerName": "kubernetes.io/legacy-unknown"}}),
            &[
                "spec.usages[1]: Duplicate value: \"any\"",
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed \
                 via this API version",
            ],
        ),
    ]);
}

#[test]
fn answers_to_a_signing_request() {
    let sample = signing_request();
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
    let with = |list: serde_json::Value| json!({"status": {"conditions": list}});
    let none = json!({});
    let both = with(json!([condition("Approved", "True"), condition("Denied", "False")]));
    assert_eq!(
        sample.change_errors("approval", &none, &both),
        [
            "status.conditions[1].status: Unsupported value: \"False\": supported values: \"True\"",
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
        ]
    );
    let certificate = json!({"status": {"certificate": "YQ=="}});
    assert_eq!(
        sample.change_errors("status", &none, &certificate),
        [
            "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"
        ]
    );
    let approved = with(json!([condition("Approved", "True")]));
    let signed = {
        let mut both = approved;
        merge(&mut both, &certificate);
        sample.with(&both)
    };
    let mut bare = sample.with(&none);
    sample.behaviour().prepare_subresource("approval", &mut *bare, &*signed);
    let faults = |subresource: &str, new: &dyn Object| {
        let errors = sample.behaviour().validate_update(subresource, new, &*signed);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        faults("approval", &*bare),
        ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
    );
    let mut bare = sample.with(&none);
    sample.behaviour().prepare_subresource("status", &mut *bare, &*signed);
    assert_eq!(
        faults("status", &*bare),
        ["status.certificate: Forbidden: updates may not modify existing certificate content"]
    );
}

#[test]
fn flow_schemas() {
    let rule = json!({"subjects": [{"kind": "Group", "group": {"name": "g"}}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a"]}]});
    let spec = json!({"priorityLevelConfiguration": {"name": "a"}, "rules": [rule]});
    let sample = Sample::new("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", json!({"spec": spec}));
    let resources = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["A"]});
    sample.creates(&[
        (
            json!({"spec": {"matchingPrecedence": 1, "distinguisherMethod": {"type": "ByMood"}}}),
            &[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"ByMood\"}: supported values: \
                 \"ByNamespace\", \"ByUser\"",
            ],
        ),
        (
            json!({"spec": {"rules": {"0": {"subjects": {"0": {"user": {"name": "u"}, "group": {"name": ""}}}}}}}),
            &[
                "spec.rules[0].subjects[0].group.name: Required value",
                "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
            ],
        ),
        (
            json!({"spec": {"rules": {"0": {"nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*", "b"]}],
                "resourceRules": [resources]}}}}),
            &[
                "spec.rules[0].resourceRules[0].namespaces[0]: Invalid value: \"A\": each member of this list must be '*' or \
                 a DNS-1123 label; a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                 and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                 validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs: Invalid value: [\"*\",\"b\"]: if '*' is present, must \
                 not specify other non-resource URLs",
            ],
        ),
    ]);
}
