//! `krate agent`: a node that joins a server.

use super::server::{prepare, until_told};
use crate::cli::Agent;
use crate::cluster::{health, process};
use crate::host;
use crate::ui::{Explain, Outcome};
use crate::wiring::{identity, join, node};
use krate_base::{Shutdown, Supervisor};
use krate_client::kubeconfig::remote_config;
use krate_client::remote::Remote;
use std::path::Path;
use std::sync::Arc;

pub fn run(args: Agent) -> Outcome<()> {
    host::check()?;
    prepare(&args.node)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().explain("internal error", "")?;
    runtime.block_on(serve(args))
}

async fn serve(args: Agent) -> Outcome<()> {
    let supervisor = Supervisor::new(Shutdown::new());
    health::keep(&supervisor, &args.data_dir);
    let address = args.node.node_ip.map_or_else(host::address, Ok)?;
    let name = node::name(&args.node)?;
    if let (Some(server), Some(token), Some(ca_cert_hash)) = (&args.server, &args.token, &args.ca_cert_hash) {
        let invitation = join::Invitation { server, token, ca_cert_hash };
        join::join(&invitation, &args.data_dir, &name, address).await?;
    }
    let kubeconfig = args.kubeconfig.clone().unwrap_or_else(|| args.data_dir.join(identity::KUBECONFIG));
    let network = args.network_kubeconfig.clone();
    let network = network.unwrap_or_else(|| kubeconfig.with_file_name(identity::NETWORK_KUBECONFIG));
    let settings = node::Settings {
        transport: remote(&kubeconfig)?,
        proxy_transport: remote(&network)?,
        data_dir: args.data_dir.clone(),
        name,
        address,
        cluster_cidr: args.cluster_cidr.clone(),
        service_cidr: args.service_cidr.clone(),
        args: args.node.clone(),
    };
    node::start(settings, &supervisor).await?;
    if args.node.notify {
        process::notify_ready();
    }
    until_told(&supervisor).await;
    Ok(())
}

/// The API with the identity of a kubeconfig.
fn remote(path: &Path) -> Outcome<Arc<Remote>> {
    let next = "Join with --server, --token and --ca-cert-hash, which the log of the server tells.";
    let text = std::fs::read_to_string(path).explain(&format!("cannot read {}", path.display()), next)?;
    let mut config = remote_config(&text, None).explain("the kubeconfig cannot be used", next)?;
    config.user_agent = "krate-agent".to_owned();
    Ok(Arc::new(Remote::new(&config).explain("the kubeconfig cannot be used", next)?))
}
