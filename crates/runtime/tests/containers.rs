//! Real containers: what they see, what they say, how they end.

mod support;

use krate_runtime::cri::*;
use std::sync::Arc;
use std::time::Duration;
use support::{container, ended, exec, on_node, start, texts};

#[test]
fn a_container_prints_and_exits() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("web");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let status = runtime.pod_sandbox_status(&sandbox).await.unwrap();
        assert_eq!((status.state, status.network.ip.as_str()), (PodSandboxState::Ready, "10.9.8.7"));
        let config =
            container("main", &["print", "hello", "+", "err", "oops", "+", "partial", "5", "+", "exit", "3"]);
        let id = start(&runtime, &sandbox, &pod, &config).await;
        let status = ended(&runtime, &id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
        assert!(status.started_at > 0 && status.finished_at >= status.started_at);
        let log = node.log("web", "main");
        let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert!(lines.contains(&"stdout F hello") && lines.contains(&"stderr F oops"), "{log}");
        assert!(lines.contains(&"stdout P xxxxx"), "what has no line feed is no whole line: {log}");
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        assert!(runtime.container_status(&id).await.unwrap_err().is_not_found());
        assert!(node.network.attached.lock().is_empty());
        assert!(!std::path::Path::new("/sys/fs/cgroup/memory").join(&node.cgroup).join("podweb").exists());
    });
}

#[test]
fn what_a_container_sees() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("sees");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let volume = node.folder.path().join("volume");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(volume.join("given"), "data").unwrap();
        let mount = |path: &str, readonly| Mount {
            container_path: path.into(),
            host_path: volume.display().to_string(),
            readonly,
            ..Mount::default()
        };
        let mut config = container("main", &["wait"]);
        config.mounts = vec![mount("/data/rw", false), mount("/data/ro", true)];
        config.envs = vec![KeyValue { key: "COLOUR".into(), value: b"blue".to_vec() }];
        config.working_dir = "/work/here".into();
        let id = start(&runtime, &sandbox, &pod, &config).await;
        let run = async |args: &[&str]| exec(&runtime, &id, args).await;
        assert_eq!(run(&["file", "/etc/hostname"]).await, "sees\n");
        assert_eq!(run(&["file", "/etc/resolv.conf"]).await, "nameserver 10.0.0.10\n");
        assert_eq!(run(&["file", "/proc/sys/kernel/hostname"]).await, "sees\n");
        assert_eq!(run(&["file", "/data/ro/given"]).await, "data");
        run(&["write", "/data/rw/made", "x"]).await;
        assert_eq!(std::fs::read(volume.join("made")).unwrap(), b"x");
        let denied = runtime
            .exec_sync(&id, &texts(&["/bin/probe", "write", "/data/ro/no", "x"]), Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(denied.exit_code, 1);
        assert!(String::from_utf8_lossy(&denied.stderr).contains("Read-only file system"));
        let env = run(&["env"]).await;
        assert!(
            env.contains("COLOUR=blue") && env.contains("HOSTNAME=sees") && env.contains("HOME=/root"),
            "{env}"
        );
        assert_eq!(run(&["cwd"]).await, "/work/here\n");
        assert_eq!(run(&["status", "CapEff"]).await, "00000000a80425fb\n");
        assert_eq!(run(&["status", "NSpid"]).await.split(' ').count(), 1, "a process namespace of its own");
        let dev = run(&["ls", "/dev"]).await;
        for name in ["null", "zero", "pts", "ptmx", "shm", "stdin", "urandom"] {
            assert!(dev.lines().any(|line| line == name), "{name} in {dev}");
        }
        run(&["write", "/dev/shm/x", "x", "+", "write", "/dev/null", "x"]).await;
        assert!(!run(&["ls", "/proc"]).await.is_empty());
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn a_program_that_is_not_there() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("bad");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let mut config = container("main", &[]);
        config.command = texts(&["nonsense"]);
        let id = runtime.create_container(&sandbox, &config, &pod).await.unwrap();
        let error = runtime.start_container(&id).await.unwrap_err();
        assert!(matches!(error, Error::StartFailed(_)), "{error:?}");
        assert!(
            error.to_string().ends_with("exec: \"nonsense\": executable file not found in $PATH"),
            "{error}"
        );
        let status = runtime.container_status(&id).await.unwrap();
        assert_eq!(
            (status.state, status.exit_code, status.reason.as_str()),
            (ContainerState::Exited, 128, "StartError")
        );
        assert!(status.message.contains("executable file not found"));
        let missing = container("other", &["wait"]);
        let missing = ContainerConfig {
            image: ImageSpec { image: "missing:1".into(), ..Default::default() },
            ..missing
        };
        assert!(runtime.create_container(&sandbox, &missing, &pod).await.unwrap_err().is_not_found());
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn stopping_asks_first_and_kills_then() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("stop");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let polite = start(&runtime, &sandbox, &pod, &container("polite", &["wait"])).await;
        let stubborn = start(&runtime, &sandbox, &pod, &container("stubborn", &["stubborn"])).await;
        exec(&runtime, &polite, &["pid"]).await;
        while !node.printed("stop", "polite").contains("ready") {
            tokio::task::yield_now().await;
        }
        runtime.stop_container(&polite, Duration::from_secs(30)).await.unwrap();
        let status = runtime.container_status(&polite).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
        assert_eq!(node.printed("stop", "polite"), "ready\nbye\n");
        runtime.stop_container(&stubborn, Duration::from_millis(50)).await.unwrap();
        assert_eq!(runtime.container_status(&stubborn).await.unwrap().exit_code, 137);
        runtime.stop_container(&stubborn, Duration::from_secs(1)).await.unwrap();
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn a_container_is_asked_to_end_once() {
    on_node(|node| async move {
        let runtime = Arc::new(node.open().await);
        let pod = node.pod("once");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let counting = container(
            "counting",
            &["wait-for", "SIGTERM", "+", "wait-for", "SIGTERM", "+", "print", "twice"],
        );
        let id = start(&runtime, &sandbox, &pod, &counting).await;
        let printed = async |words: &str| {
            while !node.printed("once", "counting").contains(words) {
                tokio::task::yield_now().await;
            }
        };
        printed("ready\n").await;
        let first = {
            let (runtime, id) = (runtime.clone(), id.clone());
            tokio::spawn(async move { runtime.stop_container(&id, Duration::from_secs(30)).await })
        };
        printed("got SIGTERM\nready\n").await;
        first.abort();
        runtime.stop_container(&id, Duration::from_millis(200)).await.unwrap();
        assert_eq!(node.printed("once", "counting"), "ready\ngot SIGTERM\nready\n");
        assert_eq!(runtime.container_status(&id).await.unwrap().exit_code, 137);
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn everything_is_found_again() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("again");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let running = start(&runtime, &sandbox, &pod, &container("running", &["wait"])).await;
        let done = start(&runtime, &sandbox, &pod, &container("done", &["exit", "7"])).await;
        ended(&runtime, &done).await;
        let before = runtime.container_status(&running).await.unwrap();
        drop(runtime);

        let runtime = node.open().await;
        assert_eq!(runtime.container_status(&running).await.unwrap(), before);
        assert_eq!(runtime.container_status(&done).await.unwrap().exit_code, 7);
        assert_eq!(runtime.pod_sandbox_status(&sandbox).await.unwrap().state, PodSandboxState::Ready);
        assert_eq!(exec(&runtime, &running, &["print", "still here"]).await, "still here\n");
        runtime.stop_container(&running, Duration::from_secs(30)).await.unwrap();
        assert_eq!(runtime.container_status(&running).await.unwrap().exit_code, 0);
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        assert!(runtime.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap().is_empty());
    });
}

#[test]
fn events_tell_the_story() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("story");
        let mut events = runtime.get_container_events();
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let id = start(&runtime, &sandbox, &pod, &container("main", &["exit", "0"])).await;
        ended(&runtime, &id).await;
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        let mut story = Vec::new();
        while let Ok(event) = events.try_recv() {
            if event.container_id == id {
                story.push(event.container_event_type);
            }
        }
        use ContainerEventType::{Created, Deleted, Started, Stopped};
        assert_eq!(story, [Created, Started, Stopped, Deleted]);
    });
}

/// Not a benchmark, a number to look at: `cargo test -p krate-runtime --test containers -- --ignored --nocapture`.
#[test]
#[ignore = "prints a measurement"]
fn how_long_a_container_takes() {
    on_node(|node| async move {
        const ROUNDS: u32 = 20;
        let runtime = node.open().await;
        let begun = tokio::time::Instant::now();
        let pod = node.pod("fast");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        println!("sandbox: {:?}", begun.elapsed());
        let (mut creating, mut starting) = (Duration::ZERO, Duration::ZERO);
        for round in 0..ROUNDS {
            let config = container(&format!("c{round}"), &["wait"]);
            let begun = tokio::time::Instant::now();
            let id = runtime.create_container(&sandbox, &config, &pod).await.unwrap();
            creating += begun.elapsed();
            let begun = tokio::time::Instant::now();
            runtime.start_container(&id).await.unwrap();
            starting += begun.elapsed();
        }
        println!("create: {:?}, start: {:?}", creating / ROUNDS, starting / ROUNDS);
        let begun = tokio::time::Instant::now();
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        println!("remove all: {:?}", begun.elapsed());
    });
}
