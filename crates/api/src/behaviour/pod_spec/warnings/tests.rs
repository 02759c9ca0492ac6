//! Warnings by example.

use super::{At, template, whole};
use crate::field::Path;
use crate::types::core::v1::{Pod, PodTemplateSpec};
use serde_json::{Value, json};

fn of_pod(value: Value) -> Vec<String> {
    let pod: Pod = serde_json::from_value(value).expect("a pod");
    whole(At::Pod, &pod.spec.expect("a specification"), &pod.metadata.annotations.unwrap_or_default())
}

#[test]
fn old_labels_and_blind_selectors() {
    let spec = json!({"containers": [], "nodeSelector": {"beta.kubernetes.io/instance-type": "m"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
            [{"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "Exists"}]}]}},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "failure-domain.beta.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule"}]});
    assert_eq!(
        of_pod(json!({"metadata": {}, "spec": spec})),
        [
            "spec.nodeSelector[beta.kubernetes.io/instance-type]: deprecated since v1.17; use \
             \"node.kubernetes.io/instance-type\" instead",
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
             matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since \
             v1.17; use \"topology.kubernetes.io/zone\" instead",
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null \
             labelSelector results in matching no pod",
        ]
    );
}

#[test]
fn annotations_are_told_where_they_are() {
    let annotations = json!({"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": "",
        "container.apparmor.security.beta.kubernetes.io/a": "unconfined"}});
    let spec = json!({"containers": [{"name": "a"}]});
    assert_eq!(
        of_pod(json!({"metadata": annotations, "spec": spec})),
        [
            "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \
          \"priorityClassName\" field instead"
        ]
    );
    let of: PodTemplateSpec =
        serde_json::from_value(json!({"metadata": annotations, "spec": spec})).expect("a template");
    assert_eq!(
        template(&Path::new("spec").child("template"), &of)[1],
        "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; \
         use the \"appArmorProfile\" field instead"
    );
}

#[test]
fn what_is_there_twice() {
    let spec = json!({"hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}],
        "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {"name": ""}],
        "containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"},
            {"name": "X", "value": "$(X)3"}], "resources": {"limits": {"memory": "100m"}},
            "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 8080}]},
            {"name": "b", "ports": [{"containerPort": 80, "protocol": "TCP", "hostIP": "1.1.1.1"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "a", "path": "d"},
            {"key": "b", "path": "d/e"}]}}]});
    assert_eq!(
        of_pod(json!({"metadata": {}, "spec": spec})),
        [
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"d/e\" with \"d\"",
            "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"",
            "spec.imagePullSecrets[1].name: duplicate name \"a\"",
            "spec.imagePullSecrets[2].name: invalid empty name \"\"",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[1]: hides previous definition of \"X\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP \
             HostIP:1.1.1.1}",
            "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[1]",
        ]
    );
}
