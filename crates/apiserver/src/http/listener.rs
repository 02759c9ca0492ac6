//! Accepts connections, speaks TLS, and hands each request over with the peer's certificates.
//!
//! A connection's failure is that connection's; the listener goes on until shutdown and then lets open
//! requests finish for a moment.

use super::dispatch;
use crate::authn::Peer;
use crate::pki::Authority;
use crate::server::{Inner, StartError};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use krate_base::{Clock, Shutdown};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// HTTP/2 receive window of one stream, bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// HTTP/2 receive window of one connection, bytes.
const CONNECTION_WINDOW: u32 = 25 * 1024 * 1024;
/// Streams at once on one HTTP/2 connection: many watches and requests of one client.
const STREAMS: u32 = 1_000;
/// How long a client may take to finish the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection of HTTP/1.1 may wait for its next request; the original keeps it as long.
const IDLE: Duration = Duration::from_secs(90);
/// How long open requests may take after shutdown.
const DRAIN: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no file descriptors left), so that it is not tried in a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// TLS with a serving certificate for `names`; clients are asked for a certificate and may have none.
pub(crate) fn tls_config(
    authority: &Authority,
    names: &[String],
    _clock: &Clock,
) -> Result<Arc<ServerConfig>, StartError> {
    let pair = authority.serving("kube-apiserver", names)?;
    let bad = |e: rustls_pki_types::pem::Error| StartError::Keys(crate::pki::Error::Key(e.to_string()));
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(bad)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(bad)?;
    // The authority goes along for clients that know it only by its digest.
    let ca = CertificateDer::from_pem_slice(authority.ca_certificate().as_bytes()).map_err(bad)?;
    let asks = crate::authn::certificate::Certificates::new(authority)?.handshake();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(asks)
        .with_single_cert(vec![certificate, ca], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves a listener until shutdown.
pub(crate) async fn serve(
    server: Arc<Inner>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shutdown: Shutdown,
) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(server.clone(), stream, acceptor.clone(), shutdown.clone());
                connections.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::debug!("connections were still open at the end of shutdown");
    }
}

async fn connection(server: Arc<Inner>, stream: TcpStream, acceptor: TlsAcceptor, shutdown: Shutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake");
            return;
        }
        Err(_) => return,
    };
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Arc::new(Peer::new(shown.iter().map(|c| c.clone().into_owned()).collect()));
    let service = service_fn(move |request| dispatch::handle(server.clone(), peer.clone(), request));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN, connection.as_mut()).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
}
