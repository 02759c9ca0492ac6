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

pub mod hollow;
mod watchdog;

pub use hollow::{Exits, HollowNode, Play, Shape, Stage};
pub use watchdog::Watchdog;

use krate_api::types::core::v1::Pod;
use krate_api::{Catalogue, Kind, Status};
use krate_apiserver::{ApiServer, Authority, Config, StartError, UserInfo};
use krate_base::Timestamp;
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::{Api, Informer, Informers, Transport};
use krate_store::embedded::{Embedded, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// When the calendar of a cluster in virtual time begins: 2027-01-15T08:00:00Z.
pub const START: i64 = 1_800_000_000;
/// After so much time [`ControlPlane::until`] gives up.
const PATIENCE: Duration = Duration::from_secs(3600);

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
    /// What the hollow nodes' pods do.
    pub stage: Stage,
    /// What is there, as the admin sees it.
    pub informers: Informers,
    nodes: AtomicU32,
    /// Tells the controllers of new resources.
    _resources: watch::Sender<Arc<Catalogue>>,
}

impl ControlPlane {
    /// Starts one on the machine's clock.
    pub async fn start() -> Result<Self, Error> {
        Self::with(Clock::system(), Rng::from_entropy()).await
    }

    /// Starts one that lives in the runtime's (paused) time; everything that is left to chance comes from
    /// the seed.
    pub async fn in_virtual_time(seed: u64) -> Result<Self, Error> {
        let start = Timestamp::from_second(START).unwrap_or_default();
        Self::with(Clock::starting_at(start), Rng::from_seed(seed)).await
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
        start_scheduler(&api, &clock, &rng, &supervisor);
        let admin = api.transport(UserInfo::new("admin", &["system:masters"]));
        let informers = Informers::new(admin, rng.clone(), api.metrics().clone(), supervisor.clone());
        let (stage, nodes) = (Stage::default(), AtomicU32::new(0));
        Ok(Self { api, clock, rng, supervisor, stage, informers, nodes, _resources: resources })
    }

    /// Adds a node without containers; see [`hollow`].
    pub async fn hollow_node(&self, name: &str) -> Result<HollowNode, Status> {
        self.hollow_node_of(name, Shape::default()).await
    }

    /// As [`ControlPlane::hollow_node`], with this capacity and these labels.
    pub async fn hollow_node_of(&self, name: &str, shape: Shape) -> Result<HollowNode, Status> {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        let parts = hollow::Parts {
            transport: self.user(&format!("system:node:{name}"), &["system:nodes"]),
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            metrics: self.api.metrics().clone(),
            shutdown: self.supervisor.shutdown(),
            stage: self.stage.clone(),
            // Of the loopback range: the server dials a node's address for logs and exec, and what it sends for
            // the sake of a node that does not exist must not leave this machine.
            address: format!("127.64.{}.{}", number / 200, 10 + number % 200),
        };
        HollowNode::start(name, shape, parts).await
    }

    /// A client with all rights.
    #[must_use]
    pub fn of<K: Kind>(&self) -> Api<K> {
        Api::new(self.admin())
    }

    /// Waits until an object (or its absence) is as wanted.
    ///
    /// # Panics
    /// When that has not come to be after an hour, with what is there instead.
    pub async fn until<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(Option<&K>) -> bool,
    ) -> Option<Arc<K>> {
        let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        self.until_all(|all: &Informer<K>| wanted(all.get(&key).as_deref())).await;
        self.informers.of::<K>().get(&key)
    }

    /// Waits until all objects of a kind together are as wanted.
    ///
    /// # Panics
    /// When that has not come to be after an hour, with what is there instead.
    pub async fn until_all<K: Kind>(&self, wanted: impl Fn(&Informer<K>) -> bool) {
        let informer = self.informers.of::<K>();
        informer.synced().await;
        let (sender, mut changes) = watch::channel(0_u64);
        informer.subscribe(move |_, _| sender.send_modify(|n| *n += 1));
        let arrive = async {
            while !wanted(&informer) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, arrive).await.is_err() {
            panic!("not as wanted after {PATIENCE:?}: {:#?}", informer.list());
        }
    }

    /// Holds a fact against every state that a kind's objects go through.
    #[must_use]
    pub async fn always<K: Kind>(
        &self,
        fact: impl Fn(&Informer<K>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Watchdog {
        let informer = self.informers.of::<K>();
        informer.synced().await;
        Watchdog::start(&informer, fact)
    }

    /// Ends the present run of a pod's containers with this code.
    pub async fn exit(&self, namespace: &str, pod: &str, code: i32) -> Result<(), Status> {
        let pod = self.of::<Pod>().get(namespace, pod).await?;
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let restarts = statuses.map(|c| c.restart_count).max().unwrap_or(0);
        self.stage.order(&pod, |play| play.exits = Exits::Once { restarts, code });
        Ok(())
    }

    /// Says whether a pod's containers are ready.
    pub async fn set_ready(&self, namespace: &str, pod: &str, ready: bool) -> Result<(), Status> {
        let pod = self.of::<Pod>().get(namespace, pod).await?;
        self.stage.order(&pod, |play| play.unready = !ready);
        Ok(())
    }

    /// Lets some time pass.
    pub async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
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

fn start_scheduler(api: &ApiServer, clock: &Clock, rng: &Rng, supervisor: &Supervisor) {
    let config = krate_scheduler::Config {
        transport: api.transport(UserInfo::component("kube-scheduler")),
        clock: clock.clone(),
        rng: rng.clone(),
        profiles: vec![],
        metrics: api.metrics().clone(),
    };
    supervisor.component("scheduler", move |shutdown| {
        let scheduler = krate_scheduler::Scheduler::new(config.clone());
        async move { scheduler.run(shutdown).await }
    });
}
