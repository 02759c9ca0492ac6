//! `krate server`: a control plane and, unless told otherwise, a node.

use crate::cli::Server;
use crate::cluster::{health, process};
use crate::ui::{Explain, Outcome};
use crate::wiring::{control, identity, join, node};
use crate::{cli, host};
use krate_apiserver::UserInfo;
use krate_base::{Rng, Shutdown, Supervisor};
use std::net::{IpAddr, SocketAddr, TcpListener};

/// What a kubelet sets: it is killed for want of memory when nothing else is left.
const OOM_SCORE: i32 = -999;

pub fn run(args: Server) -> Outcome<()> {
    let next = "Is another server running? Give another --listen.";
    let mut listeners = Vec::new();
    if let Some(address) = args.host_listen {
        listeners.push(TcpListener::bind(address).explain(&format!("cannot listen on {address}"), next)?);
    }
    if !args.disable_agent {
        host::check()?;
    }
    prepare(&args.node)?;
    listeners
        .push(TcpListener::bind(args.listen).explain(&format!("cannot listen on {}", args.listen), next)?);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().explain("internal error", "")?;
    runtime.block_on(serve(args, listeners))
}

/// What `server` and `agent` do before there is any thread: namespaces, the session, logs.
pub fn prepare(args: &cli::NodeArgs) -> Outcome<()> {
    if args.notify {
        process::detach();
    }
    if let Some(pid) = args.enter {
        host::enter(pid).explain("the node's namespaces cannot be entered", "Run `krate up` again.")?;
    }
    krate_base::telemetry::init(&args.log);
    krate_runtime::set_oom_score(OOM_SCORE);
    Ok(())
}

async fn serve(args: Server, listeners: Vec<TcpListener>) -> Outcome<()> {
    let supervisor = Supervisor::new(Shutdown::new());
    health::keep(&supervisor, &args.data_dir);
    let node_ip = node_ip(&args)?;
    let advertise = args.advertise.unwrap_or(node_ip);
    let public = listeners[0].local_addr().explain("internal error", "")?;
    let inside = listeners[listeners.len() - 1].local_addr().explain("internal error", "")?;
    let settings = control::Settings {
        data_dir: args.data_dir.clone(),
        encryption: args.encryption_provider_config.clone(),
        advertise,
        port: inside.port(),
        tls_san: args.tls_san.clone(),
        cluster_cidr: args.cluster_cidr.clone(),
        service_cidr: args.service_cidr.clone(),
        public: format!("https://{}", reachable(public)),
        volumes: args.node.volume_dir.clone(),
        shared_volumes: args.node.shared_volumes,
        listeners,
        schedule: !args.disable_scheduler,
        candidate: args.leader_elect.then(|| candidate(&args)).transpose()?,
    };
    let control = control::start(settings, &supervisor).await?;
    if !args.disable_agent {
        let name = node::name(&args.node)?;
        let dir = args.data_dir.join("node");
        identity::write_serving(control.api.authority(), &dir, &name, node_ip)?;
        identity::write_private(
            &dir.join(identity::CLIENT_CA),
            control.api.authority().ca_certificate().as_bytes(),
        )?;
        let transport =
            control.api.transport(UserInfo::new(&format!("system:node:{name}"), &["system:nodes"]));
        let settings = node::Settings {
            transport,
            proxy_transport: control.api.transport(UserInfo::component("kube-proxy")),
            data_dir: dir,
            name,
            address: node_ip,
            cluster_cidr: args.cluster_cidr.clone(),
            service_cidr: args.service_cidr.clone(),
            args: args.node.clone(),
        };
        node::start(settings, &supervisor).await?;
    }
    // The nodes of `up` are given their identities; others join with a token.
    if args.node.enter.is_none() {
        let server = format!("https://{}", SocketAddr::new(advertise, inside.port()));
        let admin = control.api.transport(UserInfo::apiserver());
        let command = join::invite(admin, control.api.authority(), &args.data_dir, &server).await?;
        tracing::info!("further nodes join with: {command}");
    }
    if args.node.notify {
        process::notify_ready();
    }
    until_told(&supervisor).await;
    control
        .store
        .close()
        .await
        .explain("the store could not be closed", "Its acknowledged writes are on the disk.")?;
    Ok(())
}

/// The node's address: the one given, the one that the API is bound to, or that of the default route.
fn node_ip(args: &Server) -> Outcome<IpAddr> {
    match args.node.node_ip {
        Some(address) => Ok(address),
        None if args.listen.ip().is_unspecified() => host::address(),
        None => Ok(args.listen.ip()),
    }
}

/// This server in elections: the same after a restart, which so goes on with the leases that it held.
fn candidate(args: &Server) -> Outcome<String> {
    let file = args.data_dir.join("server-id");
    let id = match std::fs::read_to_string(&file) {
        Ok(id) => id.trim().to_owned(),
        Err(_) => {
            let id = Rng::from_entropy().uuid();
            identity::write_private(&file, id.as_bytes())?;
            id
        }
    };
    Ok(format!("{}_{id}", node::name(&args.node)?))
}

/// An address that a client on this machine can use for a listener.
fn reachable(listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], listener.port()))
    } else {
        listener
    }
}

/// Waits for SIGTERM or SIGINT and stops everything in order. Containers go on.
pub async fn until_told(supervisor: &Supervisor) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    supervisor.stop().await;
}
