//! Asking others about names that are not the cluster's.

use super::wire::{self, Over};
use krate_base::Rng;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long one upstream may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list of upstreams is gone through.
const ROUNDS: usize = 2;
/// Most questions that are with upstreams at one time; more are answered with a failure.
const MAX_QUESTIONS: usize = 1000;
/// Longest datagram.
const DATAGRAM: usize = 65_535;

/// Those who are asked.
pub struct Upstreams {
    servers: Vec<SocketAddr>,
    rng: Rng,
    questions: Semaphore,
}

/// The name servers of a `resolv.conf`.
#[must_use]
pub fn resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|w| *w == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, super::PORT))
    };
    resolv_conf.lines().filter_map(server).collect()
}

impl Upstreams {
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>, rng: Rng) -> Self {
        Self { servers, rng, questions: Semaphore::new(MAX_QUESTIONS) }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Asks one after the other until one replies. The reply has the request's number; `None` if nobody
    /// replied in time or too many questions are under way.
    pub async fn ask(&self, request: &[u8], over: Over) -> Option<Vec<u8>> {
        let _permit = self.questions.try_acquire().ok()?;
        // A number that others cannot guess, in place of the client's.
        let id = (self.rng.next_u64() & 0xffff) as u16;
        let mut ours = request.to_vec();
        ours.get_mut(..2)?.copy_from_slice(&id.to_be_bytes());
        for server in self.servers.iter().cycle().take(self.servers.len() * ROUNDS) {
            match timeout(PATIENCE, exchange(*server, &ours, over)).await {
                Ok(Ok(mut reply)) => {
                    reply[..2].copy_from_slice(&request[..2]);
                    return Some(reply);
                }
                Ok(Err(error)) => tracing::debug!(%server, %error, "an upstream DNS server failed"),
                Err(_) => tracing::debug!(%server, "an upstream DNS server did not reply in time"),
            }
        }
        None
    }

    /// Like [`ask`](Self::ask), and asks again over TCP if the reply was cut.
    pub async fn ask_whole(&self, request: &[u8]) -> Option<Vec<u8>> {
        let reply = self.ask(request, Over::Udp).await?;
        if wire::is_truncated(&reply) { self.ask(request, Over::Tcp).await } else { Some(reply) }
    }
}

async fn exchange(server: SocketAddr, request: &[u8], over: Over) -> io::Result<Vec<u8>> {
    match over {
        Over::Udp => over_udp(server, request).await,
        Over::Tcp => over_tcp(server, request).await,
    }
}

async fn over_udp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let n = socket.recv(&mut buffer).await?;
        if wire::matches(request, &buffer[..n]) {
            buffer.truncate(n);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, request).await?;
    let reply = read_message(&mut stream).await?;
    if wire::matches(request, &reply) { Ok(reply) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// One message of a TCP connection, with its length before it.
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await
}
