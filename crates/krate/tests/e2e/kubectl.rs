//! What the original's conformance tests of kubectl do, step by step.

use crate::cluster::{Cluster, get};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

const PRIMARY: &str = "
apiVersion: v1
kind: ReplicationController
metadata: {name: primary, labels: {app: guestbook, role: primary}}
spec:
  replicas: 1
  selector: {app: guestbook, role: primary}
  template:
    metadata: {labels: {app: guestbook, role: primary}}
    spec: {containers: [{name: web, image: 'nginx:1', ports: [{name: server, containerPort: 80}]}]}
";

#[test]
fn controllers_are_exposed_described_scaled_and_patched() {
    let c = Cluster::start("kubectl", 1);
    c.apply(PRIMARY);
    c.kubectl(&["wait", "pod", "-l", "app=guestbook", "--for=condition=Ready", "--timeout=60s"]);
    let pod = c.kubectl(&["get", "pods", "-l", "app=guestbook", "-o", "jsonpath={.items[0].metadata.name}"]);
    let described = |what: &[&str], lines: &[&[&str]]| {
        let text = c.kubectl(&[&["describe"], what].concat());
        for words in lines {
            let found = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
            assert!(found, "{words:?} is missing from the description of {what:?}:\n{text}");
        }
    };
    described(
        &["pod", &pod],
        &[
            &["Name:", "primary-"],
            &["Namespace:", "default"],
            &["Controlled By:", "ReplicationController/primary"],
            &["Image:", "nginx:1"],
            &["State:", "Running"],
            &["QoS Class:", "BestEffort"],
        ],
    );
    described(
        &["rc", "primary"],
        &[
            &["Selector:", "app=guestbook,role=primary"],
            &["Replicas:", "1 current", "1 desired"],
            &["Pods Status:", "1 Running", "0 Waiting", "0 Succeeded", "0 Failed"],
            &["Pod Template:"],
            &["Image:", "nginx:1"],
        ],
    );
    described(
        &["node", "node-1"],
        &[
            &["CreationTimestamp:"],
            &["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"],
            &["Addresses:"],
            &["Capacity:"],
            &["Kernel Version:"],
            &["OS Image:"],
            &["Container Runtime Version:"],
            &["Kubelet Version:"],
        ],
    );
    described(&["namespace", "default"], &[&["Name:", "default"], &["Status:", "Active"]]);

    for (what, name, port) in [("rc/primary", "first", "1234"), ("service/first", "second", "2345")] {
        c.kubectl(&["expose", what, "--name", name, "--port", port, "--target-port", "80"]);
        let ports =
            ["get", "service", name, "-o", "jsonpath={.spec.ports[0].port} {.spec.ports[0].targetPort}"];
        assert_eq!(c.kubectl(&ports), format!("{port} 80"));
        let slices = format!("kubernetes.io/service-name={name}");
        let ends = [
            "get",
            "endpointslices",
            "-l",
            &slices,
            "-o",
            "jsonpath={.items[*].endpoints[*].targetRef.name}",
        ];
        c.until(&ends, "an endpoint", |out| out == pod);
    }

    c.kubectl(&["label", "pods", &pod, "testing-label=testing-label-value"]);
    assert!(c.kubectl(&["get", "pod", &pod, "-L", "testing-label"]).contains("testing-label-value"));
    c.kubectl(&["label", "pods", &pod, "testing-label-"]);
    assert!(!c.kubectl(&["get", "pod", &pod, "-L", "testing-label"]).contains("testing-label-value"));
    c.kubectl(&["patch", "pod", &pod, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]);
    assert_eq!(c.kubectl(&["get", "pod", &pod, "-o", "jsonpath={.metadata.annotations.x}"]), "y");

    for replicas in ["2", "1", "2"] {
        c.kubectl(&["scale", "rc", "primary", "--replicas", replicas, "--timeout=5m"]);
        let pods = ["get", "pods", "-l", "app=guestbook", "-o", "template", "--template", NAMES];
        c.until(&pods, "so many pods", |out| out.split_whitespace().count().to_string() == replicas);
    }
    let differs = c.kubectl_in(&["diff", "-f", "-"], &PRIMARY.replace("nginx:1", "busybox:1"));
    assert!(
        !differs.ok && differs.out.contains("+      - image: busybox:1"),
        "{}{}",
        differs.out,
        differs.err
    );
    c.kubectl(&["delete", "--grace-period=0", "--force", "rc,service", "-l", "app=guestbook"]);
    assert_eq!(c.kubectl(&["get", "rc", "-l", "app=guestbook", "--no-headers"]), "");
    c.until(&["get", "pods", "-l", "app=guestbook", "-o", "name"], "no pods", str::is_empty);
}

/// Every pod that is not on its way out.
const NAMES: &str = "{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}";

#[test]
fn a_pod_is_run_replaced_attached_to_and_proxied() {
    let c = Cluster::start("client", 1);
    let image = ["get", "pod", "single", "-o", "jsonpath={.spec.containers[0].image}"];
    c.kubectl(&["run", "single", "--image=nginx:1", "--restart=Never", "--labels=run=single"]);
    c.kubectl(&["wait", "pod/single", "--for=condition=Ready", "--timeout=60s"]);
    let patch = r#"{"spec":{"containers":[{"name":"single","image":"nginx:2"}]}}"#;
    c.kubectl(&["patch", "pod", "single", "-p", patch, "--dry-run=server"]);
    assert_eq!(c.kubectl(&image), "nginx:1");
    let replaced = c.kubectl(&["get", "pod", "single", "-o", "json"]).replace("nginx:1", "nginx:2");
    let said = c.kubectl_in(&["replace", "-f", "-"], &replaced);
    assert!(said.ok, "{}", said.err);
    assert_eq!(c.kubectl(&image), "nginx:2");
    // It never restarts, and goes on with its new image all the same.
    let status = "jsonpath={.status.phase} {.status.containerStatuses[0].restartCount} \
                  {.status.containerStatuses[0].ready}";
    c.until(&["get", "pod", "single", "-o", status], "the new image", |out| out == "Running 1 true");

    c.kubectl(&["run", "gone", "--image=busybox:1", "--restart=Never", "--", "true"]);
    c.kubectl(&["wait", "pod/gone", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"]);
    let said = c.kubectl_fails(&["exec", "gone", "--", "true"]);
    assert!(said.contains("cannot exec into a container in a completed pod"), "{said}");
    let said = c.kubectl_fails(&["exec", "single", "--", "absent"]);
    assert!(said.contains("Internal error occurred: error executing command in container: "), "{said}");

    // A container that fails while it is attached to: its output comes once, and kubectl takes its code.
    let script = "read go; echo once; exit 3";
    let run = ["run", "fails", "--image=busybox:1", "--restart=Never", "--rm", "-q", "-i", "--", "sh", "-c"];
    let said = c.kubectl_in(&[&run[..], &[script]].concat(), "go\n");
    assert_eq!(said.out.matches("once").count(), 1, "{}{}", said.out, said.err);
    assert!(!said.ok && !said.err.contains("couldn't attach"), "{}", said.err);

    let mut proxy = c.kubectl_background(&["proxy", "--port", "0", "--disable-filter"]);
    let said = proxy.read_until("\n");
    let address = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(get(address).unwrap().contains("/api/v1"));
    let socket = c.dir.with_file_name("proxy.sock");
    let mut proxy = c.kubectl_background(&["proxy", &format!("--unix-socket={}", socket.display())]);
    proxy.read_until("\n");
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /api/ HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"APIVersions\"") && answer.contains("\"v1\""), "{answer}");

    assert!(c.kubectl(&["api-versions"]).lines().any(|line| line == "v1"));
    assert!(c.kubectl(&["cluster-info"]).contains("Kubernetes control plane"));
    let version = c.kubectl(&["version"]);
    assert!(version.contains("Client Version: ") && version.contains("Server Version: "), "{version}");
    assert!(c.kubectl_fails(&["top", "pods"]).contains("Metrics API not available"));
}
