//! The sockets of the DNS server: UDP and TCP at every address.
//!
//! Questions about the cluster are answered in the loop that reads them: they cost microseconds. Those for
//! others wait in a task of their own, of which there are not more than [`forward`](super::forward) allows.

use super::forward::{Upstreams, read_message, write_message};
use super::wire::{self, Over, Reply, Step};
use super::zone::Zone;
use super::{Caches, Error};
use hickory_proto::op::ResponseCode;
use krate_base::Rng;
use krate_base::metrics::Metrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest request over UDP that is read.
const REQUEST: usize = 4096;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Most TCP connections at one time, for all addresses; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// What answers.
pub(super) struct Answerer {
    pub zone: Zone,
    pub caches: Caches,
    pub upstreams: Upstreams,
    pub rng: Rng,
    pub metrics: Metrics,
}

/// The sockets of one address.
pub(super) struct Sockets {
    address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Opens every socket, so that requests queue from now on.
pub(super) async fn bind(addresses: &[SocketAddr]) -> Result<Vec<Sockets>, Error> {
    let mut sockets = Vec::new();
    for address in addresses.iter().copied() {
        let failed = |source| Error::Socket { address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        sockets.push(Sockets { address, udp, tcp });
    }
    Ok(sockets)
}

/// Serves until a socket fails.
pub(super) async fn serve(sockets: Vec<Sockets>, answerer: &Arc<Answerer>) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for Sockets { address, udp, tcp } in sockets {
        let failed = move |source| Error::Socket { address, source };
        let (ours, theirs) = (answerer.clone(), answerer.clone());
        let connections = connections.clone();
        tasks.spawn(async move { serve_udp(Arc::new(udp), ours).await.map_err(failed) });
        tasks.spawn(async move { serve_tcp(tcp, theirs, connections).await.map_err(failed) });
    }
    match tasks.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, answerer: Arc<Answerer>) -> std::io::Result<()> {
    let mut buffer = vec![0; REQUEST];
    let mut waiting = JoinSet::new();
    loop {
        let (n, client) = tokio::select! {
            received = socket.recv_from(&mut buffer) => received?,
            Some(_) = waiting.join_next() => continue,
        };
        let request = &buffer[..n];
        match answerer.step(request, Over::Udp) {
            Step::Ignore => {}
            Step::Reply(reply) => send(&socket, &answerer.finish(reply), client).await,
            step => {
                let (socket, answerer, request) = (socket.clone(), answerer.clone(), request.to_vec());
                waiting.spawn(async move {
                    if let Some(bytes) = answerer.resolve(step, &request, Over::Udp).await {
                        send(&socket, &bytes, client).await;
                    }
                });
            }
        }
    }
}

/// A reply that cannot be sent concerns its client only, who asks again.
async fn send(socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        tracing::debug!(%client, %error, "cannot send a DNS reply");
    }
}

async fn serve_tcp(
    listener: TcpListener,
    answerer: Arc<Answerer>,
    connections: Arc<Semaphore>,
) -> std::io::Result<()> {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let permit = connections.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client went away while it was waiting.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let answerer = answerer.clone();
        open.spawn(async move {
            let _permit = permit;
            if let Err(error) = converse(stream, &answerer).await {
                tracing::debug!(%error, "a DNS connection ended");
            }
        });
    }
}

/// Answers the requests of one connection, one after the other.
async fn converse(mut stream: TcpStream, answerer: &Answerer) -> std::io::Result<()> {
    while let Ok(request) = timeout(IDLE, read_message(&mut stream)).await {
        let request = match request {
            Ok(request) => request,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let bytes = match answerer.step(&request, Over::Tcp) {
            Step::Ignore => None,
            Step::Reply(reply) => Some(answerer.finish(reply)),
            step => answerer.resolve(step, &request, Over::Tcp).await,
        };
        if let Some(bytes) = bytes {
            timeout(IDLE, write_message(&mut stream, &bytes)).await??;
        }
    }
    Ok(())
}

impl Answerer {
    fn step(&self, request: &[u8], over: Over) -> Step {
        let recursive = !self.upstreams.is_empty();
        wire::handle(request, over, &self.zone, &self.caches, self.rng.next_u64(), recursive)
    }

    /// What others have to be asked for, as far as there are any.
    async fn resolve(&self, step: Step, request: &[u8], over: Over) -> Option<Vec<u8>> {
        match step {
            Step::Ignore => None,
            Step::Reply(reply) => Some(self.finish(reply)),
            Step::Forward { unknown } | Step::Follow { reply: unknown, .. } if self.upstreams.is_empty() => {
                Some(self.finish(unknown))
            }
            Step::Forward { unknown } => match self.upstreams.ask(request, over).await {
                Some(bytes) => {
                    self.count("forwarded");
                    Some(bytes)
                }
                None => Some(self.finish(unknown.code(ResponseCode::ServFail))),
            },
            Step::Follow { reply, target } => {
                let id = (self.rng.next_u64() & 0xffff) as u16;
                let question = wire::question(id, target, wire::asked(request)?.query_type);
                let reply = match self.upstreams.ask_whole(&question).await {
                    Some(theirs) => reply.append(&theirs),
                    None => reply.code(ResponseCode::ServFail),
                };
                Some(self.finish(reply))
            }
        }
    }

    fn finish(&self, reply: Reply) -> Vec<u8> {
        self.count(&format!("{:?}", reply.response_code()).to_ascii_uppercase());
        reply.encode()
    }

    fn count(&self, outcome: &str) {
        let help = "DNS replies by response code, or forwarded";
        self.metrics.add("krate_dns_responses_total", help, vec![("rcode", outcome.to_owned())], 1.0);
    }
}
