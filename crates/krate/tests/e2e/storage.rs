//! Persistent storage: data that outlives its pod, its node; claims that grow, and what becomes of volumes.

use crate::cluster::Cluster;

const CLAIM: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

/// The folder of the volume that is bound to the claim `data`.
fn folder(c: &Cluster) -> std::path::PathBuf {
    let volume = c.kubectl(&["get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"]);
    c.kubectl(&["get", "pv", &volume, "-o", "jsonpath={.spec.local.path}"]).into()
}

#[test]
fn a_pod_whose_node_dies_finds_its_data_on_another() {
    let c = Cluster::start("storage", 2);
    c.apply(CLAIM);
    c.until(&["describe", "pvc", "data"], "the claim to wait for its pod", |out| {
        out.contains("waiting for first consumer to be created before binding")
    });
    c.apply(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: keeper}
spec:
  replicas: 1
  selector: {matchLabels: {app: keeper}}
  template:
    metadata: {labels: {app: keeper}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - {weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-2]}]}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
      containers:
      - name: main
        image: busybox:1
        command: [/bin/sh, -c, "hostname >> /data/names; cat /data/names; sleep 3600"]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#,
    );
    c.kubectl(&["rollout", "status", "deployment/keeper", "--timeout=60s"]);
    let where_it_runs = c.kubectl(&["get", "pods", "-l", "app=keeper", "-o", "wide"]);
    assert!(where_it_runs.contains("node-2"), "{where_it_runs}");
    let first = c.kubectl(&["logs", "-l", "app=keeper"]);
    assert_eq!(first.lines().count(), 1, "{first}");
    c.kill_node("node-2");
    c.until(&["get", "pods", "-l", "app=keeper", "-o", "wide"], "the pod on the other node", |out| {
        out.lines().any(|l| l.contains("node-1") && l.contains("1/1"))
    });
    let names = std::fs::read_to_string(folder(&c).join("names")).unwrap();
    assert_eq!(names.lines().count(), 2, "{names}");
    assert_eq!(names.lines().next(), first.lines().next(), "the second reads what the first wrote");
}

#[test]
fn a_claim_grows_is_kept_while_it_is_used_and_goes_with_its_folder() {
    let c = Cluster::start("claims", 1);
    let classes = c.kubectl(&["get", "storageclass"]);
    assert!(classes.contains("standard (default)") && classes.contains("WaitForFirstConsumer"), "{classes}");
    c.apply(CLAIM);
    c.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [/bin/sh, -c, "echo hello > /data/greeting; sleep 3600"]
    volumeMounts: [{name: data, mountPath: /data, subPath: part}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#,
    );
    c.kubectl(&["wait", "--for=condition=Ready", "pod/writer", "--timeout=60s"]);
    let folder = folder(&c);
    let greeting = folder.join("part/greeting");
    c.until(&["exec", "writer", "--", "cat", "/data/greeting"], "the greeting", |out| out == "hello\n");
    assert_eq!(std::fs::read_to_string(&greeting).unwrap(), "hello\n");
    let size = |size: &str| format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#);
    c.kubectl(&["patch", "pvc", "data", "-p", &size("2Gi")]);
    c.until(&["get", "pvc", "data"], "the claim to grow", |out| out.contains("2Gi"));
    let said = c.kubectl_fails(&["patch", "pvc", "data", "-p", &size("1Gi")]);
    assert!(said.contains("field can not be less than status.capacity"), "{said}");
    c.kubectl(&["delete", "pvc", "data", "--wait=false"]);
    c.until(&["get", "pvc", "data"], "the claim to be kept", |out| out.contains("Terminating"));
    c.kubectl(&["exec", "writer", "--", "cat", "/data/greeting"]);
    c.kubectl(&["delete", "pod", "writer"]);
    c.until(&["get", "pvc,pv", "-o", "name"], "the claim and its volume to go", str::is_empty);
    assert!(!folder.exists(), "its folder is removed");
}

#[test]
fn a_volume_of_the_user_is_kept_with_its_data() {
    let c = Cluster::start("volumes", 1);
    let shared = c.shared_folder();
    c.apply(&format!(
        r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: mine}}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {{storage: 1Gi}}
  hostPath: {{path: {}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{storageClassName: "", accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 500Mi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: reader}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [/bin/sh, -c, "sleep 3600"]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data, readOnly: true}}}}]
"#,
        shared.display()
    ));
    c.kubectl(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=60s"]);
    std::fs::write(shared.join("x"), "1\n").unwrap();
    assert_eq!(c.kubectl(&["exec", "reader", "--", "cat", "/data/x"]), "1\n");
    let said = c.kubectl_fails(&["exec", "reader", "--", "sh", "-c", "echo 2 > /data/x"]);
    assert!(said.contains("Read-only file system"), "{said}");
    c.kubectl(&["delete", "pod/reader", "pvc/data"]);
    c.until(&["get", "pv", "mine"], "the volume to be released", |out| out.contains("Released"));
    assert!(shared.join("x").exists());
}
