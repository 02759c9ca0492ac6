//! The server's side of SPDY/3.1, as far as Kubernetes uses it: streams opened by the client, data both ways,
//! half-close, reset, ping, go-away. Flow-control windows are not enforced by the clients that speak it, and
//! not by us.
//!
//! Decodes what comes from outside: every length is bounded, and a malformed frame ends the connection.

pub mod frame;
pub mod headers;

use super::outgoing::{INCOMING, Out, Outgoing, QUEUE};
use bytes::Bytes;
use frame::{Decoder, Frame};
use headers::{Compressor, Decompressor};
use std::collections::HashMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Streams that may wait to be taken by [`Connection::next_stream`].
const BACKLOG: usize = 64;
/// Streams that a connection may have open.
const MAX_STREAMS: usize = 1024;

/// Answers to the client that are not data.
enum Control {
    Reply(u32),
    Reset(u32),
    Pong(u32),
}

/// A connection, after the upgrade.
pub struct Connection {
    streams: mpsc::Receiver<Stream>,
    gone: CancellationToken,
    writer: tokio::task::JoinHandle<()>,
    queue: Option<mpsc::Sender<Outgoing>>,
}

/// A stream that the client opened.
pub struct Stream {
    id: u32,
    headers: Vec<(String, String)>,
    incoming: Option<mpsc::Receiver<Bytes>>,
    queue: mpsc::Sender<Outgoing>,
    control: mpsc::Sender<Control>,
}

impl Connection {
    /// Takes over an upgraded connection.
    pub fn accept<S>(connection: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (from, to) = tokio::io::split(connection);
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let (control, controls) = mpsc::channel(QUEUE);
        let (backlog, streams) = mpsc::channel(BACKLOG);
        let gone = CancellationToken::new();
        let writer = tokio::spawn(write(to, outgoing, controls, gone.clone()));
        let reader = Reader { queue: queue.clone(), control, backlog, open: HashMap::new() };
        let ended = gone.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reader.run(from) => {}
                () = ended.cancelled() => {}
            }
            ended.cancel();
        });
        Self { streams, gone, writer, queue: Some(queue) }
    }

    /// The next stream that the client opens; `None` when the connection has ended.
    pub async fn next_stream(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Cancelled when the connection has ended.
    #[must_use]
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Sends what is queued and ends the connection.
    pub async fn close(mut self) {
        if let Some(queue) = self.queue.take() {
            // A piece of no stream, behind everything else, tells the writer that this was all.
            let _ = queue.send(Outgoing { channel: 0, bytes: Bytes::new(), end: true }).await;
        }
        self.streams.close();
        let _ = self.writer.await;
        self.gone.cancel();
    }
}

impl Stream {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Accepts the stream.
    pub async fn reply(&self) {
        let _ = self.control.send(Control::Reply(self.id)).await;
    }

    /// Refuses the stream.
    pub async fn reset(&self) {
        let _ = self.control.send(Control::Reset(self.id)).await;
    }

    /// The writing side.
    #[must_use]
    pub fn out(&self) -> Out {
        Out::new(self.id, self.queue.clone())
    }

    /// The reading side, once.
    pub fn take_incoming(&mut self) -> Option<mpsc::Receiver<Bytes>> {
        self.incoming.take()
    }
}

struct Reader {
    queue: mpsc::Sender<Outgoing>,
    control: mpsc::Sender<Control>,
    backlog: mpsc::Sender<Stream>,
    open: HashMap<u32, mpsc::Sender<Bytes>>,
}

impl Reader {
    async fn run(mut self, mut from: impl AsyncRead + Unpin) {
        let mut decoder = Decoder::default();
        let mut headers = Decompressor::new();
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    if !self.take(frame, &mut headers).await {
                        return;
                    }
                }
                Ok(None) => match from.read_buf(decoder.buffer()).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                Err(error) => {
                    tracing::debug!(%error, "a SPDY client sent a malformed frame");
                    return;
                }
            }
        }
    }

    /// Handles a frame; false ends the connection.
    async fn take(&mut self, frame: Frame, headers: &mut Decompressor) -> bool {
        match frame {
            Frame::Data { stream, bytes, end } => {
                if let Some(to) = self.open.get(&stream)
                    && !bytes.is_empty()
                {
                    // A reader that ended drops what still comes.
                    let _ = to.send(bytes).await;
                }
                if end {
                    self.open.remove(&stream);
                }
                true
            }
            Frame::SynStream { stream, block, end } => {
                let Ok(headers) = headers.decode(&block) else { return false };
                if self.open.len() >= MAX_STREAMS {
                    return self.control.send(Control::Reset(stream)).await.is_ok();
                }
                let (to, incoming) = mpsc::channel(INCOMING);
                if !end {
                    self.open.insert(stream, to);
                }
                let stream = Stream {
                    id: stream,
                    headers,
                    incoming: Some(incoming),
                    queue: self.queue.clone(),
                    control: self.control.clone(),
                };
                self.backlog.send(stream).await.is_ok()
            }
            // The header compression has one state: blocks that nobody needs are decoded as well.
            Frame::Headers { block } => headers.decode(&block).is_ok(),
            Frame::Reset { stream } => {
                self.open.remove(&stream);
                true
            }
            // Clients' pings have odd numbers; an even one answers a ping of ours, and we send none.
            Frame::Ping { id } => id % 2 == 0 || self.control.send(Control::Pong(id)).await.is_ok(),
            Frame::GoAway => false,
            Frame::Other => true,
        }
    }
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut controls: mpsc::Receiver<Control>,
    gone: CancellationToken,
) {
    let mut compressor = Compressor::new();
    loop {
        let bytes = tokio::select! {
            biased;
            () = gone.cancelled() => return,
            Some(control) = controls.recv() => match control {
                Control::Reply(stream) => frame::syn_reply(stream, &compressor.encode(&[])),
                Control::Reset(stream) => frame::reset(stream),
                Control::Pong(id) => frame::ping(id),
            },
            piece = outgoing.recv() => match piece {
                Some(Outgoing { channel: 0, .. }) | None => break,
                Some(piece) => frame::data(piece.channel, &piece.bytes, piece.end),
            },
        };
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            gone.cancel();
            return;
        }
    }
    let _ = to.write_all(&frame::go_away()).await;
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests;
