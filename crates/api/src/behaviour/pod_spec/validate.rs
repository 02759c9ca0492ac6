//! The faults of a pod specification as a whole.

use super::{affinity, containers, profiles, requirements, scheduling, security, volumes, windows};
use crate::behaviour::check::Check;
use crate::behaviour::fill::{is_empty, items, str_of};
use crate::behaviour::{meta, names};
use crate::field::{Error, Errors, Path};
use crate::meta::ObjectMeta;
use crate::types::core::v1::{PodDNSConfig, PodSpec, PodTemplateSpec};
use std::collections::BTreeMap;

/// What the resolver of the C library takes.
const NAMESERVERS: usize = 3;
const SEARCH_PATHS: usize = 32;
const SEARCH_CHARS: usize = 2048;
/// Length of a host name that the kernel takes, in bytes.
const HOST_NAME: usize = 64;

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The faults of a pod template.
pub fn template(errors: &mut Errors, path: &Path, template: &PodTemplateSpec) {
    let none = BTreeMap::new();
    let empty = ObjectMeta::default();
    let metadata = template.metadata.as_ref().unwrap_or(&empty);
    let own_annotations = metadata.annotations.as_ref().unwrap_or(&none);
    // The original leaves `metadata` out of these paths.
    errors.extend(meta::labels(metadata.labels.as_ref().unwrap_or(&none), &path.child("labels")));
    errors.extend(meta::annotations(own_annotations, &path.child("annotations")));
    let default = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&default);
    annotations(errors, &path.child("annotations"), own_annotations, spec);
    let path = path.child("spec");
    pod_spec(errors, &path, spec, None);
    profiles::agreement(errors, &path, own_annotations, spec);
    if !items(&spec.ephemeral_containers).is_empty() {
        errors.forbidden(
            &path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// The faults of annotations that mean something to pods.
pub fn annotations(errors: &mut Errors, path: &Path, annotations: &BTreeMap<String, String>, spec: &PodSpec) {
    if let Some(value) = annotations.get(MIRROR)
        && is_empty(&spec.node_name)
    {
        errors.invalid(&path.key(MIRROR), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(value) = annotations.get(DELETION_COST)
        && !is_cost(value)
    {
        errors.invalid(&path.key(DELETION_COST), value, "must be a 32bit integer");
    }
    profiles::annotations(errors, path, annotations, spec);
}

/// A number of 32 bits without a plus sign or leading zeros.
fn is_cost(value: &str) -> bool {
    let plain = !value.starts_with('+') && (value == "0" || !value.starts_with('0'));
    plain && value.parse::<i32>().is_ok()
}

/// The faults of a specification. `pod` is the metadata of a pod, absent in a template.
pub fn pod_spec(errors: &mut Errors, path: &Path, spec: &PodSpec, pod: Option<&ObjectMeta>) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(Error::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let usable = volumes::validate(errors, &path.child("volumes"), items(&spec.volumes), pod);
    requirements::pod_claims(errors, &path.child("resourceClaims"), items(&spec.resource_claims), pod);
    containers::validate(errors, path, spec, &usable);
    requirements::pod(errors, path, spec);
    host_network_ports(errors, path, spec, pod.is_some());
    errors.required_one_of(
        &path.child("restartPolicy"),
        str_of(&spec.restart_policy),
        &["Always", "OnFailure", "Never"],
    );
    errors.required_one_of(
        &path.child("dnsPolicy"),
        str_of(&spec.dns_policy),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    if let Some(selector) = &spec.node_selector {
        errors.extend(meta::labels(selector, &path.child("nodeSelector")));
    }
    security::pod(errors, path, spec);
    affinity::validate(errors, &path.child("affinity"), spec.affinity.as_ref());
    dns_config(errors, &path.child("dnsConfig"), spec);
    for (i, gate) in items(&spec.readiness_gates).iter().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        errors.faults(&path, &gate.condition_type, names::qualified_name(&gate.condition_type));
    }
    scheduling::gates(errors, &path.child("schedulingGates"), items(&spec.scheduling_gates));
    let constraints = items(&spec.topology_spread_constraints);
    scheduling::spread(errors, &path.child("topologySpreadConstraints"), constraints);
    windows::host_process(errors, path, spec);
    security::host_users(errors, path, spec);
    host_name_override(errors, path, spec);
    name(errors, &path.child("serviceAccountName"), &spec.service_account_name, names::dns1123_subdomain);
    name(errors, &path.child("nodeName"), &spec.node_name, names::dns1123_subdomain);
    if let Some(seconds) = spec.active_deadline_seconds {
        for fault in names::in_range(seconds, 1, i64::from(i32::MAX)) {
            errors.invalid(&path.child("activeDeadlineSeconds"), &seconds, &fault);
        }
    }
    name(errors, &path.child("hostname"), &spec.hostname, names::dns1123_label);
    name(errors, &path.child("subdomain"), &spec.subdomain, names::dns1123_label);
    scheduling::tolerations(errors, &path.child("tolerations"), items(&spec.tolerations));
    host_aliases(errors, &path.child("hostAliases"), spec);
    name(errors, &path.child("priorityClassName"), &spec.priority_class_name, names::dns1123_subdomain);
    if let Some(class) = &spec.runtime_class_name {
        errors.faults(&path.child("runtimeClassName"), class, names::dns1123_subdomain(class));
    }
    if let Some(policy) = &spec.preemption_policy {
        errors.required_one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    if let Some(overhead) = &spec.overhead {
        requirements::limits_only(errors, &path.child("overhead"), overhead);
    }
    windows::os(errors, path, spec);
    containers::file_key_volumes(errors, path, spec);
}

/// The name of another object, or of the pod in the network, where there is one.
fn name(errors: &mut Errors, path: &Path, name: &Option<String>, check: fn(&str) -> Vec<String>) {
    if !is_empty(name) {
        errors.faults(path, str_of(name), check(str_of(name)));
    }
}

/// On the host's network a port of the container is a port of the host.
fn host_network_ports(errors: &mut Errors, path: &Path, spec: &PodSpec, is_pod: bool) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in items(&container.ports).iter().enumerate() {
            let host = port.host_port.unwrap_or(0);
            if (is_pod || host != 0) && host != port.container_port {
                let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                errors.invalid(&path, &host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn dns_config(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    if spec.dns_policy.as_deref() == Some("None") {
        match &spec.dns_config {
            None => {
                let text = "must provide `dnsConfig` when `dnsPolicy` is None";
                errors.push(Error::required(path, text));
                return;
            }
            Some(config) if items(&config.nameservers).is_empty() => {
                let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                errors.push(Error::required(&path.child("nameservers"), text));
                return;
            }
            Some(_) => {}
        }
    }
    if let Some(config) = &spec.dns_config {
        dns_values(errors, path, config);
    }
}

fn dns_values(errors: &mut Errors, path: &Path, config: &PodDNSConfig) {
    let servers = items(&config.nameservers);
    let at = path.child("nameservers");
    if servers.len() > NAMESERVERS {
        errors.invalid(&at, servers, &format!("must not have more than {NAMESERVERS} nameservers"));
    }
    for (i, server) in servers.iter().enumerate() {
        errors.faults(&at.index(i), server, names::ip(server));
    }
    let searches = items(&config.searches);
    let at = path.child("searches");
    if searches.len() > SEARCH_PATHS {
        errors.invalid(&at, searches, &format!("must not have more than {SEARCH_PATHS} search paths"));
    }
    if searches.join(" ").len() > SEARCH_CHARS {
        let text = format!(
            "must not have more than {SEARCH_CHARS} characters (including spaces) in the search list"
        );
        errors.invalid(&at, searches, &text);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.faults(&at.index(i), search, names::dns1123_subdomain_with_underscore(search));
    }
    for (i, option) in items(&config.options).iter().enumerate() {
        if is_empty(&option.name) {
            errors.push(Error::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

fn host_name_override(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(name) = &spec.hostname_override else { return };
    let path = path.child("hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > HOST_NAME {
        errors.push(Error::too_long(&path, HOST_NAME));
    }
    errors.faults(&path, name, names::dns1123_subdomain(name));
}

fn host_aliases(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    for (i, alias) in items(&spec.host_aliases).iter().enumerate() {
        let path = path.index(i);
        errors.faults(&path.child("ip"), &alias.ip, names::ip(&alias.ip));
        for (j, name) in items(&alias.hostnames).iter().enumerate() {
            errors.faults(&path.child("hostnames").index(j), name, names::dns1123_subdomain(name));
        }
    }
}
