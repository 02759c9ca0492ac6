//! What a container finds when it starts: files with their modes and owners, variables, identities, and what
//! becomes of its last words. The steps of the conformance suite's tests of volumes and environment.

use crate::cluster::Cluster;

const SOURCES: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {data-1: "value-1\n", data_2: value-2}
binaryData: {bin: 3sr+utD+/w==}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {data-1: "secret-1\n"}
"#;

/// A pod that runs `script` once. `spec` and `container` are further fields, in YAML's flow form.
fn once(name: &str, script: &str, container: &str, spec: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{a: one, b: "2"}}, annotations: {{note: "say \"hi\""}}}}
spec:
  restartPolicy: Never
  containers: [{{name: main, image: "busybox:1", command: [sh, -c, '{script}'], {container}}}]
  {spec}
---
"#
    )
}

/// What the pod printed, once it has succeeded.
fn printed(c: &Cluster, name: &str) -> String {
    c.until(&["get", "pod", name, "-o", "jsonpath={.status.phase}"], "its end", |out| out == "Succeeded");
    c.kubectl(&["logs", name])
}

#[test]
fn files_have_their_content_mode_and_owner() {
    let c = Cluster::start("files", 1);
    let show = r#"for f in /v/*; do stat -L -c "%A %u %g" $f; cat $f; done"#;
    let mount = "volumeMounts: [{name: v, mountPath: /v}]";
    let pod = |name: &str, volume: &str, spec: &str| {
        once(name, show, mount, &format!("{spec}\n  volumes: [{{name: v, {volume}}}]"))
    };
    let items = "items: [{key: data-1, path: x, mode: 0400}]";
    let user = "securityContext: {runAsUser: 1000, fsGroup: 1001}";
    let downward = r#"items: [{path: name, fieldRef: {fieldPath: metadata.name}, mode: 0400},
        {path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: notes, fieldRef: {fieldPath: "metadata.annotations"}}]"#;
    let empty = |medium: &str| {
        let script =
            r#"stat -c "%A" /v; grep -c "tmpfs /v " /proc/mounts; echo x > /v/x; stat -c "%A %u %g" /v/x"#;
        let volume = format!("volumes: [{{name: v, emptyDir: {{medium: \"{medium}\"}}}}]");
        (script, volume)
    };
    let (script, memory) = empty("Memory");
    let (_, disk) = empty("");
    let manifests = [
        SOURCES.to_owned() + "---\n",
        pod("plain", "configMap: {name: c, items: [{key: data-1, path: x}]}", ""),
        pod("mode", "configMap: {name: c, defaultMode: 0440, items: [{key: data-1, path: x}]}", user),
        pod("item", &format!("secret: {{secretName: s, {items}}}"), ""),
        pod("bin", "configMap: {name: c, items: [{key: bin, path: x}]}", "")
            .replace("cat $f", "hexdump -C $f"),
        pod(
            "projected",
            &format!(
                "projected: {{sources: [{{secret: {{name: s, {items}}}}}, {{configMap: {{name: c, items: [{{key: data_2, path: z}}]}}}}]}}"
            ),
            "",
        ),
        pod("downward", &format!("downwardAPI: {{{downward}}}"), ""),
        once("memory", script, mount, &memory),
        once("disk", script, mount, &format!("{disk}\n  securityContext: {{runAsUser: 1000, fsGroup: 123}}")),
        once(
            "image",
            "cat /v/etc/group; touch /v/x || echo refused",
            mount,
            "volumes: [{name: v, image: {reference: \"busybox:1\"}}]",
        ),
    ];
    c.apply(&manifests.concat());
    assert_eq!(printed(&c, "plain"), "-rw-r--r-- 0 0\nvalue-1\n");
    assert_eq!(printed(&c, "mode"), "-r--r----- 0 1001\nvalue-1\n");
    assert_eq!(printed(&c, "item"), "-r-------- 0 0\nsecret-1\n");
    let bytes = printed(&c, "bin");
    assert!(bytes.contains("de ca fe ba d0 fe ff"), "{bytes}");
    assert_eq!(printed(&c, "projected"), "-r-------- 0 0\nsecret-1\n-rw-r--r-- 0 0\nvalue-2");
    let shown = printed(&c, "downward");
    assert!(shown.contains("a=\"one\"\nb=\"2\"-r-------- 0 0\ndownward"), "{shown}");
    assert!(shown.contains(r#"note="say \"hi\"""#), "{shown}");
    assert_eq!(printed(&c, "memory"), "drwxrwxrwx\n1\n-rw-r--r-- 0 0\n");
    assert_eq!(printed(&c, "disk"), "drwxrwsrwx\n0\n-rw-r--r-- 1000 123\n");
    let shown = printed(&c, "image");
    assert!(shown.contains("root:x:0:") && shown.contains("refused"), "{shown}");
}

#[test]
fn variables_and_identities_are_what_the_pod_says() {
    let c = Cluster::start("variables", 1);
    let amounts = "resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 1250m, memory: 64Mi}}";
    let resource = |name: &str, of: &str| {
        format!("{{name: {name}, valueFrom: {{resourceFieldRef: {{resource: {of}}}}}}}")
    };
    let own = [
        resource("CPU", "limits.cpu"),
        resource("MEMORY", "requests.memory"),
        "{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}".to_owned(),
        "{name: FOO, value: foo}".to_owned(),
        "{name: BOTH, value: \"$(FOO);$$(FOO);$(NONE)\"}".to_owned(),
    ];
    let from = r##"envFrom: [{configMapRef: {name: c}}, {prefix: "1-", configMapRef: {name: c}}, {prefix: "#/", secretRef: {name: s}}]"##;
    let env = format!("{from}, env: [{}]", own.join(", "));
    let whole = [resource("CPU", "limits.cpu"), resource("MEMORY", "limits.memory")].join(", ");
    let as_user = "securityContext: {runAsUser: 1001, runAsGroup: 2002}";
    c.apply(&(SOURCES.to_owned() + "---\n"));
    c.apply(&once("env", "true", &format!("{env}, {amounts}"), "").replace("[sh, -c, 'true']", "[env]"));
    c.apply(&once("node", "echo $CPU $MEMORY", &format!("env: [{whole}]"), ""));
    c.apply(&once("user", "id -u; id -g; touch /x 2>/dev/null || echo no", as_user, ""));
    c.apply(&once(
        "locked",
        "touch /x; grep NoNewPrivs /proc/self/status",
        "securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}",
        "",
    ));
    c.apply(&once(
        "kernel",
        "cat /proc/sys/kernel/shm_rmid_forced",
        "",
        "securityContext: {sysctls: [{name: kernel.shm_rmid_forced, value: \"1\"}]}",
    ));
    let env = printed(&c, "env");
    for line in [
        "CPU=2",
        "MEMORY=33554432",
        "data-1=value-1",
        "data_2=value-2",
        "1-data_2=value-2",
        "#/data-1=secret-1",
        "BOTH=foo;$(FOO);$(NONE)",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }
    let ip = c.kubectl(&["get", "pod", "env", "-o", "jsonpath={.status.podIP}"]);
    assert!(env.contains(&format!("IP={ip}\n")), "{env}");
    let node = c.kubectl(&[
        "get",
        "node",
        "node-1",
        "-o",
        "jsonpath={.status.allocatable.cpu} {.status.allocatable.memory}",
    ]);
    let (cpu, memory) = node.split_once(' ').unwrap();
    let bytes: u64 = memory.trim_end_matches("Ki").parse::<u64>().unwrap() << 10;
    assert_eq!(printed(&c, "node"), format!("{cpu} {bytes}\n"));
    assert_eq!(printed(&c, "user"), "1001\n2002\nno\n");
    let locked = printed(&c, "locked");
    assert!(locked.contains("Read-only file system") && locked.contains("NoNewPrivs:\t1"), "{locked}");
    assert_eq!(printed(&c, "kernel"), "1\n");
}

#[test]
fn last_words_come_from_the_file_or_from_the_log() {
    let c = Cluster::start("words", 1);
    let fallback = "terminationMessagePolicy: FallbackToLogsOnError";
    let elsewhere = "terminationMessagePath: /dev/custom, securityContext: {runAsUser: 1000}";
    let pods = [
        ("custom", "echo -n DONE > /dev/custom", elsewhere, "DONE 0 Completed"),
        ("log", "echo -n DONE; exit 1", fallback, "DONE 1 Error"),
        ("quiet", "echo DONE", fallback, " 0 Completed"),
        ("file", "echo -n OK > /dev/termination-log; echo DONE", fallback, "OK 0 Completed"),
    ];
    c.apply(&pods.map(|(name, script, container, _)| once(name, script, container, "")).concat());
    for (name, _, _, wanted) in pods {
        let path =
            "jsonpath={.status.containerStatuses[0].state.terminated['message', 'exitCode', 'reason']}";
        let message = "jsonpath={.status.containerStatuses[0].state.terminated.message}";
        let rest = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}";
        c.until(&["get", "pod", name, "-o", path], "its end", |out| !out.is_empty());
        let said = format!(
            "{} {}",
            c.kubectl(&["get", "pod", name, "-o", message]),
            c.kubectl(&["get", "pod", name, "-o", rest])
        );
        assert_eq!(said, wanted, "{name}");
    }
}

#[test]
fn a_part_of_a_volume_whose_name_is_wrong_can_be_put_right() {
    let c = Cluster::start("parts", 1);
    c.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: part, annotations: {other: mypath}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: w, emptyDir: {}}]
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, "echo $SUB > /part/sub; exec sleep 3600"]
    env:
    - {name: SUB, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['mysubpath']"}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    volumeMounts: [{name: w, mountPath: /part, subPathExpr: $(SUB)/$(POD)}, {name: w, mountPath: /whole}]
"#,
    );
    let waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason} {.status.phase}";
    c.until(&["get", "pod", "part", "-o", waiting], "the refusal", |out| {
        out == "CreateContainerConfigError Pending"
    });
    c.kubectl(&["annotate", "pod", "part", "mysubpath=mypath"]);
    c.kubectl(&["wait", "--for=condition=Ready", "pod/part", "--timeout=60s"]);
    assert_eq!(c.kubectl(&["exec", "part", "--", "cat", "/whole/mypath/part/sub"]), "mypath\n");
}
