//! The HTTPS transport: an agent's or a command's way to an API server of this or any other make.
//!
//! One connection pool, HTTP/2 where the server offers it. The server is verified against the given
//! authority and nothing else; who we are is a client certificate or a bearer token.

use crate::request::{Body, Reply, Request, Transport, Verb, WatchEvent, WatchStream};
use crate::url;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use krate_api::{Reason, Shared, Status};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// Longest frame of a watch, in bytes; the API's objects are at most about 3 MiB.
const MAX_FRAME: usize = 16 << 20;

/// Where the server is and who we are.
#[derive(Clone, Default)]
pub struct RemoteConfig {
    /// `https://host:port`.
    pub server: String,
    /// PEM of the authorities that may have signed the server's certificate.
    pub ca_pem: Vec<u8>,
    /// PEM of the client certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    pub token: Option<String>,
    pub user_agent: String,
}

/// What makes a configuration unusable.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("the server address {0:?} is not of the form https://host:port")]
    Address(String),
    #[error("the certificate or key is not usable: {0}")]
    Credentials(String),
}

/// A connection pool to one server.
#[derive(Clone)]
pub struct Remote {
    client: Client<Connector, Full<Bytes>>,
    server: String,
    authorization: Option<HeaderValue>,
    user_agent: HeaderValue,
}

impl Remote {
    pub fn new(config: &RemoteConfig) -> Result<Self, RemoteError> {
        let server = config.server.trim_end_matches('/').to_owned();
        if !server.starts_with("https://") {
            return Err(RemoteError::Address(config.server.clone()));
        }
        let mut builder = Client::builder(TokioExecutor::new());
        builder.http2_initial_stream_window_size(1 << 20).http2_initial_connection_window_size(16 << 20);
        let bad = |e: header::InvalidHeaderValue| RemoteError::Credentials(e.to_string());
        let authorization = match &config.token {
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(bad)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let agent = if config.user_agent.is_empty() { "krate" } else { &config.user_agent };
        Ok(Self {
            client: builder.build(Connector { tls: Arc::new(tls_config(config)?) }),
            server,
            authorization,
            user_agent: HeaderValue::from_str(agent).map_err(bad)?,
        })
    }

    /// Sends any request, for paths that are not resources (`/readyz`, `/version`).
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Status> {
        let response = self.open(method, path, content_type, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(unreachable)?.to_bytes();
        Ok((status, body))
    }

    /// Sends a request and hands back the answer with its body unread, for streams such as logs.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, Status> {
        let mut builder = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(header::USER_AGENT, self.user_agent.clone())
            .header(header::ACCEPT, "application/json");
        if let Some(value) = &self.authorization {
            builder = builder.header(header::AUTHORIZATION, value.clone());
        }
        if let Some(content_type) = content_type {
            builder = builder.header(header::CONTENT_TYPE, content_type);
        }
        let request = builder.body(Full::new(body)).map_err(|e| Status::bad_request(e.to_string()))?;
        self.client.request(request).await.map_err(unreachable)
    }
}

#[async_trait]
impl Transport for Remote {
    async fn send(&self, request: Request) -> Result<Reply, Status> {
        let path = url::path_and_query(&request, false);
        let (method, content_type) = match request.verb {
            Verb::Get | Verb::List => (Method::GET, None),
            Verb::Create => (Method::POST, Some("application/json")),
            Verb::Update => (Method::PUT, Some("application/json")),
            Verb::Patch(kind) => (Method::PATCH, Some(kind.content_type())),
            Verb::Delete | Verb::DeleteCollection => (Method::DELETE, Some("application/json")),
        };
        let body = match (&request.body, &request.options.delete) {
            (Some(Body::Object(object)), _) => Bytes::from(object.encode()),
            (Some(Body::Bytes(bytes)), _) => bytes.clone(),
            (None, Some(options)) => {
                Bytes::from(serde_json::to_vec(options).map_err(|e| Status::bad_request(e.to_string()))?)
            }
            (None, None) => Bytes::new(),
        };
        let content_type = content_type.filter(|_| !body.is_empty());
        let (status, body) = self.raw(method, &path, content_type, body).await?;
        if !status.is_success() {
            return Err(failure(status, &body));
        }
        match request.verb {
            Verb::List => parse_list(&body),
            Verb::DeleteCollection => Ok(Reply::Bytes(body)),
            _ => parse_object(body),
        }
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, Status> {
        let response =
            self.open(Method::GET, &url::path_and_query(&request, true), None, Bytes::new()).await?;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await.map_err(unreachable)?.to_bytes();
            return Err(failure(status, &body));
        }
        let frames = Frames { body: response.into_body(), buffer: BytesMut::new(), scanned: 0 };
        Ok(stream::unfold(Some(frames), |frames| async {
            let mut frames = frames?;
            match frames.next().await {
                Some(Ok(line)) => match parse_event(&line) {
                    Ok(event) => Some((Ok(event), Some(frames))),
                    Err(status) => Some((Err(status), None)),
                },
                Some(Err(status)) => Some((Err(status), None)),
                None => None,
            }
        })
        .boxed())
    }
}

/// The lines of a watch's body.
struct Frames {
    body: Incoming,
    buffer: BytesMut,
    scanned: usize,
}

impl Frames {
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.scanned + end + 1).freeze();
                self.scanned = 0;
                let line = line.slice(..line.len() - 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(Ok(line));
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() > MAX_FRAME {
                return Some(Err(Status::internal("a watch event is longer than 16 MiB")));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Err(error) => return Some(Err(unreachable(error))),
            }
        }
    }
}

fn parse_event(line: &Bytes) -> Result<WatchEvent, Status> {
    #[derive(Deserialize)]
    struct Frame<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let frame: Frame = serde_json::from_slice(line).map_err(Status::internal)?;
    let bytes = line.slice_ref(frame.object.get().as_bytes());
    let shared = |bytes| Shared::parse(bytes).map_err(Status::internal);
    Ok(match frame.kind {
        "ADDED" => WatchEvent::Added(shared(bytes)?),
        "MODIFIED" => WatchEvent::Modified(shared(bytes)?),
        "DELETED" => WatchEvent::Deleted(shared(bytes)?),
        "BOOKMARK" => {
            let initial_end = memchr(&bytes, b"k8s.io/initial-events-end");
            WatchEvent::Bookmark { revision: shared(bytes)?.revision, initial_end }
        }
        "ERROR" => return Err(decode_status(&bytes).unwrap_or_else(|| Status::internal("the watch failed"))),
        other => return Err(Status::internal(format!("unknown watch event type {other:?}"))),
    })
}

fn memchr(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

fn parse_object(body: Bytes) -> Result<Reply, Status> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(default)]
        kind: &'a str,
        #[serde(default, borrow)]
        metadata: Option<&'a RawValue>,
    }
    let head: Head = serde_json::from_slice(&body).map_err(Status::internal)?;
    if head.kind == "Status" || head.metadata.is_none() {
        return Ok(Reply::Bytes(body));
    }
    Ok(Reply::Object(Shared::parse(body).map_err(Status::internal)?))
}

fn parse_list(body: &Bytes) -> Result<Reply, Status> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(default)]
        metadata: ListMeta,
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ListMeta {
        resource_version: String,
        r#continue: String,
    }
    let list: List = serde_json::from_slice(body).map_err(Status::internal)?;
    let items = list.items.unwrap_or_default();
    let items: Result<Vec<Shared>, _> =
        items.into_iter().map(|raw| Shared::parse(body.slice_ref(raw.get().as_bytes()))).collect();
    Ok(Reply::List {
        items: items.map_err(Status::internal)?,
        revision: list.metadata.resource_version.parse().unwrap_or(0),
        continue_token: list.metadata.r#continue,
    })
}

fn decode_status(body: &[u8]) -> Option<Status> {
    let status: krate_api::meta::Status = serde_json::from_slice(body).ok()?;
    status.status.is_some().then(|| Status(Box::new(status)))
}

fn failure(code: StatusCode, body: &[u8]) -> Status {
    decode_status(body).unwrap_or_else(|| {
        let mut status = Status::failure(
            Reason::InternalError,
            format!("the server answered {code}: {}", String::from_utf8_lossy(body).trim()),
        );
        status.0.code = Some(i32::from(code.as_u16()));
        status
    })
}

/// The server could not be reached, or went away: worth another try.
fn unreachable(error: impl std::error::Error) -> Status {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    Status::failure(Reason::ServiceUnavailable, text)
}

/// The client side of TLS for a configuration; also used for connections that are upgraded.
pub fn tls_config(config: &RemoteConfig) -> Result<rustls::ClientConfig, RemoteError> {
    let bad = |e: &dyn std::fmt::Display| RemoteError::Credentials(e.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for cert in certificates(&config.ca_pem)? {
        roots.add(cert).map_err(|e| bad(&e))?;
    }
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(&e))?
            .with_root_certificates(roots);
    let mut tls = match &config.identity {
        Some((cert, key)) => {
            let key = pem::parse(key).map_err(|e| bad(&e))?;
            let key = PrivateKeyDer::try_from(key.into_contents()).map_err(|e| bad(&e))?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(|e| bad(&e))?
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn certificates(pem_text: &[u8]) -> Result<Vec<CertificateDer<'static>>, RemoteError> {
    let blocks = pem::parse_many(pem_text).map_err(|e| RemoteError::Credentials(e.to_string()))?;
    Ok(blocks
        .into_iter()
        .filter(|b| b.tag() == "CERTIFICATE")
        .map(|b| CertificateDer::from(b.into_contents()))
        .collect())
}

#[derive(Clone)]
struct Connector {
    tls: Arc<rustls::ClientConfig>,
}

struct Stream(TokioIo<tokio_rustls::client::TlsStream<TcpStream>>);

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let (_, session) = self.0.inner().get_ref();
        if session.alpn_protocol() == Some(b"h2") {
            Connected::new().negotiated_h2()
        } else {
            Connected::new()
        }
    }
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = Stream;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            let invalid = |m: &str| std::io::Error::new(std::io::ErrorKind::InvalidInput, m.to_owned());
            let host = uri.host().ok_or_else(|| invalid("no host in the server address"))?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = uri.port_u16().unwrap_or(443);
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(host).map_err(|_| invalid("the server's name is not a name"))?;
            let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await?;
            Ok(Stream(TokioIo::new(stream)))
        })
    }
}
