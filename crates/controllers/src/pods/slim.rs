//! The slim pod of a typed one: what reading its encoding would give, without reading it.

use super::{
    ClaimSourceView, ContainerStatusView, ContainerView, IpView, PodView, SpecView, StateView, StatusView,
    TerminatedView, VolumeView, node_of,
};
use crate::meta::MetaView;
use krate_api::types::core::v1::{
    Container, ContainerState, ContainerStatus, Pod, PodSpec, PodStatus, Volume,
};
use serde::de::IgnoredAny;

pub(super) fn of(pod: &Pod) -> PodView {
    PodView {
        metadata: MetaView::of(&pod.metadata),
        spec: pod.spec.as_ref().map(spec).unwrap_or_default(),
        status: pod.status.as_ref().map(status).unwrap_or_default(),
    }
}

fn text(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

fn spec(spec: &PodSpec) -> SpecView {
    SpecView {
        node_name: text(&spec.node_name),
        hostname: text(&spec.hostname),
        subdomain: text(&spec.subdomain),
        restart_policy: text(&spec.restart_policy),
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        active_deadline_seconds: spec.active_deadline_seconds,
        tolerations: spec.tolerations.clone().unwrap_or_default(),
        pinned_to: spec.affinity.as_ref().map(node_of).unwrap_or_default(),
        containers: spec.containers.iter().map(container).collect(),
        init_containers: spec.init_containers.iter().flatten().map(container).collect(),
        volumes: spec.volumes.iter().flatten().map(volume).collect(),
    }
}

fn container(container: &Container) -> ContainerView {
    ContainerView {
        name: container.name.clone(),
        ports: container.ports.clone().unwrap_or_default(),
        restart_policy: text(&container.restart_policy),
    }
}

fn volume(volume: &Volume) -> VolumeView {
    let claim = volume.persistent_volume_claim.as_ref();
    VolumeView {
        name: volume.name.clone(),
        persistent_volume_claim: claim.map(|c| ClaimSourceView { claim_name: c.claim_name.clone() }),
        ephemeral: volume.ephemeral.as_ref().map(|_| IgnoredAny),
    }
}

fn status(status: &PodStatus) -> StatusView {
    StatusView {
        phase: text(&status.phase),
        reason: text(&status.reason),
        conditions: status.conditions.clone().unwrap_or_default(),
        pod_ip: text(&status.pod_ip),
        pod_ips: status.pod_ips.iter().flatten().map(|ip| IpView { ip: ip.ip.clone() }).collect(),
        container_statuses: statuses(&status.container_statuses),
        init_container_statuses: statuses(&status.init_container_statuses),
    }
}

fn statuses(statuses: &Option<Vec<ContainerStatus>>) -> Vec<ContainerStatusView> {
    let view = |status: &ContainerStatus| ContainerStatusView {
        name: status.name.clone(),
        restart_count: status.restart_count,
        state: status.state.as_ref().map(state).unwrap_or_default(),
    };
    statuses.iter().flatten().map(view).collect()
}

fn state(state: &ContainerState) -> StateView {
    let terminated = state.terminated.as_ref();
    StateView {
        terminated: terminated
            .map(|t| TerminatedView { exit_code: t.exit_code, finished_at: t.finished_at.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::Kind;
    use serde_json::{Value, json};

    /// Every field that the slim pod has, and some that it has not.
    fn full() -> Value {
        json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3,
                "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["f"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "x", "controller": true}],
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "deletionGracePeriodSeconds": 30},
            "spec": {"nodeName": "node", "hostname": "h", "subdomain": "s",
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "activeDeadlineSeconds": 6,
                "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 1}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchFields":
                        [{"key": "metadata.name", "operator": "In", "values": ["node"]}]}]}}},
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}]}],
                "initContainers": [{"name": "i", "restartPolicy": "Always"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}, {"name": "d", "emptyDir": {}}]},
            "status": {"phase": "Running", "reason": "r", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "containerStatuses": [{"name": "c", "ready": true, "restartCount": 2, "image": "i", "imageID": "",
                    "state": {"terminated": {"exitCode": 3, "finishedAt": "2026-01-01T00:00:00Z"}}}],
                "initContainerStatuses": [{"name": "i", "ready": true, "restartCount": 1, "image": "i", "imageID": "",
                    "state": {"running": {}}}]}
        })
    }

    #[test]
    fn it_is_what_reading_the_encoding_gives() {
        let bare = json!({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": {}});
        for pod in [full(), bare, json!({"metadata": {}})] {
            let pod = Pod::from_value(pod).unwrap();
            let read: PodView = serde_json::from_slice(&krate_api::Object::encode(&pod)).unwrap();
            // IgnoredAny equals nothing but itself by shape: Debug shows all there is
            assert_eq!(format!("{:?}", of(&pod)), format!("{read:?}"));
        }
    }

    #[test]
    fn every_field_is_filled_in_the_test_above() {
        let pod = of(&Pod::from_value(full()).unwrap());
        let unset = of(&Pod::default());
        let fields = |pod: &PodView| -> Vec<String> {
            let text = format!("{:#?}", (&pod.metadata, &pod.spec, &pod.status));
            // the fields of the three structs themselves
            let own = text
                .lines()
                .filter(|line| line.starts_with("        ") && line[8..].starts_with(char::is_lowercase));
            own.map(str::to_owned).collect()
        };
        let full = fields(&pod);
        for empty in fields(&unset) {
            assert!(!full.contains(&empty), "{empty}");
        }
    }
}
