//! `krate bench`, on clusters of its own and on one that runs.

use crate::cluster::{Cluster, groups, krate};
use serde_json::Value;
use std::process::Command;

/// Every row, by name, with how many operations it counted.
fn rows(command: &mut Command) -> Vec<(String, u64)> {
    let done = command.args(["--json"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
    let row = |row: &Value| (row["name"].as_str().unwrap().to_owned(), row["operations"].as_u64().unwrap());
    rows.iter().map(row).collect()
}

#[test]
fn what_a_server_and_its_nodes_need_is_measured() {
    let c = Cluster::start("measure", 1);
    let running =
        [(1, 20), (16, 64)].map(|(n, count)| (format!("create pod to Running, {n} in flight"), count));
    // A server that runs: only what was asked for, with the image that was named.
    let kubeconfig = c.kubeconfig();
    let there = rows(
        krate().args(["bench", "--only", "Running", "--image", "nginx:1", "--kubeconfig"]).arg(&kubeconfig),
    );
    assert_eq!(there, running);
    assert!(
        !c.kubectl(&["get", "namespaces"]).contains("krate-bench   Active"),
        "nothing is left of the load"
    );
    // Clusters of its own, which leave no trace.
    let temp = c.dir.with_file_name("bench");
    std::fs::create_dir(&temp).unwrap();
    let own = rows(krate().args(["bench", "--only", "1 KiB, 1 in flight"]).env("TMPDIR", &temp));
    let expected = [("boot of a control plane to ready", 1), ("create ConfigMap of 1 KiB, 1 in flight", 500)];
    assert_eq!(own[..2], expected.map(|(name, count)| (name.to_owned(), count)));
    let boot = rows(krate().args(["bench", "--only", "one node to Ready"]).env("TMPDIR", &temp));
    assert_eq!(boot[0], ("krate up of one node to Ready".to_owned(), 1));
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "its folders are gone");
    assert!(groups("").iter().all(|g| {
        std::fs::read_dir(g)
            .unwrap()
            .flatten()
            .all(|e| !e.file_name().to_string_lossy().starts_with("bench-"))
    }));
}
