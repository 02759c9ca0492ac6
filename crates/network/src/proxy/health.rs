//! Health checks of load balancers: does this node have endpoints of a Service with the external traffic
//! policy `Local`? Answered over HTTP at the Service's `healthCheckNodePort`.
//!
//! One listener for each port; which ports there are follows the Services. Every path is answered, as the
//! original does. A port that cannot be opened is told in an event of the Service and tried again at the next change.

use super::healthz::Health;
use super::http::{self, Reply};
use krate_client::{Recorder, Reference};
use std::collections::BTreeMap;
use std::io;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What a port says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub namespace: String,
    pub name: String,
    /// How many endpoints of the Service are on this node.
    pub local_endpoints: usize,
}

/// The open ports.
pub struct Ports {
    health: Health,
    recorder: Recorder,
    node: String,
    wanted: usize,
    open: BTreeMap<u16, (watch::Sender<Check>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Ports {
    #[must_use]
    pub fn new(health: Health, recorder: Recorder, node: &str) -> Self {
        Self {
            health,
            recorder,
            node: node.to_owned(),
            wanted: 0,
            open: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Whether every port that should be open is.
    #[must_use]
    pub fn are_open(&self) -> bool {
        self.open.len() == self.wanted
    }

    /// Opens, closes and updates ports so that these are open.
    pub async fn set(&mut self, wanted: BTreeMap<u16, Check>) {
        self.wanted = wanted.len();
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
            match http::listen(port).await {
                Err(error) => self.tell(port, &check, &error),
                Ok(listener) => {
                    let (said, says) = watch::channel(check);
                    let health = self.health.clone();
                    let answer = move |_: &str| reply(&says.borrow(), health.is_healthy());
                    let task = self.tasks.spawn(http::serve(listener, answer));
                    self.open.insert(port, (said, task));
                }
            }
        }
    }

    /// Says at the Service why its port is not open, in the original's words.
    fn tell(&self, port: u16, check: &Check, error: &io::Error) {
        tracing::warn!(port, %error, "cannot open a Service's health check port");
        let Check { namespace, name, .. } = check;
        let service = format!("{namespace}/{name}");
        let about = Reference {
            kind: Some("Service".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: Some(service.clone()),
            ..Reference::default()
        };
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "address already in use".to_owned(),
            _ => error.to_string(),
        };
        let listen = format!("listen tcp :{port}: bind: {why}");
        let node = &self.node;
        let text = format!("node {node} failed to start healthcheck {service:?} on port {port}: {listen}");
        self.recorder.warning(&about, "FailedToStartServiceHealthcheck", text);
    }
}

/// In the form of the original, to the last space: balancers compare texts.
fn reply(check: &Check, proxy_is_healthy: bool) -> Reply {
    let Check { namespace, name, local_endpoints } = check;
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\
         \"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {proxy_is_healthy}\n}}"
    );
    let headers = format!("X-Load-Balancing-Endpoint-Weight: {local_endpoints}\r\n");
    Reply { headers, ..Reply::health(*local_endpoints > 0 && proxy_is_healthy, body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_local_endpoint_is_no_health() {
        let check = |n| Check { namespace: "a".into(), name: "web".into(), local_endpoints: n };
        let well = reply(&check(2), true);
        assert_eq!(
            (well.status, well.headers.as_str()),
            ("200 OK", "X-Load-Balancing-Endpoint-Weight: 2\r\n")
        );
        assert_eq!(reply(&check(2), false).status, "503 Service Unavailable");
        let empty = reply(&check(0), true);
        assert_eq!(empty.status, "503 Service Unavailable");
        let body = r#"{
	"service": {
		"namespace": "a",
		"name": "web"
	},
	"localEndpoints": 0,
	"serviceProxyHealthy": true
}"#;
        assert_eq!(empty.body, body);
    }
}
