//! Work that ends: Jobs and CronJobs; and nodes that are emptied with respect for budgets.

use crate::cluster::Cluster;

#[test]
fn jobs_count_their_failures_and_their_indexes() {
    let c = Cluster::start("jobs", 1);
    c.apply(
        r#"
apiVersion: batch/v1
kind: Job
metadata: {name: shards}
spec:
  completions: 4
  parallelism: 4
  completionMode: Indexed
  backoffLimitPerIndex: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox:1
        command: [/bin/sh, -c, "echo $JOB_COMPLETION_INDEX on $(hostname); test $JOB_COMPLETION_INDEX != 2"]
---
apiVersion: batch/v1
kind: Job
metadata: {name: early}
spec:
  podFailurePolicy:
    rules:
    - action: FailJob
      onExitCodes: {containerName: main, operator: In, values: [42]}
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: busybox:1
        command: [/bin/sh, -c, "exit 42"]
---
apiVersion: batch/v1
kind: Job
metadata: {name: again}
spec:
  backoffLimit: 4
  template:
    spec:
      restartPolicy: OnFailure
      volumes: [{name: mark, emptyDir: {}}]
      containers:
      - name: main
        image: busybox:1
        command: [/bin/sh, -c, "test -e /mark/x || { touch /mark/x; exit 1; }"]
        volumeMounts: [{name: mark, mountPath: /mark}]
"#,
    );
    c.kubectl(&["wait", "--for=condition=Failed", "job/shards", "job/early", "--timeout=60s"]);
    c.kubectl(&["wait", "--for=condition=Complete", "job/again", "--timeout=60s"]);
    let told = "{.status.completedIndexes} {.status.failedIndexes} {.status.succeeded} {.status.failed}";
    let told = c.kubectl(&["get", "job", "shards", "-o", &format!("jsonpath={told}")]);
    assert_eq!(told, "0,1,3 2 3 1");
    let said = c.kubectl(&["logs", "-l", "batch.kubernetes.io/job-completion-index=3"]);
    assert_eq!(said, "3 on shards-3\n");
    let why = r#"jsonpath={.status.conditions[?(@.type=="Failed")].reason}"#;
    assert_eq!(c.kubectl(&["get", "job", "shards", "-o", why]), "FailedIndexes");
    assert_eq!(c.kubectl(&["get", "job", "early", "-o", why]), "PodFailurePolicy");
    let table = c.kubectl(&["get", "jobs"]);
    assert!(table.contains("Complete   1/1") && table.contains("Failed     3/4"), "{table}");
}

#[test]
fn cron_jobs_run_by_hand_and_by_the_clock() {
    let c = Cluster::start("cron", 1);
    c.kubectl(&[
        "create",
        "cronjob",
        "hello",
        "--image=busybox:1",
        "--schedule=* * * * *",
        "--",
        "echo",
        "hello",
    ]);
    c.kubectl(&["create", "job", "--from=cronjob/hello", "now"]);
    c.kubectl(&["wait", "--for=condition=Complete", "job/now", "--timeout=60s"]);
    assert_eq!(c.kubectl(&["logs", "job/now"]), "hello\n");
    let success = ["get", "cronjob", "hello", "-o", "jsonpath={.status.lastSuccessfulTime}"];
    c.until(&success, "the CronJob to see it", |out| out.contains('T'));
    let described = c.kubectl(&["describe", "cronjob", "hello"]);
    assert!(described.contains("UnexpectedJob"), "{described}");
    // The minute comes by itself; its Job says which it was.
    let jobs = ["get", "jobs", "-o", "name"];
    c.until(&jobs, "the clock to start one", |out| out.contains("job.batch/hello-"));
    c.kubectl(&["patch", "cronjob", "hello", "-p", r#"{"spec":{"suspend":true}}"#]);
    let table = c.kubectl(&["get", "cronjobs"]);
    assert!(table.contains("* * * * *") && table.contains("True"), "{table}");
}

#[test]
fn a_node_is_drained_with_respect_for_a_budget() {
    let c = Cluster::start("drain", 2);
    c.kubectl(&["create", "deployment", "web", "--image=nginx:1", "--replicas=3"]);
    c.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    c.kubectl(&["create", "pdb", "web", "--selector=app=web", "--max-unavailable=1"]);
    let allowed = ["get", "pdb", "web", "-o", "jsonpath={.status.disruptionsAllowed}"];
    c.until(&allowed, "the budget to be computed", |out| out == "1");
    let said = c.kubectl(&["drain", "node-2", "--ignore-daemonsets", "--timeout=120s"]);
    assert!(said.contains("node/node-2 cordoned") && said.contains("node/node-2 drained"), "{said}");
    let there = ["get", "pods", "-o", "jsonpath={range .items[*]}{.spec.nodeName}{\"\\n\"}{end}"];
    c.until(&there, "all pods to be on the other node", |out| {
        out.lines().count() == 3 && out.lines().all(|node| node == "node-1")
    });
    assert!(c.kubectl(&["get", "node", "node-2"]).contains("SchedulingDisabled"));
    c.kubectl(&["uncordon", "node-2"]);
    let told = ["get", "events", "--field-selector", "involvedObject.kind=Node", "-o", "jsonpath={..reason}"];
    c.until(&told, "the node's events", |out| {
        ["Starting", "NodeReady", "NodeHasSufficientMemory", "NodeNotSchedulable", "NodeSchedulable"]
            .iter()
            .all(|reason| out.split(' ').any(|word| word == *reason))
    });
    assert!(!c.kubectl(&["get", "node", "node-2"]).contains("SchedulingDisabled"));
    // A budget that allows nothing holds a drain up, and kubectl says why.
    c.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":0}}"#]);
    c.until(&allowed, "the budget to be closed", |out| out == "0");
    let refused = c.kubectl_fails(&["drain", "node-1", "--ignore-daemonsets", "--timeout=3s"]);
    assert!(
        refused.contains("Cannot evict pod as it would violate the pod's disruption budget."),
        "{refused}"
    );
    c.kubectl(&["uncordon", "node-1"]);
}
