//! Deployments and the other workloads.

use crate::behaviour::testing::{Sample, merge};
use crate::types::apps::v1::{DaemonSet, Deployment};
use crate::types::batch::v1::Job;
use serde_json::{Value, json};

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}})
}

fn workload(kind: &str) -> Sample {
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template()});
    Sample::new("apps/v1", kind, json!({"spec": spec}))
}

#[test]
fn deployments() {
    let sample = workload("Deployment");
    sample.creates(&[
        (
            json!({"spec": {"selector": null}}),
            &[
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template \
                 `labels`",
            ],
        ),
        (
            json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}}),
            &["spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template \
               `labels`"],
        ),
        (
            json!({"spec": {"replicas": -1}}),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {}}}}),
            &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        ),
        (
            json!({"spec": {"strategy": {"type": "Slowly"}}}),
            &["spec.strategy: Unsupported value: {\"Type\":\"Slowly\",\"RollingUpdate\":null}: supported values: \
               \"Recreate\", \"RollingUpdate\""],
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "101%", "maxSurge": "x"}}}}),
            &[
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric \
                 string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}}),
            &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
        ),
        (
            json!({"spec": {"minReadySeconds": 600}}),
            &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
        ),
        (
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": []}}}}),
            &[
                "spec.template.spec.containers: Required value",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ],
        ),
        (
            json!({"spec": {"template": {"spec": {"ephemeralContainers": [{"name": "d", "image": "x"}]}}}}),
            &["spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template"],
        ),
    ]);
    sample.updates(&[
        (json!({"spec": {"replicas": 3}}), &[]),
        (
            json!({"spec": {"selector": {"matchLabels": {"tier": "a"}}, "template": {"metadata": {"labels": {"tier": "a"}}}}}),
            &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"tier\":\"a\"}}: field is immutable"],
        ),
    ]);
    assert_eq!(
        sample.update_errors("status", &json!({"status": {"replicas": 1, "readyReplicas": 2}})),
        ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
    );
}

#[test]
fn warnings_are_for_what_users_write() {
    let sample = workload("Deployment");
    let old = sample.stored(&json!({}));
    let warnings = |patch: Value| {
        let mut new = sample.with(&patch);
        crate::behaviour::meta::before_update(new.meta_mut(), old.meta());
        sample.behaviour().prepare_update(&mut *new, &*old);
        sample.behaviour().warnings(&*new, Some(&*old))
    };
    let template = json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}});
    assert_eq!(
        warnings(json!({"spec": {"template": {"spec": template}}})),
        [
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead"
        ]
    );
    let with_label = sample.stored(&json!({"spec": {"template": {"spec": template}}}));
    assert_eq!(sample.behaviour().warnings(&*with_label, Some(&*with_label)), Vec::<String>::new());
    assert_eq!(
        sample.behaviour().warnings(&*sample.stored(&json!({"metadata": {"name": "a.b"}})), None),
        [
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
          recommended: [must not contain dots]"
        ]
    );
}

#[test]
fn generation_counts_specifications() {
    let sample = workload("Deployment");
    let old = sample.stored(&json!({}));
    let deployment = |patch: Value, subresource: &str| {
        let mut new = sample.with(&patch);
        crate::behaviour::meta::before_update(new.meta_mut(), old.meta());
        if subresource.is_empty() {
            sample.behaviour().prepare_update(&mut *new, &*old);
        } else {
            sample.behaviour().prepare_subresource(subresource, &mut *new, &*old);
        }
        new.as_any().downcast_ref::<Deployment>().expect("a deployment").clone()
    };
    assert_eq!(old.meta().generation, Some(1));
    assert_eq!(deployment(json!({}), "").metadata.generation, Some(1));
    assert_eq!(deployment(json!({"metadata": {"labels": {"a": "b"}}}), "").metadata.generation, Some(1));
    assert_eq!(deployment(json!({"metadata": {"annotations": {"a": "b"}}}), "").metadata.generation, Some(2));
    assert_eq!(deployment(json!({"spec": {"replicas": 2}}), "").metadata.generation, Some(2));
    let kept = deployment(json!({"spec": {"replicas": 2}, "status": {"replicas": 7}}), "");
    assert_eq!(kept.status.and_then(|s| s.replicas), None, "an update keeps the status");
    let kept = deployment(json!({"spec": {"replicas": 2}, "status": {"replicas": 7}}), "status");
    assert_eq!(kept.metadata.generation, Some(1));
    assert_eq!(kept.spec.and_then(|s| s.replicas), Some(1), "a status write keeps the specification");
    assert_eq!(kept.status.and_then(|s| s.replicas), Some(7));
}

#[test]
fn replica_sets() {
    workload("ReplicaSet").creates(&[(
        json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}}),
        &["spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"],
    )]);
}

#[test]
fn stateful_sets() {
    let sample = workload("StatefulSet");
    sample.creates(&[
        (
            json!({"spec": {"podManagementPolicy": "x", "replicas": -1}}),
            &[
                "spec.podManagementPolicy: Invalid value: \"x\": must be 'OrderedReady' or 'Parallel'",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
                "template": {"spec": {"containers": {"0": {"volumeMounts": [{"name": "data", "mountPath": "/d"}]}}}}}}),
            &[],
        ),
    ]);
    sample.creates(&[
        (
            json!({"metadata": {"name": "a.b"}}),
            &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
        ),
        (
            json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 2}}}}),
            &["spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":2,\"MaxUnavailable\":null}: only allowed \
               for updateStrategy 'RollingUpdate'"],
        ),
    ]);
    sample.creates(&[
        (
            json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"volumeMode": "x"}}]}}),
            &[
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
                "spec.volumeClaimTemplates[0].spec.volumeMode: Unsupported value: \"x\": supported values: \"Block\", \
                 \"Filesystem\"",
            ],
        ),
        (
            json!({"spec": {"serviceName": "a_b"}}),
            &["spec.serviceName: Invalid value: \"a_b\": a lowercase RFC 1123 label must consist of lower case \
               alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
               or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"],
        ),
    ]);
    assert_eq!(
        sample.update_errors(
            "status",
            &json!({"status": {"replicas": 1, "availableReplicas": 2, "collisionCount": -1}})
        ),
        [
            "status.collisionCount: Invalid value: -1: must be greater than or equal to 0",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
        ]
    );
    sample.updates(&[
        (json!({"spec": {"replicas": 3, "minReadySeconds": 1}}), &[]),
        (
            json!({"spec": {"serviceName": "other"}}),
            &["spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
               'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' \
               are forbidden"],
        ),
    ]);
}

#[test]
fn daemon_sets() {
    let sample = workload("DaemonSet");
    sample.creates(&[
        (
            json!({"spec": {"selector": null}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
        ),
        (
            json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}}),
            &["spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is \
               non-zero"],
        ),
    ]);
    let set = sample.stored(&json!({}));
    let set = set.as_any().downcast_ref::<DaemonSet>().expect("a daemon set");
    let annotations = set.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations["deprecated.daemonset.template.generation"], "1");
}

fn job() -> Sample {
    let spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b:1"}]}}});
    Sample::new("batch/v1", "Job", json!({"spec": spec}))
}

#[test]
fn jobs() {
    let sample = job();
    sample.creates(&[
        (
            json!({"spec": {"template": {"spec": {"restartPolicy": null}}}}),
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        ),
        (
            json!({"spec": {"completions": -1, "backoffLimitPerIndex": 1}}),
            &[
                "spec.completions: Invalid value: -1: must be greater than or equal to 0",
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            ],
        ),
        (
            json!({"spec": {"completionMode": "Indexed", "parallelism": 2}}),
            &["spec.completions: Required value: when completion mode is Indexed"],
        ),
        (
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
            &[
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\
                 \"batch.kubernetes.io/controller-uid\":\"u-1\"}}: `selector` not auto-generated",
                "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u-1\",\
                 \"batch.kubernetes.io/job-name\":\"web\",\"controller-uid\":\"u-1\",\"job-name\":\"web\"}: `selector` \
                 does not match template `labels`",
            ],
        ),
        (
            json!({"spec": {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes":
                {"operator": "In", "values": [0, 2, 1]}}]}}}),
            &[
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,2,1]: must be ordered",
            ],
        ),
        (
            json!({"spec": {"completionMode": "Indexed", "completions": 5, "parallelism": 5,
                "successPolicy": {"rules": [{"succeededIndexes": "0,2-9"}]}}}),
            &["spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0,2-9\": error parsing succeededIndexes: \
               too large index: \"9\""],
        ),
    ]);
    let stored = sample.stored(&json!({}));
    let job = stored.as_any().downcast_ref::<Job>().expect("a job").spec.clone().expect("a specification");
    let labels = job.template.metadata.and_then(|m| m.labels).expect("labels");
    assert_eq!(labels["batch.kubernetes.io/controller-uid"], "u-1");
    assert_eq!(labels["job-name"], "web");
    let selector = job.selector.and_then(|s| s.match_labels).expect("a selector");
    assert_eq!(selector.len(), 1);
    assert_eq!(selector["batch.kubernetes.io/controller-uid"], "u-1");
}

#[test]
fn policies_of_jobs() {
    let indexed = |patch: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 5});
        merge(&mut spec, &patch);
        json!({"spec": spec})
    };
    job().creates(&[
        (
            json!({"spec": {"podFailurePolicy": {"rules": [{"action": ""}, {"action": "Count",
                "onExitCodes": {"operator": "", "values": [1]}, "onPodConditions": [{"type": "A", "status": "x"}]}]}}}),
            &[
                "spec.podFailurePolicy.rules[0].action: Required value: valid values: [\"Count\" \"FailIndex\" \
                 \"FailJob\" \"Ignore\"]",
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is \
                 required",
                "spec.podFailurePolicy.rules[1].onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]",
                "spec.podFailurePolicy.rules[1].onPodConditions[0].status: Unsupported value: \"x\": supported values: \
                 \"False\", \"True\", \"Unknown\"",
                "spec.podFailurePolicy.rules[1]: Invalid value: specifying both OnExitCodes and OnPodConditions is not \
                 supported",
            ],
        ),
        (
            json!({"spec": {"successPolicy": {"rules": [{"succeededCount": 1}]}}}),
            &["spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededIndexes\":null,\"SucceededCount\":1}]}: \
               requires indexed completion mode"],
        ),
        (
            indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "", "succeededCount": 1}]}})),
            &["spec.successPolicy.rules[0].succeededCount: Invalid value: 1: must be less than or equal to 0 (the number \
               of indexes in the specified succeededIndexes field)"],
        ),
        (
            indexed(json!({"completions": 100_001, "backoffLimitPerIndex": 1, "parallelism": 10_001})),
            &[
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
                "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above \
                 100000 and used with backoff limit per index",
            ],
        ),
        (
            json!({"spec": {"completionMode": "Other", "backoffLimitPerIndex": 1}}),
            &["spec.completionMode: Unsupported value: \"Other\": supported values: \"NonIndexed\", \"Indexed\""],
        ),
    ]);
    let long = "a".repeat(62);
    let patch = json!({"metadata": {"name": long}, "spec": indexed(json!({"completions": 11}))["spec"]});
    let fault = format!(
        "metadata.name: Invalid value: \"{long}\": will not able to create pod with invalid DNS label: {long}-10"
    );
    job().creates(&[(patch, &[&fault])]);
}

#[test]
fn a_job_keeps_its_policies() {
    let rule = json!({"action": "Ignore", "onPodConditions": [{"type": "A", "status": "True"}]});
    let sample = job();
    let stored: Value = serde_json::from_slice(&sample.stored(&json!({})).encode()).expect("JSON");
    let from = json!({"spec": stored["spec"]});
    let patch = json!({"spec": {"podFailurePolicy": {"rules": [rule]}, "podReplacementPolicy": "Failed"}});
    assert_eq!(
        sample.change_errors("", &from, &patch),
        ["spec.podFailurePolicy: Invalid value: {\"Rules\":[{\"Action\":\"Ignore\",\"OnExitCodes\":null,\
          \"OnPodConditions\":[{\"Type\":\"A\",\"Status\":\"True\"}]}]}: field is immutable"]
    );
}

#[test]
fn a_job_keeps_what_it_runs() {
    let sample = job();
    let stored: Value = serde_json::from_slice(&sample.stored(&json!({})).encode()).expect("JSON");
    let from = json!({"spec": stored["spec"]});
    let change = |patch: Value| sample.change_errors("", &from, &patch);
    assert_eq!(change(json!({"spec": {"parallelism": 3}})), Vec::<String>::new());
    assert_eq!(
        change(json!({"spec": {"completions": 3}})),
        ["spec.completions: Invalid value: 3: field is immutable"]
    );
    let errors = change(json!({"spec": {"template": {"spec": {"containers": {"0": {"image": "c:2"}}}}}}));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("spec.template: Invalid value: {\"metadata\":"), "{}", errors[0]);
    assert!(errors[0].ends_with(": field is immutable"), "{}", errors[0]);
}

#[test]
fn cron_jobs() {
    let spec = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template":
        {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "a", "image": "b:1"}]}}}}});
    Sample::new("batch/v1", "CronJob", json!({"spec": spec})).creates(&[
        (json!({"spec": {"schedule": ""}}), &["spec.schedule: Required value"]),
        (
            json!({"spec": {"schedule": "* * *"}}),
            &["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"],
        ),
        (
            json!({"spec": {"schedule": "TZ=UTC 0 * * * *"}}),
            &["spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone \
               field instead"],
        ),
        (
            json!({"spec": {"timeZone": "local", "concurrencyPolicy": "x"}}),
            &[
                "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in \
                 https://www.iana.org/time-zones",
                "spec.timeZone: Invalid value: \"local\": unknown time zone local",
                "spec.concurrencyPolicy: Unsupported value: \"x\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ],
        ),
        (
            json!({"metadata": {"name": "a".repeat(53)}}),
            &[&format!(
                "metadata.name: Invalid value: \"{}\": must be no more than 52 bytes",
                "a".repeat(53)
            )],
        ),
        (
            json!({"spec": {"jobTemplate": {"spec": {"selector": {"matchLabels": {"a": "b"}}, "manualSelector": true}}}}),
            &[
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be \
                 auto-generated",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ],
        ),
    ]);
}

#[test]
fn replication_controllers() {
    Sample::new("v1", "ReplicationController", json!({"spec": {"template": template()}})).creates(&[
        (
            json!({"spec": {"template": null}}),
            &["spec.selector: Required value", "spec.template: Required value"],
        ),
        (
            json!({"spec": {"selector": {"app": "b"}}}),
            &["spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template \
               `labels`"],
        ),
    ]);
}
