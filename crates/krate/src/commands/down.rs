//! `krate down`: ends a cluster's processes and removes what it made.

use super::kubeconfig;
use crate::cli::Down;
use crate::cluster::{Cluster, Process, Spec, cgroup};
use crate::ui::{Explain, Failure, Outcome, Steps, say};
use krate_client::kubeconfig::without_entry;
use nix::sys::signal::Signal;

pub fn run(args: &Down) -> Outcome<()> {
    let cluster = Cluster::of(&args.cluster)?;
    let spec = cluster.load()?;
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new("ending a cluster needs root", "Run the same command with sudo."));
    }
    let steps = Steps::new();
    let step = steps.begin(&format!("Stopping cluster {:?}", cluster.name));
    stop(&cluster, &spec)?;
    step.done();
    if args.keep {
        say!("Cluster {:?} is stopped; `krate up --name {}` resumes it.", cluster.name, cluster.name);
        return Ok(());
    }
    let step = steps.begin("Removing its state");
    let file = kubeconfig::user_file(args.kubeconfig.as_deref())?;
    kubeconfig::edit(&file, |text| without_entry(text, &spec.context()))?;
    std::fs::remove_dir_all(&cluster.dir)
        .explain("the cluster's folder cannot be removed", "Is something of it still mounted or in use?")?;
    // The folder of all clusters goes with the last of them.
    let _ = std::fs::remove_dir(crate::cluster::state::CLUSTERS);
    step.done();
    say!("Cluster {:?} is gone.", cluster.name);
    Ok(())
}

/// Ends every process of a cluster: the server first and in order, so that it closes its store, then
/// whatever is in the cluster's control group (agents, shims, containers, holders).
pub fn stop(cluster: &Cluster, spec: &Spec) -> Outcome<()> {
    for node in spec.node_names() {
        if let Some(process) = Process::find(cluster, &node) {
            process.signal(Signal::SIGTERM);
        }
    }
    let group = cluster.cgroup();
    cgroup::kill_all(&group).explain("not every process of the cluster ended", "Run `krate down` again.")?;
    cgroup::remove(&group);
    cgroup::remove("krate");
    Ok(())
}
