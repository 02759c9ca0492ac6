//! As much of HTTP as health checks need: one request on a connection, answered by its path.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest request that is read; balancers send a few hundred bytes.
const REQUEST: usize = 8192;
/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most exchanges at one time on one port.
const MAX_CONNECTIONS: usize = 64;

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `200 OK`
    pub status: &'static str,
    pub content_type: &'static str,
    /// Whole lines, each with its end.
    pub headers: String,
    pub body: String,
}

impl Reply {
    /// Whether all is well, in JSON.
    pub fn health(well: bool, body: String) -> Self {
        let status = if well { "200 OK" } else { "503 Service Unavailable" };
        Self { status, content_type: "application/json", headers: String::new(), body }
    }

    /// For a path that there is not.
    pub fn not_found() -> Self {
        Self {
            status: "404 Not Found",
            content_type: "text/plain; charset=utf-8",
            headers: String::new(),
            body: "404 page not found\n".to_owned(),
        }
    }

    fn bytes(&self, head_only: bool) -> Vec<u8> {
        let Self { status, content_type, headers, body } = self;
        let length = body.len();
        let body = if head_only { "" } else { body };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nX-Content-Type-Options: nosniff\r\n{headers}\
             Connection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

/// Listens on every address of both families, or of the one that there is.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// Answers requests for as long as it is polled.
pub async fn serve(listener: TcpListener, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let answer = Arc::new(answer);
    let mut exchanges = JoinSet::new();
    while let Ok(permit) = permits.clone().acquire_owned().await {
        while exchanges.try_join_next().is_some() {}
        // The client went away while it was waiting.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answer = answer.clone();
        exchanges.spawn(async move {
            let _permit = permit;
            if let Ok(Err(error)) = timeout(PATIENCE, exchange(stream, &*answer)).await {
                tracing::debug!(%error, "a health check was cut off");
            }
        });
    }
}

async fn exchange(mut stream: TcpStream, answer: impl Fn(&str) -> Reply) -> std::io::Result<()> {
    let mut request = vec![0; REQUEST];
    let mut len = 0;
    while !request[..len].windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut request[len..]).await? {
            0 => return Ok(()),
            n => len += n,
        }
    }
    let (method, path) = target(&request[..len]);
    stream.write_all(&answer(path).bytes(method == "HEAD")).await?;
    stream.shutdown().await
}

/// The method and the path of a request, without its query.
fn target(request: &[u8]) -> (&str, &str) {
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    (method, target.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_path() {
        assert_eq!(target(b"GET /healthz?verbose HTTP/1.1\r\nHost: x\r\n\r\n"), ("GET", "/healthz"));
        assert_eq!(target(b"nonsense\r\n\r\n"), ("nonsense", ""));
        assert_eq!(target(&[0xff; 8]), ("", ""));
    }

    #[test]
    fn a_head_has_no_body() {
        let text = |head_only| String::from_utf8(Reply::not_found().bytes(head_only)).unwrap();
        assert!(text(true).ends_with("Content-Length: 19\r\n\r\n"));
        assert!(text(false).ends_with("\r\n\r\n404 page not found\n"));
    }
}
