//! Software with state, as the distribution packages it: a Redis primary and its replica, as members of a
//! StatefulSet. They find each other by name, and keep name and data when a pod or a whole node is lost.

use crate::cluster::Cluster;
use crate::tools;

const PRIMARY: &str = "redis-0.redis.default.svc.cluster.local";

const REDIS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: redis}
spec: {clusterIP: None, selector: {app: redis}, ports: [{name: redis, port: 6379}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: redis}
spec:
  serviceName: redis
  replicas: 2
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec:
      terminationGracePeriodSeconds: 5
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: redis}}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
      containers:
      - name: redis
        image: redis:7
        command:
        - /bin/sh
        - -c
        - |
          test "$(hostname)" = redis-0 || primary="--replicaof redis-0.redis.default.svc.cluster.local 6379"
          exec redis-server --dir /data --appendonly yes --protected-mode no $primary
        ports: [{name: redis, containerPort: 6379}]
        readinessProbe: {exec: {command: [redis-cli, ping]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 100Mi}}}
"#;

fn build_image(c: &Cluster) {
    let copies = [tools::redis_root(), tools::busybox_root()].map(|root| format!("{}:/", root.display()));
    c.krate_ok(&["image", "build", "-t", "redis:7", "--copy", &copies[0], "--copy", &copies[1]]);
}

/// Waits until Redis in the pod answers `command`, asked of `host`, with what is expected.
fn answers(c: &Cluster, pod: &str, host: &str, command: &[&str], expected: &str) {
    let mut args = vec!["exec", pod, "--", "redis-cli", "-h", host];
    args.extend(command);
    c.until(&args, &format!("{command:?} of {host} to say {expected:?}"), |out| out.trim() == expected);
}

fn replica_is_in_step(c: &Cluster) {
    c.until(&["exec", "redis-1", "--", "redis-cli", "info", "replication"], "the replica's link", |out| {
        out.contains("role:slave") && out.contains("master_link_status:up")
    });
}

fn node_of(c: &Cluster, pod: &str) -> String {
    c.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"])
}

#[test]
fn a_replicated_database_keeps_names_and_data_through_the_loss_of_pods_and_of_a_node() {
    let c = Cluster::start("software", 2);
    build_image(&c);
    c.apply(REDIS);
    c.kubectl(&["rollout", "status", "statefulset/redis", "--timeout=90s"]);
    let claims = c.kubectl(&["get", "pvc", "--no-headers"]);
    for name in ["data-redis-0", "data-redis-1"] {
        assert!(claims.lines().any(|l| l.starts_with(name) && l.contains("Bound")), "{claims}");
    }
    assert_ne!(node_of(&c, "redis-0"), node_of(&c, "redis-1"));

    replica_is_in_step(&c);
    answers(&c, "redis-1", PRIMARY, &["set", "first", "one"], "OK");
    answers(&c, "redis-1", "127.0.0.1", &["get", "first"], "one");

    let uid = "jsonpath={.metadata.uid}";
    let before = c.kubectl(&["get", "pod", "redis-0", "-o", uid]);
    c.kubectl(&["delete", "pod", "redis-0"]);
    c.kubectl(&["rollout", "status", "statefulset/redis", "--timeout=90s"]);
    assert_ne!(c.kubectl(&["get", "pod", "redis-0", "-o", uid]), before);
    answers(&c, "redis-0", "127.0.0.1", &["get", "first"], "one");
    replica_is_in_step(&c);
    answers(&c, "redis-1", PRIMARY, &["set", "second", "two"], "OK");
    answers(&c, "redis-1", "127.0.0.1", &["get", "second"], "two");

    // The node is lost, and nobody but its user knows that it will not come back: two pods of one name must
    // never run, so its member waits for that word.
    let lost = if node_of(&c, "redis-0") == "node-2" { "redis-0" } else { "redis-1" };
    assert_eq!(node_of(&c, lost), "node-2");
    let before = c.kubectl(&["get", "pod", lost, "-o", uid]);
    c.kill_node("node-2");
    c.until(&["get", "pod", lost], "the pod to be given up", |out| out.contains("Terminating"));
    assert_eq!(c.kubectl(&["get", "pod", lost, "-o", uid]), before);
    c.kubectl(&["taint", "node", "node-2", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"]);
    c.until(&["get", "pod", lost, "-o", "wide"], "the member on the other node", |out| {
        out.contains("1/1") && out.contains("node-1")
    });
    assert_ne!(c.kubectl(&["get", "pod", lost, "-o", uid]), before);
    for key in [["first", "one"], ["second", "two"]] {
        answers(&c, lost, "127.0.0.1", &["get", key[0]], key[1]);
    }
    replica_is_in_step(&c);
    answers(&c, "redis-1", PRIMARY, &["set", "third", "three"], "OK");
    answers(&c, "redis-1", "127.0.0.1", &["get", "third"], "three");

    // The claims outlive the set, and a new set of that name finds them.
    c.kubectl(&["delete", "statefulset", "redis", "--wait"]);
    c.until(&["get", "pods", "-l", "app=redis", "-o", "name"], "the members to go", |out| out.is_empty());
    c.apply(REDIS);
    c.kubectl(&["rollout", "status", "statefulset/redis", "--timeout=90s"]);
    answers(&c, "redis-0", "127.0.0.1", &["get", "third"], "three");
}
