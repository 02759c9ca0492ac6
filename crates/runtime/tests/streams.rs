//! Exec, attach and port-forward on real containers.

mod support;

use krate_runtime::cri::*;
use std::time::Duration;
use support::{container, ended, exec, on_node, start, texts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ALL: StreamFlags = StreamFlags { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: StreamFlags = StreamFlags { stdin: true, stdout: true, stderr: false, tty: true };

async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), wanted: &str) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains(wanted) {
        let n = stream.read(&mut buffer).await.expect("read");
        assert!(n > 0, "the stream ended after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    seen
}

#[test]
fn exec_has_three_streams_and_a_code() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("exec");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let id = start(&runtime, &sandbox, &pod, &container("main", &["wait"])).await;
        let cmd = texts(&["probe", "cat", "+", "err", "done", "+", "exit", "4"]);
        let mut session = runtime.exec(&id, &cmd, ALL).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"through").await.unwrap();
        drop(stdin);
        let (mut out, mut err) = (String::new(), String::new());
        session.stdout.unwrap().read_to_string(&mut out).await.unwrap();
        session.stderr.unwrap().read_to_string(&mut err).await.unwrap();
        assert_eq!((out.as_str(), err.as_str(), session.exit.await.unwrap()), ("through", "done\n", 4));

        let error = runtime.exec(&id, &texts(&["nonsense"]), ALL).await.map(drop).unwrap_err().to_string();
        assert!(error.ends_with("exec: \"nonsense\": executable file not found in $PATH"), "{error}");
        let late = runtime.exec_sync(&id, &texts(&["probe", "stubborn"]), Duration::from_millis(200)).await;
        assert!(matches!(late, Err(Error::DeadlineExceeded(_))), "{late:?}");
        // Its child keeps the pipes; the answer comes all the same.
        let orphan = exec(&runtime, &id, &["orphan", "+", "print", "left"]).await;
        assert!(orphan.contains("left"));
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn a_terminal_has_a_size() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("tty");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let id = start(&runtime, &sandbox, &pod, &container("main", &["wait"])).await;
        let cmd = texts(&["probe", "tty", "+", "size-change", "+", "exit", "6"]);
        let mut session = runtime.exec(&id, &cmd, TERMINAL).await.unwrap();
        let mut stdout = session.stdout.take().unwrap();
        let seen = read_until(&mut stdout, "ready").await;
        assert!(seen.starts_with("true"), "{seen}");
        session.resize.as_ref().unwrap().send((101, 37)).await.unwrap();
        read_until(&mut stdout, "101x37").await;
        assert_eq!(session.exit.await.unwrap(), 6);
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn a_container_with_a_terminal_can_be_attached_to() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("attach-tty");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let args = ["tty", "+", "size-change", "+", "ls", "/dev", "+", "wait"];
        let config = ContainerConfig { tty: true, stdin: true, ..container("main", &args) };
        let id = start(&runtime, &sandbox, &pod, &config).await;
        let mut session = runtime.attach(&id, TERMINAL).await.unwrap();
        while !node.printed("attach-tty", "main").contains("ready") {
            tokio::task::yield_now().await;
        }
        session.resize.as_ref().unwrap().send((90, 20)).await.unwrap();
        let mut stdout = session.stdout.take().unwrap();
        let seen = read_until(&mut stdout, "zero").await;
        assert!(seen.contains("90x20") && seen.contains("console"), "{seen}");
        runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        assert_eq!(session.exit.await.unwrap(), 137);
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn attached_input_ends_once() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("once");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        let config = ContainerConfig {
            stdin: true,
            stdin_once: true,
            ..container("main", &["cat", "+", "err", "end"])
        };
        let id = start(&runtime, &sandbox, &pod, &config).await;
        let mut session = runtime.attach(&id, ALL).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        let big = "0123456789".repeat(30_000);
        let writing = async move {
            stdin.write_all(big.as_bytes()).await.unwrap();
            drop(stdin);
        };
        let (mut out, mut err) = (String::new(), String::new());
        let (mut stdout, mut stderr) = (session.stdout.take().unwrap(), session.stderr.take().unwrap());
        let reading = async {
            stdout.read_to_string(&mut out).await.unwrap();
            stderr.read_to_string(&mut err).await.unwrap();
        };
        tokio::join!(writing, reading);
        assert_eq!((out.len(), err.as_str(), session.exit.await.unwrap()), (300_000, "end\n", 0));
        assert_eq!(ended(&runtime, &id).await.exit_code, 0);
        let again = runtime.attach(&id, ALL).await.map(drop).unwrap_err();
        assert!(matches!(again, Error::FailedPrecondition(_)), "{again:?}");
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn ports_are_forwarded_into_the_pod() {
    on_node(|node| async move {
        let runtime = node.open().await;
        let pod = node.pod("ports");
        let sandbox = runtime.run_pod_sandbox(&pod, "").await.unwrap();
        start(&runtime, &sandbox, &pod, &container("main", &["echo-server", "8080"])).await;
        while !node.printed("ports", "main").contains("ready") {
            tokio::task::yield_now().await;
        }
        let mut stream = runtime.port_forward(&sandbox, 8080).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        assert_eq!(read_until(&mut stream, "ping").await, "ping");
        let refused = runtime.port_forward(&sandbox, 8081).await.map(drop).unwrap_err().to_string();
        assert!(refused.contains("connection refused"), "{refused}");
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    });
}
