//! Pods that are resized while they run, and pods that take more than they may: on real control groups and
//! a real disk.

use crate::cluster::{Cluster, groups};

fn resized(c: &Cluster, patch: &str) {
    c.kubectl(&["patch", "pod", "big", "--subresource=resize", "-p", patch]);
}

fn status(c: &Cluster, path: &str, what: &str, wanted: &str) {
    c.until(&["get", "pod", "big", "-o", &format!("jsonpath={{{path}}}")], what, |out| out == wanted);
}

/// What the container sees of its own limits: bytes of memory, thousandths of a processor.
fn limits(c: &Cluster, container: &str) -> (u64, u64) {
    let script = "cd /sys/fs/cgroup; \
        cat memory.max memory/memory.limit_in_bytes 2>/dev/null; echo; \
        cat cpu.max cpu/cpu.cfs_quota_us 2>/dev/null; true";
    let said = c.kubectl(&["exec", "big", "-c", container, "--", "sh", "-c", script]);
    let mut numbers = said.split_whitespace().map(|word| word.parse::<u64>().unwrap());
    let (memory, quota) = (numbers.next().unwrap(), numbers.next().unwrap());
    (memory, quota / 100)
}

/// What the pod as a whole is held to: weight, bytes of memory, thousandths of a processor.
fn pod_limits(c: &Cluster) -> (u64, u64, u64) {
    let uid = c.kubectl(&["get", "pod", "big", "-o", "jsonpath={.metadata.uid}"]);
    let file = |controller: &str, v1: &str, v2: &str| {
        let folders = groups(&c.name).into_iter();
        let mut files = folders.map(|group| group.join(format!("node-1/pod{uid}"))).filter_map(|group| {
            let of_v1 = group.to_str().is_some_and(|path| path.contains(controller)).then(|| group.join(v1));
            of_v1.into_iter().chain([group.join(v2)]).find_map(|file| std::fs::read_to_string(file).ok())
        });
        let text = files.next().unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let weight = file("/cpu/", "cpu.shares", "cpu.weight");
    let memory = file("/memory/", "memory.limit_in_bytes", "memory.max");
    (weight, memory, file("/cpu/", "cpu.cfs_quota_us", "cpu.max") / 100)
}

#[test]
fn a_pod_is_resized_in_place_on_its_control_groups() {
    let c = Cluster::start("resize", 1);
    let amounts = "{cpu: 100m, memory: 64Mi}";
    c.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: big}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: a
    image: busybox:1
    command: [sleep, "3600"]
    resources: {{requests: {amounts}, limits: {amounts}}}
  - name: b
    image: busybox:1
    command: [sleep, "3600"]
    resources: {{requests: {amounts}, limits: {amounts}}}
    resizePolicy: [{{resourceName: memory, restartPolicy: RestartContainer}}]
"#
    ));
    c.kubectl(&["wait", "--for=condition=Ready", "pod/big", "--timeout=60s"]);
    assert_eq!(limits(&c, "a"), (64 << 20, 100));
    let (weight, memory, cpu) = pod_limits(&c);
    assert_eq!((memory, cpu), (128 << 20, 200), "the pod's own group has the sum from the beginning");

    let larger = r#"{"requests":{"cpu":"300m","memory":"128Mi"},"limits":{"cpu":"300m","memory":"128Mi"}}"#;
    resized(&c, &format!(r#"{{"spec":{{"containers":[{{"name":"a","resources":{larger}}}]}}}}"#));
    status(&c, ".status.containerStatuses[0].resources.limits.memory", "the new limit", "128Mi");
    assert_eq!(limits(&c, "a"), (128 << 20, 300));
    status(&c, ".status.containerStatuses[0].restartCount", "no restart", "0");

    resized(&c, &format!(r#"{{"spec":{{"containers":[{{"name":"b","resources":{larger}}}]}}}}"#));
    status(&c, ".status.containerStatuses[1].restartCount", "a restart, as the policy says", "1");
    status(&c, ".status.containerStatuses[1].resources.limits.memory", "the new limit", "128Mi");
    assert_eq!(limits(&c, "b"), (128 << 20, 300));
    c.until(&["get", "events"], "the resize to be told", |out| out.contains("ResizeCompleted"));
    let (heavier, memory, cpu) = pod_limits(&c);
    assert_eq!((memory, cpu), (256 << 20, 600), "and follows");
    assert!(heavier > weight, "{heavier} after {weight}");

    let best = r#"{"spec":{"containers":[{"name":"a","resources":{"requests":{"cpu":"10m"}}}]}}"#;
    let refused = c.kubectl_fails(&["patch", "pod", "big", "--subresource=resize", "-p", best]);
    assert!(refused.contains("Pod QOS Class may not change as a result of resizing"), "{refused}");
    let huge = r#"{"requests":{"cpu":"2000"},"limits":{"cpu":"2000"}}"#;
    let huge = format!(r#"{{"spec":{{"containers":[{{"name":"a","resources":{huge}}}]}}}}"#);
    let refused = c.kubectl_fails(&["patch", "pod", "big", "--subresource=resize", "-p", &huge]);
    assert!(refused.contains("node didn't have enough allocatable resources: cpu"), "{refused}");
    assert_eq!(limits(&c, "a"), (128 << 20, 300));
}

#[test]
fn a_pod_that_fills_the_disk_is_evicted() {
    let c = Cluster::start("fills", 1);
    c.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: big}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: a
    image: busybox:1
    command: [sh, -c, "dd if=/dev/zero of=/big bs=1M count=20; sleep 3600"]
    resources: {limits: {ephemeral-storage: 5Mi}}
"#,
    );
    status(&c, ".status.reason", "the eviction", "Evicted");
    let message = c.kubectl(&["get", "pod", "big", "-o", "jsonpath={.status.message}"]);
    assert_eq!(message, "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ");
}
