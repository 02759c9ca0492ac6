//! What goes to the client: pieces of numbered channels (streams, in SPDY), through one bounded queue that
//! the connection's writer empties.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces that wait for the connection.
pub const QUEUE: usize = 32;
/// Pieces of one channel that wait for their reader.
pub const INCOMING: usize = 32;
/// Longest piece that is read from a process at a time, in bytes.
pub const PIECE: usize = 32 << 10;

/// One piece, or the end of a channel.
pub struct Outgoing {
    pub channel: u32,
    pub bytes: Bytes,
    pub end: bool,
}

/// The writing side of one channel.
#[derive(Clone)]
pub struct Out {
    channel: u32,
    queue: mpsc::Sender<Outgoing>,
}

/// The client is gone.
#[derive(Debug)]
pub struct Gone;

impl Out {
    pub fn new(channel: u32, queue: mpsc::Sender<Outgoing>) -> Self {
        Self { channel, queue }
    }

    pub async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.queue.send(Outgoing { channel: self.channel, bytes, end: false }).await.map_err(|_| Gone)
    }

    pub async fn end(&self) -> Result<(), Gone> {
        self.queue
            .send(Outgoing { channel: self.channel, bytes: Bytes::new(), end: true })
            .await
            .map_err(|_| Gone)
    }
}
