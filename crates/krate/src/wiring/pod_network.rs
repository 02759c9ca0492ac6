//! The pod network behind the runtime's trait. A node's range of pod addresses is given by the controllers; the
//! first sandbox waits for it.

use async_trait::async_trait;
use krate_api::types::core::v1::Node;
use krate_client::{Informers, Source};
use krate_network::PodNetwork;
use krate_network::link::edge::{Egress, HostPort};
use krate_network::link::{Config, routes::NodeView};
use krate_network::views::Protocol;
use krate_runtime::cri::{self, Error, PodSandboxConfig, PortMapping};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, watch};

/// Largest packet between pods, in bytes: that of the link between the nodes.
const MTU: u32 = 1500;
/// How long a sandbox waits for the node's range before it is reported as failed (and tried again).
const RANGE_TIMEOUT: Duration = Duration::from_secs(30);

pub struct SandboxNetwork {
    network: OnceCell<PodNetwork>,
    ranges: watch::Receiver<Vec<krate_network::Cidr>>,
    egress: Egress,
    state_dir: PathBuf,
}

impl SandboxNetwork {
    pub fn new(node: &str, informers: &Informers, egress: Egress, state_dir: PathBuf) -> Self {
        let (told, ranges) = watch::channel(Vec::new());
        let nodes = informers.get::<NodeView>(Source::of::<Node>());
        let own = node.to_owned();
        nodes.subscribe(move |_, new: Option<&Arc<NodeView>>| {
            if let Some(node) = new.filter(|n| n.name == own && !n.pod_cidrs.is_empty()) {
                told.send_if_modified(|known| {
                    let news = *known != node.pod_cidrs;
                    known.clone_from(&node.pod_cidrs);
                    news
                });
            }
        });
        Self { network: OnceCell::new(), ranges, egress, state_dir }
    }

    async fn network(&self) -> cri::Result<&PodNetwork> {
        self.network
            .get_or_try_init(|| async {
                let mut ranges = self.ranges.clone();
                let wait = tokio::time::timeout(RANGE_TIMEOUT, ranges.wait_for(|r| !r.is_empty()));
                let pod_cidrs = match wait.await {
                    Ok(Ok(ranges)) => ranges.clone(),
                    _ => {
                        return Err(Error::Unavailable(
                            "the node has no range of pod addresses yet".to_owned(),
                        ));
                    }
                };
                let config = Config { pod_cidrs, mtu: MTU, state_dir: self.state_dir.clone() };
                PodNetwork::with_egress(config, self.egress.clone())
                    .await
                    .map_err(|e| Error::Internal(e.to_string()))
            })
            .await
    }
}

#[async_trait]
impl cri::SandboxNetwork for SandboxNetwork {
    async fn attach(
        &self,
        sandbox_id: &str,
        netns: &str,
        config: &PodSandboxConfig,
    ) -> cri::Result<Vec<IpAddr>> {
        let ports: cri::Result<Vec<HostPort>> =
            config.port_mappings.iter().filter(|m| m.host_port > 0).map(host_port).collect();
        let network = self.network().await?;
        let attached = network.attach_with_ports(sandbox_id, Path::new(netns), &ports?).await;
        attached.map_err(|e| Error::Internal(e.to_string()))
    }

    async fn detach(&self, sandbox_id: &str, _: &str, _: &PodSandboxConfig) -> cri::Result<()> {
        let network = self.network().await?;
        network.detach(sandbox_id).await.map_err(|e| Error::Internal(e.to_string()))
    }
}

fn host_port(mapping: &PortMapping) -> cri::Result<HostPort> {
    let port = |n: i32| u16::try_from(n).map_err(|_| Error::InvalidArgument(format!("{n} is not a port")));
    let host_ip = match mapping.host_ip.as_str() {
        "" | "0.0.0.0" | "::" => None,
        text => {
            Some(text.parse().map_err(|_| Error::InvalidArgument(format!("{text:?} is not an address")))?)
        }
    };
    Ok(HostPort {
        protocol: match mapping.protocol {
            cri::Protocol::Tcp => Protocol::Tcp,
            cri::Protocol::Udp => Protocol::Udp,
            cri::Protocol::Sctp => Protocol::Sctp,
        },
        host_ip,
        host_port: port(mapping.host_port)?,
        container_port: port(mapping.container_port)?,
    })
}
