//! Warnings about ports of containers that are, or may be, the same port.

use crate::behaviour::fill::{items, str_of};
use crate::behaviour::pod_spec::containers::visit;
use crate::field::Path;
use crate::types::core::v1::{ContainerPort, PodSpec};
use std::collections::BTreeMap;

/// Ports of all containers that share number and protocol.
pub fn clashes(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    let mut taken: BTreeMap<(i32, String), Vec<(Path, ContainerPort)>> = BTreeMap::new();
    visit(path, spec, |path, container| {
        for (i, port) in items(&container.ports).iter().enumerate() {
            let at = path.child("ports").index(i);
            if !str_of(&port.host_ip).is_empty() && host(port) == 0 {
                warnings.push(format!("{at}: hostIP set without hostPort: {}", shown(port)));
            }
            let key = (port.container_port, str_of(&port.protocol).to_owned());
            let others = taken.entry(key).or_default();
            for (other_at, other) in others.iter() {
                if let Some(how) = compare(port, other) {
                    warnings.push(format!("{at}: {how} port definition with {other_at}"));
                }
            }
            others.push((at, port.clone()));
        }
    });
}

fn host(port: &ContainerPort) -> i32 {
    port.host_port.unwrap_or(0)
}

fn compare(a: &ContainerPort, b: &ContainerPort) -> Option<&'static str> {
    let (a_ip, b_ip) = (str_of(&a.host_ip), str_of(&b.host_ip));
    if a_ip == b_ip && host(a) == host(b) {
        Some("duplicate")
    } else if host(a) == 0 || host(b) == 0 {
        Some("overlapping")
    } else if host(a) == host(b) && a_ip.is_empty() != b_ip.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

/// A port as Go prints a structure.
fn shown(port: &ContainerPort) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        str_of(&port.name),
        host(port),
        port.container_port,
        str_of(&port.protocol),
        str_of(&port.host_ip)
    )
}
