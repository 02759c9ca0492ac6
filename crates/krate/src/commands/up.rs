//! `krate up`: starts a cluster in the background, or resumes a stopped one, and returns when every node is
//! Ready.

use super::{down, kubeconfig};
use crate::cli::{self, Publish};
use crate::cluster::process::{Starting, start};
use crate::cluster::{Cluster, Process, Spec, cgroup};
use crate::ui::{Explain, Failure, Outcome, Steps, say};
use crate::{demo, host};
use futures::StreamExt as _;
use krate_api::types::core::v1::Node;
use krate_client::kubeconfig::{remote_config, with_entry};
use krate_client::remote::Remote;
use krate_client::{Request, Transport, Verb, WatchEvent};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// The port that the API asks for first; any free one serves when it is taken.
const API_PORT: u16 = 6443;
/// How long nodes may take to become Ready before `up` gives up waiting.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

pub async fn run(args: cli::Up) -> Outcome<()> {
    let cluster = Cluster::of(&args.cluster)?;
    host::check()?;
    let steps = Steps::new();
    // Two clusters that start at once must not choose the same ports: held until the server listens.
    let choosing = tokio::task::spawn_blocking(lock_ports).await.explain("internal error", "")??;
    let (spec, fresh) = settle(&cluster, &args)?;
    let began = tokio::time::Instant::now();
    let verb = if fresh { "Starting" } else { "Resuming" };
    let step = steps.begin(&format!(
        "{verb} cluster {:?} (Kubernetes {})",
        spec.name,
        krate_api::KUBERNETES_VERSION
    ));
    let started = {
        let (cluster, spec) = (cluster.clone(), spec.clone());
        tokio::task::spawn_blocking(move || start_all(&cluster, &spec)).await.explain("internal error", "")?
    };
    drop(choosing);
    if let Err(error) = started {
        // Nothing half started is left behind; a cluster that is new leaves no folder either.
        let _ = down::stop(&cluster, &spec);
        if fresh && Process::find(&cluster, "fabric").is_none() {
            let _ = std::fs::remove_dir_all(&cluster.dir);
        }
        return Err(error);
    }
    step.done();
    let step = steps.begin(&format!("Waiting for {} to be Ready", count(spec.nodes, "node")));
    let text = std::fs::read_to_string(cluster.admin_kubeconfig())
        .explain("the server wrote no kubeconfig", "See `krate logs`.")?;
    let config = remote_config(&text, None).explain("internal error", "")?;
    let remote = Remote::new(&config).explain("internal error", "")?;
    let mut ready = BTreeSet::new();
    tokio::time::timeout(READY_TIMEOUT, nodes_ready(&remote, &spec, &mut ready))
        .await
        .explain("not every node became Ready in time", "See `krate logs` and `kubectl describe nodes`.")??;
    step.done();
    let file = kubeconfig::user_file(args.kubeconfig.as_deref())?;
    let identity = config.identity.clone().unwrap_or_default();
    kubeconfig::edit(&file, |existing| {
        let entry = krate_client::kubeconfig::Entry {
            name: &spec.context(),
            server: &config.server,
            ca_pem: &config.ca_pem,
            cert_pem: &identity.0,
            key_pem: &identity.1,
        };
        with_entry(existing, &entry).map(Some)
    })?;
    summary(&spec, &cluster, &file, began.elapsed());
    if args.demo { demo::run(&cluster, &spec, &remote, &steps).await } else { Ok(()) }
}

fn count(n: u8, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn summary(spec: &Spec, cluster: &Cluster, kubeconfig: &std::path::Path, took: Duration) {
    say!("Cluster {:?} is ready after {took:.1?}: {}.", spec.name, spec.node_names().join(", "));
    say!("  API         https://127.0.0.1:{}", spec.api_port);
    say!("  context     {:?} in {}", spec.context(), kubeconfig.display());
    say!("  state       {}", cluster.dir.display());
    for publish in &spec.publish {
        say!("  published   http://{} -> NodePort {}", publish.listen, publish.node_port);
    }
}

/// What this cluster is to be: as it was when it exists and is stopped, as asked for when it is new.
fn settle(cluster: &Cluster, args: &cli::Up) -> Outcome<(Spec, bool)> {
    let mut publish = args.publish.clone();
    if args.demo && !publish.iter().any(|p| p.node_port == demo::NODE_PORT) {
        publish.push(Publish { listen: free_address(demo::HOST_PORT)?, node_port: demo::NODE_PORT });
    }
    let (mut spec, fresh) = if cluster.exists() {
        (resumed(cluster, args.nodes)?, false)
    } else {
        let name = cluster.name.clone();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let publish = Vec::new();
        (Spec { name, nodes: args.nodes, api_port: API_PORT, publish, egress: args.egress, version }, true)
    };
    for wanted in publish {
        if !spec.publish.iter().any(|p| p.node_port == wanted.node_port && p.listen == wanted.listen) {
            spec.publish.push(wanted);
        }
    }
    // Somebody else may have taken a stopped cluster's ports. Where its API is, its kubeconfig says; what is
    // published is known to people.
    if Process::find(cluster, "node-1").is_none() {
        spec.api_port = free_address(spec.api_port)?.port();
    }
    if Process::find(cluster, "fabric").is_none() {
        for p in &spec.publish {
            TcpListener::bind(p.listen).map_err(|error| {
                Failure::new(
                    format!("the address {} cannot be published: {error}", p.listen),
                    "Publish another port, or end what uses this one.",
                )
            })?;
        }
    }
    cluster.save(&spec)?;
    Ok((spec, fresh))
}

/// A cluster that exists, which must not be running.
fn resumed(cluster: &Cluster, nodes: u8) -> Outcome<Spec> {
    let mut spec = cluster.load()?;
    let holds = !cgroup::members(&cluster.cgroup()).is_empty() && Process::find(cluster, "fabric").is_some();
    if holds && Process::find(cluster, "node-1").is_some() {
        return Err(Failure::new(
            format!("a cluster named {:?} is already running", cluster.name),
            format!(
                "Use it with `kubectl --context {}`, name another with --name, or remove it with `krate down --name {}`.",
                spec.context(),
                cluster.name
            ),
        ));
    }
    spec.nodes = spec.nodes.max(nodes);
    Ok(spec)
}

/// A lock that all of this machine's `up` share. It is on a folder that every machine has, and leaves no file.
fn lock_ports() -> Outcome<nix::fcntl::Flock<std::fs::File>> {
    let folder = std::fs::File::open("/var/lib").explain("/var/lib cannot be opened", "")?;
    nix::fcntl::Flock::lock(folder, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, error)| Failure::new(format!("/var/lib cannot be locked: {error}"), "Try again."))
}

/// The loopback address with the wanted port, or with any free one.
fn free_address(wanted: u16) -> Outcome<SocketAddr> {
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(loopback(wanted)).or_else(|_| TcpListener::bind(loopback(0)));
    listener.and_then(|l| l.local_addr()).explain("no port is free on 127.0.0.1", "")
}

/// Starts what does not run yet: the fabric, the holders, the server, the agents.
fn start_all(cluster: &Cluster, spec: &Spec) -> Outcome<()> {
    let text = |s: &str| s.to_owned();
    let path = |p: &std::path::Path| p.to_string_lossy().into_owned();
    let group = format!("{}/fabric", cluster.cgroup());
    let egress = spec.egress.to_string();
    let fabric = match Process::find(cluster, "fabric") {
        Some(process) => process.pid,
        None => {
            // Holders of a fabric that is gone are of no use.
            down::stop(cluster, spec)?;
            let starting =
                start(cluster, "fabric", &group, &[text("fabric"), text("--data-dir"), path(&cluster.dir)])?;
            let pid = starting.pid();
            starting.ready()?;
            pid
        }
    };
    let mut holders: Vec<(String, i32, Option<Starting>)> = Vec::new();
    for (index, node) in spec.node_names().into_iter().enumerate() {
        let name = format!("{node}-holder");
        if let Some(process) = Process::find(cluster, &name) {
            holders.push((node, process.pid, None));
            continue;
        }
        let args = [
            text("node-holder"),
            text("--data-dir"),
            path(&cluster.node_dir(&node)),
            text("--node-name"),
            node.clone(),
            text("--address"),
            spec.node_ip(index).to_string(),
            text("--fabric"),
            fabric.to_string(),
            text("--egress"),
            egress.clone(),
        ];
        let starting = start(cluster, &name, &group, &args)?;
        holders.push((node, starting.pid(), Some(starting)));
    }
    let mut nodes = Vec::new();
    for (_, _, starting) in &mut holders {
        if let Some(starting) = starting.take() {
            starting.ready()?;
        }
    }
    for (index, (node, holder, _)) in holders.iter().enumerate() {
        if Process::find(cluster, node).is_some() {
            continue;
        }
        let mut args = if index == 0 {
            vec![
                text("server"),
                text("--data-dir"),
                path(&cluster.server_dir()),
                text("--host-listen"),
                format!("127.0.0.1:{}", spec.api_port),
            ]
        } else {
            vec![
                text("agent"),
                text("--data-dir"),
                path(&cluster.node_dir(node)),
                text("--kubeconfig"),
                path(&cluster.node_kubeconfig(node)),
            ]
        };
        args.extend([
            text("--node-name"),
            node.clone(),
            text("--node-ip"),
            spec.node_ip(index).to_string(),
            text("--image-dir"),
            path(&cluster.images_dir()),
            text("--volume-dir"),
            path(&cluster.volumes_dir()),
            text("--shared-volumes"),
            text("--cgroup"),
            cluster.node_cgroup(node),
            text("--egress"),
            egress.clone(),
            // The disk is the machine's, and it does not fill because of this cluster alone.
            text("--eviction-hard"),
            text("memory.available<100Mi"),
            text("--enter"),
            holder.to_string(),
            text("--notify"),
        ]);
        let starting = start(cluster, node, &format!("{}/system", cluster.node_cgroup(node)), &args)?;
        if index == 0 {
            // The server writes the identities of the other nodes before it says that it is ready.
            starting.ready()?;
            issue_node_identities(cluster, spec)?;
        } else {
            nodes.push(starting);
        }
    }
    nodes.into_iter().try_for_each(Starting::ready)
}

/// Gives each further node a kubeconfig with an identity of its own, signed by the cluster's authority.
fn issue_node_identities(cluster: &Cluster, spec: &Spec) -> Outcome<()> {
    for (index, node) in spec.node_names().iter().enumerate().skip(1) {
        crate::wiring::identity::write_node(cluster, spec, node, spec.node_ip(index))?;
    }
    Ok(())
}

/// Waits, by a watch, until every node of the cluster is Ready.
async fn nodes_ready(remote: &Remote, spec: &Spec, ready: &mut BTreeSet<String>) -> Outcome<()> {
    let wanted = spec.node_names();
    loop {
        let mut request = Request::of::<Node>(Verb::List, "", "");
        request.options.resource_version = "0".to_owned();
        let mut watch =
            remote.watch(request).await.explain("the API server does not answer", "See `krate logs`.")?;
        while let Some(Ok(event)) = watch.next().await {
            if let WatchEvent::Added(shared) | WatchEvent::Modified(shared) = event
                && let Ok(node) = shared.typed::<Node>()
            {
                let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
                let is =
                    conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
                if is {
                    ready.insert(shared.view.name.clone());
                } else {
                    ready.remove(&shared.view.name);
                }
            }
            if wanted.iter().all(|n| ready.contains(n)) {
                return Ok(());
            }
        }
    }
}
