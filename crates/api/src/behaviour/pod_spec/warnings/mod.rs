//! Warnings about pod specifications: what is deprecated, and what is surely a mistake.

mod paths;
mod ports;
#[cfg(test)]
mod tests;

use super::containers::visit;
use super::profiles;
use crate::behaviour::fill::{Resources, items, str_of};
use crate::behaviour::names::dns1123_label;
use crate::behaviour::{address_warnings, persistent_volume_claim};
use crate::field::Path;
use crate::quantity::Quantity;
use crate::types::core::v1::{
    Container, NodeSelectorTerm, PodAffinityTerm, PodSpec, PodTemplateSpec, WeightedPodAffinityTerm,
};
use std::collections::{BTreeMap, BTreeSet};

/// Labels of nodes that have another name by now.
pub const OLD_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Annotations that do nothing any more: since when, and the field that does it.
const OLD_ANNOTATIONS: [(&str, &str, &str); 3] = [
    ("scheduler.alpha.kubernetes.io/critical-pod", "v1.16+", "priorityClassName"),
    ("security.alpha.kubernetes.io/sysctls", "v1.11+", "sysctls"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "v1.11+", "sysctls"),
];

const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Where a specification is: in a pod, or in the template at a path.
#[derive(Clone, Copy)]
pub enum At<'a> {
    Pod,
    Template(&'a Path),
}

impl At<'_> {
    fn child(self, field: &str) -> Path {
        match self {
            At::Pod => Path::new(field),
            At::Template(path) => path.child(field),
        }
    }
}

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

/// What is to be said of a node label's old name.
#[must_use]
pub fn old_node_label(key: &str) -> Option<String> {
    let (old, new) = OLD_NODE_LABELS.iter().find(|(old, _)| *old == key)?;
    let since = if matches!(*old, "beta.kubernetes.io/arch" | "beta.kubernetes.io/os") { 14 } else { 17 };
    Some(format!("deprecated since v1.{since}; use \"{new}\" instead"))
}

/// Old names of labels in terms that select nodes.
#[must_use]
pub fn node_term(path: &Path, term: &NodeSelectorTerm) -> Vec<String> {
    let told = items(&term.match_expressions).iter().enumerate().filter_map(|(i, requirement)| {
        let at = path.child("matchExpressions").index(i).child("key");
        old_node_label(&requirement.key).map(|text| format!("{at}: {} is {text}", requirement.key))
    });
    told.collect()
}

/// Warnings about a template.
#[must_use]
pub fn template(path: &Path, template: &PodTemplateSpec) -> Vec<String> {
    let none = BTreeMap::new();
    let annotations = template.metadata.as_ref().and_then(|m| m.annotations.as_ref()).unwrap_or(&none);
    let spec = template.spec.as_ref();
    spec.map(|spec| whole(At::Template(path), spec, annotations)).unwrap_or_default()
}

/// Warnings about a specification and the annotations beside it.
#[must_use]
pub fn whole(at: At<'_>, spec: &PodSpec, annotations: &profiles::Annotations) -> Vec<String> {
    let mut warnings = vec![];
    let path = at.child("spec");
    node_labels(&mut warnings, &path, spec);
    spread(&mut warnings, &path, spec);
    let metadata = at.child("metadata").child("annotations");
    for (key, since, field) in OLD_ANNOTATIONS.iter().filter(|(key, ..)| annotations.contains_key(*key)) {
        let key = metadata.key(key);
        warnings.push(format!("{key}: non-functional in {since}; use the \"{field}\" field instead"));
    }
    volumes(&mut warnings, &path, spec);
    paths::overlapping(&mut warnings, items(&spec.volumes));
    repeated(&mut warnings, &path, spec);
    fractional(
        &mut warnings,
        &path.child("overhead"),
        spec.overhead.as_ref(),
        &["memory", "ephemeral-storage"],
    );
    profiles::old_annotations(&mut warnings, &metadata, annotations, spec, None);
    visit(&path, spec, |path, container| {
        let template = matches!(at, At::Template(_));
        profiles::old_annotations(&mut warnings, &metadata, annotations, spec, Some((container, template)));
        amounts(&mut warnings, path, container);
        variables(&mut warnings, path, container);
    });
    ports::clashes(&mut warnings, &path, spec);
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        let at = path.child("terminationGracePeriodSeconds");
        warnings.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    affinity(&mut warnings, &path.child("affinity"), spec);
    addresses(&mut warnings, &path, spec);
    warnings
}

fn node_labels(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        if let Some(text) = old_node_label(key) {
            warnings.push(format!("{}: {text}", path.child("nodeSelector").key(key)));
        }
    }
    let Some(nodes) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) else { return };
    let path = path.child("affinity").child("nodeAffinity");
    if let Some(required) = &nodes.required_during_scheduling_ignored_during_execution {
        let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
        for (i, term) in required.node_selector_terms.iter().enumerate() {
            warnings.extend(node_term(&path.index(i), term));
        }
    }
    let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    let preferred = items(&nodes.preferred_during_scheduling_ignored_during_execution);
    for (i, term) in preferred.iter().enumerate() {
        warnings.extend(node_term(&path.index(i).child("preference"), &term.preference));
    }
}

fn spread(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    for (i, constraint) in items(&spec.topology_spread_constraints).iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(i);
        let key = &constraint.topology_key;
        if let Some(text) = old_node_label(key) {
            warnings.push(format!("{}: {key} is {text}", path.child("topologyKey")));
        }
        if constraint.label_selector.is_none() {
            warnings.push(format!("{}: {NO_SELECTOR}", path.child("labelSelector")));
        }
    }
}

fn volumes(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    for (i, volume) in items(&spec.volumes).iter().enumerate() {
        let at = path.child("volumes").index(i);
        let mut old = |field: &str, set: bool, since: &str| {
            if set {
                warnings.push(format!("{}: deprecated in {since}", at.child(field)));
            }
        };
        let photon = volume.photon_persistent_disk.is_some();
        old("photonPersistentDisk", photon, "v1.11, non-functional in v1.16+");
        old("gitRepo", volume.git_repo.is_some(), "v1.11, and disabled by default in v1.33+");
        old("scaleIO", volume.scale_io.is_some(), "v1.16, non-functional in v1.22+");
        old("flocker", volume.flocker.is_some(), "v1.22, non-functional in v1.25+");
        old("storageOS", volume.storageos.is_some(), "v1.22, non-functional in v1.25+");
        old("quobyte", volume.quobyte.is_some(), "v1.22, non-functional in v1.25+");
        old("glusterfs", volume.glusterfs.is_some(), "v1.25, non-functional in v1.26+");
        if let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) {
            let path = at.child("ephemeral").child("volumeClaimTemplate").child("spec");
            warnings.extend(persistent_volume_claim::spec_warnings(&path, &template.spec));
        }
        let mut old = |field: &str, set: bool| {
            if set {
                warnings.push(format!("{}: deprecated in v1.28, non-functional in v1.31+", at.child(field)));
            }
        };
        old("cephfs", volume.cephfs.is_some());
        old("rbd", volume.rbd.is_some());
    }
}

/// What is listed twice.
fn repeated(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (i, alias) in items(&spec.host_aliases).iter().enumerate() {
        if !seen.insert(&alias.ip) {
            let at = path.child("hostAliases").index(i).child("ip");
            warnings.push(format!("{at}: duplicate ip {:?}", alias.ip));
        }
    }
    let secrets = items(&spec.image_pull_secrets);
    let at = |i: usize| path.child("imagePullSecrets").index(i).child("name");
    let mut seen = BTreeSet::new();
    for (i, secret) in secrets.iter().enumerate() {
        if !seen.insert(&secret.name) {
            warnings.push(format!("{}: duplicate name {:?}", at(i), secret.name));
        }
    }
    for (i, _) in secrets.iter().enumerate().filter(|(_, s)| s.name.is_empty()) {
        warnings.push(format!("{}: invalid empty name \"\"", at(i)));
    }
}

/// Bytes are whole.
pub fn fractional(warnings: &mut Vec<String>, path: &Path, list: Option<&Resources>, names: &[&str]) {
    for name in names {
        let Some(amount) = list.and_then(|l| l.get(*name)).and_then(|q| Quantity::of(q).ok()) else {
            continue;
        };
        if amount.millis() % 1000 != 0 {
            let at = path.key(name);
            warnings.push(format!("{at}: fractional byte value \"{amount}\" is invalid, must be an integer"));
        }
    }
}

fn amounts(warnings: &mut Vec<String>, path: &Path, container: &Container) {
    let Some(given) = &container.resources else { return };
    let path = path.child("resources");
    for name in ["memory", "ephemeral-storage"] {
        fractional(warnings, &path.child("limits"), given.limits.as_ref(), &[name]);
        fractional(warnings, &path.child("requests"), given.requests.as_ref(), &[name]);
    }
}

fn variables(warnings: &mut Vec<String>, path: &Path, container: &Container) {
    let mut seen = BTreeSet::new();
    for (i, var) in items(&container.env).iter().enumerate() {
        if seen.insert(&var.name) {
            continue;
        }
        // A variable that refers to itself extends what was before.
        let itself = format!("$({})", var.name);
        let value = str_of(&var.value);
        if var.value_from.is_some() || value == itself || !value.contains(&itself) {
            let at = path.child("env").index(i);
            warnings.push(format!(
                "{at}: hides previous definition of {:?}, which may be dropped when using apply",
                var.name
            ));
        }
    }
}

fn affinity(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    let Some(affinity) = &spec.affinity else { return };
    let mut terms = |kind: &str, required: &[PodAffinityTerm], preferred: &[WeightedPodAffinityTerm]| {
        let at = path.child(kind).child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, _) in required.iter().enumerate().filter(|(_, t)| t.label_selector.is_none()) {
            warnings.push(format!("{}: {NO_SELECTOR}", at.index(i).child("labelSelector")));
        }
        let at = path.child(kind).child("preferredDuringSchedulingIgnoredDuringExecution");
        let blind = |t: &WeightedPodAffinityTerm| t.pod_affinity_term.label_selector.is_none();
        for (i, _) in preferred.iter().enumerate().filter(|(_, t)| blind(t)) {
            let at = at.index(i).child("podAffinityTerm").child("labelSelector");
            warnings.push(format!("{at}: {NO_SELECTOR}"));
        }
    };
    if let Some(near) = &affinity.pod_affinity {
        let required = items(&near.required_during_scheduling_ignored_during_execution);
        terms("podAffinity", required, items(&near.preferred_during_scheduling_ignored_during_execution));
    }
    if let Some(apart) = &affinity.pod_anti_affinity {
        let required = items(&apart.required_during_scheduling_ignored_during_execution);
        terms(
            "podAntiAffinity",
            required,
            items(&apart.preferred_during_scheduling_ignored_during_execution),
        );
    }
}

/// Addresses in odd forms.
fn addresses(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    let servers = spec.dns_config.as_ref().map_or(&[][..], |c| items(&c.nameservers));
    for (i, server) in servers.iter().enumerate() {
        let at = path.child("dnsConfig").child("nameservers").index(i);
        warnings.extend(address_warnings::ip(&at, server));
    }
    for (i, alias) in items(&spec.host_aliases).iter().enumerate() {
        let at = path.child("hostAliases").index(i).child("ip");
        warnings.extend(address_warnings::ip(&at, &alias.ip));
    }
}
