//! Health checks of load balancers: does this node have endpoints of a Service with the external traffic
//! policy `Local`? Answered over HTTP at the Service's `healthCheckNodePort`.
//!
//! One listener for each port; which ports there are follows the Services. Every path is answered, as the
//! original does. A port that cannot be opened is logged and tried again at the next change.

use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Longest request that is read; balancers send a few hundred bytes.
const REQUEST: usize = 8192;
/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most exchanges at one time on one port.
const MAX_CONNECTIONS: usize = 64;

/// What a port says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub namespace: String,
    pub name: String,
    /// How many endpoints of the Service are on this node.
    pub local_endpoints: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    service: ServiceName<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct ServiceName<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// The open ports.
#[derive(Default)]
pub struct Ports {
    open: BTreeMap<u16, (watch::Sender<Check>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Ports {
    /// Opens, closes and updates ports so that these are open.
    pub async fn set(&mut self, wanted: BTreeMap<u16, Check>) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|port, (_, task)| {
            let keep = wanted.contains_key(port);
            if !keep {
                task.abort();
            }
            keep
        });
        for (port, check) in wanted {
            if let Some((said, _)) = self.open.get(&port) {
                said.send_replace(check);
                continue;
            }
            match listen(port).await {
                Ok(listener) => {
                    let (said, says) = watch::channel(check);
                    let task = self.tasks.spawn(serve(listener, says));
                    self.open.insert(port, (said, task));
                }
                Err(error) => tracing::warn!(port, %error, "cannot open a Service's health check port"),
            }
        }
    }
}

/// Every address of both families, or of the one that there is.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

async fn serve(listener: TcpListener, says: watch::Receiver<Check>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut exchanges = JoinSet::new();
    while let Ok(permit) = permits.clone().acquire_owned().await {
        while exchanges.try_join_next().is_some() {}
        // The client went away while it was waiting.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let reply = reply(&says.borrow());
        exchanges.spawn(async move {
            let _permit = permit;
            if let Ok(Err(error)) = timeout(PATIENCE, exchange(stream, &reply)).await {
                tracing::debug!(%error, "a health check was cut off");
            }
        });
    }
}

async fn exchange(mut stream: TcpStream, reply: &str) -> std::io::Result<()> {
    let mut request = vec![0; REQUEST];
    let mut len = 0;
    while !request[..len].windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut request[len..]).await? {
            0 => return Ok(()),
            n => len += n,
        }
    }
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

fn reply(check: &Check) -> String {
    let status = if check.local_endpoints > 0 { "200 OK" } else { "503 Service Unavailable" };
    let report = Report {
        service: ServiceName { namespace: &check.namespace, name: &check.name },
        local_endpoints: check.local_endpoints,
        service_proxy_healthy: true,
    };
    let body = serde_json::to_string(&report).unwrap_or_default();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        check.local_endpoints,
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_local_endpoint_is_no_health() {
        let check = |n| Check { namespace: "a".into(), name: "web".into(), local_endpoints: n };
        assert!(reply(&check(2)).starts_with("HTTP/1.1 200 OK\r\n"));
        let empty = reply(&check(0));
        assert!(empty.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        let body =
            r#"{"service":{"namespace":"a","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}"#;
        assert!(empty.ends_with(body), "{empty}");
    }
}
