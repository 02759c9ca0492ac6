//! Port-forward: pairs of SPDY streams, one for data and one for errors, on a connection of their own or
//! tunnelled through a WebSocket (KEP-4006).

use super::outgoing::{Out, PIECE};
use super::{PROTOCOL_HEADER, Upgrade, offered, refuse, spdy, switching, upgrade_of, websocket};
use crate::cri::{Duplex, Result};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

/// The one protocol inside SPDY.
const PROTOCOL: &str = "portforward.k8s.io";
/// SPDY carried in the binary messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Bytes in flight between a WebSocket and the SPDY connection inside.
const TUNNEL_BUFFER: usize = 64 << 10;
/// Half pairs of streams that may wait for their other half.
const MAX_PENDING: usize = 256;

/// Opens a connection to a port of the pod.
pub type Connect = Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Box<dyn Duplex>>> + Send + Sync>;

/// Answers a port-forward request.
pub fn port_forward(mut request: Request<Incoming>, connect: Connect) -> Response<Full<Bytes>> {
    let (upgrade, name, protocol) = match upgrade_of(&request) {
        Some(Upgrade::Spdy) => (Upgrade::Spdy, PROTOCOL_HEADER, PROTOCOL),
        Some(Upgrade::WebSocket) => (Upgrade::WebSocket, header::SEC_WEBSOCKET_PROTOCOL.as_str(), TUNNEL),
        None => {
            return refuse(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request");
        }
    };
    let offered = offered(&request, name);
    if !offered.iter().any(|o| o == protocol) {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts [{protocol}]"
        );
        return refuse(StatusCode::FORBIDDEN, &text);
    }
    let response = switching(&request, upgrade, Some(protocol));
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(connection) = upgraded.await else { return };
        let connection = TokioIo::new(connection);
        match upgrade {
            Upgrade::Spdy => serve(connection, connect).await,
            Upgrade::WebSocket => {
                let (inside, outside) = tokio::io::duplex(TUNNEL_BUFFER);
                tokio::join!(tunnel(connection, outside), serve(inside, connect));
            }
        }
    });
    response
}

/// Carries bytes between the binary messages of a WebSocket and a plain stream.
async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(connection: S, stream: tokio::io::DuplexStream) {
    let (mut sink, mut source) = websocket::accept(connection).await.split();
    let (mut from, mut to) = tokio::io::split(stream);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) if to.write_all(&bytes).await.is_err() => break,
                Message::Close(_) => break,
                _ => {}
            }
        }
        let _ = to.shutdown().await;
    };
    let outward = async {
        let mut buffer = BytesMut::with_capacity(PIECE);
        loop {
            buffer.reserve(PIECE);
            match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                        break;
                    }
                }
            }
        }
        let _ = sink.close().await;
    };
    tokio::join!(inward, outward);
}

async fn serve<S>(connection: S, connect: Connect)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = spdy::Connection::accept(connection);
    let mut pending: HashMap<String, spdy::Stream> = HashMap::new();
    while let Some(stream) = connection.next_stream().await {
        stream.reply().await;
        let id = stream.header("requestid").unwrap_or("").to_owned();
        let port = stream.header("port").and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0);
        let kind = stream.header("streamtype").unwrap_or("").to_owned();
        if port.is_none() || !(kind == "data" || kind == "error") {
            stream.reset().await;
            continue;
        }
        let Some(other) = pending.remove(&id) else {
            if pending.len() < MAX_PENDING {
                pending.insert(id, stream);
            }
            continue;
        };
        let (data, error) = if kind == "data" { (stream, other) } else { (other, stream) };
        tokio::spawn(forward(data, error, port.unwrap_or_default(), connect.clone()));
    }
}

/// One forwarded connection.
async fn forward(mut data: spdy::Stream, error: spdy::Stream, port: u16, connect: Connect) {
    let errors = error.out();
    match connect(port).await {
        Ok(target) => {
            let (mut from, mut to) = tokio::io::split(target);
            let out = data.out();
            let outward = async {
                carry(&mut from, &out).await;
                let _ = out.end().await;
            };
            let inward = async {
                let Some(mut incoming) = data.take_incoming() else { return };
                while let Some(bytes) = incoming.recv().await {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                let _ = to.shutdown().await;
            };
            tokio::join!(inward, outward);
        }
        Err(failure) => {
            let text = format!("error forwarding port {port}: {failure}");
            let _ = errors.send(text.into()).await;
            let _ = data.out().end().await;
        }
    }
    let _ = errors.end().await;
}

async fn carry(from: &mut (impl AsyncRead + Unpin), out: &Out) {
    let mut buffer = BytesMut::with_capacity(PIECE);
    loop {
        buffer.reserve(PIECE);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) if out.send(buffer.split().freeze()).await.is_err() => return,
            Ok(_) => {}
        }
    }
}
