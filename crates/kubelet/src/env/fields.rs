//! The downward API: values of a pod's own fields and resources, for variables and for files.

use crate::spec::{self, resources};
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::types::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is known of the pod and its node beside the specification.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    /// Primary first; empty until the sandbox has its network.
    pub pod_ips: Vec<String>,
    /// Stands in for limits that a container does not have.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The text of a field; `None` if there is no such field.
pub fn field(pod: &Pod, facts: &Facts, selector: &ObjectFieldSelector) -> Option<String> {
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let from = match map {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return None,
        };
        return Some(from.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let addresses = |of: &[IpAddr]| of.iter().map(ToString::to_string).collect::<Vec<_>>();
    Some(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => spec::spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => addresses(&facts.node_ips).into_iter().next().unwrap_or_default(),
        "status.hostIPs" => addresses(&facts.node_ips).join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return None,
    })
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One `key="value"` a line, sorted by key, the values quoted as Go quotes.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quote(v))).collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The text of `limits.cpu` and its like for a container; the error is the user's.
pub fn resource(
    container: &Container,
    facts: &Facts,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (which, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let amounts = container.resources.as_ref();
    let zero = Quantity("0".to_owned());
    let quantity = match which {
        "limits" => resources::limit(amounts, name).or_else(|| facts.allocatable.get(name)),
        "requests" => amounts.and_then(|r| r.requests.as_ref()).and_then(|r| r.get(name)),
        _ => return Err(unsupported()),
    };
    let divisor = selector.divisor.clone().unwrap_or_else(|| zero.clone());
    Ok(resources::divided(quantity.unwrap_or(&zero), &divisor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::*;
    use krate_api::types::core::v1::ResourceRequirements;

    fn at(path: &str) -> ObjectFieldSelector {
        ObjectFieldSelector { api_version: None, field_path: path.into() }
    }

    #[test]
    fn fields_of_the_pod() {
        let mut pod = pod("web");
        pod.metadata.labels = Some([("app".into(), "a \"b\"\n".into()), ("z".into(), "1".into())].into());
        let facts = Facts {
            node_name: "n1".into(),
            pod_ips: vec!["10.0.0.2".into(), "fd00::2".into()],
            ..Default::default()
        };
        let get = |path| field(&pod, &facts, &at(path));
        assert_eq!(get("metadata.name").unwrap(), "web");
        assert_eq!(get("metadata.labels['z']").unwrap(), "1");
        assert_eq!(get("metadata.labels['none']").unwrap(), "");
        assert_eq!(get("metadata.labels").unwrap(), "app=\"a \\\"b\\\"\\n\"\nz=\"1\"");
        assert_eq!(get("status.podIPs").unwrap(), "10.0.0.2,fd00::2");
        assert_eq!(get("spec.nodeName").unwrap(), "n1");
        assert_eq!(get("spec.nonsense"), None);
    }

    #[test]
    fn a_missing_limit_is_what_the_node_has() {
        let facts =
            Facts { allocatable: [("cpu".into(), Quantity("4".into()))].into(), ..Default::default() };
        let select = |resource: &str, divisor: &str| ResourceFieldSelector {
            container_name: None,
            divisor: Some(Quantity(divisor.into())),
            resource: resource.into(),
        };
        let mut c = container("web");
        assert_eq!(resource(&c, &facts, &select("limits.cpu", "1m")).unwrap(), "4000");
        assert_eq!(resource(&c, &facts, &select("requests.cpu", "0")).unwrap(), "0");
        c.resources = Some(ResourceRequirements {
            limits: Some([("cpu".into(), Quantity("250m".into()))].into()),
            ..Default::default()
        });
        assert_eq!(resource(&c, &facts, &select("limits.cpu", "0")).unwrap(), "1");
        assert!(resource(&c, &facts, &select("limits.gpu", "1")).is_err());
    }
}
