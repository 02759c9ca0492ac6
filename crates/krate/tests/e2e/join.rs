//! A server, and a node that joins it with a token, as on two hosts.

use crate::cluster::{groups, krate};
use crate::{tools, world};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is asked to end with the value.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn start(args: &[String], log: &Path) -> Started {
    let log = std::fs::File::create(log).unwrap();
    let mut command = krate();
    let command = command.args(args).stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
    Started(command.spawn().unwrap())
}

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Removes the control groups of a node that has ended.
fn remove_groups(name: &str) {
    for top in groups(name) {
        let mut folders = vec![top];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop().filter(|f| f.is_dir()) {
            folders.extend(
                std::fs::read_dir(&folder).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()),
            );
            found.push(folder);
        }
        found.iter().rev().for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
}

/// A volume as the cluster makes it in a folder of one node.
fn volume_manifest(name: &str, node: &str, folder: &Path) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "labels": {"krate.io/node": node},
            "annotations": {"pv.kubernetes.io/provisioned-by": "krate.io/folder"},
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "local": {"path": folder},
            "persistentVolumeReclaimPolicy": "Delete",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}},
        },
    })
    .to_string()
}

#[test]
fn a_node_joins_with_a_token_and_a_stranger_does_not() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| folder.path().join(name);
    world::enter();
    world::add_default_route();
    for (own, target) in [("log", "/var/log"), ("run", "/run")] {
        std::fs::create_dir(path(own)).unwrap();
        world::bind(&path(own), target);
    }
    let server = format!("https://{}:6443", world::OUTSIDE);
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (data, log) = (path("server"), path("server.log"));
    let line =
        format!("server --disable-agent --listen {}:6443 --data-dir {}", world::OUTSIDE, data.display());
    let _server = start(&words(line), &log);
    let command = until("the server to say how to join", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().find_map(|l| Some(l.split_once("join with: krate ")?.1.to_owned()))
    });
    let kubectl = |args: &[&str]| {
        let output = Command::new(tools::kubectl())
            .arg("--kubeconfig")
            .arg(data.join("admin.kubeconfig"))
            .args(args)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let hash = command.split_once("--ca-cert-hash ").unwrap().1;
    let strangers = [
        (format!("--token abcdef.0123456789abcdef --ca-cert-hash {hash}"), "Unauthorized"),
        (
            format!("--token abcdef.0123456789abcdef --ca-cert-hash sha256:{}", "0".repeat(64)),
            "UnknownIssuer",
        ),
    ];
    for (shown, why) in strangers {
        let line = format!(
            "agent --server {server} {shown} --node-name stranger --data-dir {}",
            path("stranger").display()
        );
        let output = krate().args(words(line)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
    let group = format!("join-{}", std::process::id());
    let node = format!(
        "{command} --node-name worker --cgroup krate/{group} --data-dir {} --volume-dir {}",
        path("agent").display(),
        path("volumes").display()
    );
    let agent = start(&words(node.clone()), &path("agent.log"));
    let ready = || kubectl(&["get", "node", "worker", "--no-headers"]).contains(" Ready ");
    until("the node to be Ready", || ready().then_some(()));
    // Nobody told it its address: it is the one that its default route has.
    let address = kubectl(&["get", "node", "worker", "-o", "jsonpath={.status.addresses[0].address}"]);
    assert_eq!(address, world::OUTSIDE.to_string());
    let images = path("agent").join("images");
    let image = |args: &[&str]| {
        let output = krate().arg("image").args(args).arg("--image-dir").arg(&images).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let copy = format!("{}:/list", log.display());
    image(&["build", "-t", "local:1", "--copy", &copy, "--entrypoint", "/list"]);
    assert!(image(&["list"]).contains("local:1"));
    until("the node to tell of its image", || {
        kubectl(&["get", "node", "worker", "-o", "jsonpath={.status.images}"])
            .contains("local:1")
            .then_some(())
    });
    let requests = kubectl(&["get", "csr", "--no-headers"]);
    assert_eq!(requests.matches("Approved,Issued").count(), 3, "{requests}");
    let apply = |manifest: String| {
        std::fs::write(path("manifest.yaml"), manifest).unwrap();
        kubectl(&["create", "-f", &path("manifest.yaml").display().to_string()])
    };
    // The folder of a deleted volume is removed by the node that has it.
    let volume = path("volumes").join("pv-1_default_data");
    std::fs::create_dir_all(volume.join("old")).unwrap();
    apply(volume_manifest("pv-1", "worker", &volume));
    kubectl(&["delete", "pv", "pv-1", "--timeout=60s"]);
    assert_eq!(kubectl(&["get", "pv", "-o", "name"]), "");
    assert!(!volume.exists());
    drop(agent);
    // The second time it knows who it is, and asks for nothing.
    let again = start(&words(node), &path("agent-again.log"));
    until("the node's kubelet to answer", || {
        kubectl(&["get", "--raw", "/api/v1/nodes/worker/proxy/healthz"]).contains("ok").then_some(())
    });
    let configz = kubectl(&["get", "--raw", "/api/v1/nodes/worker/proxy/configz"]);
    let configz: serde_json::Value = serde_json::from_str(&configz).unwrap();
    assert_eq!(configz["kubeletconfig"]["maxPods"], 110, "{configz}");
    assert_eq!(kubectl(&["get", "csr", "--no-headers"]).lines().count(), 3);
    drop(again);
    remove_groups(&group);
}
