//! The small HTTP client of probes and hooks: one connection, one GET, certificates not verified.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::io::ErrorKind;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

const MAX_REDIRECTS: usize = 10;
/// Most of an answer's body that is read, in bytes.
const MAX_BODY: usize = 10 << 10;

/// A GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// With the query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Get {
    pub fn url(&self) -> String {
        format!(
            "{}://{}{}",
            if self.tls { "https" } else { "http" },
            authority(&self.host, self.port),
            self.path
        )
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub body: Bytes,
    /// It is a redirect to another host, which was not followed.
    pub left_host: bool,
}

impl Answer {
    pub fn text(&self, limit: usize) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(limit)]).into_owned()
    }
}

/// `host:port`, IPv6 in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects; the error reads as Go's.
pub async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| {
        let what = match error.kind() {
            ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {}: {what}", authority(host, port))
    })
}

/// A GET that follows redirects on the same host.
pub async fn get_following(first: &Get) -> Result<Answer, String> {
    let mut request = first.clone();
    for _ in 0..MAX_REDIRECTS {
        let mut answer = get(&request).await?;
        let Some(location) = answer.location.clone().filter(|_| (300..400).contains(&answer.status)) else {
            return Ok(answer);
        };
        match redirected(&request, &location) {
            Some(next) if next.host == request.host => request = next,
            Some(_) => {
                answer.left_host = true;
                return Ok(answer);
            }
            None => return Ok(answer),
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

fn redirected(from: &Get, location: &str) -> Option<Get> {
    let uri: http::Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let Some(host) = uri.host() else { return Some(Get { path, ..from.clone() }) };
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = host.trim_matches(['[', ']']).to_owned();
    Some(Get { tls, host, port, path, headers: from.headers.clone() })
}

/// One GET over a connection of its own.
pub async fn get(request: &Get) -> Result<Answer, String> {
    let stream = dial(&request.host, request.port).await?;
    if !request.tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(request.host.clone()).map_err(|e| e.to_string())?;
    let stream = tokio_rustls::TlsConnector::from(tls_config()?).connect(name, stream).await;
    exchange(stream.map_err(|e| e.to_string())?, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    get: &Get,
) -> Result<Answer, String> {
    let text = |e: hyper::Error| if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let mut builder = http::Request::get(&get.path).header("Connection", "close");
    if !get.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        builder = builder.header("Host", authority(&get.host, get.port));
    }
    for (name, value) in &get.headers {
        builder = builder.header(name, value);
    }
    let request = builder.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (status, mut body) = (response.status().as_u16(), response.into_body());
        let mut read = BytesMut::new();
        while read.len() < MAX_BODY {
            match body.frame().await {
                Some(Ok(frame)) => {
                    frame.data_ref().map(|data| read.extend_from_slice(data)).unwrap_or_default()
                }
                _ => break,
            }
        }
        Ok(Answer { status, location, body: read.freeze(), left_host: false })
    };
    // The connection works as long as somebody polls it, and ends with this call.
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(text(error)),
        },
    }
}

/// A probe asks whether a server answers, not who it is: the documentation says that it skips verification.
fn tls_config() -> Result<Arc<ClientConfig>, String> {
    krate_client::tls::any_server().map(Arc::new).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each connection with the next of `answers` and gives back what was asked.
    async fn server(answers: Vec<&'static str>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let n = stream.read(&mut buffer).await.unwrap();
                asked.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (port, task)
    }

    fn to(port: u16) -> Get {
        Get {
            tls: false,
            host: "127.0.0.1".into(),
            port,
            path: "/x".into(),
            headers: vec![("A".into(), "1".into())],
        }
    }

    #[tokio::test]
    async fn a_plain_answer() {
        let (port, task) = server(vec!["HTTP/1.1 503 Down\r\nContent-Length: 2\r\n\r\nno"]).await;
        let answer = get_following(&to(port)).await.unwrap();
        assert_eq!((answer.status, answer.text(9).as_str()), (503, "no"));
        let asked = task.await.unwrap();
        assert!(
            asked[0].starts_with("GET /x HTTP/1.1\r\n") && asked[0].contains(&format!("127.0.0.1:{port}")),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn redirects_are_followed_on_the_host_only() {
        let there = "HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n";
        let (port, task) = server(vec![there, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).await;
        assert_eq!(get_following(&to(port)).await.unwrap().status, 200);
        assert!(task.await.unwrap()[1].starts_with("GET /y"));
        let (port, _task) =
            server(vec!["HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\nContent-Length: 0\r\n\r\n"])
                .await;
        assert!(get_following(&to(port)).await.unwrap().left_host);
    }

    #[tokio::test]
    async fn a_server_that_hangs_up() {
        let (port, _task) = server(vec![""]).await;
        assert!(get_following(&to(port)).await.is_err());
    }
}
