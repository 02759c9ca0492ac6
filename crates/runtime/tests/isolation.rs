//! Limits, identities, namespaces and what happens when things die.

mod support;

use krate_runtime::cri::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;
use support::{Node, container, ended, exec, on_node, start, texts};

fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    &mut config.linux.security_context
}

fn limited(name: &str, args: &[&str], mebibytes: i64) -> ContainerConfig {
    let mut config = container(name, args);
    let memory_limit_in_bytes = mebibytes << 20;
    config.linux.resources = Some(LinuxContainerResources { memory_limit_in_bytes, ..Default::default() });
    config
}

#[test]
fn too_much_memory_is_reported() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("oom");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let id = start(&runtime, &sandbox, &pod, &limited("main", &["eat", "64"], 16)).await;
        let status = ended(&runtime, &id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        let fits = start(&runtime, &sandbox, &pod, &limited("fits", &["eat", "4"], 32)).await;
        assert_eq!(ended(&runtime, &fits).await.reason, "Completed");
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn statistics_and_new_limits() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("stats");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let id = start(
            &runtime,
            &sandbox,
            &pod,
            &limited("main", &["write", "/file", "some text", "+", "wait"], 64),
        )
        .await;
        exec(&runtime, &id, &["print", "x"]).await;
        let stats = runtime.container_stats(&id).await.unwrap();
        assert!(stats.cpu.usage_core_nano_seconds > 0 && stats.memory.usage_bytes > 0, "{stats:?}");
        assert!(stats.memory.available_bytes.is_some_and(|bytes| bytes <= 64 << 20), "{stats:?}");
        assert!(stats.writable_layer.used_bytes > 0 && stats.process.process_count == 1, "{stats:?}");
        let more = LinuxContainerResources {
            memory_limit_in_bytes: 128 << 20,
            cpu_shares: 512,
            ..Default::default()
        };
        runtime.update_container_resources(&id, &more).await.unwrap();
        let stats = runtime.container_stats(&id).await.unwrap();
        assert!(stats.memory.available_bytes.is_some_and(|bytes| bytes > 64 << 20), "{stats:?}");
        let resources = runtime.container_status(&id).await.unwrap().resources.unwrap();
        assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (128 << 20, 512));
        assert_eq!(runtime.pod_sandbox_stats(&sandbox).await.unwrap().containers.len(), 1);
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn users_and_privileges() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("users");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let mut config = container("web", &["wait"]);
        *context(&mut config) = LinuxContainerSecurityContext {
            run_as_user: Some(33),
            supplemental_groups: vec![4242],
            no_new_privs: true,
            readonly_rootfs: true,
            masked_paths: texts(&["/proc/meminfo", "/sys/firmware", "/nowhere"]),
            readonly_paths: texts(&["/proc/sys"]),
            ..context(&mut config).clone()
        };
        let id = start(&runtime, &sandbox, &pod, &config).await;
        let run = async |args: &[&str]| exec(&runtime, &id, args).await;
        assert_eq!(run(&["status", "Uid"]).await, "33 33 33 33\n");
        assert_eq!(run(&["status", "Gid"]).await, "34 34 34 34\n");
        assert_eq!(run(&["status", "Groups"]).await, "34 4242\n");
        assert_eq!(run(&["status", "CapEff"]).await, "0000000000000000\n");
        assert_eq!(run(&["status", "NoNewPrivs"]).await, "1\n");
        assert_eq!(run(&["file", "/proc/meminfo"]).await, "");
        for path in ["/made", "/proc/sys/kernel/domainname"] {
            let cmd = texts(&["/bin/probe", "write", path, "x"]);
            let denied = runtime.exec_sync(&id, &cmd, Duration::ZERO).await.unwrap();
            assert_eq!(denied.exit_code, 1, "{path}");
        }
        let status = runtime.container_status(&id).await.unwrap();
        assert_eq!(
            status.user.unwrap(),
            LinuxContainerUser { uid: 33, gid: 34, supplemental_groups: vec![34, 4242] }
        );
        // The default filter: no keyrings in a container.
        let mut filtered = container("filtered", &["keyctl", "+", "print", "on"]);
        context(&mut filtered).seccomp = Some(SecurityProfile::default());
        let filtered = start(&runtime, &sandbox, &pod, &filtered).await;
        ended(&runtime, &filtered).await;
        assert_eq!(node.printed("users", "filtered"), "1\non\n");
        // A device node that a container makes leads nowhere.
        let root =
            start(&runtime, &sandbox, &pod, &container("root", &["mknod", "/null", "+", "wait"])).await;
        let cmd = texts(&["/bin/probe", "write", "/null", "x"]);
        let opened = runtime.exec_sync(&root, &cmd, Duration::ZERO).await.unwrap();
        assert!(String::from_utf8_lossy(&opened.stderr).contains("Permission denied"), "{opened:?}");
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn a_privileged_container_has_it_all() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("privileged");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let mut config = container("main", &["wait"]);
        context(&mut config).privileged = true;
        let id = start(&runtime, &sandbox, &pod, &config).await;
        let capabilities = exec(&runtime, &id, &["status", "CapEff"]).await;
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(own.contains(&format!("CapEff:\t{capabilities}")), "{capabilities}");
        let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let group =
            if unified { "/sys/fs/cgroup/cgroup.procs" } else { "/sys/fs/cgroup/memory/cgroup.procs" };
        exec(&runtime, &id, &["write", group, "0", "+", "print", "ok"]).await;
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn a_pod_can_share_its_processes() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let mut pod = node.pod("shared");
        pod.linux.security_context.namespace_options.pid = NamespaceMode::Pod;
        pod.linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let mut config = container("a", &["orphan", "+", "wait"]);
        context(&mut config).namespace_options.pid = NamespaceMode::Pod;
        let a = start(&runtime, &sandbox, &pod, &config).await;
        config.metadata.name = "b".into();
        config.log_path = "b.log".into();
        config.args = texts(&["write", "/dev/shm/from-b", "hello", "+", "wait"]);
        let b = start(&runtime, &sandbox, &pod, &config).await;
        assert_eq!(exec(&runtime, &a, &["file", "/proc/1/comm"]).await, "pause\n");
        assert_eq!(exec(&runtime, &a, &["file", "/proc/sys/kernel/shm_rmid_forced"]).await, "1\n");
        while !node.printed("shared", "b").contains("ready") {
            tokio::task::yield_now().await;
        }
        assert_eq!(exec(&runtime, &a, &["file", "/dev/shm/from-b"]).await, "hello");
        // The orphan goes with its container, though its namespace lives on.
        runtime.stop_container(&a, Duration::ZERO).await.unwrap();
        // Pause, b and the listing itself.
        let left = async || {
            let names = exec(&runtime, &b, &["ls", "/proc"]).await;
            names.lines().filter(|name| name.parse::<u32>().is_ok()).count()
        };
        while left().await > 3 {}
        let mut target = container("debug", &["file", "/proc/1/comm"]);
        context(&mut target).namespace_options =
            NamespaceOption { pid: NamespaceMode::Target, target_id: b, ..Default::default() };
        let debug = start(&runtime, &sandbox, &pod, &target).await;
        assert_eq!(ended(&runtime, &debug).await.exit_code, 0);
        assert_eq!(node.printed("shared", "debug"), "pause\n");
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn a_pod_can_live_in_the_nodes_network() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let mut pod = node.pod("host");
        pod.linux.security_context.namespace_options.network = NamespaceMode::Node;
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        assert!(node.network.attached.lock().is_empty());
        assert_eq!(runtime.pod_sandbox_status(&sandbox).await.unwrap().network.ip, "");
        let mut config = container("main", &["file", "/proc/net/dev"]);
        context(&mut config).namespace_options.network = NamespaceMode::Node;
        let id = start(&runtime, &sandbox, &pod, &config).await;
        ended(&runtime, &id).await;
        let own = std::fs::read_to_string("/proc/net/dev").unwrap().lines().count();
        assert_eq!(node.printed("host", "main").lines().count(), own);
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

fn shim_of(status: &ContainerStatus) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", status.pid)).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_dead_shim_takes_its_pod_along() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("dead");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let id = start(&runtime, &sandbox, &pod, &container("main", &["wait"])).await;
        let status = runtime.container_status(&id).await.unwrap();
        kill(Pid::from_raw(shim_of(&status)), Signal::SIGKILL).unwrap();
        let status = ended(&runtime, &id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        assert_eq!(runtime.pod_sandbox_status(&sandbox).await.unwrap().state, PodSandboxState::NotReady);
        runtime.stop_pod_sandbox(&sandbox).await.unwrap();
        assert!(node.network.attached.lock().is_empty());
        let next = PodSandboxConfig {
            metadata: PodSandboxMetadata { attempt: 1, ..pod.metadata.clone() },
            ..pod.clone()
        };
        let second = runtime.run_pod_sandbox(&next, "").await.unwrap();
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        runtime.remove_pod_sandbox(&second).await.unwrap();
    });
}

#[test]
fn logs_rotate_and_long_lines_are_cut() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("logs");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let args = ["partial", "20000", "+", "print", "", "+", "wait-for", "SIGUSR1", "+", "print", "after"];
        let id = start(&runtime, &sandbox, &pod, &container("main", &args)).await;
        while !node.printed("logs", "main").contains("ready") {
            tokio::task::yield_now().await;
        }
        let log = node.log("logs", "main");
        let tags: Vec<(char, usize)> = log
            .lines()
            .map(|line| line.splitn(4, ' ').collect::<Vec<_>>())
            .map(|f| (f[2].chars().next().unwrap(), f[3].len()))
            .collect();
        assert_eq!(tags[..2], [('P', 16 << 10), ('F', 20000 - (16 << 10))]);
        let folder = node.folder.path().join("logs/logs");
        std::fs::rename(folder.join("main.log"), folder.join("main.log.1")).unwrap();
        runtime.reopen_container_log(&id).await.unwrap();
        let pid = runtime.container_status(&id).await.unwrap().pid;
        kill(Pid::from_raw(pid), Signal::SIGUSR1).unwrap();
        ended(&runtime, &id).await;
        assert_eq!(node.printed("logs", "main"), "got SIGUSR1\nafter\n");
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn the_same_container_is_tried_again() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("retry");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let first = container("main", &["exit", "1"]);
        let id = start(&runtime, &sandbox, &pod, &first).await;
        ended(&runtime, &id).await;
        assert!(matches!(
            runtime.create_container(&sandbox, &first, &pod).await,
            Err(Error::AlreadyExists(_))
        ));
        let mut second = first.clone();
        second.metadata.attempt = 1;
        let id = start(&runtime, &sandbox, &pod, &second).await;
        assert_eq!(ended(&runtime, &id).await.exit_code, 1);
        let _: &Node = &node;
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}
