//! Secrets and ConfigMaps, as variables and as volumes, and volumes that follow a change.

use crate::cluster::Cluster;

#[test]
fn secrets_and_configmaps_reach_containers_and_follow_changes() {
    let c = Cluster::start("config", 1);
    c.kubectl(&[
        "create",
        "secret",
        "generic",
        "mysecret",
        "--from-literal=username=admin",
        "--from-literal=password=s3cret",
    ]);
    let file = c.dir.with_file_name("redis.properties");
    std::fs::write(&file, "redis.host=127.0.0.1\nredis.port=6379\n").unwrap();
    c.kubectl(&["create", "configmap", "redis-config", &format!("--from-file={}", file.display())]);
    c.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: variables}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [/bin/sh, -c, "sleep 3600"]
    env:
    - {name: SECRET_USERNAME, valueFrom: {secretKeyRef: {name: mysecret, key: username}}}
    - {name: SECRET_PASSWORD, valueFrom: {secretKeyRef: {name: mysecret, key: password}}}
    - {name: GREETING, value: "hello $(SECRET_USERNAME)"}
    - {name: WRITTEN, valueFrom: {fileKeyRef: {volumeName: made, path: made.env, key: WRITTEN}}}
    - {name: ABSENT, valueFrom: {fileKeyRef: {volumeName: made, path: made.env, key: ABSENT, optional: true}}}
    envFrom:
    - configMapRef: {name: redis-config}
  initContainers:
  - name: writer
    image: busybox:1
    command: [/bin/sh, -c, "echo \"WRITTEN='by the one before'\" > /made/made.env"]
    volumeMounts:
    - {name: made, mountPath: /made}
  volumes:
  - {name: made, emptyDir: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: volumes}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [/bin/sh, -c, "sleep 3600"]
    volumeMounts:
    - {name: secret, mountPath: /etc/secret, readOnly: true}
    - {name: config, mountPath: /etc/config}
    - {name: deep, mountPath: /deep, readOnly: true, recursiveReadOnly: Enabled}
  volumes:
  - {name: deep, emptyDir: {}}
  - {name: secret, secret: {secretName: mysecret}}
  - {name: config, configMap: {name: redis-config}}
"#,
    );
    c.kubectl(&["wait", "--for=condition=Ready", "pod/variables", "pod/volumes", "--timeout=60s"]);
    let env = c.kubectl(&["exec", "variables", "--", "env"]);
    for line in [
        "SECRET_USERNAME=admin",
        "SECRET_PASSWORD=s3cret",
        "GREETING=hello admin",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "WRITTEN=by the one before",
    ] {
        assert!(env.contains(line), "{line} is missing from:\n{env}");
    }
    assert!(!env.contains("ABSENT"), "{env}");
    let query = "jsonpath={.status.containerStatuses[0].volumeMounts[*].recursiveReadOnly}";
    let deep = c.kubectl(&["get", "pod", "volumes", "-o", query]);
    assert_eq!(deep, "Disabled Enabled Disabled", "the secret, the one that is asked for, the token");
    let query = "jsonpath={.items[0].status.runtimeHandlers} {.items[0].status.features}";
    assert_eq!(
        c.kubectl(&["get", "nodes", "-o", query]),
        r#"[{"features":{"recursiveReadOnlyMounts":true,"userNamespaces":false},"name":""}] {"supplementalGroupsPolicy":true}"#
    );
    let read = |path: &str| c.kubectl(&["exec", "volumes", "--", "cat", path]);
    assert_eq!(read("/etc/secret/password"), "s3cret");
    assert!(read("/etc/config/redis.properties").contains("redis.port=6379"));
    c.kubectl(&["patch", "secret", "mysecret", "-p", "{\"stringData\":{\"password\":\"changed\"}}"]);
    c.until(&["exec", "volumes", "--", "cat", "/etc/secret/password"], "the volume to follow", |out| {
        out == "changed"
    });
    let token =
        c.kubectl(&["exec", "volumes", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"]);
    assert_eq!(token.split('.').count(), 3, "a service-account token: {token}");
}
