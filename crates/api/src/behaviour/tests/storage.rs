//! Claims, volumes and what provides them.

use crate::behaviour::testing::Sample;
use serde_json::json;

#[test]
fn claims() {
    let sample = Sample::new(
        "v1",
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    sample.creates(&[
        (
            json!({"spec": {"accessModes": [], "resources": null}}),
            &[
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        ),
        (
            json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteOncePod", "x"], "resources": {"requests": {"storage": "0"}}}}),
            &[
                "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
                 \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            ],
        ),
    ]);
    let errors = sample.update_errors("", &json!({"spec": {"accessModes": ["ReadOnlyMany"]}}));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with(
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName \
             for bound claims\n@@"
        ),
        "{}",
        errors[0]
    );
    sample.updates(&[
        (json!({"spec": {"volumeName": "pv-1"}}), &[]),
        (json!({"spec": {"storageClassName": "fast"}}), &[]),
    ]);
}

#[test]
fn volumes() {
    let sample = Sample::new(
        "v1",
        "PersistentVolume",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/d"}}}),
    );
    sample.creates(&[
        (
            json!({"spec": {"accessModes": null, "capacity": null, "hostPath": null}}),
            &[
                "spec.accessModes: Required value",
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: null: supported values: \"storage\"",
                "spec: Required value: must specify a volume type",
            ],
        ),
        (
            json!({"spec": {"hostPath": null, "local": {"path": "/d"}}}),
            &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
    ]);
    let errors = sample.update_errors("", &json!({"spec": {"hostPath": {"path": "/other"}}}));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]
            .starts_with("spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n"),
        "{}",
        errors[0]
    );
}

#[test]
fn classes() {
    let sample = Sample::new("storage.k8s.io/v1", "StorageClass", json!({"provisioner": "example.com/disk"}));
    sample.creates(&[(
        json!({"provisioner": "", "reclaimPolicy": "x"}),
        &[
            "provisioner: Required value",
            "reclaimPolicy: Unsupported value: \"x\": supported values: \"Delete\", \"Retain\"",
        ],
    )]);
    sample.updates(&[(
        json!({"parameters": {"a": "b"}, "provisioner": "other", "volumeBindingMode": "WaitForFirstConsumer"}),
        &[
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ],
    )]);
}

#[test]
fn attachments() {
    let spec =
        json!({"attacher": "csi.example.com", "nodeName": "n", "source": {"persistentVolumeName": "pv"}});
    let sample = Sample::new("storage.k8s.io/v1", "VolumeAttachment", json!({"spec": spec}));
    sample.creates(&[(
        json!({"spec": {"attacher": "", "source": {"persistentVolumeName": null}}}),
        &[
            "spec.attacher: Required value",
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ],
    )]);
}

#[test]
fn drivers_and_nodes() {
    Sample::new("storage.k8s.io/v1", "CSIDriver", json!({"spec": {}})).creates(&[(
        json!({"spec": {"fsGroupPolicy": "x", "volumeLifecycleModes": ["y"]}}),
        &[
            "spec.fsGroupPolicy: Unsupported value: \"x\": supported values: \"File\", \"None\", \
             \"ReadWriteOnceWithFSType\"",
            "spec.volumeLifecycleModes: Unsupported value: \"y\": supported values: \"Ephemeral\", \"Persistent\"",
        ],
    )]);
    Sample::new("storage.k8s.io/v1", "CSINode", json!({"spec": {"drivers": [{"name": "a", "nodeID": "b"}]}}))
        .creates(&[(
            json!({"spec": {"drivers": [{"name": "a", "nodeID": ""}, {"name": "a", "nodeID": "b"}]}}),
            &["spec.drivers[0].nodeID: Required value", "spec.drivers[1].name: Duplicate value: \"a\""],
        )]);
}
