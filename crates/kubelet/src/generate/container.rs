//! The configuration of a container.

use super::security;
use crate::env::expand;
use crate::observed;
use crate::paths;
use crate::spec::{self, Role, qos, resources};
use crate::volumes::subpath::{self, Part};
use krate_api::types::core::v1::{Container, Pod, Volume, VolumeDevice, VolumeMount};
use krate_runtime::cri::{
    ContainerConfig, ContainerMetadata, Device, HugepageLimit, Image, ImageSpec, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, Mount, MountPropagation, NamespaceMode,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const HOSTS: &str = "/etc/hosts";

/// What of a container does not come from its pod.
pub struct Setting<'a> {
    pub role: Role,
    pub restart_count: u32,
    pub image: &'a Image,
    pub env: &'a [(String, String)],
    /// Folders of the pod's volumes by name.
    pub volumes: &'a BTreeMap<String, PathBuf>,
    /// The hosts file that the kubelet keeps, if it keeps one.
    pub hosts: Option<&'a Path>,
    /// The file for the termination message.
    pub termination_log: Option<&'a Path>,
    /// Bytes of memory of the node.
    pub memory_capacity: i64,
    /// Of an ephemeral container: the container whose processes it wants to see.
    pub target_id: Option<String>,
    pub seccomp_root: &'a str,
}

/// Makes the configuration, and the parts of volumes that it names, which have to be kept until the container
/// has started; the error is the text of `CreateContainerConfigError`.
pub fn config(
    pod: &Pod,
    container: &Container,
    setting: &Setting<'_>,
) -> Result<(ContainerConfig, Vec<Part>), String> {
    let mut parts = Vec::new();
    let mut security = security::container(pod, container, setting.image, setting.seccomp_root)?;
    if let Some(target) = &setting.target_id {
        security.namespace_options.pid = NamespaceMode::Target;
        security.namespace_options.target_id = target.clone();
    }
    let expanded =
        |texts: &Option<Vec<String>>| expand::expand_all(texts.as_deref().unwrap_or_default(), setting.env);
    let env = setting.env.iter().map(|(k, v)| KeyValue { key: k.clone(), value: v.clone().into_bytes() });
    let stop_signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone());
    let config = ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: setting.restart_count },
        image: ImageSpec {
            image: setting.image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        },
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env.collect(),
        mounts: mounts(pod, container, setting, &mut parts)?,
        devices: devices(container, setting)?,
        labels: observed::container_labels(pod, container),
        annotations: observed::container_annotations(pod, container, setting.restart_count),
        log_path: paths::log_file(&container.name, setting.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: LinuxContainerConfig {
            resources: Some(amounts(pod, setting.role, container, setting.memory_capacity)),
            security_context: security,
        },
        stop_signal: stop_signal.unwrap_or_default(),
    };
    Ok((config, parts))
}

/// Weights, quotas and limits of a container.
pub fn amounts(
    pod: &Pod,
    role: Role,
    container: &Container,
    memory_capacity: i64,
) -> LinuxContainerResources {
    let own = container.resources.as_ref();
    let limit = |name: &str| resources::limit(own, name);
    let request = resources::request(own, "cpu").map_or(0, resources::milli_value);
    let pages = own.and_then(|r| r.limits.as_ref()).into_iter().flatten().filter_map(|(name, quantity)| {
        let size = name.strip_prefix("hugepages-")?;
        let limit = u64::try_from(resources::value(quantity)).ok()?;
        Some(HugepageLimit { page_size: format!("{size}B").replace("iB", "B"), limit })
    });
    LinuxContainerResources {
        cpu_shares: resources::cpu_shares(request),
        cpu_quota: limit("cpu").map_or(0, |q| resources::cpu_quota(resources::milli_value(q))),
        cpu_period: resources::CPU_PERIOD,
        memory_limit_in_bytes: limit("memory").map_or(0, resources::value),
        oom_score_adj: qos::oom_score_adj(pod, role, container, memory_capacity),
        hugepage_limits: pages.collect(),
        ..Default::default()
    }
}

fn mounts(
    pod: &Pod,
    container: &Container,
    setting: &Setting<'_>,
    parts: &mut Vec<Part>,
) -> Result<Vec<Mount>, String> {
    let mut out = Vec::new();
    let volumes = spec::spec(pod).volumes.as_deref().unwrap_or_default();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.iter().find(|v| v.name == mount.name).ok_or_else(|| {
            format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name)
        })?;
        out.push(one(volume, mount, setting, parts)?);
    }
    let own_hosts = out.iter().any(|m| m.container_path == HOSTS);
    if let Some(hosts) = setting.hosts.filter(|_| !own_hosts) {
        out.push(Mount { container_path: HOSTS.to_owned(), host_path: text(hosts), ..Default::default() });
    }
    if let Some(log) = setting.termination_log {
        let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        out.push(Mount { container_path: path.to_owned(), host_path: text(log), ..Default::default() });
    }
    Ok(out)
}

/// Volumes that the container wants as they are, without a file system.
fn devices(container: &Container, setting: &Setting<'_>) -> Result<Vec<Device>, String> {
    let one = |device: &VolumeDevice| {
        let path = setting.volumes.get(&device.name);
        let path = path.ok_or_else(|| format!("cannot find volume \"{}\" to map", device.name))?;
        Ok(Device {
            container_path: device.device_path.clone(),
            host_path: text(path),
            permissions: "mrw".to_owned(),
        })
    };
    container.volume_devices.iter().flatten().map(one).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn one(
    volume: &Volume,
    mount: &VolumeMount,
    setting: &Setting<'_>,
    parts: &mut Vec<Part>,
) -> Result<Mount, String> {
    let part = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
        (Some(expression), _) if !expression.is_empty() => expand::expand_strict(expression, setting.env)
            .map_err(|name| format!("missing value for \"{name}\" in subPathExpr"))?,
        (_, part) => part.unwrap_or_default().to_owned(),
    };
    let mut out = Mount {
        container_path: absolute(&mount.mount_path),
        readonly: mount.read_only == Some(true) || is_readonly(volume),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        },
        recursive_read_only: matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        ..Default::default()
    };
    if let Some(image) = &volume.image {
        let reference = image.reference.clone().unwrap_or_default();
        out.image =
            ImageSpec { image: reference.clone(), user_specified_image: reference, ..Default::default() };
        out.image_sub_path = part;
        out.readonly = true;
        return Ok(out);
    }
    let path = setting
        .volumes
        .get(&mount.name)
        .ok_or_else(|| format!("cannot find volume \"{}\" to mount", mount.name))?;
    if part.is_empty() {
        out.host_path = text(path);
    } else {
        let part = subpath::resolve(path, &part)?;
        out.host_path = text(&part.path());
        parts.push(part);
    }
    Ok(out)
}

/// Content that the kubelet writes is not the container's to change.
fn is_readonly(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only == Some(true))
        || volume.nfs.as_ref().is_some_and(|s| s.read_only == Some(true))
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build;
    use krate_api::types::core::v1::{EmptyDirVolumeSource, SecretVolumeSource};

    fn setting<'a>(
        image: &'a Image,
        env: &'a [(String, String)],
        volumes: &'a BTreeMap<String, PathBuf>,
    ) -> Setting<'a> {
        Setting {
            role: Role::Regular,
            restart_count: 2,
            image,
            env,
            volumes,
            hosts: Some(Path::new("/k/etc-hosts")),
            termination_log: Some(Path::new("/k/log")),
            memory_capacity: 1 << 30,
            target_id: None,
            seccomp_root: "",
        }
    }

    #[test]
    fn mounts_and_commands() {
        let mut c = build::container("web");
        c.command = Some(vec!["sh".into(), "-c".into(), "echo $(A) $(id -u)".into()]);
        c.volume_mounts =
            Some(vec![VolumeMount { name: "s".into(), mount_path: "etc/s".into(), ..Default::default() }]);
        let pod = build::edit(build::pod("web"), |s| {
            s.containers = vec![c.clone()];
            s.volumes = Some(vec![Volume {
                name: "s".into(),
                secret: Some(SecretVolumeSource::default()),
                ..Default::default()
            }]);
        });
        let env = [("A".to_owned(), "1".to_owned())];
        let volumes = [("s".to_owned(), PathBuf::from("/v/s"))].into();
        let image = Image { id: "sha256:1".into(), ..Default::default() };
        let (got, _) = config(&pod, &c, &setting(&image, &env, &volumes)).unwrap();
        assert_eq!(got.command[2], "echo 1 $(id -u)");
        assert_eq!(got.log_path, "web/2.log");
        assert_eq!(got.annotations[observed::RESTART_COUNT], "2");
        let mounts: Vec<(&str, &str, bool)> = got
            .mounts
            .iter()
            .map(|m| (m.container_path.as_str(), m.host_path.as_str(), m.readonly))
            .collect();
        assert_eq!(
            mounts,
            [
                ("/etc/s", "/v/s", true),
                ("/etc/hosts", "/k/etc-hosts", false),
                ("/dev/termination-log", "/k/log", false)
            ]
        );
    }

    #[test]
    fn a_sub_path_has_to_be_known() {
        let mut c = build::container("web");
        c.volume_mounts = Some(vec![VolumeMount {
            name: "e".into(),
            mount_path: "/e".into(),
            sub_path_expr: Some("$(POD)".into()),
            ..Default::default()
        }]);
        let pod = build::edit(build::pod("web"), |s| {
            s.volumes = Some(vec![Volume {
                name: "e".into(),
                empty_dir: Some(EmptyDirVolumeSource::default()),
                ..Default::default()
            }]);
        });
        let dir = tempfile::tempdir().unwrap();
        let volumes = [("e".to_owned(), dir.path().to_owned())].into();
        let image = Image::default();
        let error = config(&pod, &c, &setting(&image, &[], &volumes)).unwrap_err();
        assert_eq!(error, "missing value for \"POD\" in subPathExpr");
        let env = [("POD".to_owned(), "web".to_owned())];
        config(&pod, &c, &setting(&image, &env, &volumes)).unwrap();
        assert!(dir.path().join("web").is_dir());
    }
}
