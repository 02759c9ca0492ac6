//! Warnings about pod specifications: what is deprecated, and what is surely a mistake.

use super::containers::visit;
use crate::behaviour::fill::{items, str_of};
use crate::behaviour::names::dns1123_label;
use crate::field::Path;
use crate::types::core::v1::{Container, PodSpec, PodTemplateSpec};
use std::collections::BTreeMap;

/// Labels of nodes that have another name by now.
const OLD_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// A warning about the name of something whose pods' names and host names begin with it.
#[must_use]
pub fn name(name: &str) -> Option<String> {
    recommended(name, "Pod names and hostnames")
}

/// A warning about the name of a pod, which is its host name.
#[must_use]
pub fn pod_name(name: &str) -> Option<String> {
    recommended(name, "the Pod's hostname")
}

fn recommended(name: &str, use_of_it: &str) -> Option<String> {
    let faults = dns1123_label(name);
    (!faults.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {use_of_it}, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            faults.join(" ")
        )
    })
}

/// Warnings about a template.
#[must_use]
pub fn template(path: &Path, template: &PodTemplateSpec) -> Vec<String> {
    template.spec.as_ref().map(|spec| pod_spec(&path.child("spec"), spec)).unwrap_or_default()
}

/// Warnings about a specification.
#[must_use]
pub fn pod_spec(path: &Path, spec: &PodSpec) -> Vec<String> {
    let mut warnings = vec![];
    node_labels(&mut warnings, path, spec);
    volumes(&mut warnings, path, spec);
    for (i, alias) in items(&spec.host_aliases).iter().enumerate() {
        let first = items(&spec.host_aliases).iter().position(|a| a.ip == alias.ip);
        if first.is_some_and(|first| first < i) {
            warnings.push(format!(
                "{}: duplicate ip \"{}\"",
                path.child("hostAliases").index(i).child("ip"),
                alias.ip
            ));
        }
    }
    for (i, secret) in items(&spec.image_pull_secrets).iter().enumerate() {
        let at = path.child("imagePullSecrets").index(i);
        if secret.name.is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", at.child("name")));
        }
    }
    visit(path, spec, |path, container| container_warnings(&mut warnings, path, container));
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        let at = path.child("terminationGracePeriodSeconds");
        warnings.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn node_labels(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        if let Some((_, new)) = OLD_NODE_LABELS.iter().find(|(old, _)| old == key) {
            let at = path.child("nodeSelector").key(key);
            warnings.push(format!("{at}: deprecated since v1.14; use \"{new}\" instead"));
        }
    }
}

fn volumes(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    for (i, volume) in items(&spec.volumes).iter().enumerate() {
        let at = path.child("volumes").index(i);
        let old = [
            (
                "photonPersistentDisk",
                volume.photon_persistent_disk.is_some(),
                "v1.11, non-functional in v1.16+",
            ),
            ("gitRepo", volume.git_repo.is_some(), "v1.11, and disabled by default in v1.33+"),
            ("scaleIO", volume.scale_io.is_some(), "v1.16, non-functional in v1.22+"),
            ("flocker", volume.flocker.is_some(), "v1.22, non-functional in v1.25+"),
            ("storageOS", volume.storageos.is_some(), "v1.22, non-functional in v1.25+"),
            ("quobyte", volume.quobyte.is_some(), "v1.22, non-functional in v1.25+"),
            ("glusterfs", volume.glusterfs.is_some(), "v1.25, non-functional in v1.26+"),
            ("cephfs", volume.cephfs.is_some(), "v1.28, non-functional in v1.31+"),
            ("rbd", volume.rbd.is_some(), "v1.28, non-functional in v1.31+"),
        ];
        for (field, _, since) in old.iter().filter(|(_, set, _)| *set) {
            warnings.push(format!("{}: deprecated in {since}", at.child(field)));
        }
    }
}

fn container_warnings(warnings: &mut Vec<String>, path: &Path, container: &Container) {
    let mut seen: BTreeMap<&str, bool> = BTreeMap::new();
    for (i, var) in items(&container.env).iter().enumerate() {
        // A variable that refers to itself extends what was before.
        let extends = str_of(&var.value).contains(&format!("$({})", var.name));
        if seen.insert(&var.name, extends).is_some() && !extends {
            let at = path.child("env").index(i);
            let name = &var.name;
            warnings.push(format!(
                "{at}: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
    let fractional =
        |text: &str| crate::quantity::Quantity::parse(text).is_ok_and(|q| !q.is_zero() && !q.is_whole());
    let lists = container.resources.as_ref().map(|r| [("limits", &r.limits), ("requests", &r.requests)]);
    for (field, list) in lists.into_iter().flatten() {
        for (name, amount) in list.iter().flatten() {
            if matches!(name.as_str(), "memory" | "ephemeral-storage") && fractional(&amount.0) {
                let at = path.child("resources").child(field).key(name);
                warnings.push(format!(
                    "{at}: fractional byte value \"{}\" is invalid, must be an integer",
                    amount.0
                ));
            }
        }
    }
    let ports = items(&container.ports);
    for (i, port) in ports.iter().enumerate() {
        let twin = |other: &&crate::types::core::v1::ContainerPort| {
            other.container_port == port.container_port
                && other.protocol == port.protocol
                && other.host_port == port.host_port
                && other.host_ip == port.host_ip
        };
        if let Some(first) = ports[..i].iter().position(|p| twin(&p)) {
            let at = path.child("ports");
            warnings.push(format!("{}: duplicate port definition with {}", at.index(i), at.index(first)));
        }
    }
}
