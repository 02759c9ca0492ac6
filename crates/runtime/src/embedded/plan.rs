//! From what the kubelet asks and what the image says to what the shim makes. Pure: it reads the image's
//! files through a function and touches nothing.

use super::capabilities;
use super::user;
use crate::cri::{ContainerConfig, Error, MountPropagation, NamespaceMode, PodSandboxConfig, Result};
use crate::images::{ContainerDefaults, Rootfs};
use crate::shim::spec::{
    ContainerSpec, DeviceSpec, MountKind, MountSpec, PidNamespace, ProcessSpec, RootfsSpec, SandboxSpec,
};
use std::path::{Path, PathBuf};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Files of the sandbox that every container sees unless it mounts its own there.
pub const SANDBOX_FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// Everything that a container is made from.
pub struct Input<'a> {
    pub id: &'a str,
    pub sandbox: &'a PodSandboxConfig,
    pub config: &'a ContainerConfig,
    pub image: &'a ContainerDefaults,
    pub rootfs: &'a Rootfs,
    /// The layers of images mounted as volumes, in the order of such mounts.
    pub volumes: Vec<Rootfs>,
    pub sandbox_folder: &'a Path,
    pub container_folder: &'a Path,
    pub cgroup: String,
    /// The node's devices, for privileged containers.
    pub node_devices: Vec<PathBuf>,
}

/// The pod's cgroup path and its namespaces.
pub fn sandbox(id: &str, config: &PodSandboxConfig, cgroup: String, shim_cgroup: String) -> SandboxSpec {
    let options = &config.linux.security_context.namespace_options;
    let host_network = options.network == NamespaceMode::Node;
    let mut sysctls: Vec<(String, String)> = Vec::new();
    if !host_network {
        // A process without rights may listen on port 80 and ping, as with the other runtimes.
        sysctls.push(("net.ipv4.ip_unprivileged_port_start".into(), "0".into()));
        sysctls.push(("net.ipv4.ping_group_range".into(), "0 2147483647".into()));
    }
    sysctls.extend(config.linux.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
    SandboxSpec {
        id: id.to_owned(),
        hostname: config.hostname.clone(),
        host_network,
        host_ipc: options.ipc == NamespaceMode::Node,
        shared_pid: options.pid == NamespaceMode::Pod,
        sysctls,
        cgroup,
        shim_cgroup,
    }
}

pub fn container(input: &Input<'_>) -> Result<ContainerSpec> {
    let config = input.config;
    let context = &config.linux.security_context;
    let resources = config.linux.resources.clone().unwrap_or_default();
    let log_path =
        (!config.log_path.is_empty()).then(|| Path::new(&input.sandbox.log_directory).join(&config.log_path));
    Ok(ContainerSpec {
        id: input.id.to_owned(),
        rootfs: RootfsSpec {
            layers_folder: input.rootfs.folder.clone(),
            layers: input.rootfs.layers.clone(),
            upper: input.container_folder.join("upper"),
            work: input.container_folder.join("work"),
            target: input.container_folder.join("rootfs"),
            readonly: context.readonly_rootfs,
        },
        mounts: mounts(input)?,
        devices: devices(input),
        pid: pid_namespace(input),
        pid_target: context.namespace_options.target_id.clone(),
        privileged: context.privileged,
        masked_paths: if context.privileged { Vec::new() } else { context.masked_paths.clone() },
        readonly_paths: if context.privileged { Vec::new() } else { context.readonly_paths.clone() },
        cgroup: input.cgroup.clone(),
        process: process(input, resources.oom_score_adj)?,
        resources,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        log_path,
    })
}

fn pid_namespace(input: &Input<'_>) -> PidNamespace {
    match input.config.linux.security_context.namespace_options.pid {
        NamespaceMode::Pod => PidNamespace::Pod,
        NamespaceMode::Container => PidNamespace::Own,
        NamespaceMode::Node => PidNamespace::Node,
        NamespaceMode::Target => PidNamespace::Target,
    }
}

fn process(input: &Input<'_>, oom_score_adj: i64) -> Result<ProcessSpec> {
    let (config, image) = (input.config, input.image);
    let context = &config.linux.security_context;
    let user = user::resolve(context, &image.user, |path| input.rootfs.read(path))?;
    let capabilities = capabilities::decide(context.capabilities.as_ref(), context.privileged)?;
    let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|cwd| !cwd.is_empty());
    Ok(ProcessSpec {
        args: arguments(config, image)?,
        env: environment(input, &user.home)?,
        cwd: cwd.map_or_else(|| "/".to_owned(), |cwd| absolute(cwd)),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        capabilities,
        no_new_privileges: context.no_new_privs && !context.privileged,
        oom_score_adj: i32::try_from(oom_score_adj).ok(),
        seccomp: super::seccomp::filter(context, &capabilities)?,
    })
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// A command replaces the image's entry point and command; arguments alone replace its command.
fn arguments(config: &ContainerConfig, image: &ContainerDefaults) -> Result<Vec<String>> {
    let (command, args) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.cmd),
        (true, false) => (&image.entrypoint, &config.args),
        (false, _) => (&config.command, &config.args),
    };
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    if all.is_empty() { Err(Error::InvalidArgument("no command specified".into())) } else { Ok(all) }
}

/// Later definitions replace earlier ones of the same name, in their place.
fn environment(input: &Input<'_>, home: &str) -> Result<Vec<String>> {
    let mut env: Vec<String> = vec![DEFAULT_PATH.to_owned()];
    if input.config.tty {
        set(&mut env, "TERM=xterm".to_owned());
    }
    if !input.sandbox.hostname.is_empty() {
        set(&mut env, format!("HOSTNAME={}", input.sandbox.hostname));
    }
    input.image.env.iter().for_each(|variable| set(&mut env, variable.clone()));
    for variable in &input.config.envs {
        let value = String::from_utf8(variable.value.clone()).map_err(|_| {
            Error::InvalidArgument(format!("environment variable {} is not UTF-8", variable.key))
        })?;
        set(&mut env, format!("{}={value}", variable.key));
    }
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    Ok(env)
}

fn set(env: &mut Vec<String>, variable: String) {
    let name = variable.split('=').next().unwrap_or_default();
    match env.iter_mut().find(|known| known.split('=').next() == Some(name)) {
        Some(known) => *known = variable,
        None => env.push(variable),
    }
}

fn mounts(input: &Input<'_>) -> Result<Vec<MountSpec>> {
    let mut mounts = kernel_mounts(input.config.linux.security_context.privileged);
    for (file, target) in SANDBOX_FILES {
        let source = input.sandbox_folder.join(file);
        if !input.config.mounts.iter().any(|mount| clean(&mount.container_path) == target) {
            let readonly = input.config.linux.security_context.readonly_rootfs;
            mounts.push(MountSpec { readonly, ..MountSpec::new(target, MountKind::Bind { source }) });
        }
    }
    let mut images = input.volumes.iter();
    let mut volumes = Vec::new();
    for mount in &input.config.mounts {
        if mount.container_path.is_empty() {
            return Err(Error::InvalidArgument("a mount without container_path".into()));
        }
        let kind = if mount.image.image.is_empty() {
            MountKind::Bind { source: PathBuf::from(&mount.host_path) }
        } else {
            let rootfs =
                images.next().ok_or_else(|| Error::Internal("an image volume was not prepared".into()))?;
            MountKind::Layers {
                folder: rootfs.folder.clone(),
                layers: rootfs.layers.clone(),
                sub_path: mount.image_sub_path.clone(),
            }
        };
        let target = clean(&mount.container_path);
        // What is mounted over a default takes its place.
        mounts.retain(|default| default.target != target);
        volumes.push(MountSpec {
            readonly: mount.readonly,
            recursive_readonly: mount.recursive_read_only,
            propagation: mount.propagation,
            ..MountSpec::new(&target, kind)
        });
    }
    // A volume inside another volume comes after it.
    volumes.sort_by_key(|volume| volume.target.matches('/').count());
    mounts.extend(volumes);
    Ok(mounts)
}

fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

fn kernel_mounts(privileged: bool) -> Vec<MountSpec> {
    let option = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    let dev = MountKind::Tmpfs { options: vec![option("mode", "755"), option("size", "65536k")] };
    let safe = |target: &str, kind: MountKind| MountSpec {
        nosuid: true,
        noexec: true,
        nodev: true,
        ..MountSpec::new(target, kind)
    };
    vec![
        safe("/proc", MountKind::Proc),
        MountSpec { nosuid: true, nodev: !privileged, ..MountSpec::new("/dev", dev) },
        MountSpec { nosuid: true, noexec: true, ..MountSpec::new("/dev/pts", MountKind::Devpts) },
        safe("/dev/mqueue", MountKind::Mqueue),
        MountSpec { readonly: !privileged, ..safe("/sys", MountKind::Sysfs) },
        MountSpec {
            readonly: !privileged,
            propagation: MountPropagation::Private,
            ..safe("/sys/fs/cgroup", MountKind::Cgroup)
        },
    ]
}

fn devices(input: &Input<'_>) -> Vec<DeviceSpec> {
    let node = input.node_devices.iter().map(|path| DeviceSpec {
        source: path.clone(),
        target: path.display().to_string(),
        readonly: false,
        required: false,
    });
    let own = input.config.devices.iter().map(|device| DeviceSpec {
        source: PathBuf::from(&device.host_path),
        target: device.container_path.clone(),
        readonly: !device.permissions.is_empty() && !device.permissions.contains('w'),
        required: true,
    });
    node.chain(own).collect()
}

/// The number of a signal: `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
#[must_use]
pub fn signal_number(name: &str) -> Option<i32> {
    use std::str::FromStr;
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let long = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    for (base, sign, number) in [("SIGRTMIN", 1, libc::SIGRTMIN()), ("SIGRTMAX", -1, libc::SIGRTMAX())] {
        if let Some(offset) = long.strip_prefix(base) {
            let offset =
                offset.trim_start_matches(['+', '-']).trim_start_matches("PLUS").trim_start_matches("MINUS");
            let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
            return Some(number + sign * offset);
        }
    }
    let alias = match long.as_str() {
        "SIGIOT" => "SIGABRT",
        "SIGCLD" => "SIGCHLD",
        "SIGPOLL" => "SIGIO",
        other => other,
    };
    nix::sys::signal::Signal::from_str(alias).ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::{KeyValue, Mount};

    fn planned(config: &ContainerConfig, image: &ContainerDefaults) -> Result<ContainerSpec> {
        let sandbox = PodSandboxConfig {
            hostname: "web-1".into(),
            log_directory: "/logs".into(),
            ..Default::default()
        };
        container(&Input {
            id: "c",
            sandbox: &sandbox,
            config,
            image,
            rootfs: &Rootfs { folder: "/none".into(), layers: vec![] },
            volumes: vec![],
            sandbox_folder: Path::new("/s"),
            container_folder: Path::new("/s/c"),
            cgroup: "krate/x".into(),
            node_devices: vec![],
        })
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn commands_merge_as_documented() {
        let image =
            ContainerDefaults { entrypoint: texts(&["/e"]), cmd: texts(&["c"]), ..Default::default() };
        let cases: [(&[&str], &[&str], &[&str]); 4] = [
            (&[], &[], &["/e", "c"]),
            (&[], &["a"], &["/e", "a"]),
            (&["/x"], &[], &["/x"]),
            (&["/x"], &["a"], &["/x", "a"]),
        ];
        for (command, args, wanted) in cases {
            let config = ContainerConfig { command: texts(command), args: texts(args), ..Default::default() };
            assert_eq!(planned(&config, &image).unwrap().process.args, texts(wanted));
        }
        let error = planned(&ContainerConfig::default(), &ContainerDefaults::default()).unwrap_err();
        assert_eq!(error.to_string(), "no command specified");
    }

    #[test]
    fn variables_replace_in_order() {
        let image =
            ContainerDefaults { cmd: texts(&["x"]), env: texts(&["PATH=/bin", "A=1"]), ..Default::default() };
        let envs = vec![KeyValue { key: "A".into(), value: b"2".to_vec() }];
        let spec = planned(&ContainerConfig { envs, ..Default::default() }, &image).unwrap();
        assert_eq!(spec.process.env, texts(&["PATH=/bin", "HOSTNAME=web-1", "A=2", "HOME=/"]));
    }

    #[test]
    fn volumes_take_the_place_of_defaults_and_nest() {
        let mount =
            |path: &str| Mount { container_path: path.into(), host_path: "/h".into(), ..Default::default() };
        let mounts = vec![mount("/data/in/side"), mount("/etc/hosts"), mount("/data/"), mount("/dev/shm")];
        let image = ContainerDefaults { cmd: texts(&["x"]), ..Default::default() };
        let spec = planned(&ContainerConfig { mounts, ..Default::default() }, &image).unwrap();
        let targets: Vec<&str> = spec.mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets.iter().filter(|target| **target == "/etc/hosts").count(), 1);
        let at = |target: &str| targets.iter().position(|known| *known == target).unwrap();
        assert!(at("/data") < at("/data/in/side"));
    }

    #[test]
    fn signals_by_any_name() {
        for (name, number) in [
            ("SIGTERM", 15),
            ("quit", 3),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAXMINUS1", 63),
            ("SIGPOLL", 29),
        ] {
            assert_eq!(signal_number(name), Some(number), "{name}");
        }
        assert_eq!(signal_number("SIGNONE"), None);
    }
}
