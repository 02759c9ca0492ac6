//! The faults of new pods and of changes to pods.

use crate::behaviour::check::{Check, IMMUTABLE};
use crate::behaviour::fill::{self, items, str_of};
use crate::behaviour::pod_spec::{
    self, APPARMOR, image_has_no_margins, only_added_tolerations, only_removed_gates,
};
use crate::behaviour::{diff, internal, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{
    Affinity, Container, ContainerStatus, HostIP, NodeAffinity, NodeSelectorTerm, Pod, PodIP, PodSpec,
    PodStatus,
};
use std::collections::BTreeMap;

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What new and changed pods have to be.
pub(super) fn pod(errors: &mut Errors, pod: &Pod) {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    let at = Path::new("metadata").child("annotations");
    pod_spec::annotations(errors, &at, &annotations(pod), spec);
    pod_spec::pod_spec(errors, &path, spec, Some(&pod.metadata));
    if fill::is_empty(&spec.service_account_name) {
        for (i, volume) in items(&spec.volumes).iter().enumerate() {
            let sources = volume.projected.as_ref().map_or(&[][..], |p| items(&p.sources));
            for (j, _) in sources.iter().enumerate().filter(|(_, s)| s.service_account_token.is_some()) {
                let path = path.child("volumes").index(i).child("projected").child("sources").index(j);
                errors.forbidden(
                    &path.child("serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        image_has_no_margins(errors, &path.child("containers").index(i), container);
    }
    for (i, container) in items(&spec.init_containers).iter().enumerate() {
        image_has_no_margins(errors, &path.child("initContainers").index(i), container);
    }
}

fn annotations(pod: &Pod) -> BTreeMap<String, String> {
    pod.metadata.annotations.clone().unwrap_or_default()
}

pub fn create(new: &Pod) -> Errors {
    let mut errors = Errors::new();
    pod(&mut errors, new);
    let Some(spec) = &new.spec else { return errors };
    let path = Path::new("spec");
    if !items(&spec.ephemeral_containers).is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !fill::is_empty(&spec.node_name) && !items(&spec.scheduling_gates).is_empty() {
        errors
            .forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    pod_spec::agreement(&mut errors, &path, &annotations(new), spec);
    errors
}

pub fn update(subresource: &str, new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::new();
    match subresource {
        "status" => status(&mut errors, new, old),
        "ephemeralcontainers" => ephemeral_containers(&mut errors, new, old),
        "resize" => super::resize::validate(&mut errors, new, old),
        _ => main(&mut errors, new, old),
    }
    errors
}

fn main(errors: &mut Errors, new: &Pod, old: &Pod) {
    pod(errors, new);
    fixed_annotations(errors, new, old);
    let (Some(wanted), Some(was)) = (&new.spec, &old.spec) else { return };
    let path = Path::new("spec");
    if !images(errors, &path.child("containers"), &wanted.containers, &was.containers)
        || !images(
            errors,
            &path.child("initContainers"),
            items(&wanted.init_containers),
            items(&was.init_containers),
        )
        || !deadline(errors, &path.child("activeDeadlineSeconds"), wanted, was)
    {
        return;
    }
    let (tolerations, old_tolerations) = (items(&wanted.tolerations), items(&was.tolerations));
    only_added_tolerations(errors, &path.child("tolerations"), tolerations, old_tolerations);
    let (gates, old_gates) = (items(&wanted.scheduling_gates), items(&was.scheduling_gates));
    only_removed_gates(errors, &path.child("schedulingGates"), gates, old_gates);
    if fill::same(wanted, was) {
        return;
    }
    let mut rest = but_for_updatable(wanted, was);
    if !old_gates.is_empty() {
        gated(errors, &path, &mut rest, was);
    }
    if !fill::same(&rest, was) {
        errors.forbidden(&path, &format!("{UPDATABLE}\n{}", diff::unified(was, &rest)));
    }
}

/// Annotations of mirror pods and of AppArmor stay what they were.
fn fixed_annotations(errors: &mut Errors, new: &Pod, old: &Pod) {
    let path = Path::new("metadata").child("annotations");
    let (now, was) = (annotations(new), annotations(old));
    for key in was.keys().filter(|k| now.get(*k) != was.get(*k)) {
        if key.starts_with(APPARMOR) {
            errors.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for key in now.keys().filter(|k| !was.contains_key(*k)) {
        if key.starts_with(APPARMOR) {
            errors.forbidden(&path.key(key), "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), "may not add mirror pod annotation");
        }
    }
}

/// Whether the containers are the same; their images may change.
fn images(errors: &mut Errors, path: &Path, new: &[Container], old: &[Container]) -> bool {
    if new.len() != old.len() {
        errors.forbidden(path, "pod updates may not add or remove containers");
        return false;
    }
    for (i, container) in new.iter().enumerate() {
        errors.required(&path.index(i).child("image"), str_of(&container.image));
        image_has_no_margins(errors, &path.index(i), container);
    }
    true
}

/// A deadline can be set, and shortened.
fn deadline(errors: &mut Errors, path: &Path, new: &PodSpec, old: &PodSpec) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(seconds), was) => {
            let faults = names::in_range(seconds, 0, i64::from(i32::MAX));
            if let Some(fault) = faults.first() {
                errors.invalid(path, &seconds, fault);
                return false;
            }
            if was.is_some_and(|was| was < seconds) {
                errors.invalid(path, &seconds, "must be less than or equal to previous value");
                return false;
            }
            true
        }
        (None, Some(_)) => {
            let text = "must not update from a positive integer to nil value";
            errors.invalid(path, &None::<i64>, text);
            true
        }
        (None, None) => true,
    }
}

/// The new specification with the old values of all that may change.
fn but_for_updatable(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut rest = new.clone();
    for (container, was) in rest.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&was.image);
    }
    for (container, was) in
        fill::items_mut(&mut rest.init_containers).iter_mut().zip(items(&old.init_containers))
    {
        container.image.clone_from(&was.image);
    }
    rest.active_deadline_seconds = old.active_deadline_seconds;
    rest.scheduling_gates.clone_from(&old.scheduling_gates);
    rest.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && rest.termination_grace_period_seconds == Some(1)
    {
        rest.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    rest
}

/// A pod that waits at a gate may still be narrowed to fewer nodes.
fn gated(errors: &mut Errors, path: &Path, new: &mut PodSpec, old: &PodSpec) {
    let none = BTreeMap::new();
    let selector = new.node_selector.as_ref();
    let was = old.node_selector.as_ref().unwrap_or(&none);
    if was.iter().any(|(key, value)| selector.and_then(|s| s.get(key)) != Some(value)) {
        let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&path.child("nodeSelector"), &selector, text);
    }
    new.node_selector.clone_from(&old.node_selector);
    let of = |a: &Option<Affinity>| a.as_ref().and_then(|a| a.node_affinity.clone());
    let (now, was) = (of(&new.affinity), of(&old.affinity));
    if now == was {
        return;
    }
    narrowed(errors, &path.child("affinity").child("nodeAffinity"), now.as_ref(), was.as_ref());
    let mut affinity = new.affinity.take().unwrap_or_default();
    affinity.node_affinity = was;
    let nothing = affinity == Affinity::default() && old.affinity.is_none();
    new.affinity = (!nothing).then_some(affinity);
}

fn narrowed(errors: &mut Errors, path: &Path, new: Option<&NodeAffinity>, old: Option<&NodeAffinity>) {
    let terms = |a: Option<&NodeAffinity>| {
        a.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone())
            .map(|s| s.node_selector_terms)
            .unwrap_or_default()
    };
    let (now, was) = (terms(new), terms(old));
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    if !was.is_empty() && now.len() != was.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let shown = internal::list(&now, internal::NODE_TERM);
        errors.push(Error::invalid(&path, "", text).showing(shown));
        return;
    }
    for (i, (now, was)) in now.iter().zip(&was).enumerate() {
        if !only_adds(now, was) {
            let text = "only additions are allowed (no mutations or deletions)";
            let shown = internal::show(now, internal::NODE_TERM);
            errors.push(Error::invalid(&path.index(i), "", text).showing(shown));
        }
    }
}

fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let (old_labels, old_fields) = (items(&old.match_expressions), items(&old.match_fields));
    let (labels, fields) = (items(&new.match_expressions), items(&new.match_fields));
    if old_labels.is_empty() && old_fields.is_empty() {
        // An empty term matches nothing: with requirements it would match more.
        return labels.is_empty() && fields.is_empty();
    }
    labels.starts_with(old_labels) && fields.starts_with(old_fields)
}

fn ephemeral_containers(errors: &mut Errors, new: &Pod, old: &Pod) {
    pod(errors, new);
    fixed_annotations(errors, new, old);
    if annotations(old).contains_key(MIRROR) {
        errors.clear();
        errors.forbidden(&Path::new(""), "static pods do not support ephemeral containers");
        return;
    }
    let path = Path::new("spec").child("ephemeralContainers");
    let (Some(wanted), Some(was)) = (&new.spec, &old.spec) else { return };
    for was in items(&was.ephemeral_containers) {
        let name = &was.name;
        match items(&wanted.ephemeral_containers).iter().find(|c| c.name == *name) {
            None => {
                let text = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.forbidden(&path, &text);
            }
            Some(now) if !fill::same(now, was) => {
                let diff = diff::unified(was, now);
                let text = format!("existing ephemeral containers {name:?} may not be changed\n{diff}");
                errors.forbidden(&path, &text);
            }
            Some(_) => {}
        }
    }
}

fn status(errors: &mut Errors, new: &Pod, old: &Pod) {
    fixed_annotations(errors, new, old);
    let default = PodStatus::default();
    let (now, was) = (new.status.as_ref().unwrap_or(&default), old.status.as_ref().unwrap_or(&default));
    let path = Path::new("status");
    for (i, condition) in items(&now.conditions).iter().enumerate() {
        let path = path.child("conditions").index(i);
        if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
            errors.invalid(&path.child("observedGeneration"), &generation, "must be a non-negative integer");
        }
        errors.faults(&path.child("Type"), &condition.type_, names::qualified_name(&condition.type_));
    }
    let nominated = str_of(&now.nominated_node_name);
    if !nominated.is_empty() && nominated != str_of(&was.nominated_node_name) {
        let path = path.child("nominatedNodeName");
        errors.faults(&path, nominated, names::dns1123_subdomain(nominated));
        if old.spec.as_ref().is_some_and(|s| !fill::is_empty(&s.node_name)) {
            errors.forbidden(&path, "may not be set on pods that are already bound to a node");
        }
    }
    if let Some(generation) = now.observed_generation.filter(|g| *g < 0) {
        errors.invalid(&path.child("observedGeneration"), &generation, "must be a non-negative integer");
    }
    if str_of(&now.qos_class) != str_of(&was.qos_class) {
        errors.invalid(&path.child("qosClass"), str_of(&now.qos_class), IMMUTABLE);
    }
    states(errors, &path, now, was, old.spec.as_ref());
    addresses(errors, &path, now, was);
}

/// A container that ended for good does not come back.
fn states(errors: &mut Errors, path: &Path, new: &PodStatus, old: &PodStatus, spec: Option<&PodSpec>) {
    let default = PodSpec::default();
    let spec = spec.unwrap_or(&default);
    let all = spec.containers.iter().chain(items(&spec.init_containers));
    let rules =
        |c: &Container| items(&c.restart_policy_rules).iter().any(|r| r.action == "RestartAllContainers");
    if !all.clone().any(rules) {
        let may = |name: &str, code: i32, list: &[Container]| {
            list.iter().find(|c| c.name == name).is_some_and(|c| may_restart(c, spec, code))
        };
        let regular = |name: &str, code| may(name, code, &spec.containers);
        let init = |name: &str, code| may(name, code, items(&spec.init_containers));
        transitions(
            errors,
            &path.child("containerStatuses"),
            items(&new.container_statuses),
            items(&old.container_statuses),
            regular,
        );
        transitions(
            errors,
            &path.child("initContainerStatuses"),
            items(&new.init_container_statuses),
            items(&old.init_container_statuses),
            init,
        );
    }
    transitions(
        errors,
        &path.child("ephemeralContainerStatuses"),
        items(&new.ephemeral_container_statuses),
        items(&old.ephemeral_container_statuses),
        |_, _| false,
    );
}

/// Whether a container that exited with a code is started again.
fn may_restart(container: &Container, spec: &PodSpec, code: i32) -> bool {
    if let Some(policy) = &container.restart_policy {
        let rule = items(&container.restart_policy_rules).iter().find(|rule| {
            rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = items(&codes.values).contains(&code);
                listed == (codes.operator == "In")
            })
        });
        if rule.is_some() {
            return true;
        }
        return policy == "Always" || (policy == "OnFailure" && code != 0);
    }
    match str_of(&spec.restart_policy) {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

fn transitions(
    errors: &mut Errors,
    path: &Path,
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    may: impl Fn(&str, i32) -> bool,
) {
    let ended =
        |s: &ContainerStatus| s.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    for (i, was) in old.iter().enumerate() {
        let Some(code) = ended(was) else { continue };
        let runs = new.iter().any(|s| s.name == was.name && ended(s).is_none());
        if runs && !may(&was.name, code) {
            let text = "may not be transitioned to non-terminated state";
            errors.forbidden(&path.index(i).child("state"), text);
        }
    }
}

fn addresses(errors: &mut Errors, path: &Path, new: &PodStatus, old: &PodStatus) {
    let texts = |ips: &[PodIP]| ips.iter().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
    let path_of = |field| path.child(field);
    let (ips, known) = (texts(items(&new.pod_ips)), texts(items(&old.pod_ips)));
    valid_addresses(errors, &path_of("podIPs"), &ips, &known);
    one_of_each_family(errors, &path_of("podIPs"), &ips);
    repeated(errors, &path_of("podIPs"), &ips);
    let texts = |ips: &[HostIP]| ips.iter().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
    let (ips, known) = (texts(items(&new.host_ips)), texts(items(&old.host_ips)));
    let at = path_of("hostIPs");
    let Some(first) = ips.first() else { return };
    if str_of(&new.host_ip) != first {
        errors.push(Error::invalid(&at.index(0).child("ip"), first, "must be equal to `hostIP`"));
    }
    valid_addresses(errors, &at, &ips, &known);
    repeated(errors, &at, &ips);
    one_of_each_family(errors, &at, &ips);
}

/// Addresses that were there before may stay as they are.
fn valid_addresses(errors: &mut Errors, path: &Path, ips: &[String], known: &[String]) {
    for (i, ip) in ips.iter().enumerate().filter(|(_, ip)| !known.contains(ip)) {
        errors.faults(&path.index(i), ip, names::ip(ip));
    }
}

fn one_of_each_family(errors: &mut Errors, path: &Path, ips: &[String]) {
    let texts: Vec<&str> = ips.iter().map(String::as_str).collect();
    if texts.len() > 2 || (texts.len() == 2 && !crate::behaviour::check::dual_stack(&texts)) {
        let text = "may specify no more than one IP for each IP family";
        let shown = internal::list(&shown_ips(ips), internal::IP);
        errors.push(Error::invalid(path, "", text).showing(shown));
    }
}

fn repeated(errors: &mut Errors, path: &Path, ips: &[String]) {
    for (i, ip) in shown_ips(ips).iter().enumerate().filter(|(i, _)| ips[..*i].contains(&ips[*i])) {
        errors.push(Error::duplicate(&path.index(i), "").showing(internal::show(ip, internal::IP)));
    }
}

fn shown_ips(ips: &[String]) -> Vec<PodIP> {
    ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()
}
