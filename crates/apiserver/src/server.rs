//! The server as a value: its configuration, what its parts share, and its public doors.

use crate::admission::Chain;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::codec::Encoder;
use crate::pki::Authority;
use crate::user::UserInfo;
use crate::{authz, bootstrap, http, local};
use krate_api::{Catalogue, Kind, Resource, Shared, Status};
use krate_base::{Clock, Rng, Shutdown, metrics::Metrics};
use krate_client::Transport;
use krate_store::{Key, ListQuery, Store};
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long an event object lives.
pub const EVENT_TTL: Duration = Duration::from_secs(60 * 60);

/// Where Services take their addresses and ports from.
#[derive(Clone, Debug)]
pub struct ServiceRanges {
    /// `10.96.0.0/12`; a second one of the other family makes Services dual-stack.
    pub cidrs: Vec<String>,
    pub node_ports: std::ops::RangeInclusive<u16>,
}

impl Default for ServiceRanges {
    fn default() -> Self {
        Self { cidrs: vec!["10.96.0.0/12".to_owned()], node_ports: 30_000..=32_767 }
    }
}

/// What a server is made of. [`Config::new`] gives everything but the four things that have no default.
pub struct Config {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub rng: Rng,
    pub authority: Authority,
    pub catalogue: Catalogue,
    pub metrics: Metrics,
    pub services: ServiceRanges,
    /// Addresses under which pods and nodes reach the server (the endpoints of the `kubernetes` Service).
    pub advertise: Vec<IpAddr>,
    /// The port at those addresses.
    pub port: u16,
    pub event_ttl: Duration,
    /// Whether writes go through admission. Off in tests of what is behind it only.
    pub admission: bool,
    /// The issuer of service-account tokens, and the audience that this server accepts.
    pub issuer: String,
    /// How the server reaches kubelets, pods and services for log, exec and proxy.
    pub dial: Arc<dyn http::Dial>,
}

impl Config {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, rng: Rng, authority: Authority) -> Self {
        Self {
            store,
            clock,
            rng,
            authority,
            catalogue: Catalogue::builtin(),
            metrics: Metrics::default(),
            services: ServiceRanges::default(),
            advertise: Vec::new(),
            port: 6443,
            event_ttl: EVENT_TTL,
            admission: true,
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            dial: Arc::new(http::Direct),
        }
    }
}

/// Why a server does not start. None of these heals by waiting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the cluster's keys: {0}")]
    Keys(#[from] crate::pki::Error),
    #[error("the service range {0:?} is not an address range")]
    ServiceRange(String),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the first objects of the cluster: {0}")]
    Bootstrap(#[from] Status),
}

/// What the parts of a server share.
pub(crate) struct Inner {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub rng: Rng,
    pub catalogue: RwLock<Arc<Catalogue>>,
    pub authority: Authority,
    pub metrics: Metrics,
    pub meter: http::Meter,
    pub services: crate::sub::ranges::Ranges,
    pub advertise: Vec<IpAddr>,
    pub port: u16,
    pub event_ttl: Duration,
    pub encoder: Encoder,
    pub admission: Chain,
    pub authn: Authenticator,
    pub authz: Authorizer,
    pub dial: Arc<dyn http::Dial>,
    pub kubelet_tls: http::proxy::KubeletTls,
    /// Ends what the server does in the background, when the last handle on it is gone.
    pub background: Background,
}

/// Tasks that live as long as the server.
pub(crate) struct Background {
    pub stop: Shutdown,
    pub started: std::sync::atomic::AtomicBool,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The API server. Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Inner>);

impl ApiServer {
    /// A server over a store. Does no I/O; call [`Self::bootstrap`] before anything else.
    pub fn new(config: Config) -> Result<Self, StartError> {
        let services = crate::sub::ranges::Ranges::new(&config.services)?;
        let kubelet_tls = http::proxy::KubeletTls::new(&config.authority)?;
        let authn = Authenticator::new(&config.authority, &config.issuer)?;
        Ok(Self(Arc::new(Inner {
            encoder: Encoder::new(&config.rng),
            admission: if config.admission { Chain::builtin() } else { Chain::none() },
            authz: Authorizer::default(),
            authn,
            services,
            store: config.store,
            clock: config.clock,
            rng: config.rng,
            catalogue: RwLock::new(Arc::new(config.catalogue)),
            authority: config.authority,
            meter: http::Meter::new(config.metrics.clone()),
            metrics: config.metrics,
            advertise: config.advertise,
            port: config.port,
            event_ttl: config.event_ttl,
            dial: config.dial,
            kubelet_tls,
            background: Background { stop: Shutdown::new(), started: Default::default() },
        })))
    }

    /// Writes what every cluster begins with and reconciles the bootstrap roles. Idempotent. Afterwards
    /// the authorizer knows everything that the store holds, and follows it until the server is dropped;
    /// so long the `kubernetes` Service is kept, too.
    pub async fn bootstrap(&self) -> Result<(), StartError> {
        bootstrap::run(&self.0).await?;
        let from = authz::load(&self.0).await?;
        if !self.0.background.started.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let stop = self.0.background.stop.clone();
            tokio::spawn(authz::follow(Arc::downgrade(&self.0), from, stop.clone()));
            tokio::spawn(bootstrap::keep(Arc::downgrade(&self.0), stop));
        }
        Ok(())
    }

    /// The in-process transport for `identity`: authorization, admission and validation all apply.
    #[must_use]
    pub fn transport(&self, identity: UserInfo) -> Arc<dyn Transport> {
        Arc::new(local::Local::new(self.0.clone(), identity))
    }

    /// TLS for [`Self::serve`]: a serving certificate of the authority for these names and addresses.
    pub fn tls(&self, names: &[String]) -> Result<Arc<rustls::ServerConfig>, StartError> {
        http::tls_config(&self.0.authority, names, &self.0.clock)
    }

    /// Accepts connections until shutdown. Several listeners may be served at once, also ones that were
    /// opened in another network namespace.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: Shutdown,
    ) {
        http::serve(self.0.clone(), listener, tls, shutdown).await;
    }

    /// The token of a Secret of type `kubernetes.io/service-account-token`: it holds while the Secret has it and the
    /// service account, told by name and uid, is there.
    #[must_use]
    pub fn sign_secret_token(&self, namespace: &str, account: (&str, &str), secret: &str) -> String {
        crate::sub::token::of_secret(&self.0, namespace, account, secret)
    }

    /// The keys of the cluster.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// The resources that are served now.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.0.catalogue()
    }

    /// The metrics that this server writes.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

impl Inner {
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().clone()
    }

    /// How long objects of a resource live, if not for ever.
    pub fn ttl(&self, resource: &Resource) -> Option<Duration> {
        (resource.space == "events").then_some(self.event_ttl)
    }

    /// An object of a built-in kind, as the store has it now. For the server's own decisions.
    pub async fn read<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, Status> {
        let found = self.find::<K>(namespace, name).await?;
        found.map(|shared| shared.typed::<K>().map_err(Status::internal)).transpose()
    }

    /// An object of a built-in kind, for whom its labels or fields are enough.
    pub async fn find<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<Shared>, Status> {
        let catalogue = self.catalogue();
        let Some(row) = catalogue.get(K::GROUP, K::VERSION, K::PLURAL) else { return Ok(None) };
        let key = Key::new(row.space.as_str(), krate_api::object::key(namespace, name));
        let entry = self.store.get(&key, None).await.map_err(crate::error::from_store)?.0;
        Ok(entry.map(|entry| crate::codec::Rows::of(&catalogue, row).shared(&entry)))
    }

    /// All objects of a built-in kind, in one namespace or (empty) everywhere.
    pub async fn read_all<K: Kind>(&self, namespace: &str) -> Result<Vec<Shared>, Status> {
        let catalogue = self.catalogue();
        let Some(row) = catalogue.get(K::GROUP, K::VERSION, K::PLURAL) else { return Ok(Vec::new()) };
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let space = Arc::from(row.space.as_str());
        let query = ListQuery { space, prefix, after: None, limit: 0, at: None };
        let page = self.store.list(query).await.map_err(crate::error::from_store)?;
        let rows = crate::codec::Rows::of(&catalogue, row);
        Ok(page.entries.iter().map(|e| rows.shared(e)).collect())
    }

    /// The check that a PUT which creates needs beside its own.
    pub fn authorize_create(&self, call: &crate::call::Call) -> Result<(), Status> {
        let attributes = authz::Attributes::of_call(call, "create");
        self.authz.check(&attributes)
    }
}
