//! The kubelet's own HTTPS server (port 10250): logs, exec, attach, port-forward, the pods of the node, health
//! and metrics. Only the API server's identity and cluster administrators get in, by client certificate.
//!
//! It finds containers by the labels that the kubelet puts on them and changes nothing.

mod authorize;
mod find;
mod routes;
mod summary;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Shutdown};
use krate_runtime::cri::{Runtime, Streams};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use find::Finder;
pub use find::Lookup;

/// A response's body: bytes at hand, or a log that is being read.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the server answers from.
#[derive(Clone)]
pub struct Server {
    pub runtime: Arc<dyn Runtime>,
    pub streams: Arc<dyn Streams>,
    /// The pods of this node, by namespace and name.
    pub pods: Arc<dyn Lookup>,
    pub clock: Clock,
    pub metrics: Metrics,
    /// What `/configz` tells.
    pub configz: Bytes,
}

impl Server {
    /// Accepts connections until shutdown. `tls` must ask for client certificates of the cluster's authority.
    pub async fn serve(self, listener: TcpListener, tls: Arc<rustls::ServerConfig>, shutdown: Shutdown) {
        let acceptor = TlsAcceptor::from(tls);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (server, acceptor, shutdown) = (self.clone(), acceptor.clone(), shutdown.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = shutdown.cancelled() => {}
                            () = server.connection(stream, acceptor) => {}
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "a connection to the kubelet could not be accepted"),
            }
        }
    }

    async fn connection(self, stream: TcpStream, acceptor: TlsAcceptor) {
        let _ = stream.set_nodelay(true);
        let stream = match acceptor.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake with the kubelet failed");
                return;
            }
        };
        let allowed = authorize::may_enter(stream.get_ref().1.peer_certificates());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request, allowed).await) }
        });
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection to the kubelet ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>, allowed: bool) -> Response<Body> {
        let finder = Finder { pods: self.pods.as_ref(), runtime: self.runtime.as_ref() };
        routes::route(self, &finder, request, allowed).await
    }
}

/// A body that is sent piece by piece as it comes.
fn streamed(pieces: tokio::sync::mpsc::Receiver<Bytes>) -> Body {
    let stream = futures::stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    });
    UnsyncBoxBody::new(http_body_util::StreamBody::new(
        stream.map(|piece| Ok(hyper::body::Frame::data(piece))),
    ))
}
