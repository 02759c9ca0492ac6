//! Carrying bytes between a client's channels and a running command, whatever protocol the channels are of.

use super::outgoing::{Out, PIECE};
use super::status::{End, encode};
use crate::cri::{Result, Session};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A client's channels. An absent one was not asked for.
pub struct Channels {
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub stdout: Option<Out>,
    pub stderr: Option<Out>,
    pub error: Out,
    pub resize: Option<mpsc::Receiver<Bytes>>,
    /// Whether the error channel carries a `Status` (protocol version 4 and later).
    pub structured: bool,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
}

/// Runs a command for a client until it ends or the client goes. The status is sent after the last output.
pub async fn run(channels: Channels, start: impl Future<Output = Result<Session>>) {
    let gone = channels.gone.clone();
    tokio::select! {
        () = gone.cancelled() => {}
        () = serve(channels, start) => {}
    }
}

async fn serve(channels: Channels, start: impl Future<Output = Result<Session>>) {
    let Channels { stdin, stdout, stderr, error, resize, structured, .. } = channels;
    let end = match start.await {
        Ok(session) => {
            let input = carry_in(stdin, session.stdin);
            let sizes = carry_sizes(resize, session.resize);
            let outputs = async {
                tokio::join!(
                    carry_out(session.stdout, stdout.as_ref()),
                    carry_out(session.stderr, stderr.as_ref())
                );
            };
            let finished = async {
                let (code, ()) = tokio::join!(session.exit, outputs);
                code
            };
            let side = async {
                tokio::join!(input, sizes);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                code = finished => match code {
                    Ok(code) => End::Exited(code),
                    Err(error) => End::Failed(error),
                },
                () = side => return,
            }
        }
        Err(error) => End::Failed(error),
    };
    if let Some(bytes) = encode(&end, structured) {
        // A client that is gone needs no status.
        let _ = error.send(bytes.into()).await;
    }
    for out in [stdout, stderr, Some(error)].into_iter().flatten() {
        let _ = out.end().await;
    }
}

async fn carry_in(
    from: Option<mpsc::Receiver<Bytes>>,
    to: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            // The process closed its input; what the client still sends is dropped, as by a pipe.
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn carry_out(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: Option<&Out>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    let mut buffer = BytesMut::with_capacity(PIECE);
    loop {
        buffer.reserve(PIECE);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if to.send(buffer.split().freeze()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Terminal sizes come as JSON objects, one after another: `{"Width":80,"Height":24}`.
async fn carry_sizes(from: Option<mpsc::Receiver<Bytes>>, to: Option<mpsc::Sender<(u16, u16)>>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    while let Some(bytes) = from.recv().await {
        for size in serde_json::Deserializer::from_slice(&bytes).into_iter::<serde_json::Value>() {
            let Ok(size) = size else { break };
            let side = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
            if let (Some(width), Some(height)) = (side("Width"), side("Height"))
                && to.send((width, height)).await.is_err()
            {
                return;
            }
        }
    }
}
