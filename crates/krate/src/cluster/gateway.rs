//! The way out of a cluster's network (`--egress nat`): TCP connections and questions of DNS are carried out
//! through this machine, as if the fabric's process had made them.
//!
//! Nothing of the machine's own network is changed. What the nodes send to addresses outside of the fabric
//! comes to the fabric's namespace by their default route and is turned to a port of this process there; the
//! other half of each connection is a plain socket of the machine's namespace. No other protocol gets out.

use super::fabric::BRIDGE;
use super::state::{FABRIC_GATEWAY, FABRIC_PREFIX};
use crate::ui::{Explain, Outcome};
use krate_base::Rng;
use krate_network::addr::octets;
use krate_network::dns::Upstreams;
use krate_network::nft::expr::{Cmp, Meta};
use krate_network::nft::{
    self, ChainType, Expr, Family, Hook, HookPoint, Op, Reg, Transaction, chain, port_bytes,
};
use krate_network::views::Protocol;
use krate_network::{Cidr, dns};
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// The table's name in the fabric's namespace.
const TABLE: &str = "krate-gateway";
/// Before every other translation of destinations.
const DSTNAT: i32 = -100;
/// Where connections to elsewhere arrive in the fabric's namespace.
const PORT: u16 = 1080;
const DNS_PORT: u16 = 53;
/// How long the other end may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections at one time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Longest question over UDP that is read.
const QUESTION: usize = 4096;

/// What stays in the machine's namespace: a thread with a runtime of its own.
pub struct Outside {
    runtime: Handle,
    resolvers: Vec<SocketAddr>,
}

/// Starts the outer half. Call it before this process leaves the machine's network namespace.
pub fn outside() -> Outcome<Outside> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.explain("internal error", "")?;
    let handle = runtime.handle().clone();
    let thread = std::thread::Builder::new().name("outside".to_owned());
    thread
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .explain("a thread cannot be made", "Is the machine out of processes?")?;
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    Ok(Outside { runtime: handle, resolvers: dns::resolvers(&resolv_conf) })
}

/// Opens the inner half, in the fabric's namespace, once its bridge is there.
pub async fn open(outside: Outside) -> Outcome<()> {
    let what = "the way out of the cluster cannot be opened";
    let next = "Start the cluster with --egress none, or on a kernel with nftables.";
    let outside = Arc::new(outside);
    let inner = |port| SocketAddr::from((FABRIC_GATEWAY, port));
    let connections = TcpListener::bind(inner(PORT)).await.explain(what, next)?;
    let questions = UdpSocket::bind(inner(DNS_PORT)).await.explain(what, next)?;
    let long_questions = TcpListener::bind(inner(DNS_PORT)).await.explain(what, next)?;
    tokio::task::spawn_blocking(|| nft::commit(&[redirect()]))
        .await
        .explain(what, "")?
        .explain(what, next)?;
    let upstreams = Arc::new(Upstreams::new(outside.resolvers.clone(), Rng::from_entropy()));
    tokio::spawn(carry(connections, outside.clone(), |stream| Ok(vec![original(stream)?.into()])));
    let resolvers = outside.resolvers.clone();
    tokio::spawn(carry(long_questions, outside.clone(), move |_| Ok(resolvers.clone())));
    tokio::spawn(answer(questions, outside, upstreams));
    Ok(())
}

/// Turns TCP to addresses outside of the fabric to [`PORT`].
fn redirect() -> Transaction {
    let (name, destination, protocol, address, port) = (Reg(0), Reg(4), Reg(5), Reg(6), Reg(7));
    let mut rule = Expr::interface(Meta::IifName, name, Cmp::Eq, BRIDGE).to_vec();
    rule.extend([
        Expr::Meta { key: Meta::L4Proto, to: protocol },
        Expr::Cmp { op: Cmp::Eq, reg: protocol, value: vec![Protocol::Tcp as u8] },
    ]);
    if let Some(fabric) = Cidr::new(IpAddr::V4(FABRIC_GATEWAY), FABRIC_PREFIX) {
        let load = Family::Ip.load_destination(destination);
        rule.extend(Family::Ip.in_range(load, destination, Cmp::Neq, &fabric));
    }
    rule.extend([
        Expr::Load { to: address, value: octets(FABRIC_GATEWAY.into()) },
        Expr::Load { to: port, value: port_bytes(PORT).to_vec() },
        Expr::Dnat { address, port },
    ]);
    let hook = Hook { kind: ChainType::Nat, at: HookPoint::Prerouting, priority: DSTNAT };
    let mut ops = vec![Op::AddTable, Op::DeleteTable, Op::AddTable];
    ops.extend(chain("prerouting", Some(hook), vec![rule]));
    Transaction { family: Family::Ip, table: TABLE, ops }
}

/// Where a connection was meant to go before it was turned.
fn original(stream: &TcpStream) -> io::Result<SocketAddrV4> {
    let address = getsockopt(stream, sockopt::OriginalDst)?;
    Ok(SocketAddrV4::new(
        Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)),
        u16::from_be(address.sin_port),
    ))
}

/// Carries every connection to the first of its targets that answers.
async fn carry(
    listener: TcpListener,
    outside: Arc<Outside>,
    targets: impl Fn(&TcpStream) -> io::Result<Vec<SocketAddr>>,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let accepted = listener.accept().await.and_then(|(stream, _)| Ok((targets(&stream)?, stream)));
        let (targets, client) = match accepted {
            Ok((targets, client)) => (targets, client),
            Err(error) => {
                tracing::warn!(%error, "a connection to elsewhere could not be accepted");
                continue;
            }
        };
        let connecting = outside.runtime.spawn(connect(targets));
        tokio::spawn(async move {
            let _permit = permit;
            let server = connecting.await.map_err(io::Error::other).and_then(|connected| connected);
            pass(client, server).await;
        });
    }
}

/// Passes bytes both ways until both sides are done; a side that was never reached is told by a reset.
async fn pass(mut client: TcpStream, server: io::Result<TcpStream>) {
    match server {
        Ok(mut server) => {
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            // Either side may close at any time; there is nobody to tell.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Err(error) => {
            tracing::debug!(%error, "a connection to elsewhere failed");
            let _ = client.set_zero_linger();
        }
    }
}

async fn connect(targets: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for target in targets {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Passes questions over UDP on to the machine's resolvers. One that nobody answers is asked again by its
/// client.
async fn answer(socket: UdpSocket, outside: Arc<Outside>, upstreams: Arc<Upstreams>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; QUESTION];
    loop {
        let Ok((n, client)) = socket.recv_from(&mut buffer).await else { continue };
        let (question, upstreams, socket) = (buffer[..n].to_vec(), upstreams.clone(), socket.clone());
        let asking =
            outside.runtime.spawn(async move { upstreams.ask(&question, dns::wire::Over::Udp).await });
        tokio::spawn(async move {
            if let Ok(Some(reply)) = asking.await {
                let _ = socket.send_to(&reply, client).await;
            }
        });
    }
}
