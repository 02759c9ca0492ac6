//! Port-forward: a pair of streams for each forwarded connection, one for data and one for errors. They are SPDY
//! streams, on a connection of their own or tunnelled through a WebSocket (KEP-4006), or, as clients in Python and
//! JavaScript have it, pairs of a WebSocket's channels, one pair for each port that the query names.

use super::outgoing::{INCOMING, Out, PIECE, QUEUE};
use super::{PROTOCOL_HEADER, Upgrade, offered, refuse, spdy, switching, upgrade_of, websocket};
use crate::cri::{self, Duplex};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// The one protocol inside SPDY.
const PROTOCOL: &str = "portforward.k8s.io";
/// SPDY carried in the binary messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Pairs of channels, in bytes and as text. A client that offers nothing means the first.
const CHANNELS: [&str; 2] = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
/// How the query names the ports of the channels: as the kubelet has it.
const PORT: &str = "port";
/// Bytes in flight between a WebSocket and the SPDY connection inside.
const TUNNEL_BUFFER: usize = 64 << 10;
/// Half pairs of streams that may wait for their other half.
const MAX_PENDING: usize = 256;

/// Opens a connection to a port of the pod.
pub type Connect = Arc<dyn Fn(u16) -> BoxFuture<'static, cri::Result<Box<dyn Duplex>>> + Send + Sync>;

/// How the client's streams come.
enum Form {
    Spdy,
    Tunnel,
    Channels { base64: bool, ports: Vec<u16> },
}

/// Answers a port-forward request.
pub fn port_forward(mut request: Request<Incoming>, connect: Connect) -> Response<Full<Bytes>> {
    let Some(upgrade) = upgrade_of(&request) else {
        return refuse(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request");
    };
    let (form, protocol) = match negotiate(&request, upgrade) {
        Ok(negotiated) => negotiated,
        Err((code, text)) => return refuse(code, &text),
    };
    let response = switching(&request, upgrade, protocol);
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(connection) = upgraded.await else { return };
        let connection = TokioIo::new(connection);
        match form {
            Form::Spdy => serve(connection, connect).await,
            Form::Tunnel => {
                let (inside, outside) = tokio::io::duplex(TUNNEL_BUFFER);
                tokio::join!(tunnel(connection, outside), serve(inside, connect));
            }
            Form::Channels { base64, ports } => channels(connection, base64, &ports, &connect).await,
        }
    });
    response
}

/// The form of the streams, and the protocol to confirm; or the refusal.
fn negotiate<B>(
    request: &Request<B>,
    upgrade: Upgrade,
) -> Result<(Form, Option<&'static str>), (StatusCode, String)> {
    let (header, supported): (&str, &[&'static str]) = match upgrade {
        Upgrade::Spdy => (PROTOCOL_HEADER, &[PROTOCOL]),
        Upgrade::WebSocket => (header::SEC_WEBSOCKET_PROTOCOL.as_str(), &[TUNNEL, CHANNELS[0], CHANNELS[1]]),
    };
    let offered = offered(request, header);
    let chosen = offered.iter().find_map(|o| supported.iter().copied().find(|p| p == o));
    let form = match (upgrade, chosen) {
        (Upgrade::Spdy, Some(_)) => Form::Spdy,
        (Upgrade::WebSocket, Some(TUNNEL)) => Form::Tunnel,
        (Upgrade::WebSocket, chosen) if chosen.is_some() || offered.is_empty() => {
            let ports = ports(request.uri().query().unwrap_or_default());
            let ports = ports.map_err(|text| (StatusCode::BAD_REQUEST, text))?;
            Form::Channels { base64: chosen == Some(CHANNELS[1]), ports }
        }
        _ => {
            let text = format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {supported:?}"
            );
            return Err((StatusCode::FORBIDDEN, text));
        }
    };
    Ok((form, chosen))
}

/// The ports that a query names, each as often as it does.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let values: Vec<String> =
        pairs.filter(|(name, _)| *name == PORT).map(|(_, value)| value.replace("%2C", ",")).collect();
    if values.is_empty() {
        return Err(format!("query parameter {PORT:?} is required"));
    }
    let mut ports = Vec::new();
    for text in &values {
        if text.is_empty() {
            return Err(format!("query parameter {PORT:?} cannot be empty"));
        }
        for one in text.split(',') {
            let is_number = !one.is_empty() && one.bytes().all(|b| b.is_ascii_digit());
            let fault = if is_number { "value out of range" } else { "invalid syntax" };
            let port: u16 = one.parse().map_err(|_| {
                format!("unable to parse {text:?} as a port: strconv.ParseUint: parsing {one:?}: {fault}")
            })?;
            if port == 0 {
                return Err(format!("port {text:?} must be > 0"));
            }
            ports.push(port);
        }
    }
    Ok(ports)
}

/// Two channels for each port, the even one for data and the next for errors. What comes first on each is the port, in
/// two bytes, the lower one first. The connection ends with the last of them.
async fn channels<S>(connection: S, base64: bool, ports: &[u16], connect: &Connect)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (queue, outgoing) = mpsc::channel(QUEUE);
    let gone = CancellationToken::new();
    let (mut routes, mut pairs) = (BTreeMap::new(), Vec::new());
    for (channel, port) in (0u32..).step_by(2).zip(ports.iter().copied()) {
        let (to, incoming) = mpsc::channel(INCOMING);
        routes.insert(channel, to);
        let [data, error] = [channel, channel + 1].map(|number| Out::new(number, queue.clone()));
        let gone = gone.clone();
        pairs.push(async move {
            let name = Bytes::copy_from_slice(&port.to_le_bytes());
            if data.send(name.clone()).await.is_ok() && error.send(name).await.is_ok() {
                forward(Some(incoming), data, error, port, connect.clone(), Some(gone)).await;
            }
        });
    }
    drop(queue);
    let wire = websocket::Wire { base64, can_close: false };
    let server = tokio::spawn(websocket::serve(connection, wire, routes, outgoing, gone));
    futures::future::join_all(pairs).await;
    // The server flushes what is queued and closes.
    let _ = server.await;
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
        let (mut data, error) = if kind == "data" { (stream, other) } else { (other, stream) };
        let (connect, port) = (connect.clone(), port.unwrap_or_default());
        tokio::spawn(async move {
            let incoming = data.take_incoming();
            forward(incoming, data.out(), error.out(), port, connect, None).await;
        });
    }
}

/// One forwarded connection. Where the client cannot end its half by itself, it is over when the pod has sent all that
/// it will, or when the client is `gone`, whose last words still reach the pod.
async fn forward(
    incoming: Option<mpsc::Receiver<Bytes>>,
    data: Out,
    errors: Out,
    port: u16,
    connect: Connect,
    gone: Option<CancellationToken>,
) {
    match connect(port).await {
        Ok(target) => {
            let (mut from, mut to) = tokio::io::split(target);
            let outward = async {
                carry(&mut from, &data).await;
                let _ = data.end().await;
            };
            let inward = async {
                let Some(mut incoming) = incoming else { return };
                while let Some(bytes) = next(&mut incoming, gone.as_ref()).await {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                let _ = to.shutdown().await;
            };
            match &gone {
                None => _ = tokio::join!(inward, outward),
                Some(gone) => tokio::select! {
                    () = outward => {}
                    () = async { tokio::join!(inward, gone.cancelled()); } => {}
                },
            }
        }
        Err(failure) => {
            let text = format!("error forwarding port {port}: {failure}");
            let _ = errors.send(text.into()).await;
            let _ = data.end().await;
        }
    }
    let _ = errors.end().await;
}

/// The next piece from the client; none when it has ended its half or, with all that it sent read, is gone.
async fn next(incoming: &mut mpsc::Receiver<Bytes>, gone: Option<&CancellationToken>) -> Option<Bytes> {
    let Some(gone) = gone else { return incoming.recv().await };
    tokio::select! {
        biased;
        bytes = incoming.recv() => bytes,
        () = gone.cancelled() => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    fn asked(query: &str, protocols: &str) -> Result<(Form, Option<&'static str>), (StatusCode, String)> {
        let mut request = Request::get(format!("/portForward/default/p?{query}"));
        if !protocols.is_empty() {
            request = request.header("sec-websocket-protocol", protocols);
        }
        negotiate(&request.body(()).unwrap(), Upgrade::WebSocket)
    }

    #[test]
    fn the_clients_first_known_form_is_spoken() {
        let spoken = |query, protocols| match asked(query, protocols).map_err(|(code, _)| code) {
            Ok((Form::Channels { base64, ports }, protocol)) => format!("{base64} {ports:?} {protocol:?}"),
            Ok((Form::Tunnel, protocol)) => format!("tunnel {protocol:?}"),
            Ok((Form::Spdy, _)) => "spdy".to_owned(),
            Err(code) => code.as_u16().to_string(),
        };
        assert_eq!(spoken("", "SPDY/3.1+portforward.k8s.io"), "tunnel Some(\"SPDY/3.1+portforward.k8s.io\")");
        let both = "v5.channel.k8s.io, v4.channel.k8s.io";
        assert_eq!(spoken("port=80,81", both), "false [80, 81] Some(\"v4.channel.k8s.io\")");
        assert_eq!(spoken("port=80&port=8", CHANNELS[1]), "true [80, 8] Some(\"v4.base64.channel.k8s.io\")");
        assert_eq!(spoken("port=80", ""), "false [80] None");
        assert_eq!(spoken("port=80", "v5.channel.k8s.io"), "403");
        let refused = |query| asked(query, "").map(drop).unwrap_err().1;
        assert_eq!(refused("a=b"), "query parameter \"port\" is required");
        assert_eq!(refused("port="), "query parameter \"port\" cannot be empty");
        assert_eq!(refused("port=0"), "port \"0\" must be > 0");
        let unreadable =
            "unable to parse \"1,x\" as a port: strconv.ParseUint: parsing \"x\": invalid syntax";
        assert_eq!(refused("port=1,x"), unreadable);
    }

    #[tokio::test]
    async fn each_port_has_a_channel_for_data_and_one_for_errors() {
        let (here, there) = tokio::io::duplex(1 << 12);
        let connect: Connect = Arc::new(|port| {
            Box::pin(async move {
                if port != 80 {
                    return Err(cri::Error::Unavailable("connection refused".to_owned()));
                }
                let (near, mut far) = tokio::io::duplex(64);
                tokio::spawn(async move {
                    let mut word = [0; 4];
                    far.read_exact(&mut word).await.unwrap();
                    far.write_all(&word).await.unwrap();
                });
                Ok(Box::new(near) as Box<dyn Duplex>)
            })
        });
        let server = tokio::spawn(async move { channels(there, false, &[80, 81], &connect).await });
        let mut client = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
        client.send(Message::Binary(Bytes::from_static(b"\x00ping"))).await.unwrap();
        let mut heard: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        while let Some(Ok(Message::Binary(message))) = client.next().await {
            heard.entry(message[0]).or_default().extend_from_slice(&message[1..]);
        }
        server.await.unwrap();
        assert_eq!(heard[&0], b"\x50\x00ping", "the port, then what the pod says");
        assert_eq!(heard[&1], b"\x50\x00");
        assert_eq!(heard[&2], b"\x51\x00");
        assert!(String::from_utf8_lossy(&heard[&3]).starts_with("Q\0error forwarding port 81: "));
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_what_it_forwarded() {
        let (here, there) = tokio::io::duplex(1 << 12);
        let (ended, end) = tokio::sync::oneshot::channel();
        let ended = Arc::new(parking_lot::Mutex::new(Some(ended)));
        let connect: Connect = Arc::new(move |_| {
            let ended = ended.lock().take();
            Box::pin(async move {
                let (near, mut far) = tokio::io::duplex(64);
                tokio::spawn(async move {
                    let mut all = Vec::new();
                    let _ = far.read_to_end(&mut all).await;
                    ended.map(|ended| ended.send(all))
                });
                Ok(Box::new(near) as Box<dyn Duplex>)
            })
        });
        let server = tokio::spawn(async move { channels(there, true, &[80], &connect).await });
        let mut client = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
        client.send(Message::text("0aGVsbG8=")).await.unwrap();
        client.close(None).await.unwrap();
        while client.next().await.is_some() {}
        server.await.unwrap();
        assert_eq!(end.await.unwrap(), b"hello");
    }
}
