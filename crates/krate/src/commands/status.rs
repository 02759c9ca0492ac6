//! `krate status`: the clusters of this machine, their processes and their nodes.

use crate::cli;
use crate::cluster::health::Report;
use crate::cluster::{Cluster, Process, Spec};
use crate::ui::{Explain, Outcome, say};
use krate_api::types::core::v1::Node;
use krate_client::kubeconfig::remote_config;
use krate_client::remote::Remote;
use krate_client::{Reply, Request, Transport as _, Verb};
use serde_json::{Value, json};

pub async fn run(args: cli::Status) -> Outcome<()> {
    let named = Cluster::of(&args.cluster)?;
    let mut clusters = Cluster::all();
    if !clusters.iter().any(|c| c.dir == named.dir) && named.exists() {
        clusters.push(named.clone());
    }
    if args.cluster.name != "krate" || args.cluster.data_dir.is_some() {
        named.load()?;
        clusters.retain(|c| c.dir == named.dir);
    }
    let mut reports = Vec::new();
    for cluster in &clusters {
        reports.push(report(cluster, &cluster.load()?).await);
    }
    if args.json {
        let text =
            serde_json::to_string_pretty(&json!({ "clusters": reports })).explain("internal error", "")?;
        say!("{text}");
        return Ok(());
    }
    if reports.is_empty() {
        say!("No clusters on this machine. Start one with `krate up`.");
    }
    for report in &reports {
        print(report);
    }
    Ok(())
}

async fn report(cluster: &Cluster, spec: &Spec) -> Value {
    let mut names = vec!["fabric".to_owned()];
    names.extend(spec.node_names());
    let processes: Vec<Value> = names.iter().map(|name| process(cluster, name)).collect();
    let running = Process::find(cluster, "node-1").is_some();
    let (nodes, error) = match if running { nodes(cluster).await } else { Ok(vec![]) } {
        Ok(nodes) => (nodes, None),
        Err(error) => (vec![], Some(error.what)),
    };
    json!({
        "name": spec.name,
        "state": if running { "running" } else { "stopped" },
        "version": spec.version,
        "kubernetes": krate_api::KUBERNETES_VERSION,
        "api": format!("https://127.0.0.1:{}", spec.api_port),
        "context": spec.context(),
        "dataDir": cluster.dir,
        "published": spec.publish,
        "processes": processes,
        "nodes": nodes,
        "error": error,
    })
}

/// A process and what its components say of themselves.
fn process(cluster: &Cluster, name: &str) -> Value {
    let pid = Process::find(cluster, name).map(|p| p.pid);
    let report = pid.and_then(|pid| Report::read(&cluster.process_dir(name), pid)).unwrap_or_default();
    json!({ "name": name, "pid": pid, "components": report.running, "failed": report.failed })
}

async fn nodes(cluster: &Cluster) -> Outcome<Vec<Value>> {
    let next = "See `krate logs`.";
    let text =
        std::fs::read_to_string(cluster.admin_kubeconfig()).explain("no kubeconfig was written", next)?;
    let remote = Remote::new(&remote_config(&text, None).explain("the kubeconfig is damaged", next)?)
        .explain("the kubeconfig is damaged", next)?;
    let reply = remote.send(Request::of::<Node>(Verb::List, "", "")).await;
    let Reply::List { items, .. } = reply.explain("the API server does not answer", next)? else {
        return Ok(vec![]);
    };
    let nodes = items.iter().filter_map(|item| item.typed::<Node>().ok());
    Ok(nodes
        .map(|node| {
            let status = node.status.clone().unwrap_or_default();
            let ready = status.conditions.unwrap_or_default().into_iter().find(|c| c.type_ == "Ready");
            let address = status.addresses.unwrap_or_default().into_iter().find(|a| a.type_ == "InternalIP");
            json!({
                "name": node.metadata.name,
                "ready": ready.is_some_and(|c| c.status == "True"),
                "address": address.map(|a| a.address),
            })
        })
        .collect())
}

fn print(report: &Value) {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    say!(
        "Cluster {:?} is {} (Kubernetes {})",
        text(&report["name"]),
        text(&report["state"]),
        text(&report["kubernetes"])
    );
    say!("  API         {}", text(&report["api"]));
    say!("  context     {}", text(&report["context"]));
    say!("  state       {}", text(&report["dataDir"]));
    for p in report["published"].as_array().into_iter().flatten() {
        say!("  published   {} -> NodePort {}", text(&p["listen"]), p["node_port"]);
    }
    for p in report["processes"].as_array().into_iter().flatten() {
        let pid = p["pid"].as_i64().map_or("not running".to_owned(), |pid| format!("pid {pid}"));
        say!("  process     {:<12} {pid}", text(&p["name"]));
        for (component, message) in p["failed"].as_object().into_iter().flatten() {
            say!(
                "  problem     {component} in {} failed and is started again: {}",
                text(&p["name"]),
                text(message)
            );
        }
    }
    for n in report["nodes"].as_array().into_iter().flatten() {
        let ready = if n["ready"] == json!(true) { "Ready" } else { "NotReady" };
        say!("  node        {:<12} {ready:<9} {}", text(&n["name"]), text(&n["address"]));
    }
    if let Some(error) = report["error"].as_str() {
        say!("  problem     {error}");
    }
}
