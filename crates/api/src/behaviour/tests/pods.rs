//! Pod specifications: what the fields forbid, one fault at a time.

use crate::behaviour::testing::Sample;
use crate::types::core::v1::Pod;
use serde_json::{Value, json};

fn sample() -> Sample {
    Sample::new(
        "v1",
        "Pod",
        json!({"spec": {"containers": [{"name": "web", "image": "nginx:1"}], "serviceAccountName": "default"}}),
    )
}

/// A pod with one volume.
fn volume(source: Value) -> Value {
    let mut volume = json!({"name": "v"});
    crate::behaviour::testing::merge(&mut volume, &source);
    json!({"spec": {"volumes": [volume]}})
}

#[test]
fn volumes() {
    const LENGTH: &str = "spec.volumes[0].name: Invalid value: \"v\": Total length of <volume \
         name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
    sample().creates(&[
        (volume(json!({})), &[]),
        (
            volume(json!({"emptyDir": {}, "cephfs": {"monitors": []}, "downwardAPI": {}})),
            &[
                "spec.volumes[0].cephFS: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[0].downwarAPI: Forbidden: may not specify more than 1 volume type",
            ],
        ),
        (
            volume(json!({"emptyDir": {"sizeLimit": "-1"}})),
            &["spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"],
        ),
        (
            volume(json!({"hostPath": {"path": "/a/../b", "type": "x"}})),
            &[
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "spec.volumes[0].hostPath.type: Unsupported value: \"x\": supported values: \"\", \"BlockDevice\", \
                 \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
            ],
        ),
        (
            volume(json!({"iscsi": {"targetPortal": "p".repeat(63), "iqn": "iqn.2015-02.example.com:test", "lun": 1,
                "initiatorName": "x"}})),
            &[
                "spec.volumes[0].iscsi.initiatorname: Invalid value: \"x\": must be valid format starting with iqn, eui, \
                 or naa",
                LENGTH,
            ],
        ),
        (
            volume(json!({"quobyte": {"registry": "a:1,b:2:3", "volume": "v"}})),
            &["spec.volumes[0].quobyte.registry: Invalid value: \"a:1,b:2:3\": must be a host:port pair or multiple pairs \
               separated by commas"],
        ),
        (
            volume(json!({"secret": {"secretName": "", "defaultMode": 512, "items": [{"key": "", "path": "..a"}]}})),
            &[
                "spec.volumes[0].secret.secretName: Required value",
                "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both \
                 inclusive",
                "spec.volumes[0].secret.items[0].key: Required value",
                "spec.volumes[0].secret.items[0].path: Invalid value: \"..a\": must not start with '..'",
            ],
        ),
        (
            volume(json!({"projected": {"sources": [
                {"configMap": {"name": "a", "items": [{"key": "k", "path": "p"}]}},
                {"secret": {"name": "b", "items": [{"key": "k", "path": "p"}]}, "downwardAPI": {}},
                {"serviceAccountToken": {"path": "", "expirationSeconds": 10}}]}})),
            &[
                "spec.volumes[0].projected: Invalid value: \"b\": conflicting duplicate paths",
                "spec.volumes[0].projected.sources[1]: Forbidden: may not specify more than 1 volume type per source",
                "spec.volumes[0].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 10: may not \
                 specify a duration less than 10 minutes",
                "spec.volumes[0].projected.path: Required value",
            ],
        ),
        (
            volume(json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "a", "uid": "b"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}})),
            &[
                "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
                "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.uID: Forbidden: cannot be set",
            ],
        ),
    ]);
}

#[test]
fn variables() {
    let env =
        |from: Value| json!({"spec": {"containers": {"0": {"env": [{"name": "A", "valueFrom": from}]}}}});
    const AT: &str = "spec.containers[0].env[0].valueFrom";
    sample().creates(&[
        (env(json!({"fieldRef": {"fieldPath": "spec.host"}})), &[]),
        (
            env(json!({"fieldRef": {"fieldPath": "spec.nodeSelector['a']"}})),
            &[&format!(
                "{AT}.fieldRef.fieldPath: Invalid value: \"spec.nodeSelector['a']\": error converting fieldPath: field \
                 label does not support subscript: spec.nodeSelector['a']"
            )],
        ),
        (
            env(json!({"fieldRef": {"fieldPath": "spec.restartPolicy"}})),
            &[&format!(
                "{AT}.fieldRef.fieldPath: Unsupported value: \"spec.restartPolicy\": supported values: \"metadata.name\", \
                 \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \
                 \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\""
            )],
        ),
        (
            env(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}})),
            &[&format!(
                "{AT}.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are \
                 supported with the cpu resource"
            )],
        ),
        (
            env(json!({"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "a", "key": "b"}})),
            &[&format!("{AT}: Invalid value: \"\": may not have more than one field specified at a time")],
        ),
    ]);
}

#[test]
fn security() {
    let context = |context: Value| json!({"spec": {"containers": {"0": {"securityContext": context}}}});
    let rest = "\"SELinuxOptions\":null,\"WindowsOptions\":null,\"RunAsUser\":null,\"RunAsGroup\":null,\
         \"RunAsNonRoot\":null,\"ReadOnlyRootFilesystem\":null,\"AllowPrivilegeEscalation\":false,\"ProcMount\":null,\
         \"SeccompProfile\":null,\"AppArmorProfile\":null";
    let shown = format!("{{\"Capabilities\":null,\"Privileged\":true,{rest}}}");
    sample().creates(&[
        (
            context(json!({"allowPrivilegeEscalation": false, "privileged": true})),
            &[&format!(
                "spec.containers[0].securityContext: Invalid value: {shown}: cannot set `allowPrivilegeEscalation` to false \
                 and `privileged` to true"
            )],
        ),
        (
            context(json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "a"}})),
            &["spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \
               {\"Type\":\"Unconfined\",\"LocalhostProfile\":\"a\"}: can only be set when seccomp type is Localhost"],
        ),
        (
            json!({"spec": {"securityContext": {"seLinuxChangePolicy": "MountOption", "fsGroup": -1}}}),
            &[
                "spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 4294967295, inclusive",
                "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \
                 \"Recursive\"",
            ],
        ),
        (
            json!({"spec": {"securityContext": {"windowsOptions": {"hostProcess": true, "runAsUserName": "a/b"}}}}),
            &[
                "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a/b\": runAsUserName's User cannot \
                 contain the following characters: \"/\\:;|=,+*?<>@[]",
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
            ],
        ),
        (
            json!({"spec": {"os": {"name": ""}}}),
            &["spec.os.name: Required value: cannot be empty"],
        ),
    ]);
}

#[test]
fn users_of_their_own() {
    let privileged = json!({"hostUsers": false, "hostNetwork": true, "hostPID": true, "hostIPC": true});
    sample().creates(&[
        (json!({"spec": {"hostUsers": false}}), &[]),
        (
            json!({"spec": privileged}),
            &[
                "spec.hostNetwork: Forbidden: when `hostUsers` is false",
                "spec.HostPID: Forbidden: when `hostUsers` is false",
                "spec.HostIPC: Forbidden: when `hostUsers` is false",
            ],
        ),
        (
            json!({"spec": {"containers": {"0": {"securityContext": {"procMount": "Unmasked"}}}}}),
            &["spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use \
               `Unmasked`"],
        ),
        (
            json!({"spec": {"hostUsers": false, "containers": {"0": {"securityContext": {"procMount": "Unmasked"}}}}}),
            &[],
        ),
        (
            json!({"spec": {"hostUsers": true, "os": {"name": "windows"}}}),
            &["spec.hostUsers: Forbidden: cannot be set for a windows pod"],
        ),
    ]);
}

#[test]
fn annotations() {
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let wrong = |value: &str| {
        format!("metadata.annotations[{cost}]: Invalid value: {value:?}: must be a 32bit integer")
    };
    let mut clash = annotated("seccomp.security.alpha.kubernetes.io/pod", "unconfined");
    clash["spec"] = json!({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}});
    sample().creates(&[
        (annotated(cost, "-5"), &[]),
        (annotated(cost, "+5"), &[&wrong("+5")]),
        (annotated(cost, "05"), &[&wrong("05")]),
        (
            annotated("container.seccomp.security.alpha.kubernetes.io/web", "x"),
            &["metadata.annotations.container.seccomp.security.alpha.kubernetes.io/web: Invalid value: \"x\": must be a valid \
               seccomp profile"],
        ),
        (
            clash,
            &["spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match"],
        ),
    ]);
}

#[test]
fn claims_of_resources() {
    let claim = json!({"name": "a", "resourceClaimName": "b", "resourceClaimTemplateName": "c"});
    let two = json!([{"name": "a"}, {"name": "a", "request": "R"}, {"name": "z"}]);
    sample().creates(&[
        (
            json!({"spec": {"resourceClaims": [claim]}}),
            &["spec.resourceClaims[0]: Invalid value: {\"Name\":\"a\",\"ResourceClaimName\":\"b\",\
               \"ResourceClaimTemplateName\":\"c\"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may \
               be specified"],
        ),
        (
            json!({"spec": {"resourceClaims": [{"name": "a", "resourceClaimName": "b"}],
                "containers": {"0": {"resources": {"claims": two}}}}}),
            &[
                "spec.containers[0].resources.claims[1]: Duplicate value: \"a\"",
                "spec.containers[0].resources.claims[2]: Not found: \"z\": must be one of the names in \
                 pod.spec.resourceClaims: a",
            ],
        ),
    ]);
}

#[test]
fn what_is_switched_off_is_dropped() {
    let patch = json!({"spec": {"schedulingGroup": {"podGroupName": "g"},
        "containers": {"0": {"lifecycle": {"stopSignal": "SIGUSR1"}}},
        "volumes": [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "p", "name": "n"}}]}}]}});
    let object = sample().stored(&patch);
    let spec = object.as_any().downcast_ref::<Pod>().expect("a pod").spec.clone().expect("a specification");
    assert_eq!(spec.scheduling_group, None);
    assert_eq!(spec.containers[0].lifecycle, None);
    let sources =
        spec.volumes.expect("volumes")[0].projected.clone().expect("projected").sources.expect("sources");
    assert_eq!(sources[0].cluster_trust_bundle, None);
    sample().creates(&[(patch, &[])]);
}

#[test]
fn a_gated_pod_is_only_narrowed() {
    let gated = json!({"spec": {"schedulingGates": [{"name": "a.b/c"}], "nodeSelector": {"disk": "ssd"}}});
    let change = |patch: Value| sample().change_errors("", &gated, &patch);
    assert_eq!(change(json!({"spec": {"nodeSelector": {"zone": "a"}}})), Vec::<String>::new());
    assert_eq!(
        change(json!({"spec": {"nodeSelector": null}})),
        [
            "spec.nodeSelector: Invalid value: null: only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        ]
    );
}
