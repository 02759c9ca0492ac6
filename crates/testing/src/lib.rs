//! Test clusters: a control plane in one call and one process, in memory, with the real API server and
//! controllers, for our own tests and for those of operators' authors.
//!
//! ```
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! use krate_api::types::core::v1::Namespace;
//! use krate_client::Api;
//!
//! let cluster = krate_testing::ControlPlane::start().await.unwrap();
//! let namespaces: Api<Namespace> = Api::new(cluster.admin());
//! assert!(namespaces.get("", "default").await.is_ok());
//! cluster.stop().await;
//! # });
//! ```

use krate_api::Catalogue;
use krate_apiserver::{ApiServer, Authority, Config, StartError, UserInfo};
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::Transport;
use krate_store::embedded::{Embedded, Options};
use std::sync::Arc;
use tokio::sync::watch;

/// Why a test cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] krate_store::Error),
    #[error(transparent)]
    Keys(#[from] krate_apiserver::pki::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A control plane in this process, in memory. Dropping it leaves its tasks to end with the runtime;
/// [`ControlPlane::stop`] ends them in order.
pub struct ControlPlane {
    pub api: ApiServer,
    pub clock: Clock,
    pub rng: Rng,
    pub supervisor: Supervisor,
    /// Tells the controllers of new resources.
    _resources: watch::Sender<Arc<Catalogue>>,
}

impl ControlPlane {
    /// Starts one on the machine's clock.
    pub async fn start() -> Result<Self, Error> {
        Self::with(Clock::system(), Rng::from_entropy()).await
    }

    /// Starts one on a clock and a seed of the caller's; with a paused runtime it lives in virtual time.
    pub async fn with(clock: Clock, rng: Rng) -> Result<Self, Error> {
        let store = Arc::new(Embedded::open(Options::memory(clock.clone())).await?);
        let authority = Authority::generate(&clock)?;
        let api = ApiServer::new(Config::new(store, clock.clone(), rng.clone(), authority))?;
        api.bootstrap().await?;
        let supervisor = Supervisor::new(Shutdown::new());
        let server = api.clone();
        let resources = watch::Sender::new(api.catalogue());
        krate_controllers::start(&krate_controllers::Context {
            transports: Arc::new(move |name: &str| server.transport(UserInfo::component(name))),
            clock: clock.clone(),
            rng: rng.clone(),
            metrics: api.metrics().clone(),
            supervisor: supervisor.clone(),
            elect: false,
            identity: "test".to_owned(),
            resources: resources.subscribe(),
            sign: None,
            cluster: krate_controllers::Cluster {
                ca_pem: api.authority().ca_certificate().to_owned(),
                ..krate_controllers::Cluster::default()
            },
        });
        Ok(Self { api, clock, rng, supervisor, _resources: resources })
    }

    /// A transport that may do everything.
    #[must_use]
    pub fn admin(&self) -> Arc<dyn Transport> {
        self.api.transport(UserInfo::new("admin", &["system:masters"]))
    }

    /// A transport with the rights of a user.
    #[must_use]
    pub fn user(&self, name: &str, groups: &[&str]) -> Arc<dyn Transport> {
        self.api.transport(UserInfo::new(name, groups))
    }

    pub async fn stop(self) {
        self.supervisor.stop().await;
    }
}
