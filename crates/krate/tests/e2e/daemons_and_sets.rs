//! DaemonSets and StatefulSets: a collector that reads every node's logs, and pods that find each other by name.

use crate::cluster::Cluster;

const COLLECTOR: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: collector}
spec:
  selector: {matchLabels: {app: collector}}
  template:
    metadata: {labels: {app: collector}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox:1
        command: [/bin/sh, -c, "while true; do cat /var/log/containers/talker-*.log 2>/dev/null; sleep 1; done"]
        volumeMounts: [{name: logs, mountPath: /var/log, readOnly: true}]
      volumes: [{name: logs, hostPath: {path: /var/log, type: Directory}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: talker}
spec:
  selector: {matchLabels: {app: talker}}
  template:
    metadata: {labels: {app: talker}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox:1
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        command: [/bin/sh, -c, "while true; do echo here speaks $NODE; sleep 1; done"]
"#;

#[test]
fn a_collector_on_every_node_reads_the_logs_of_its_node() {
    let c = Cluster::start("daemons", 2);
    c.apply(COLLECTOR);
    for name in ["collector", "talker"] {
        let status = c.kubectl(&["rollout", "status", "daemonset", name, "--timeout=60s"]);
        assert!(status.contains(&format!("daemon set \"{name}\" successfully rolled out")), "{status}");
    }
    let table = c.kubectl(&["get", "daemonset", "collector", "--no-headers"]);
    let cells: Vec<_> = table.split_whitespace().collect();
    assert_eq!(cells[..7], ["collector", "2", "2", "2", "2", "2", "<none>"], "{table}");
    let places = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}";
    let pods = c.kubectl(&["get", "pods", "-l", "app=collector", "-o", places]);
    let mut nodes: Vec<_> = pods.lines().filter_map(|l| l.split_once(' ')).collect();
    nodes.sort_by_key(|(_, node)| (*node).to_owned());
    assert_eq!(nodes.iter().map(|(_, n)| *n).collect::<Vec<_>>(), ["node-1", "node-2"]);
    for (pod, node) in nodes {
        let other = if node == "node-1" { "node-2" } else { "node-1" };
        let seen = c.until(&["logs", pod], "the logs of the node", |out| out.contains("here speaks"));
        assert!(seen.contains(&format!("here speaks {node}")) && !seen.contains(other), "{seen}");
    }
    c.kubectl(&["set", "env", "daemonset/talker", "MOOD=good"]);
    c.kubectl(&["rollout", "status", "daemonset", "talker", "--timeout=60s"]);
    let history = c.kubectl(&["rollout", "history", "daemonset", "talker"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    c.kubectl(&["rollout", "undo", "daemonset", "talker"]);
    c.kubectl(&["rollout", "status", "daemonset", "talker", "--timeout=60s"]);
    let told = c.kubectl(&["describe", "daemonset", "talker"]);
    assert!(told.contains("SuccessfulCreate") && !told.contains("MOOD"), "{told}");
    c.kubectl(&["delete", "daemonset", "talker", "collector", "--wait"]);
    c.until(&["get", "pods", "-o", "name"], "the pods to be gone", |out| out.trim().is_empty());
}

const SET: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "nginx:1"}]
"#;

#[test]
fn members_of_a_set_have_names_and_are_updated_in_order() {
    let c = Cluster::start("sets", 2);
    c.apply(SET);
    c.kubectl(&["rollout", "status", "statefulset", "db", "--timeout=60s"]);
    let names = c.kubectl(&["get", "pods", "-o", "name"]);
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), ["pod/db-0", "pod/db-1", "pod/db-2"]);
    c.kubectl(&["run", "client", "--image=busybox:1", "--restart=Never", "--command", "--", "sleep", "3600"]);
    c.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]);
    let fetch = |name: &str| {
        let url = format!("http://{name}/");
        c.until(&["exec", "client", "--", "wget", "-qO-", &url], name, |out| out.contains("welcome"))
    };
    fetch("db-2.db.default.svc.cluster.local");
    fetch("db-0.db");
    c.kubectl(&["set", "image", "statefulset", "db", "main=nginx:2"]);
    let status = c.kubectl(&["rollout", "status", "statefulset", "db", "--timeout=90s"]);
    assert!(status.contains("partitioned roll out complete: 3 new pods have been updated"), "{status}");
    assert!(fetch("db-0.db").contains("nginx:2"));
    let history = c.kubectl(&["rollout", "history", "statefulset", "db"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    c.kubectl(&["rollout", "undo", "statefulset", "db"]);
    c.kubectl(&["rollout", "status", "statefulset", "db", "--timeout=90s"]);
    c.kubectl(&["scale", "statefulset", "db", "--replicas=1"]);
    c.until(&["get", "statefulset", "db", "--no-headers"], "one pod", |out| out.contains("1/1"));
    let told = c.kubectl(&["describe", "statefulset", "db"]);
    assert!(told.contains("create Pod db-0 in StatefulSet db successful"), "{told}");
    assert!(told.contains("delete Pod db-2 in StatefulSet db successful"), "{told}");
    c.kubectl(&["delete", "pod", "db-0", "--wait"]);
    c.kubectl(&["wait", "--for=condition=Ready", "pod/db-0", "--timeout=60s"]);
    c.kubectl(&["delete", "statefulset", "db", "--wait"]);
}
