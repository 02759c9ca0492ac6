//! Pods by themselves: several containers, init containers, streams, logs, probes, restarts, DNS.

use crate::cluster::{Cluster, get};
use std::io::Write as _;

#[test]
fn two_containers_share_localhost_and_a_volume() {
    let c = Cluster::start("shared", 2);
    let pod = |name: &str| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{{name: html, emptyDir: {{}}}}]
  initContainers:
  - name: page
    image: busybox:1
    command: [/bin/sh, -c, "echo made by init > /html/index.html"]
    volumeMounts: [{{name: html, mountPath: /html}}]
  containers:
  - name: web
    image: nginx:1
    volumeMounts: [{{name: html, mountPath: /usr/share/nginx/html}}]
  - name: client
    image: busybox:1
    command: [/bin/sh, -c, "while true; do sleep 1; done"]
    volumeMounts: [{{name: html, mountPath: /html}}]
---
"#
        )
    };
    c.apply(&(pod("one") + &pod("two")));
    c.kubectl(&["wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=60s"]);
    for name in ["one", "two"] {
        let page = c.kubectl(&["exec", name, "-c", "client", "--", "wget", "-qO-", "http://localhost/"]);
        assert_eq!(page, "made by init\n");
        c.kubectl(&["exec", name, "-c", "client", "--", "sh", "-c", "echo changed > /html/index.html"]);
        let page = c.kubectl(&["exec", name, "-c", "client", "--", "wget", "-qO-", "http://127.0.0.1/"]);
        assert_eq!(page, "changed\n");
    }
}

#[test]
fn streams_reach_into_pods() {
    let c = Cluster::start("streams", 1);
    c.kubectl(&["run", "web", "--image=nginx:1", "--port=80"]);
    c.kubectl(&[
        "run",
        "box",
        "--image=busybox:1",
        "--command",
        "--",
        "sh",
        "-c",
        "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done",
    ]);
    c.kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/box", "--timeout=60s"]);

    let said = c
        .kubectl_in(&["exec", "-i", "box", "--", "sh", "-c", "cat; echo err >&2; exit 7"], "through stdin\n");
    assert_eq!(said.out, "through stdin\n");
    assert!(said.err.contains("err") && said.err.contains("exit code 7"), "{}", said.err);
    let mut tty = std::process::Command::new("script");
    let line = format!(
        "{} --kubeconfig {} exec -it box -- sh -c 'tty; echo done'",
        crate::tools::kubectl().display(),
        c.kubeconfig().display()
    );
    let out = tty.args(["-qec", &line, "/dev/null"]).output().unwrap();
    let out = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.contains("/dev/") && out.contains("done"), "{out}");

    let mut follow = c.kubectl_background(&["logs", "-f", "box"]);
    follow.read_until("line 5");
    assert!(c.kubectl(&["logs", "box", "--tail=1"]).starts_with("line "));
    assert!(c.kubectl(&["logs", "box", "--timestamps", "--tail=1"]).contains("T"));

    let file = c.dir.with_file_name("copied.txt");
    std::fs::File::create(&file).unwrap().write_all(b"copied in\n").unwrap();
    c.kubectl(&["cp", &file.display().to_string(), "box:/tmp/copied.txt"]);
    let back = c.dir.with_file_name("back.txt");
    c.kubectl(&["cp", "box:/tmp/copied.txt", &back.display().to_string()]);
    assert_eq!(std::fs::read_to_string(back).unwrap(), "copied in\n");

    let mut forward = c.kubectl_background(&["port-forward", "pod/web", ":80"]);
    let line = forward.read_until(" -> 80");
    let port: u16 = line.rsplit("127.0.0.1:").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(get(([127, 0, 0, 1], port).into()).unwrap().contains("welcome to nginx:1"));
}

#[test]
fn failing_containers_are_restarted_and_say_why() {
    let c = Cluster::start("restarts", 1);
    c.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  containers: [{name: main, image: busybox:1, command: [/bin/sh, -c, "echo before the end; exit 3"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers: [{name: main, image: busybox:1, command: [/bin/sh, -c, "exit 0"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: unready}
spec:
  containers:
  - name: main
    image: busybox:1
    command: [/bin/sh, -c, "sleep 3600"]
    readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, "!", -f, /tmp/dead]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:1
    command: [/bin/sh, -c, "x=a; while true; do x=$x$x; done"]
    resources: {limits: {memory: 32Mi}}
"#,
    );
    c.until(&["get", "pod", "crash"], "a crash loop", |out| out.contains("CrashLoopBackOff"));
    assert_eq!(c.kubectl(&["logs", "crash", "--previous"]), "before the end\n");
    assert_eq!(
        c.kubectl(&[
            "get",
            "pod",
            "crash",
            "-o",
            "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}"
        ]),
        "3"
    );
    c.until(&["get", "pod", "once"], "completion", |out| out.contains("Completed"));
    c.until(&["get", "pod", "unready"], "it to run", |out| out.contains("0/1") && out.contains("Running"));
    c.kubectl(&["exec", "unready", "--", "touch", "/tmp/ready"]);
    c.kubectl(&["wait", "--for=condition=Ready", "pod/unready", "--timeout=30s"]);
    c.kubectl(&["exec", "unready", "--", "touch", "/tmp/dead"]);
    c.until(
        &["get", "pod", "unready", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"],
        "a restart",
        |out| out == "1",
    );
    c.until(&["get", "pod", "greedy"], "the out-of-memory kill", |out| out.contains("OOMKilled"));
}

#[test]
fn names_resolve_and_services_reach_pods() {
    let c = Cluster::start("names", 2);
    c.kubectl(&["create", "deployment", "web", "--image=nginx:1", "--replicas=3"]);
    c.kubectl(&["expose", "deployment", "web", "--port=80"]);
    c.kubectl(&["run", "box", "--image=busybox:1", "--command", "--", "sleep", "3600"]);
    c.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    c.kubectl(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"]);
    let page = c.until(
        &["exec", "box", "--", "wget", "-qO-", "http://web/"],
        "the service by its short name",
        |o| !o.is_empty(),
    );
    assert!(page.contains("welcome to nginx:1"), "{page}");
    let page = c.kubectl(&["exec", "box", "--", "wget", "-qO-", "http://web.default.svc.cluster.local/"]);
    assert!(page.contains("welcome to nginx:1"), "{page}");
    let refused = c.kubectl_fails(&["exec", "box", "--", "wget", "-qO-", "http://nowhere/"]);
    assert!(refused.contains("bad address"), "{refused}");
    c.kubectl(&["scale", "deployment", "web", "--replicas=0"]);
    c.until(&["get", "pods", "-l", "app=web", "-o", "name"], "the pods to go", |o| o.trim().is_empty());
    let refused = c.kubectl_fails(&["exec", "box", "--", "wget", "-qO-", "http://web/"]);
    assert!(refused.contains("refused") || refused.contains("reset"), "{refused}");
}

#[test]
fn sidecars_begin_before_and_end_after_the_others() {
    let c = Cluster::start("sidecar", 1);
    c.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: order}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - name: first
    image: busybox:1
    command: [sh, -c, "echo first >> /v/order"]
    volumeMounts: [{name: v, mountPath: /v}]
  - name: side
    image: busybox:1
    restartPolicy: Always
    command:
    - sh
    - -c
    - "trap 'echo side ends >> /v/order; cat /v/order; exit 0' TERM; echo side >> /v/order; touch /up;
       while true; do sleep 0.1; done"
    startupProbe: {exec: {command: [test, -f, /up]}, periodSeconds: 1}
    volumeMounts: [{name: v, mountPath: /v}]
  - name: second
    image: busybox:1
    command: [sh, -c, "echo second >> /v/order"]
    volumeMounts: [{name: v, mountPath: /v}]
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, "echo main >> /v/order"]
    volumeMounts: [{name: v, mountPath: /v}]
"#,
    );
    c.until(&["get", "pod", "order"], "completion", |out| out.contains("Completed"));
    assert_eq!(c.kubectl(&["logs", "order", "-c", "side"]), "first\nside\nsecond\nmain\nside ends\n");
}

#[test]
fn containers_are_added_to_look_into_a_pod() {
    let c = Cluster::start("debug", 1);
    c.kubectl(&["run", "web", "--image=nginx:1"]);
    c.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    c.kubectl(&[
        "debug",
        "web",
        "--image=busybox:1",
        "--target=web",
        "-c",
        "look",
        "--profile=general",
        "--",
        "sh",
        "-c",
        "ps; sleep 3600",
    ]);
    let seen = c.until(&["logs", "web", "-c", "look"], "what it sees", |out| out.contains("worker process"));
    assert!(seen.contains("nginx: master process"), "{seen}");
    assert_eq!(c.kubectl(&["exec", "web", "-c", "look", "--", "id", "-u"]), "0\n");
}

#[test]
fn classes_decide_what_runs_a_pod_and_bad_pods_are_turned_away() {
    let c = Cluster::start("classes", 1);
    let pod = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}, containers: [{{name: a, image: 'busybox:1', command: [sleep, '3600']}}]}}}}\n---\n"
        )
    };
    let said = c.kubectl_in(&["apply", "-f", "-"], &pod("early", "runtimeClassName: strange"));
    assert!(said.err.contains("pod rejected: RuntimeClass \"strange\" not found"), "{}", said.err);
    c.apply(
        "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: strange}, handler: strange, overhead: {podFixed: {cpu: 10m}}}",
    );
    let unsafe_ = "securityContext: {sysctls: [{name: kernel.msgmax, value: '10'}]}";
    c.apply(&(pod("late", "runtimeClassName: strange") + &pod("unsafe", unsafe_)));
    c.until(&["get", "events"], "the refusal", |out| {
        out.contains("FailedCreatePodSandBox") && out.contains("no runtime for \"strange\" is configured")
    });
    assert_eq!(c.kubectl(&["get", "pod", "late", "-o", "jsonpath={.spec.overhead.cpu}"]), "10m");
    c.until(&["get", "pod", "unsafe"], "the rejection", |out| out.contains("SysctlForbidden"));
}

#[test]
fn pods_get_what_was_advertised_for_a_node() {
    let c = Cluster::start("dongles", 1);
    let patch = r#"[{"op": "add", "path": "/status/capacity/example.com~1dongle", "value": "4"}]"#;
    c.kubectl(&["patch", "node", "node-1", "--subresource=status", "--type=json", "-p", patch]);
    let pod = |name: &str| {
        c.apply(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
  - name: main
    image: busybox:1
    command: [sleep, "3600"]
    resources: {{requests: {{example.com/dongle: 3}}, limits: {{example.com/dongle: 3}}}}
"#
        ));
    };
    pod("first");
    c.kubectl(&["wait", "--for=condition=Ready", "pod/first", "--timeout=60s"]);
    pod("second");
    c.until(&["describe", "pod", "second"], "what is missing", |out| {
        out.contains("0/1 nodes are available: 1 Insufficient example.com/dongle.")
    });
    c.kubectl(&["delete", "pod", "first", "--grace-period=1"]);
    c.kubectl(&["wait", "--for=condition=Ready", "pod/second", "--timeout=60s"]);
}
