//! The reasons of the kubelet's events, spelled as the original spells them.

use crate::spec::{self, Role};
use krate_api::types::core::v1::Pod;
use krate_client::recorder::{Reference, reference};

pub const CREATED: &str = "Created";
pub const STARTED: &str = "Started";
pub const FAILED: &str = "Failed";
pub const KILLING: &str = "Killing";
pub const BACK_OFF: &str = "BackOff";
pub const FAILED_POST_START: &str = "FailedPostStartHook";
pub const FAILED_PRE_STOP: &str = "FailedPreStopHook";
pub const PULLING: &str = "Pulling";
pub const PULLED: &str = "Pulled";
pub const INSPECT_FAILED: &str = "InspectFailed";
pub const NEVER_PULL: &str = "ErrImageNeverPull";
pub const FAILED_MOUNT: &str = "FailedMount";
pub const FAILED_SANDBOX: &str = "FailedCreatePodSandBox";
pub const SANDBOX_CHANGED: &str = "SandboxChanged";
pub const INVALID_ENV: &str = "InvalidEnvironmentVariableNames";
pub const DEADLINE: &str = "DeadlineExceeded";
pub const MISSING_DNS: &str = "MissingClusterDNS";
pub const INFEASIBLE: &str = "ResizeInfeasible";
pub const DEFERRED: &str = "ResizeDeferred";
pub const RESIZE_ERROR: &str = "ResizeError";
pub const RESIZE_COMPLETED: &str = "ResizeCompleted";
pub const FAILED_KILL: &str = "FailedKillPod";

/// An event about the pod.
pub fn about(pod: &Pod) -> Reference {
    reference(pod)
}

/// An event about one of its containers.
pub fn about_container(pod: &Pod, role: Role, container: &str) -> Reference {
    Reference { field_path: Some(spec::field_path(role, container)), ..reference(pod) }
}
