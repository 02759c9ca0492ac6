//! Claims, volumes and what provides them.

use crate::behaviour::testing::Sample;
use serde_json::json;

const EMPTY_DRIVER: &str = "spec.attacher: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case \
     alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
     regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

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
            json!({"spec": {"iscsi": {"targetPortal": "1.2.3.4", "iqn": "x", "lun": 256, "chapAuthSession": true}}}),
            &["spec.iscsi: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            json!({"spec": {"hostPath": null, "iscsi": {"targetPortal": "1.2.3.4", "iqn": "x", "lun": 256,
                "chapAuthSession": true, "initiatorName": "eui.0123456789abcdef"}}}),
            &[
                "spec.iscsi.iqn: Invalid value: \"x\": must be valid format",
                "spec.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                "spec.iscsi.secretRef: Required value",
            ],
        ),
        (
            json!({"spec": {"cephfs": {"monitors": ["a"]}}}),
            &["spec.cephFS: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            json!({"spec": {"flexVolume": {"driver": ""}}}),
            &["spec.flexVolume.driver: Required value"],
        ),
        (
            json!({"spec": {"hostPath": null, "glusterfs": {"endpoints": "a", "path": "b", "endpointsNamespace": ""}}}),
            &["spec.glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set, it must be a valid \
               namespace name"],
        ),
        (
            json!({"spec": {"hostPath": null, "csi": {"driver": "d", "volumeHandle": ""}, "capacity": {"storage": "-1"},
                "volumeMode": "x", "volumeAttributesClassName": ""}}),
            &[
                "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                "spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero",
                "spec.csi.volumeHandle: Required value",
                "spec.volumeMode: Unsupported value: \"x\": supported values: \"Block\", \"Filesystem\"",
                "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
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
fn a_volume_may_move_to_stable_labels() {
    let affinity = |key: &str| {
        json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
            [{"key": key, "operator": "In", "values": ["a"]}]}]}}})
    };
    let sample = Sample::new(
        "v1",
        "PersistentVolume",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/d"}}}),
    );
    let old = json!({"spec": affinity("failure-domain.beta.kubernetes.io/zone")});
    let change = |key| sample.change_errors("", &old, &json!({"spec": affinity(key)}));
    assert_eq!(change("topology.kubernetes.io/zone"), Vec::<String>::new());
    assert_eq!(
        change("topology.kubernetes.io/region"),
        [
            "nodeAffinity: Invalid value: {\"Required\":{\"NodeSelectorTerms\":[{\"MatchExpressions\":[{\"Key\":\
          \"topology.kubernetes.io/region\",\"Operator\":\"In\",\"Values\":[\"a\"]}],\"MatchFields\":null}]}}: field is \
          immutable, except for updating from beta label to GA"
        ]
    );
}

#[test]
fn sources_of_a_claim() {
    let sample = Sample::new(
        "v1",
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    sample.creates(&[
        // What nobody provides is dropped from the old field.
        (json!({"spec": {"dataSource": {"kind": "Other", "name": "a"}}}), &[]),
        (json!({"spec": {"dataSourceRef": {"kind": "Other", "name": "a", "apiGroup": "b.c", "namespace": "d"}}}), &[]),
        (
            json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"},
                "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "b"}}}),
            &["spec: Invalid value: {}: must match dataSourceRef"],
        ),
        (
            json!({"spec": {"dataSourceRef": {"kind": "Other", "name": ""}}}),
            &[
                "spec.dataSource.name: Required value",
                "spec.dataSource: Invalid value: \"Other\": must be 'PersistentVolumeClaim' when referencing the default \
                 apiGroup",
                "spec.dataSourceRef.name: Required value",
                "spec.dataSourceRef: Invalid value: \"Other\": must be 'PersistentVolumeClaim' when referencing the \
                 default apiGroup",
            ],
        ),
    ]);
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
    let zones = |values| json!([{"matchLabelExpressions": [{"key": "zone", "values": values}]}]);
    let both = json!([zones(json!(["a", "b"]))[0], zones(json!(["b", "a"]))[0], {}]);
    sample.creates(&[
        (json!({"allowedTopologies": zones(json!(["a"]))}), &[]),
        (
            json!({"allowedTopologies": both}),
            &[
                "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
                "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
            ],
        ),
    ]);
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
            "spec.attacher: Required value",
            EMPTY_DRIVER,
        ],
    )]);
}

#[test]
fn drivers_and_nodes() {
    let driver = Sample::new("storage.k8s.io/v1", "CSIDriver", json!({"spec": {}}));
    driver.updates(&[(
        json!({"spec": {"attachRequired": false, "volumeLifecycleModes": ["Ephemeral", "Persistent"]}}),
        &[
            "spec.attachedRequired: Invalid value: false: field is immutable",
            "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\",\"Persistent\"]: field is immutable",
        ],
    )]);
    driver.creates(&[(
        json!({"spec": {"nodeAllocatableUpdatePeriodSeconds": 9,
            "tokenRequests": [{"audience": "a", "expirationSeconds": 1}, {"audience": "a", "expirationSeconds": 1}]}}),
        &[
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ],
    )]);
    driver.creates(&[(
        json!({"spec": {"fsGroupPolicy": "x", "volumeLifecycleModes": ["y"]}}),
        &[
            "spec.fsGroupPolicy: Unsupported value: \"x\": supported values: \"File\", \"None\", \
             \"ReadWriteOnceWithFSType\"",
            "spec.volumeLifecycleModes: Unsupported value: \"y\": supported values: \"Persistent\", \"Ephemeral\"",
        ],
    )]);
    let node = Sample::new(
        "storage.k8s.io/v1",
        "CSINode",
        json!({"spec": {"drivers": [{"name": "a", "nodeID": "b"}]}}),
    );
    node.creates(&[
        (
            json!({"spec": {"drivers": [{"name": "a", "nodeID": ""}, {"name": "a", "nodeID": "b"}]}}),
            &["spec.drivers[0].nodeID: Required value", "spec.drivers[1].name: Duplicate value: \"a\""],
        ),
        (
            json!({"spec": {"drivers": {"0": {"topologyKeys": ["a", "a"]}}}}),
            &["spec.drivers[0]: Duplicate value: \"a\""],
        ),
    ]);
    node.updates(&[
        (json!({"spec": {"drivers": {"0": {"allocatable": {"count": 3}}}}}), &[]),
        (
            json!({"spec": {"drivers": {"0": {"nodeID": "c"}}}}),
            &["spec.drivers: Invalid value: {\"Name\":\"a\",\"NodeID\":\"c\",\"TopologyKeys\":null,\
               \"Allocatable\":null}: field is immutable"],
        ),
    ]);
}

#[test]
fn what_is_dubious_in_a_volume_is_told() {
    let term = json!({"matchExpressions": [{"key": "beta.kubernetes.io/arch", "operator": "Exists"}]});
    let volume = json!({
        "metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "a"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a"},
            "persistentVolumeReclaimPolicy": "Recycle", "rbd": {"monitors": ["a"], "image": "b"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}},
    });
    let sample = Sample::new("v1", "PersistentVolume", volume);
    assert_eq!(
        sample.behaviour().warnings(&*sample.with(&json!({})), None),
        [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \
             \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning.",
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/arch is \
             deprecated since v1.14; use \"kubernetes.io/arch\" instead",
            "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
        ]
    );
}
