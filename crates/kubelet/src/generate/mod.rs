//! What the runtime is asked for: the configuration of a sandbox and of a container, made from a pod.
//!
//! Pure, but for nothing: the files that are mounted have been made before, the image has been looked up.

pub mod container;
pub mod sandbox;
pub mod security;

use crate::spec;
use krate_api::types::core::v1::Pod;
use krate_runtime::cri::{NamespaceMode, NamespaceOption};

/// The control group of a pod, below the node's own.
pub fn cgroup_parent(node_group: &str, pod: &Pod) -> String {
    format!("{}/pod{}", node_group.trim_end_matches('/'), spec::uid(pod))
}

/// Which namespaces the pod's containers share with whom.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = spec::spec(pod);
    let of = |host: Option<bool>, else_mode| if host == Some(true) { NamespaceMode::Node } else { else_mode };
    let shared = if spec.share_process_namespace == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: of(spec.host_network, NamespaceMode::Pod),
        ipc: of(spec.host_ipc, NamespaceMode::Pod),
        pid: of(spec.host_pid, shared),
        target_id: String::new(),
    }
}
