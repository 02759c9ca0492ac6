//! Kills: of a whole node, whose pods come up elsewhere, and of the control plane, which nothing notices.

use crate::cluster::Cluster;

#[test]
fn pods_of_a_killed_node_come_up_on_the_other_and_keep_their_data() {
    let c = Cluster::start("loss", 2);
    let shared = c.shared_folder();
    c.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: keeper}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: keeper}}}}
  template:
    metadata: {{labels: {{app: keeper}}}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - {{weight: 100, preference: {{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [node-2]}}]}}}}
      tolerations:
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 0}}
      - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 0}}
      containers:
      - name: main
        image: busybox:1
        command: [/bin/sh, -c, "hostname >> /data/names; sleep 3600"]
        volumeMounts: [{{name: data, mountPath: /data}}]
      volumes: [{{name: data, hostPath: {{path: {}, type: Directory}}}}]
"#,
        shared.display()
    ));
    c.kubectl(&["rollout", "status", "deployment/keeper", "--timeout=60s"]);
    let place = |c: &Cluster| {
        c.kubectl(&[
            "get",
            "pods",
            "-l",
            "app=keeper",
            "--field-selector=status.phase=Running",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP}{\"\\n\"}{end}",
        ])
    };
    let before = place(&c);
    assert!(before.contains("node-2"), "{before}");
    c.kill_node("node-2");
    c.until(&["get", "node", "node-2"], "the node to be seen as lost", |out| out.contains("NotReady"));
    let after =
        c.until(&["get", "pods", "-l", "app=keeper", "-o", "wide"], "the pod on the other node", |out| {
            out.lines().any(|l| l.contains("node-1") && l.contains("1/1"))
        });
    let old = before.split(' ').next().unwrap();
    assert!(after.lines().any(|l| l.contains("node-1") && !l.contains(old)), "a fresh name: {after}");
    let names = std::fs::read_to_string(shared.join("names")).unwrap();
    assert_eq!(names.lines().count(), 2, "both pods wrote to one file: {names}");
    assert_eq!(names.lines().next(), Some(old));
}

#[test]
fn a_killed_server_leaves_containers_running_and_restarts_nothing() {
    let c = Cluster::start("restart", 1);
    c.kubectl(&["create", "deployment", "web", "--image=nginx:1", "--replicas=2"]);
    c.kubectl(&[
        "expose",
        "deployment",
        "web",
        "--port=80",
        "--type=NodePort",
        "--overrides={\"spec\":{\"ports\":[{\"port\":80,\"targetPort\":80,\"nodePort\":30080}]}}",
    ]);
    c.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    c.fetch_until("welcome");
    let state = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.podIP}{\"\\n\"}{end}";
    let before = c.kubectl(&["get", "pods", "-o", state]);
    c.kill("node-1");
    assert!(c.fetch().unwrap().contains("welcome"), "the application serves without its control plane");
    let said = c.up(1);
    assert!(said.ok, "{}", said.err);
    c.kubectl(&["wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=60s"]);
    assert_eq!(c.kubectl(&["get", "pods", "-o", state]), before);
    assert!(c.fetch().unwrap().contains("welcome"));
}
