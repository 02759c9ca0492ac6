//! A body that only flows to the client, over a WebSocket: each piece of it is one message. So browsers and old
//! clients read logs.
//!
//! Protocols as the original has them: `binary.k8s.io` (and none at all) sends the bytes, `base64.binary.k8s.io`
//! sends them as text. What the client says is read only to answer pings and to see it leave.

use crate::http::respond::{self, Body};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use krate_api::Status;
use krate_api::status::Reason;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// A client that wants the answer as messages.
pub(super) struct Socket {
    client: OnUpgrade,
    accept: String,
    /// As the client offered it; none if it offered nothing.
    protocol: Option<&'static str>,
}

impl Socket {
    /// Takes a WebSocket's upgrade out of a request, so that what is left is a plain one.
    pub fn take<B>(request: &mut Request<B>) -> Result<Option<Self>, Status> {
        let asked = request.headers().get(UPGRADE).and_then(|v| v.to_str().ok());
        if !asked.is_some_and(|v| v.eq_ignore_ascii_case("websocket")) {
            return Ok(None);
        }
        let protocol = choose(request.headers())?;
        let key = request.headers().get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        let accept = derive_accept_key(key);
        let client = hyper::upgrade::on(&mut *request);
        request.headers_mut().remove(UPGRADE);
        Ok(Some(Self { client, accept, protocol }))
    }

    /// Answers with the switch, and sends the body once it has happened.
    pub fn send(self, body: Body) -> Response<Body> {
        let mut response = Response::new(respond::full(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        let text = self.protocol == Some(BASE64);
        tokio::spawn(async move {
            let Ok(connection) = self.client.await else { return };
            let connection = TokioIo::new(connection);
            let (sink, source) =
                WebSocketStream::from_raw_socket(connection, Role::Server, None).await.split();
            tokio::select! {
                () = gone(source) => {}
                () = write(sink, body, text) => {}
            }
        });
        response
    }
}

/// The protocol to speak: the first of ours that the client offers.
fn choose(headers: &HeaderMap) -> Result<Option<&'static str>, Status> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let offered: Vec<&str> =
        values.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect();
    match offered.iter().find_map(|o| [BINARY, BASE64].into_iter().find(|p| p == o)) {
        Some(protocol) => Ok(Some(protocol)),
        None if offered.is_empty() => Ok(None),
        None => Err(Status::failure(
            Reason::Forbidden,
            format!("unable to upgrade: unable to negotiate protocol: client supports {offered:?}"),
        )),
    }
}

/// Ends when the client leaves.
async fn gone<S, E>(mut source: S)
where
    S: Stream<Item = Result<Message, E>> + Unpin,
{
    while let Some(Ok(message)) = source.next().await {
        if message.is_close() {
            return;
        }
    }
}

async fn write<S: Sink<Message> + Unpin>(mut sink: S, mut body: Body, text: bool) {
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes) = frame.into_data() else { continue };
        let message = match text {
            true => Message::Text(Utf8Bytes::from(STANDARD.encode(&bytes))),
            false => Message::Binary(bytes),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    // A client that is gone needs no farewell.
    if sink.send(Message::Close(Some(normal))).await.is_ok() {
        let _ = sink.flush().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offering(protocols: &str) -> Result<Option<&'static str>, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocols).unwrap());
        choose(&headers)
    }

    #[test]
    fn the_first_known_protocol_is_spoken() {
        assert_eq!(offering("binary.k8s.io").unwrap(), Some(BINARY));
        assert_eq!(offering("strange, base64.binary.k8s.io,binary.k8s.io").unwrap(), Some(BASE64));
        assert_eq!(offering("").unwrap(), None);
        assert_eq!(offering("strange").unwrap_err().code(), 403);
    }

    #[tokio::test]
    async fn each_piece_is_a_message() {
        let (here, there) = tokio::io::duplex(1024);
        let server = WebSocketStream::from_raw_socket(here, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(there, Role::Client, None).await;
        let (sink, _source) = server.split();
        write(sink, respond::full(Bytes::from_static(b"alive\n")), false).await;
        let message = client.next().await.unwrap().unwrap();
        assert_eq!(message.into_data(), Bytes::from_static(b"alive\n"));
        assert!(client.next().await.unwrap().unwrap().is_close());
    }
}
