//! The servers of exec, attach and port-forward: WebSocket and SPDY/3.1 above the runtime's streams.
//!
//! A caller with an HTTP request hands it to [`remote_command`] or [`port_forward`] and sends back the
//! response that it gets (a 101, or a refusal); the streams are served by a task of their own once the
//! connection is upgraded. Knows no pod: what runs is behind the futures that the caller gives.
//!
//! Protocols: `k8s.io/apimachinery/pkg/util/remotecommand` (versions 1 to 5), KEP-4006 for WebSockets.

mod command;
mod forward;
mod outgoing;
mod session;
pub mod spdy;
mod status;
mod websocket;

pub use command::{flags, remote_command};
pub use forward::port_forward;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;

/// The header by which both sides name the protocol inside SPDY.
const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

/// How the connection is to be upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    Spdy,
    WebSocket,
}

fn upgrade_of<B>(request: &Request<B>) -> Option<Upgrade> {
    let value = request.headers().get(header::UPGRADE)?.to_str().ok()?.to_ascii_lowercase();
    match value.as_str() {
        "websocket" => Some(Upgrade::WebSocket),
        "spdy/3.1" => Some(Upgrade::Spdy),
        _ => None,
    }
}

/// The protocols that the client offers, in its order.
fn offered<B>(request: &Request<B>, name: &str) -> Vec<String> {
    let values = request.headers().get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

/// A refusal in plain text, as the kubelet's streaming server answers.
fn refuse(code: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The 101 of an upgrade, with the protocol that was chosen.
fn switching<B>(request: &Request<B>, upgrade: Upgrade, protocol: Option<&str>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let protocol = protocol.and_then(|p| HeaderValue::from_str(p).ok());
    match upgrade {
        Upgrade::Spdy => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            if let Some(protocol) = protocol {
                headers.insert(PROTOCOL_HEADER, protocol);
            }
        }
        Upgrade::WebSocket => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            let key = request
                .headers()
                .get(header::SEC_WEBSOCKET_KEY)
                .map(HeaderValue::as_bytes)
                .unwrap_or_default();
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key);
            if let Ok(accept) = HeaderValue::from_str(&accept) {
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            }
            if let Some(protocol) = protocol {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            }
        }
    }
    response
}
