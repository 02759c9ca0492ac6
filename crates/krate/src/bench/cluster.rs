//! A cluster of one node, made for the rows that need a kubelet, and removed afterwards.

use super::{Row, Target, rows, running};
use crate::cli::Named;
use crate::cluster::{Cluster, Process};
use crate::demo;
use crate::ui::{Explain, Failure, Outcome};
use crate::wiring::images;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

const BOOT: &str = "krate up of one node to Ready";
const IDLE: &str = "idle, with one node";

/// The rows on a cluster of its own that are wanted. Where none can be made, as for who is not root, they say why.
pub async fn one_node(
    dir: &Path,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(&str),
) -> Outcome<Vec<Row>> {
    let names = [BOOT.to_owned(), IDLE.to_owned()].into_iter().chain(running::titles());
    let names: Vec<String> = names.filter(|name| wanted(name)).collect();
    if names.is_empty() {
        return Ok(vec![]);
    }
    progress(BOOT);
    let node = match OneNode::start(dir) {
        Ok(node) => node,
        Err(failure) => return Ok(names.iter().map(|name| Row::remark(name, &failure.what)).collect()),
    };
    images::build_demo(&node.cluster).await?;
    let target = node.target()?;
    let mut rows = Vec::new();
    if wanted(BOOT) {
        rows.push(Row::boot(BOOT, node.boot));
    }
    if wanted(IDLE) {
        progress(IDLE);
        rows.push(rows::idle(&target, IDLE).await);
    }
    let failed = |e| Failure::new(format!("running pods: {e}"), "");
    rows::create_namespace(&target.remote).await.map_err(failed)?;
    rows.extend(running::rows(&target, demo::IMAGE, wanted, progress).await.map_err(failed)?);
    Ok(rows)
}

/// The cluster, removed with the value.
struct OneNode {
    cluster: Cluster,
    /// From the start of `krate up` to its end.
    boot: Duration,
}

impl OneNode {
    fn start(dir: &Path) -> Outcome<Self> {
        let name = format!("bench-{}", std::process::id());
        let cluster = Cluster::of(&Named { name, data_dir: Some(dir.to_owned()) })?;
        let started = Instant::now();
        let up = run(&cluster, &["up", "--nodes", "1"]);
        let node = Self { cluster, boot: started.elapsed() };
        up.map(|()| node)
    }

    /// CPU and memory are those of the server's process, which is also the node's.
    fn target(&self) -> Outcome<Target> {
        let pids = Process::find(&self.cluster, "node-1").map(|process| process.pid);
        Target::of(&self.cluster.admin_kubeconfig(), pids.into_iter().collect())
    }
}

impl Drop for OneNode {
    fn drop(&mut self) {
        if let Err(error) = run(&self.cluster, &["down"]) {
            tracing::warn!(%error, "the cluster of the measurement cannot be removed");
        }
    }
}

/// This program again, with the cluster's flags; what it prints is not part of the table.
fn run(cluster: &Cluster, verb: &[&str]) -> Outcome<()> {
    let exe = std::fs::read_link("/proc/self/exe")
        .explain("this program cannot find itself", "Is /proc mounted?")?;
    let kubeconfig = cluster.dir.with_extension("kubeconfig");
    let done = Command::new(exe)
        .args(verb)
        .args(["--name", &cluster.name, "--data-dir"])
        .arg(&cluster.dir)
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .explain("this program cannot be started again", "")?;
    if verb == ["down"] {
        let _ = std::fs::remove_file(kubeconfig);
    }
    if done.status.success() {
        return Ok(());
    }
    // What to do about it follows, and progress goes before.
    let words = String::from_utf8_lossy(&done.stderr);
    let error = words.lines().find_map(|line| line.trim().strip_prefix("krate: ")).unwrap_or("it failed");
    Err(Failure::new(format!("krate {}: {error}", verb.join(" ")), ""))
}
