//! Channels over a WebSocket: the first byte of a message is the channel's number (its digit, in the base64
//! form). From version 5 on a client closes a channel with the message `255, channel`.

use super::outgoing::Outgoing;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

/// Longest message that a client may send, in bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// By which a client closes a channel.
const CLOSE: u8 = 255;

/// How messages look.
#[derive(Clone, Copy)]
pub struct Wire {
    pub base64: bool,
    pub can_close: bool,
}

/// A server's side of an upgraded connection.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(connection: S) -> WebSocketStream<S> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// Serves channels until the queue of outgoing pieces ends or the client goes, which `gone` is told.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    connection: S,
    wire: Wire,
    mut routes: BTreeMap<u32, mpsc::Sender<Bytes>>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    gone: CancellationToken,
) {
    let (mut sink, mut source) = accept(connection).await.split();
    let (pong_to, mut pongs) = mpsc::channel::<Bytes>(1);
    // Clients take the first message on each channel as the sign that the server is ready.
    let reading = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Ping(bytes) => {
                    let _ = pong_to.try_send(bytes);
                    continue;
                }
                Message::Close(_) => break,
                _ => continue,
            };
            route(&bytes, wire, &mut routes).await;
        }
        gone.cancel();
        std::future::pending::<()>().await;
    };
    let writing = async {
        loop {
            let sent = tokio::select! {
                Some(payload) = pongs.recv() => sink.send(Message::Pong(payload)).await,
                piece = outgoing.recv() => match piece {
                    Some(piece) if piece.end => Ok(()),
                    Some(piece) => sink.send(encode(&piece, wire)).await,
                    None => break,
                },
            };
            if sent.is_err() {
                gone.cancel();
                return;
            }
        }
        // Clients take any other code than that of a normal end as a failure of the streams.
        let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        let _ = sink.send(Message::Close(Some(normal))).await;
        let _ = sink.flush().await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

async fn route(message: &Bytes, wire: Wire, routes: &mut BTreeMap<u32, mpsc::Sender<Bytes>>) {
    let Some((first, rest)) = message.split_first() else { return };
    if wire.can_close && *first == CLOSE {
        if let Some(channel) = rest.first() {
            routes.remove(&u32::from(*channel));
        }
        return;
    }
    let (channel, bytes) = if wire.base64 {
        let Ok(bytes) = STANDARD.decode(rest) else { return };
        (u32::from(first.wrapping_sub(b'0')), Bytes::from(bytes))
    } else {
        (u32::from(*first), message.slice(1..))
    };
    if let Some(to) = routes.get(&channel)
        && !bytes.is_empty()
    {
        // A reader that ended drops what still comes, as a closed pipe does.
        let _ = to.send(bytes).await;
    }
}

fn encode(piece: &Outgoing, wire: Wire) -> Message {
    let channel = u8::try_from(piece.channel).unwrap_or(CLOSE);
    if wire.base64 {
        let text = format!("{}{}", char::from(b'0'.wrapping_add(channel)), STANDARD.encode(&piece.bytes));
        return Message::Text(Utf8Bytes::from(text));
    }
    let mut bytes = BytesMut::with_capacity(piece.bytes.len() + 1);
    bytes.put_u8(channel);
    bytes.extend_from_slice(&piece.bytes);
    Message::Binary(bytes.freeze())
}
