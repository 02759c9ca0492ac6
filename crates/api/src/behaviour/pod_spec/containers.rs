//! The faults of containers: regular, init and ephemeral.

use super::volumes::Usable;
use super::{env, mounts, probes, requirements, security};
use crate::behaviour::check::Check;
use crate::behaviour::fill::{is_empty, items, str_of};
use crate::behaviour::names;
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer, PodSpec,
};
use std::collections::BTreeSet;

/// Restart rules of one container.
const RULES: usize = 20;
/// Exit codes of one rule.
const CODES: usize = 255;
const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";
const NOT_FOR_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// The names of all containers.
pub fn all_names(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let init = items(&spec.init_containers).iter().map(|c| c.name.as_str());
    let regular = spec.containers.iter().map(|c| c.name.as_str());
    init.chain(regular).chain(items(&spec.ephemeral_containers).iter().map(|c| c.name.as_str()))
}

pub fn validate(errors: &mut Errors, path: &Path, spec: &PodSpec, volumes: &Usable) {
    regular(errors, &path.child("containers"), spec, volumes);
    init(errors, &path.child("initContainers"), spec, volumes);
    ephemeral(errors, &path.child("ephemeralContainers"), spec, volumes);
}

fn regular(errors: &mut Errors, path: &Path, spec: &PodSpec, volumes: &Usable) {
    if spec.containers.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let path = path.index(i);
        common(errors, &path, container, spec, volumes);
        if !seen.insert(&container.name) {
            errors.push(Error::duplicate(&path.child("name"), &container.name));
        }
        lifecycle_and_probes(errors, &path, container, spec);
        restart_policy(errors, &path, container);
    }
    host_port_conflicts(errors, path, &spec.containers);
}

fn lifecycle_and_probes(errors: &mut Errors, path: &Path, container: &Container, spec: &PodSpec) {
    let grace = spec.termination_grace_period_seconds;
    probes::lifecycle(
        errors,
        &path.child("lifecycle"),
        container.lifecycle.as_ref(),
        grace,
        spec.os.as_ref(),
    );
    probes::liveness(errors, &path.child("livenessProbe"), container.liveness_probe.as_ref());
    probes::readiness(errors, &path.child("readinessProbe"), container.readiness_probe.as_ref());
    probes::startup(errors, &path.child("startupProbe"), container.startup_probe.as_ref());
}

fn init(errors: &mut Errors, path: &Path, spec: &PodSpec, volumes: &Usable) {
    let mut seen: BTreeSet<&String> = spec.containers.iter().map(|c| &c.name).collect();
    for (i, container) in items(&spec.init_containers).iter().enumerate() {
        let at = path.index(i);
        common(errors, &at, container, spec, volumes);
        restart_policy(errors, &at, container);
        if !seen.insert(&container.name) {
            errors.push(Error::duplicate(&at.child("name"), &container.name));
        }
        // Init containers run one by one: each is checked on its own.
        host_port_conflicts(errors, path, std::slice::from_ref(container));
        if container.restart_policy.as_deref() == Some("Always") {
            lifecycle_and_probes(errors, &at, container, spec);
            continue;
        }
        for (field, set) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if set {
                errors.forbidden(&at.child(field), NOT_FOR_INIT);
            }
        }
    }
}

fn ephemeral(errors: &mut Errors, path: &Path, spec: &PodSpec, volumes: &Usable) {
    let others: BTreeSet<&str> =
        spec.containers.iter().chain(items(&spec.init_containers)).map(|c| c.name.as_str()).collect();
    let mut seen = others.clone();
    for (i, debugger) in items(&spec.ephemeral_containers).iter().enumerate() {
        let path = path.index(i);
        let container = as_container(debugger);
        common(errors, &path, &container, spec, volumes);
        image_has_no_margins(errors, &path, &container);
        if !seen.insert(&debugger.name) {
            errors.push(Error::duplicate(&path.child("name"), &debugger.name));
        }
        let target = str_of(&debugger.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.push(Error::not_found(&path.child("targetContainerName"), target));
        }
        not_for_ephemeral(errors, &path, &container);
    }
}

/// An ephemeral container may not be relied upon.
fn not_for_ephemeral(errors: &mut Errors, path: &Path, container: &Container) {
    let resources = container.resources.clone().unwrap_or_default();
    for (field, set) in [
        ("ports", !items(&container.ports).is_empty()),
        ("resources", resources != Default::default()),
        ("resizePolicy", !items(&container.resize_policy).is_empty()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", !items(&container.restart_policy_rules).is_empty()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ] {
        if set {
            errors.forbidden(&path.child(field), NOT_FOR_EPHEMERAL);
        }
    }
    for (i, mount) in items(&container.volume_mounts).iter().enumerate() {
        let path = path.child("volumeMounts").index(i);
        for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if !is_empty(value) {
                errors.forbidden(&path.child(field), NOT_FOR_EPHEMERAL);
            }
        }
    }
}

/// The part of an ephemeral container that it shares with the others.
fn as_container(c: &EphemeralContainer) -> Container {
    let c = c.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        restart_policy_rules: c.restart_policy_rules,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}

/// What every container has to be.
fn common(errors: &mut Errors, path: &Path, container: &Container, spec: &PodSpec, volumes: &Usable) {
    if errors.required(&path.child("name"), &container.name) {
        errors.faults(&path.child("name"), &container.name, names::dns1123_label(&container.name));
    }
    errors.required(&path.child("image"), str_of(&container.image));
    errors.required_one_of(
        &path.child("terminationMessagePolicy"),
        str_of(&container.termination_message_policy),
        &["File", "FallbackToLogsOnError"],
    );
    ports(errors, &path.child("ports"), items(&container.ports));
    env::variables(errors, &path.child("env"), items(&container.env));
    env::sources(errors, &path.child("envFrom"), items(&container.env_from));
    mounts::mounts(errors, &path.child("volumeMounts"), container, volumes);
    mounts::devices(errors, &path.child("volumeDevices"), container, volumes);
    errors.required_one_of(
        &path.child("imagePullPolicy"),
        str_of(&container.image_pull_policy),
        &["Always", "IfNotPresent", "Never"],
    );
    requirements::container(errors, &path.child("resources"), container.resources.as_ref(), spec);
    resize_policy(errors, &path.child("resizePolicy"), items(&container.resize_policy), spec);
    let own_users = spec.host_users.unwrap_or(true);
    security::container(
        errors,
        &path.child("securityContext"),
        container.security_context.as_ref(),
        own_users,
    );
}

/// Pods, unlike templates, may not have white space around an image's name.
pub fn image_has_no_margins(errors: &mut Errors, path: &Path, container: &Container) {
    let image = str_of(&container.image);
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn ports(errors: &mut Errors, path: &Path, ports: &[ContainerPort]) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = str_of(&port.name);
        if !name.is_empty() {
            let faults = names::port_name(name);
            if faults.is_empty() && !seen.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            errors.faults(&path.child("name"), name, faults);
        }
        let number = path.child("containerPort");
        if port.container_port == 0 {
            errors.push(Error::required(&number, ""));
        } else {
            crate::behaviour::check::port_number(errors, &number, port.container_port);
        }
        if let Some(host) = port.host_port.filter(|p| *p != 0) {
            crate::behaviour::check::port_number(errors, &path.child("hostPort"), host);
        }
        errors.required_one_of(&path.child("protocol"), str_of(&port.protocol), &["SCTP", "TCP", "UDP"]);
    }
}

/// Two containers cannot have one port of the host.
fn host_port_conflicts(errors: &mut Errors, path: &Path, containers: &[Container]) {
    let mut taken = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in items(&container.ports).iter().enumerate() {
            let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
            let key = format!("{}/{}/{number}", str_of(&port.protocol), str_of(&port.host_ip));
            if !taken.insert(key.clone()) {
                errors.push(Error::duplicate(&path.index(i).child("ports").index(j).child("hostPort"), &key));
            }
        }
    }
}

fn resize_policy(errors: &mut Errors, path: &Path, policies: &[ContainerResizePolicy], spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        if !seen.insert(&policy.resource_name) {
            errors.push(Error::duplicate(&path.index(i), &policy.resource_name));
        }
        errors.required_one_of(path, &policy.resource_name, &["cpu", "memory"]);
        errors.required_one_of(path, &policy.restart_policy, &["NotRequired", "RestartContainer"]);
        if spec.restart_policy.as_deref() == Some("Never") && policy.restart_policy != "NotRequired" {
            errors.invalid(
                path,
                &policy.restart_policy,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
    }
}

fn restart_policy(errors: &mut Errors, path: &Path, container: &Container) {
    let rules = items(&container.restart_policy_rules);
    let policy = path.child("restartPolicy");
    match &container.restart_policy {
        None if rules.is_empty() => return,
        None => {
            errors.push(Error::required(&policy, "must specify restartPolicy when restart rules are used"));
        }
        Some(value) => errors.one_of(&policy, value, &["Always", "Never", "OnFailure"]),
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > RULES {
        errors.push(Error::too_long(&path, RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        restart_rule(errors, &path.index(i), rule);
    }
}

fn restart_rule(errors: &mut Errors, path: &Path, rule: &ContainerRestartRule) {
    if !matches!(rule.action.as_str(), "Restart" | "RestartAllContainers") {
        // The original names one action here, though it takes both.
        errors.push(Error::not_supported(&path.child("action"), &rule.action, &["Restart"]));
    }
    let path = path.child("exitCodes");
    let Some(codes) = &rule.exit_codes else {
        errors.push(Error::required(&path, "must be specified"));
        return;
    };
    errors.one_of(&path.child("operator"), &codes.operator, &["In", "NotIn"]);
    if items(&codes.values).len() > CODES {
        errors.push(Error::too_long(&path.child("values"), CODES));
    }
}

/// Every container with its path, in the order of the original.
pub fn visit(path: &Path, spec: &PodSpec, mut look: impl FnMut(&Path, &Container)) {
    for (i, container) in items(&spec.init_containers).iter().enumerate() {
        look(&path.child("initContainers").index(i), container);
    }
    for (i, container) in spec.containers.iter().enumerate() {
        look(&path.child("containers").index(i), container);
    }
    for (i, container) in items(&spec.ephemeral_containers).iter().enumerate() {
        look(&path.child("ephemeralContainers").index(i), &as_container(container));
    }
}

/// Variables from files come from emptyDir volumes.
pub fn file_key_volumes(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    visit(path, spec, |path, container| {
        for (i, var) in items(&container.env).iter().enumerate() {
            let Some(file) = var.value_from.as_ref().and_then(|f| f.file_key_ref.as_ref()) else { continue };
            let path = path.child("env").index(i).child("valueFrom").child("fileKeyRef").child("volumeName");
            match items(&spec.volumes).iter().find(|v| v.name == file.volume_name) {
                None => errors.push(Error::not_found(&path, &file.volume_name)),
                Some(volume) if volume.empty_dir.is_none() => {
                    errors.invalid(&path, &file.volume_name, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    });
}
