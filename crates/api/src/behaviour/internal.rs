//! Structures as errors show them: in the original's internal form, which has every field by its Go name and in
//! the order of its declaration, whatever was written.
//!
//! A form is a table; only the structures that some error shows whole have one.

use serde::Serialize;
use serde_json::Value;

/// What a field is: what it shows when it is not there, and the form of what it holds.
#[derive(Clone, Copy)]
pub enum Field {
    /// Shows `null`: a pointer to something plain, a plain list, a map.
    Null,
    /// Shows `""`.
    Text,
    /// Shows `0`.
    Number,
    /// Shows `null`, or a structure.
    Struct(&'static Form),
    /// Shows `null`, or a list of structures.
    List(&'static Form),
}

/// The fields of a structure: in JSON, in Go, and what they are.
pub type Form = [(&'static str, &'static str, Field)];

use Field::{List, Null, Number, Struct, Text};

pub static SECCOMP: &Form = &[("type", "Type", Text), ("localhostProfile", "LocalhostProfile", Null)];
static CAPABILITIES: &Form = &[("add", "Add", Null), ("drop", "Drop", Null)];
static SE_LINUX: &Form =
    &[("user", "User", Text), ("role", "Role", Text), ("type", "Type", Text), ("level", "Level", Text)];
static WINDOWS: &Form = &[
    ("gmsaCredentialSpecName", "GMSACredentialSpecName", Null),
    ("gmsaCredentialSpec", "GMSACredentialSpec", Null),
    ("runAsUserName", "RunAsUserName", Null),
    ("hostProcess", "HostProcess", Null),
];
pub static SECURITY_CONTEXT: &Form = &[
    ("capabilities", "Capabilities", Struct(CAPABILITIES)),
    ("privileged", "Privileged", Null),
    ("seLinuxOptions", "SELinuxOptions", Struct(SE_LINUX)),
    ("windowsOptions", "WindowsOptions", Struct(WINDOWS)),
    ("runAsUser", "RunAsUser", Null),
    ("runAsGroup", "RunAsGroup", Null),
    ("runAsNonRoot", "RunAsNonRoot", Null),
    ("readOnlyRootFilesystem", "ReadOnlyRootFilesystem", Null),
    ("allowPrivilegeEscalation", "AllowPrivilegeEscalation", Null),
    ("procMount", "ProcMount", Null),
    ("seccompProfile", "SeccompProfile", Struct(SECCOMP)),
    ("appArmorProfile", "AppArmorProfile", Struct(SECCOMP)),
];
pub static POD_CLAIM: &Form = &[
    ("name", "Name", Text),
    ("resourceClaimName", "ResourceClaimName", Null),
    ("resourceClaimTemplateName", "ResourceClaimTemplateName", Null),
];
static REQUIREMENT: &Form =
    &[("key", "Key", Text), ("operator", "Operator", Text), ("values", "Values", Null)];
pub static NODE_TERM: &Form = &[
    ("matchExpressions", "MatchExpressions", List(REQUIREMENT)),
    ("matchFields", "MatchFields", List(REQUIREMENT)),
];
static NODE_SELECTOR: &Form = &[("nodeSelectorTerms", "NodeSelectorTerms", List(NODE_TERM))];
pub static VOLUME_AFFINITY: &Form = &[("required", "Required", Struct(NODE_SELECTOR))];
pub static IP: &Form = &[("ip", "IP", Text)];
pub static TAINT: &Form = &[
    ("key", "Key", Text),
    ("value", "Value", Text),
    ("effect", "Effect", Text),
    ("timeAdded", "TimeAdded", Null),
];
pub static NODE_ADDRESS: &Form = &[("type", "Type", Text), ("address", "Address", Text)];
static SCOPE: &Form =
    &[("scopeName", "ScopeName", Text), ("operator", "Operator", Text), ("values", "Values", Null)];
pub static SCOPE_SELECTOR: &Form = &[("matchExpressions", "MatchExpressions", List(SCOPE))];
pub static TOLERATION: &Form = &[
    ("key", "Key", Text),
    ("operator", "Operator", Text),
    ("value", "Value", Text),
    ("effect", "Effect", Text),
    ("tolerationSeconds", "TolerationSeconds", Null),
];
pub static BUDGET: &Form = &[
    ("minAvailable", "MinAvailable", Null),
    ("selector", "Selector", Null),
    ("maxUnavailable", "MaxUnavailable", Null),
    ("unhealthyPodEvictionPolicy", "UnhealthyPodEvictionPolicy", Null),
];
pub static ADDRESS_PARENT: &Form = &[
    ("group", "Group", Text),
    ("resource", "Resource", Text),
    ("namespace", "Namespace", Text),
    ("name", "Name", Text),
];
pub static SERVICE_CIDR: &Form = &[("cidrs", "CIDRs", Null)];
static ALLOCATABLE: &Form = &[("count", "Count", Null)];
pub static CSI_NODE_DRIVER: &Form = &[
    ("name", "Name", Text),
    ("nodeID", "NodeID", Text),
    ("topologyKeys", "TopologyKeys", Null),
    ("allocatable", "Allocatable", Struct(ALLOCATABLE)),
];
static ATTACHED: &Form =
    &[("persistentVolumeName", "PersistentVolumeName", Null), ("inlineVolumeSpec", "InlineVolumeSpec", Null)];
pub static ATTACHMENT: &Form =
    &[("attacher", "Attacher", Text), ("source", "Source", Struct(ATTACHED)), ("nodeName", "NodeName", Text)];
static SUCCESS_RULE: &Form =
    &[("succeededIndexes", "SucceededIndexes", Null), ("succeededCount", "SucceededCount", Null)];
pub static SUCCESS_POLICY: &Form = &[("rules", "Rules", List(SUCCESS_RULE))];
static EXIT_CODES: &Form =
    &[("containerName", "ContainerName", Null), ("operator", "Operator", Text), ("values", "Values", Null)];
static POD_CONDITION: &Form = &[("type", "Type", Text), ("status", "Status", Text)];
static FAILURE_RULE: &Form = &[
    ("action", "Action", Text),
    ("onExitCodes", "OnExitCodes", Struct(EXIT_CODES)),
    ("onPodConditions", "OnPodConditions", List(POD_CONDITION)),
];
pub static FAILURE_POLICY: &Form = &[("rules", "Rules", List(FAILURE_RULE))];
pub static OBJECT_REFERENCE: &Form = &[
    ("kind", "Kind", Text),
    ("namespace", "Namespace", Text),
    ("name", "Name", Text),
    ("uid", "UID", Text),
    ("apiVersion", "APIVersion", Text),
    ("resourceVersion", "ResourceVersion", Text),
    ("fieldPath", "FieldPath", Text),
];
pub static EVENT_SOURCE: &Form = &[("component", "Component", Text), ("host", "Host", Text)];
pub static DISTINGUISHER: &Form = &[("type", "Type", Text)];
pub static NON_RESOURCE: &Form = &[("path", "Path", Text), ("verb", "Verb", Text)];
pub static UNCOUNTED_PODS: &Form = &[("succeeded", "Succeeded", Null), ("failed", "Failed", Null)];
pub static SERVICE_PORT: &Form = &[
    ("name", "Name", Text),
    ("protocol", "Protocol", Text),
    ("appProtocol", "AppProtocol", Null),
    ("port", "Port", Number),
    ("targetPort", "TargetPort", Number),
    ("nodePort", "NodePort", Number),
];

/// A structure in its form.
#[must_use]
pub fn show<T: Serialize>(value: &T, form: &Form) -> String {
    one(&serde_json::to_value(value).unwrap_or_default(), form)
}

/// A list of structures; `null` when there is none.
#[must_use]
pub fn list<T: Serialize>(values: &[T], form: &Form) -> String {
    many(&serde_json::to_value(values).unwrap_or_default(), form)
}

fn one(value: &Value, form: &Form) -> String {
    if value.is_null() {
        return "null".to_owned();
    }
    let fields: Vec<String> =
        form.iter().map(|(json, go, field)| format!("\"{go}\":{}", of(value.get(json), *field))).collect();
    format!("{{{}}}", fields.join(","))
}

fn many(value: &Value, form: &Form) -> String {
    let Some(items) = value.as_array().filter(|items| !items.is_empty()) else { return "null".to_owned() };
    let items: Vec<String> = items.iter().map(|item| one(item, form)).collect();
    format!("[{}]", items.join(","))
}

fn of(value: Option<&Value>, field: Field) -> String {
    let Some(value) = value.filter(|v| !v.is_null()) else {
        return match field {
            Text => "\"\"",
            Number => "0",
            Null | Struct(_) | List(_) => "null",
        }
        .to_owned();
    };
    match field {
        Struct(form) => one(value, form),
        List(form) => many(value, form),
        Null | Text | Number => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_is_shown_by_its_go_name() {
        assert_eq!(
            show(&json!({"key": "a", "effect": "NoSchedule"}), TAINT),
            r#"{"Key":"a","Value":"","Effect":"NoSchedule","TimeAdded":null}"#
        );
        assert_eq!(
            show(&json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}), NODE_TERM),
            r#"{"MatchExpressions":[{"Key":"a","Operator":"In","Values":["b"]}],"MatchFields":null}"#
        );
        assert_eq!(list::<Value>(&[], NODE_TERM), "null");
    }
}
