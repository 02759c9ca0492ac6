//! The cluster's DNS, answered on every node from the informers' caches.
//!
//! [`zone`] knows the names (pure), [`wire`] turns a request's bytes into a reply's (pure), [`server`] and
//! [`forward`] hold the sockets. Names follow the Kubernetes DNS specification 1.1.0:
//! <https://github.com/kubernetes/dns/blob/master/docs/specification.md>. Names outside of the cluster's
//! domain go to the configured upstreams; without upstreams they are refused at once, and nothing is ever
//! asked of anybody.

mod forward;
mod server;
pub mod wire;
pub mod zone;

pub use forward::{Upstreams, resolvers};

use crate::link::{self, rtnl::Rtnl};
use crate::proxy::layout::SERVICE_LINK;
use crate::views::{NamespaceView, ServiceView, SliceView};
use hickory_proto::rr::Name;
use krate_api::object::key;
use krate_api::types::core::v1::{Namespace, Service};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown};
use krate_client::{Index, Informer, Informers, Source};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use zone::{Records, Zone};

/// The port of DNS.
const PORT: u16 = 53;

/// What a DNS server is made of.
#[derive(Clone)]
pub struct Config {
    pub informers: Informers,
    pub clock: Clock,
    pub rng: Rng,
    pub metrics: Metrics,
    /// The cluster's domain: `cluster.local`.
    pub domain: String,
    /// Service addresses that this node is to answer at: they are made its own, and served at port 53.
    pub addresses: Vec<IpAddr>,
    /// Further addresses to serve, which exist already.
    pub listen: Vec<SocketAddr>,
    /// Who is asked for names outside of the cluster's domain, in this order.
    pub upstreams: Vec<SocketAddr>,
}

/// Why the server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster domain {0:?} is not a domain name")]
    Domain(String),
    #[error(transparent)]
    Link(#[from] link::Error),
    #[error("serve DNS at {address}: {source}")]
    Socket { address: SocketAddr, source: std::io::Error },
    #[error("DNS task: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The DNS server of one node.
pub struct Dns {
    config: Config,
    caches: Caches,
}

impl Dns {
    /// Subscribes to what the answers are made of.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let caches = Caches::new(&config.informers);
        Self { config, caches }
    }

    /// Serves until shutdown. Requests that come before the caches are filled wait.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { config, caches } = self;
        let domain = Name::from_ascii(&config.domain).map_err(|_| Error::Domain(config.domain.clone()))?;
        let own = config.addresses.clone();
        link::netns::here(move || assign(&own)).await?;
        let at_port = config.addresses.iter().map(|ip| SocketAddr::new(*ip, PORT));
        let listen: Vec<SocketAddr> = at_port.chain(config.listen.iter().copied()).collect();
        let sockets = server::bind(&listen).await?;
        let upstreams = config.upstreams.iter().filter(|u| !listen.contains(u)).copied().collect();
        let zone = Zone::new(&domain, &config.addresses, config.clock.now().as_second());
        let answerer = Arc::new(server::Answerer {
            zone,
            caches,
            upstreams: forward::Upstreams::new(upstreams, config.rng.clone()),
            rng: config.rng,
            metrics: config.metrics,
        });
        let serve = async {
            answerer.caches.synced().await;
            server::serve(sockets, &answerer).await
        };
        shutdown.run_until_cancelled(serve).await.unwrap_or(Ok(()))
    }
}

/// Makes the service addresses the node's own, so that packets to them end here.
fn assign(addresses: &[IpAddr]) -> Result<(), link::Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    let rtnl = Rtnl::open()?;
    rtnl.add_island(SERVICE_LINK)?;
    let index = rtnl.link_index(SERVICE_LINK)?;
    rtnl.set_up(index)?;
    addresses.iter().try_for_each(|address| rtnl.add_address(index, *address))
}

/// The informers behind the answers.
struct Caches {
    namespaces: Informer<NamespaceView>,
    services: Informer<ServiceView>,
    slices: Informer<SliceView>,
    by_cluster_ip: Index<ServiceView>,
    by_service: Index<SliceView>,
    by_address: Index<SliceView>,
}

impl Caches {
    fn new(informers: &Informers) -> Self {
        let services = informers.get::<ServiceView>(Source::of::<Service>());
        let slices = informers.get::<SliceView>(Source::of::<EndpointSlice>());
        Self {
            namespaces: informers.get(Source::of::<Namespace>()),
            by_cluster_ip: services.index("cluster-ip", |s: &ServiceView| {
                s.cluster_ips.iter().map(ToString::to_string).collect()
            }),
            by_service: slices.index("service", |s: &SliceView| s.service_key().into_iter().collect()),
            by_address: slices.index("address", |s: &SliceView| {
                s.endpoints.iter().flat_map(|e| &e.addresses).map(ToString::to_string).collect()
            }),
            services,
            slices,
        }
    }

    async fn synced(&self) {
        self.namespaces.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
    }
}

impl Records for Caches {
    fn namespace(&self, name: &str) -> bool {
        self.namespaces.get(name).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceView>> {
        self.services.get(&key(namespace, name))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<SliceView>> {
        self.by_service.get(&key(namespace, service))
    }

    fn services_at(&self, address: IpAddr) -> Vec<Arc<ServiceView>> {
        self.by_cluster_ip.get(&address.to_string())
    }

    fn slices_with(&self, address: IpAddr) -> Vec<Arc<SliceView>> {
        self.by_address.get(&address.to_string())
    }
}
