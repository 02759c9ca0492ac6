//! Defaults of a pod specification. All of them apply to pods and to pod templates, except those of
//! [`pod_only`].

use crate::behaviour::fill::{self, is_empty, items_mut, number, text, value};
use crate::types::core::v1::*;

/// Mode of files made from secrets, config maps, downward API and projections.
const FILE_MODE: i32 = 0o644;
/// Lifetime of projected tokens, in seconds.
const TOKEN_SECONDS: i64 = 3600;

/// Defaults of a pod template, with the fields that are always there.
pub fn template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    pod_spec(template.spec.get_or_insert_default());
}

pub fn pod_spec(spec: &mut PodSpec) {
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.restart_policy, "Always");
    spec.security_context.get_or_insert_default();
    value(&mut spec.termination_grace_period_seconds, 30);
    text(&mut spec.scheduler_name, "default-scheduler");
    if is_empty(&spec.service_account_name) {
        spec.service_account_name.clone_from(&spec.service_account);
    } else {
        spec.service_account.clone_from(&spec.service_account_name);
    }
    fill::requirements(&mut spec.resources);
    fill::resources(&mut spec.overhead);
    for v in items_mut(&mut spec.volumes) {
        volume(v);
    }
    for c in items_mut(&mut spec.init_containers).iter_mut().chain(&mut spec.containers) {
        container(c);
    }
    for c in items_mut(&mut spec.ephemeral_containers) {
        ephemeral_container(c);
    }
}

/// Defaults that pods have and pod templates have not.
pub fn pod_only(spec: &mut PodSpec) {
    value(&mut spec.enable_service_links, true);
    let host = spec.host_network.unwrap_or(false);
    for c in items_mut(&mut spec.init_containers).iter_mut().chain(&mut spec.containers) {
        if let Some(resources) = &mut c.resources
            && let Some(limits) = &resources.limits
        {
            let requests = resources.requests.get_or_insert_default();
            for (name, limit) in limits {
                requests.entry(name.clone()).or_insert_with(|| limit.clone());
            }
        }
        if host {
            for port in items_mut(&mut c.ports) {
                number(&mut port.host_port, port.container_port);
            }
        }
    }
    pod_level(spec);
}

/// A pod with limits of its own requests what its containers request, or else what it is limited to.
fn pod_level(spec: &mut PodSpec) {
    let sums = super::requests_of_containers(spec);
    let Some(resources) = &mut spec.resources else { return };
    let Some(limits) = resources.limits.as_ref().filter(|l| !l.is_empty()) else { return };
    let requests = resources.requests.get_or_insert_default();
    for name in ["cpu", "memory"] {
        if let Some(sum) = sums.get(name).filter(|s| !s.is_zero()) {
            requests.entry(name.to_owned()).or_insert_with(|| sum.text());
        }
    }
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn container(c: &mut Container) {
    let image = c.image.clone();
    common(
        image.as_deref().unwrap_or(""),
        &mut c.image_pull_policy,
        &mut c.termination_message_path,
        &mut c.termination_message_policy,
        &mut c.ports,
        &mut c.env,
        [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe],
        &mut c.lifecycle,
    );
    c.resources.get_or_insert_default();
    fill::requirements(&mut c.resources);
}

fn ephemeral_container(c: &mut EphemeralContainer) {
    let image = c.image.clone();
    common(
        image.as_deref().unwrap_or(""),
        &mut c.image_pull_policy,
        &mut c.termination_message_path,
        &mut c.termination_message_policy,
        &mut c.ports,
        &mut c.env,
        [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe],
        &mut c.lifecycle,
    );
    c.resources.get_or_insert_default();
    fill::requirements(&mut c.resources);
}

/// What containers and ephemeral containers share.
fn common(
    image: &str,
    pull_policy: &mut Option<String>,
    message_path: &mut Option<String>,
    message_policy: &mut Option<String>,
    ports: &mut Option<Vec<ContainerPort>>,
    env: &mut Option<Vec<EnvVar>>,
    probes: [&mut Option<Probe>; 3],
    lifecycle: &mut Option<Lifecycle>,
) {
    text(pull_policy, default_pull_policy(image));
    text(message_path, "/dev/termination-log");
    text(message_policy, "File");
    for port in items_mut(ports) {
        text(&mut port.protocol, "TCP");
    }
    for var in items_mut(env) {
        if let Some(from) = &mut var.value_from {
            if let Some(field) = &mut from.field_ref {
                text(&mut field.api_version, "v1");
            }
            if let Some(file) = &mut from.file_key_ref {
                value(&mut file.optional, false);
            }
            if let Some(resource) = &mut from.resource_field_ref {
                divisor(resource);
            }
        }
    }
    for p in probes.into_iter().flatten() {
        probe(p);
    }
    if let Some(lifecycle) = lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            if let Some(get) = &mut handler.http_get {
                http_get(get);
            }
        }
    }
}

/// The divisor is always there.
fn divisor(resource: &mut ResourceFieldSelector) {
    let divisor = resource.divisor.get_or_insert_default();
    if divisor.0.is_empty() {
        divisor.0.push('0');
    }
    fill::quantity(divisor);
}

fn probe(p: &mut Probe) {
    number(&mut p.timeout_seconds, 1);
    number(&mut p.period_seconds, 10);
    number(&mut p.success_threshold, 1);
    number(&mut p.failure_threshold, 3);
    if let Some(get) = &mut p.http_get {
        http_get(get);
    }
    if let Some(grpc) = &mut p.grpc {
        value(&mut grpc.service, String::new());
    }
}

fn http_get(get: &mut HTTPGetAction) {
    text(&mut get.path, "/");
    text(&mut get.scheme, "HTTP");
}

/// `Always` for what may change under its name, `IfNotPresent` otherwise.
#[must_use]
pub fn default_pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(n, d)| (n, d));
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map_or("", |(_, tag)| tag);
    match (tag, digest) {
        ("latest", _) | ("", "") => "Always",
        _ => "IfNotPresent",
    }
}

fn volume(v: &mut Volume) {
    if !has_source(v) {
        v.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(limit) = v.empty_dir.as_mut().and_then(|s| s.size_limit.as_mut()) {
        fill::quantity(limit);
    }
    if let Some(s) = &mut v.secret {
        value(&mut s.default_mode, FILE_MODE);
    }
    if let Some(s) = &mut v.config_map {
        value(&mut s.default_mode, FILE_MODE);
    }
    if let Some(s) = &mut v.downward_api {
        value(&mut s.default_mode, FILE_MODE);
        downward_items(&mut s.items);
    }
    if let Some(s) = &mut v.projected {
        projected(s);
    }
    if let Some(s) = &mut v.host_path {
        value(&mut s.type_, String::new());
    }
    if let Some(s) = &mut v.image {
        let reference = s.reference.clone().unwrap_or_default();
        text(&mut s.pull_policy, default_pull_policy(&reference));
    }
    if let Some(template) = v.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        template.metadata.get_or_insert_default();
        value(&mut template.spec.volume_mode, "Filesystem".to_owned());
        let resources = template.spec.resources.get_or_insert_default();
        fill::resources(&mut resources.requests);
        fill::resources(&mut resources.limits);
    }
    network_disks(v);
}

fn projected(s: &mut ProjectedVolumeSource) {
    value(&mut s.default_mode, FILE_MODE);
    for source in items_mut(&mut s.sources) {
        if let Some(token) = &mut source.service_account_token {
            value(&mut token.expiration_seconds, TOKEN_SECONDS);
        }
        if let Some(downward) = &mut source.downward_api {
            downward_items(&mut downward.items);
        }
    }
}

fn downward_items(files: &mut Option<Vec<DownwardAPIVolumeFile>>) {
    for file in items_mut(files) {
        if let Some(field) = &mut file.field_ref {
            text(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut file.resource_field_ref {
            divisor(resource);
        }
    }
}

fn network_disks(v: &mut Volume) {
    if let Some(s) = &mut v.iscsi {
        text(&mut s.iscsi_interface, "default");
    }
    if let Some(s) = &mut v.rbd {
        text(&mut s.pool, "rbd");
        text(&mut s.user, "admin");
        text(&mut s.keyring, "/etc/ceph/keyring");
    }
    if let Some(s) = &mut v.azure_disk {
        azure_disk(s);
    }
    if let Some(s) = &mut v.scale_io {
        text(&mut s.storage_mode, "ThinProvisioned");
        text(&mut s.fs_type, "xfs");
    }
}

pub fn azure_disk(s: &mut AzureDiskVolumeSource) {
    value(&mut s.caching_mode, "ReadWrite".to_owned());
    value(&mut s.fs_type, "ext4".to_owned());
    value(&mut s.read_only, false);
    value(&mut s.kind, "Shared".to_owned());
}

fn has_source(v: &Volume) -> bool {
    *v != Volume { name: v.name.clone(), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_the_pull_policy() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
            ("nginx:latest@sha256:0123", "Always"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_volume_without_a_source_is_an_empty_dir() {
        let mut spec = PodSpec {
            volumes: Some(vec![
                Volume { name: "a".into(), ..Default::default() },
                Volume {
                    name: "b".into(),
                    secret: Some(SecretVolumeSource::default()),
                    ..Default::default()
                },
            ]),
            ..Default::default()
        };
        pod_spec(&mut spec);
        let volumes = spec.volumes.unwrap_or_default();
        assert!(volumes[0].empty_dir.is_some());
        assert_eq!(volumes[1].secret.as_ref().and_then(|s| s.default_mode), Some(420));
        assert!(volumes[1].empty_dir.is_none());
    }
}
