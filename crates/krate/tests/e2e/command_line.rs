//! The command line itself: what it refuses, what it prints, what it leaves behind.

use crate::cluster::{self, Cluster, krate};

#[test]
fn a_name_or_a_port_that_is_taken_is_refused() {
    let c = Cluster::start("taken", 1);
    let said = c.up(1);
    assert!(!said.ok && said.err.contains("is already running"), "{}", said.err);
    let other = c.dir.with_file_name("other");
    let output = krate()
        .args(["up", "--name", "other", "--publish", &format!("{}:30081", c.published), "--data-dir"])
        .arg(&other)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && err.contains("cannot be published"), "{err}");
    assert!(!other.join("cluster.json").exists(), "nothing is left of the cluster that was refused");
    assert!(c.kubectl(&["get", "nodes"]).contains("Ready"), "the running cluster is as it was");
}

#[test]
fn a_stopped_cluster_is_resumed_with_its_state_and_down_leaves_no_trace() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let c = Cluster::start("resume", 1);
    c.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    let leaders = ["kube-controller-manager", "kube-scheduler"].map(|name| leader(&c, name));
    assert!(leaders.iter().all(|holder| holder.starts_with("node-1_")), "{leaders:?}");
    let address = c.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    c.krate_ok(&["down", "--keep"]);
    assert!(c.krate_ok(&["status"]).contains("is stopped"));
    let _taken = std::net::TcpListener::bind(address.trim_start_matches("https://")).unwrap();
    assert!(c.up_unheard(1), "a cluster starts whether or not somebody reads what is printed");
    assert_eq!(c.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]), "b");
    assert_eq!(["kube-controller-manager", "kube-scheduler"].map(|name| leader(&c, name)), leaders);
    assert!(c.krate_ok(&["status"]).contains("Ready"));
    assert!(c.krate_ok(&["logs"]).contains("serving the Kubernetes API"));
    assert!(c.krate_ok(&["image", "list"]).contains("nginx"));
    let absent = c.krate(&["image", "remove", "absent:1"]);
    assert!(!absent.ok && absent.err.contains("there is no image \"absent:1\""), "{}", absent.err);
    assert!(c.krate_ok(&["kubeconfig"]).contains("client-key-data"));
    let (dir, name) = (c.dir.clone(), c.name.clone());
    assert!(!cluster::groups(&name).is_empty());
    drop(c);
    assert!(!dir.exists(), "the state is gone");
    assert_eq!(cluster::groups(&name), [] as [std::path::PathBuf; 0], "the control groups are gone");
    assert_eq!(mounts(), before, "the machine's mounts are as they were");
}

/// Who holds one of the control plane's leases.
fn leader(c: &Cluster, lease: &str) -> String {
    let holder = ["get", "lease", lease, "-n", "kube-system", "-o", "jsonpath={.spec.holderIdentity}"];
    c.until(&holder, "a leader", |out| !out.is_empty())
}
