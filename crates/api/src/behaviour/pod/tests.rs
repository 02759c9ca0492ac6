//! Pods: their faults and what writes do to them, by example.

use crate::behaviour::testing::Sample;
use crate::types::core::v1::Pod;
use serde_json::{Value, json};

fn sample() -> Sample {
    Sample::new(
        "v1",
        "Pod",
        json!({"spec": {
            "containers": [{"name": "web", "image": "nginx:1"}],
            "serviceAccountName": "default",
        }}),
    )
}

fn pod(patch: Value) -> Pod {
    let object = sample().stored(&patch);
    object.as_any().downcast_ref::<Pod>().expect("a pod").clone()
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn containers() {
    let bad_name = format!("spec.containers[0].name: Invalid value: \"A b\": {LABEL}");
    sample().creates(&[
        (json!({"spec": {"containers": []}}), &["spec.containers: Required value"]),
        (
            json!({"spec": {"containers": [{"name": "", "image": ""}]}}),
            &["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"],
        ),
        (json!({"spec": {"containers": {"0": {"name": "A b"}}}}), &[&bad_name]),
        (
            json!({"spec": {"containers": {"+": [{"name": "web", "image": "x"}]}}}),
            &["spec.containers[1].name: Duplicate value: \"web\""],
        ),
        (
            json!({"spec": {"containers": {"0": {"image": " nginx"}}}}),
            &["spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace"],
        ),
        (
            json!({"spec": {"containers": {"0": {"imagePullPolicy": "Sometimes"}}}}),
            &["spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
               \"IfNotPresent\", \"Never\""],
        ),
        (
            json!({"spec": {"initContainers": [{"name": "web", "image": "x", "livenessProbe": {"exec": {"command": ["a"]}}}]}}),
            &[
                "spec.initContainers[0].name: Duplicate value: \"web\"",
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without \
                 restartPolicy=Always",
            ],
        ),
        (
            json!({"spec": {"initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always",
                "livenessProbe": {"exec": {"command": ["a"]}}}]}}),
            &[],
        ),
        (
            json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "x"}]}}),
            &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
        ),
    ]);
}

#[test]
fn ports() {
    sample().creates(&[
        (
            json!({"spec": {"containers": {"0": {"ports": [{"containerPort": 0}]}}}}),
            &["spec.containers[0].ports[0].containerPort: Required value"],
        ),
        (
            json!({"spec": {"containers": {"0": {"ports": [{"containerPort": 70000, "protocol": "X"}]}}}}),
            &[
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \
                 \"UDP\"",
            ],
        ),
        (
            json!({"spec": {"containers": {"0": {"ports": [
                {"containerPort": 80, "name": "a", "hostPort": 80}, {"containerPort": 81, "name": "a", "hostPort": 80}]}}}}),
            &[
                "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
                "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\"",
            ],
        ),
        (
            json!({"spec": {"hostNetwork": true, "containers": {"0": {"ports": [{"containerPort": 80, "hostPort": 81}]}}}}),
            &["spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` \
               is true"],
        ),
    ]);
}

#[test]
fn environment() {
    sample().creates(&[
        (
            json!({"spec": {"containers": {"0": {"env": [{"name": ""}, {"name": "a=b"}, {"name": "1 {ok}"}]}}}}),
            &[
                "spec.containers[0].env[0].name: Required value",
                "spec.containers[0].env[1].name: Invalid value: \"a=b\": a valid environment variable name must consist \
                 only of printable ASCII characters other than '='",
            ],
        ),
        (
            json!({"spec": {"containers": {"0": {"env": [{"name": "A", "value": "x",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}}}}),
            &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"],
        ),
        (
            json!({"spec": {"containers": {"0": {"env": [{"name": "A", "valueFrom": {}}]}}}}),
            &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
               `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"],
        ),
        (
            json!({"spec": {"containers": {"0": {"env": [
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.restartPolicy"}}},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk"}}}]}}}}),
            &[
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.restartPolicy\": \
                 supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
                 \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
                "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting \
                 fieldPath: field label not supported: spec.nope",
                "spec.containers[0].env[3].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.disk\": \
                 supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \
                 \"requests.ephemeral-storage\", \"requests.memory\"",
            ],
        ),
        (
            json!({"spec": {"containers": {"0": {"envFrom": [{}]}}}}),
            &["spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"],
        ),
    ]);
}

#[test]
fn volumes_and_mounts() {
    sample().creates(&[
        (
            json!({"spec": {"containers": {"0": {"volumeMounts": [{"name": "data", "mountPath": "/d"}]}}}}),
            &["spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
        ),
        (
            json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}, "secret": {"secretName": "s"}}]}}),
            &["spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            json!({"spec": {"volumes": [{"name": "a", "secret": {"defaultMode": 1000}}, {"name": "b"}, {"name": "b"}]}}),
            &[
                "spec.volumes[0].secret.secretName: Required value",
                "spec.volumes[0].secret.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), \
                 both inclusive",
                "spec.volumes[2].name: Duplicate value: \"b\"",
            ],
        ),
        (
            json!({"spec": {"volumes": [{"name": "a", "hostPath": {"path": "/a/../b", "type": "Nope"}}]}}),
            &[
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "spec.volumes[0].hostPath.type: Unsupported value: \"Nope\": supported values: \"\", \"BlockDevice\", \
                 \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
            ],
        ),
        (
            json!({"spec": {"volumes": [{"name": "a"}], "containers": {"0": {"volumeMounts": [
                {"name": "a", "mountPath": "/d", "subPath": "/abs"}, {"name": "a", "mountPath": "/d"}]}}}}),
            &[
                "spec.containers[0].volumeMounts.subPath: Invalid value: \"/abs\": must be a relative path",
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/d\": must be unique",
            ],
        ),
        (
            json!({"spec": {"volumes": [{"name": "a", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 10}},
                {"configMap": {"name": "", "items": [{"key": "k", "path": "../up"}]}}]}}]}}),
            &[
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: may not \
                 specify a duration less than 10 minutes",
                "spec.volumes[0].projected.sources[1].configMap.name: Required value",
                "spec.volumes[0].projected.sources[1].configMap.items[0].path: Invalid value: \"../up\": must not \
                 contain '..'",
            ],
        ),
    ]);
}

#[test]
fn probes_and_hooks() {
    sample().creates(&[
        (
            json!({"spec": {"containers": {"0": {"livenessProbe": {"successThreshold": 2}}}}}),
            &[
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
        (
            json!({"spec": {"containers": {"0": {"readinessProbe": {
                "httpGet": {"port": 0}, "tcpSocket": {"port": "web"}, "periodSeconds": -1}}}}}),
            &[
                "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            json!({"spec": {"containers": {"0": {"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}}}}),
            &["spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than \
               terminationGracePeriodSeconds (30)"],
        ),
    ]);
}

#[test]
fn resources() {
    sample().creates(&[
        (
            json!({"spec": {"containers": {"0": {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "100m"}}}}}}),
            &["spec.containers[0].resources.requests: Invalid value: \"1\": must be less than or equal to cpu limit of \
               100m"],
        ),
        (
            json!({"spec": {"containers": {"0": {"resources": {"limits": {"cpus": "-1", "example.com/gpu": "500m"}}}}}}),
            &[
                "spec.containers[0].resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource type or \
                 fully qualified",
                "spec.containers[0].resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource for \
                 containers",
                "spec.containers[0].resources.limits[cpus]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.containers[0].resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer",
                "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type \
                 or fully qualified",
                "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for \
                 containers",
                "spec.containers[0].resources.requests[cpus]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.containers[0].resources.requests[example.com/gpu]: Invalid value: \"500m\": must be an integer",
            ],
        ),
    ]);
}

#[test]
fn policies_and_scheduling() {
    sample().creates(&[
        (
            json!({"spec": {"restartPolicy": "x", "dnsPolicy": "y"}}),
            &[
                "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                "spec.dnsPolicy: Unsupported value: \"y\": supported values: \"ClusterFirstWithHostNet\", \
                 \"ClusterFirst\", \"Default\", \"None\"",
            ],
        ),
        (
            json!({"spec": {"tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "b"},
                {"key": "a", "effect": "Nope", "tolerationSeconds": 1}]}}),
            &[
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, \
                 which means \"match all values and all keys\"",
                "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
                "spec.tolerations[2].effect: Invalid value: \"Nope\": effect must be 'NoExecute' when \
                 `tolerationSeconds` is set",
                "spec.tolerations[2].effect: Unsupported value: \"Nope\": supported values: \"NoSchedule\", \
                 \"PreferNoSchedule\", \"NoExecute\"",
            ],
        ),
        (
            json!({"spec": {"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference":
                    {"matchExpressions": [{"key": "a", "operator": "Gt"}]}}]}}}}),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required \
                 value: must have at least one node selector term",
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: \
                 must be in the range 1-100",
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.\
                 matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or \
                 'Gt'",
            ],
        ),
        (
            json!({"spec": {"topologySpreadConstraints": [
                {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}}),
            &[
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \
                 \"{zone, DoNotSchedule}\"",
            ],
        ),
        (
            json!({"spec": {"schedulingGates": [{"name": "a"}, {"name": "a"}], "nodeName": "n"}}),
            &[
                "spec.schedulingGates[1]: Duplicate value: \"a\"",
                "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
            ],
        ),
        (
            json!({"spec": {"dnsPolicy": "None"}}),
            &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            json!({"spec": {"hostAliases": [{"ip": "1.2.3"}], "activeDeadlineSeconds": 0, "hostname": "a.b"}}),
            &[
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                "spec.hostname: Invalid value: \"a.b\": must not contain dots",
                "spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)",
            ],
        ),
    ]);
}

#[test]
fn security() {
    sample().creates(&[
        (
            json!({"spec": {"securityContext": {"runAsUser": -1, "seccompProfile": {"type": "Localhost"}}}}),
            &[
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive",
                "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is \
                 Localhost",
            ],
        ),
        (
            json!({"spec": {"hostUsers": false, "hostPID": true}}),
            &["spec.HostPID: Forbidden: when `hostUsers` is false"],
        ),
    ]);
}

#[test]
fn updates_may_change_little() {
    sample().updates(&[
        (json!({"spec": {"containers": {"0": {"image": "nginx:2"}}}}), &[]),
        (
            json!({"spec": {"containers": {"+": [{"name": "b", "image": "b"}]}}}),
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}}), &[]),
    ]);
    let errors = sample().update_errors("", &json!({"spec": {"containers": {"0": {"command": ["x"]}}}}));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n@@ "
        ),
        "{}",
        errors[0]
    );
    assert!(errors[0].contains("+      \"command\": ["), "{}", errors[0]);
    let gated = json!({"spec": {"schedulingGates": [{"name": "a"}]}});
    assert_eq!(
        sample().change_errors("", &gated, &json!({"spec": {"nodeSelector": {"disk": "ssd"}}})),
        Vec::<String>::new()
    );
    assert_eq!(
        sample().update_errors("", &json!({"spec": {"schedulingGates": [{"name": "a"}]}})),
        [
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"
        ]
    );
}

#[test]
fn status_writes() {
    let ended = json!({"spec": {"restartPolicy": "Never"}});
    assert_eq!(
        sample().change_errors(
            "status",
            &ended,
            &json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "nominatedNodeName": "A"}})
        )
        .len(),
        2
    );
}

#[test]
fn a_new_pod_is_pending() {
    let pod = pod(json!({"status": {"phase": "Running"}}));
    let status = pod.status.expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(pod.metadata.generation, Some(1));
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class = |resources: Value| {
        let pod = pod(json!({"spec": {"containers": {"0": {"resources": resources}}}}));
        pod.status.and_then(|s| s.qos_class).expect("a class")
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(
        class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}})),
        "Guaranteed"
    );
}

#[test]
fn resizing_changes_resources_and_nothing_else() {
    let from = json!({"spec": {"containers": {"0": {"resources": {"requests": {"cpu": "1"}}}}}});
    let to =
        |request: &str| json!({"spec": {"containers": {"0": {"resources": {"requests": {"cpu": request}}}}}});
    assert_eq!(sample().change_errors("resize", &from, &to("2")), Vec::<String>::new());
    let more =
        json!({"spec": {"containers": {"0": {"resources": {"limits": {"cpu": "1"}, "requests": null}}}}});
    assert_eq!(
        sample().change_errors("resize", &from, &more),
        ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
    );
    let renamed = json!({"spec": {"containers": {"0": {"name": "other"}}}});
    assert_eq!(
        sample().change_errors("resize", &from, &renamed),
        ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
    );
    let image =
        json!({"spec": {"containers": {"0": {"image": "other", "resources": {"requests": {"cpu": "1"}}}}}});
    assert_eq!(sample().change_errors("resize", &from, &image), Vec::<String>::new(), "is left out");
}

#[test]
fn label_keys_narrow_selectors() {
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}},
        "matchLabelKeys": ["version", "absent"], "mismatchLabelKeys": ["tenant"]});
    let pod = pod(json!({
        "metadata": {"labels": {"version": "2", "tenant": "a"}},
        "spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}},
    }));
    let affinity = pod.spec.and_then(|s| s.affinity).and_then(|a| a.pod_affinity).expect("an affinity");
    let terms = affinity.required_during_scheduling_ignored_during_execution.expect("terms");
    let selector = serde_json::to_value(&terms[0].label_selector).expect("JSON");
    assert_eq!(
        selector["matchExpressions"],
        json!([{"key": "version", "operator": "In", "values": ["2"]},
            {"key": "tenant", "operator": "NotIn", "values": ["a"]}])
    );
}
