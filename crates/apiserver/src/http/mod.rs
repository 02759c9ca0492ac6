//! The wire: TLS listeners, HTTP/1.1 and HTTP/2, negotiation, answers, streams.
//!
//! Nothing here decides about objects; it turns a request into a [`krate_client::Request`] and an answer
//! into bytes.

mod dispatch;
mod listener;
mod meter;
pub(crate) mod negotiate;
pub(crate) mod proxy;
pub(crate) mod respond;
mod stream;
mod system;
mod table;

pub(crate) use listener::{serve, tls_config};
pub(crate) use meter::Meter;

use async_trait::async_trait;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to a kubelet, a pod or a service.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How the server reaches nodes and pods, which may live in another network namespace.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Connects to an address of the cluster's network.
    async fn dial(&self, address: SocketAddr) -> std::io::Result<Box<dyn Stream>>;
}

/// Connects from where the server runs.
pub struct Direct;

#[async_trait]
impl Dial for Direct {
    async fn dial(&self, address: SocketAddr) -> std::io::Result<Box<dyn Stream>> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
