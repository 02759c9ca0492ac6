//! The network between a cluster's nodes: a bridge in a network namespace of its own, held by one process,
//! which also carries connections from the ports published on this machine to the nodes.
//!
//! The listeners are opened in the machine's namespace before the process leaves it; nothing of the machine's
//! own network is changed.

use super::state::{Cluster, FABRIC_GATEWAY, FABRIC_PREFIX, Spec};
use super::{gateway, process};
use crate::cli;
use crate::ui::{Explain, Failure, Outcome};
use nix::sched::CloneFlags;
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;
use tokio::net::TcpStream;

/// Name of the bridge in the fabric's namespace.
pub const BRIDGE: &str = "fabric0";
/// How long one node is given to answer before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The process: never returns but by an error or a signal.
pub fn run(args: &cli::Fabric) -> Outcome<()> {
    process::detach();
    krate_base::telemetry::init("info");
    let name = args.data_dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let spec = Cluster { name, dir: args.data_dir.clone() }.load()?;
    let listeners = open_listeners(&spec)?;
    let outside = (spec.egress == cli::Egress::Nat).then(gateway::outside).transpose()?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
        .explain("a network namespace cannot be made", "Run as root.")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.explain("internal error", "")?.block_on(serve(spec, listeners, outside))
}

fn open_listeners(spec: &Spec) -> Outcome<Vec<(TcpListener, u16)>> {
    let mut listeners = Vec::new();
    for publish in &spec.publish {
        let listener = TcpListener::bind(publish.listen).map_err(|e| {
            Failure::new(
                format!("the address {} cannot be published: {e}", publish.listen),
                "Publish another port, or end what uses this one.",
            )
        })?;
        listener.set_nonblocking(true).explain("internal error", "")?;
        listeners.push((listener, publish.node_port));
    }
    Ok(listeners)
}

async fn serve(
    spec: Spec,
    listeners: Vec<(TcpListener, u16)>,
    outside: Option<gateway::Outside>,
) -> Outcome<()> {
    make_bridge()
        .await
        .explain("the bridge between the nodes cannot be made", "Does this kernel have bridges?")?;
    let nodes: Vec<IpAddr> = (0..usize::from(spec.nodes)).map(|i| spec.node_ip(i)).collect();
    for (listener, node_port) in listeners {
        let listener = tokio::net::TcpListener::from_std(listener).explain("internal error", "")?;
        tokio::spawn(carry(listener, nodes.clone(), node_port));
    }
    if let Some(outside) = outside {
        gateway::open(outside).await?;
    }
    process::notify_ready();
    std::future::pending().await
}

async fn make_bridge() -> Result<(), rtnetlink::Error> {
    let handle = connect()?;
    up(&handle, "lo").await?;
    handle.link().add(LinkBridge::new(BRIDGE).up().build()).execute().await?;
    let index = index_of(&handle, BRIDGE).await?;
    handle.address().add(index, IpAddr::V4(FABRIC_GATEWAY), FABRIC_PREFIX).execute().await
}

/// Carries every connection of a listener to the same port of a node that answers.
async fn carry(listener: tokio::net::TcpListener, nodes: Vec<IpAddr>, port: u16) {
    loop {
        let mut client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "a connection to a published port could not be accepted");
                continue;
            }
        };
        let nodes = nodes.clone();
        tokio::spawn(async move {
            for node in nodes {
                let target = SocketAddr::new(node, port);
                if let Ok(Ok(mut server)) =
                    tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await
                {
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    // Either side may close at any time; there is nobody to tell.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
            tracing::debug!(port, "no node answers on a published port");
        });
    }
}

/// A netlink socket of the namespace that the calling thread is in. Call inside a runtime of that thread.
pub fn connect() -> Result<Handle, rtnetlink::Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|_| rtnetlink::Error::RequestFailed)?;
    tokio::spawn(connection);
    Ok(handle)
}

pub async fn up(handle: &Handle, name: &str) -> Result<(), rtnetlink::Error> {
    handle.link().set(LinkUnspec::new_with_name(name).up().build()).execute().await
}

pub async fn index_of(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    use futures::TryStreamExt as _;
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    Ok(links.try_next().await?.ok_or(rtnetlink::Error::RequestFailed)?.header.index)
}
