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
//!
//! An author of operators begins with [`ControlPlane::in_virtual_time`] and a few [hollow nodes](HollowNode), which are
//! kubelets without containers: pods on them become ready, fail and vanish on command ([`Stage`]), and an hour passes
//! in a moment. `examples/operator.rs` is a whole operator with its test. Programs of other languages come in through
//! [`Builder::https`] and a kubeconfig, in place of envtest.

mod builder;
pub mod faults;
pub mod hollow;
mod parts;
mod watchdog;

pub use builder::Builder;
pub use faults::{Fault, Faults, Odds};
pub use hollow::{Exits, HollowNode, Play, Shape, Stage};
pub use parts::Component;
pub use watchdog::Watchdog;

use krate_api::types::core::v1::Pod;
use krate_api::{Kind, Status};
use krate_apiserver::{ApiServer, StartError, UserInfo};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::{Api, Informer, Informers, Transport};
use krate_store::Store;
use parts::{Part, Server};
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
    #[error("the loopback listener: {0}")]
    Listen(#[from] std::io::Error),
    #[error(transparent)]
    Kubeconfig(#[from] krate_client::kubeconfig::KubeconfigError),
}

/// A control plane in this process, in memory. Dropping it leaves its tasks to end with the runtime;
/// [`ControlPlane::stop`] ends them in order.
pub struct ControlPlane {
    pub clock: Clock,
    pub rng: Rng,
    pub supervisor: Supervisor,
    /// What the hollow nodes' pods do.
    pub stage: Stage,
    /// What goes wrong between the components and the API.
    pub faults: Faults,
    /// What is there, as the admin sees it.
    pub informers: Informers,
    nodes: AtomicU32,
    server: Server,
    controllers: Part,
    scheduler: Part,
}

impl ControlPlane {
    /// A control plane to one's wishes.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts one on the machine's clock.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// Starts one that lives in the runtime's (paused) time; everything that is left to chance comes from
    /// the seed.
    pub async fn in_virtual_time(seed: u64) -> Result<Self, Error> {
        Self::builder().virtual_time().seed(seed).start().await
    }

    /// The API server that runs now.
    ///
    /// # Panics
    /// While it is killed.
    #[must_use]
    pub fn api(&self) -> ApiServer {
        self.server.doors.current().expect("the API server runs")
    }

    /// The administrator's kubeconfig, of a control plane that was built with [`Builder::https`].
    #[must_use]
    pub fn kubeconfig(&self) -> Option<&str> {
        self.server.listener.as_ref().map(|listener| listener.kubeconfig.as_str())
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.server.metrics
    }

    /// Kills a component: what it was about to write is not written, and its caches and queues are lost.
    pub async fn kill(&self, component: Component) {
        match component {
            Component::Controllers => self.controllers.kill().await,
            Component::Scheduler => self.scheduler.kill().await,
            Component::ApiServer => self.server.doors.close(),
        }
    }

    /// Starts a component that was killed.
    pub async fn revive(&self, component: Component) -> Result<(), Error> {
        match component {
            Component::Controllers => self.controllers.start(self).await,
            Component::Scheduler => self.scheduler.start(self).await,
            Component::ApiServer if self.server.doors.current().is_none() => {
                self.server.open(&self.supervisor).await?;
            }
            Component::ApiServer => {}
        }
        Ok(())
    }

    /// Kills a component and starts it again at once.
    pub async fn restart(&self, component: Component) -> Result<(), Error> {
        self.kill(component).await;
        self.revive(component).await
    }

    /// Forgets all history: who watches from before now is told that it has expired (410).
    pub async fn compact(&self) -> Result<(), Error> {
        let revision = self.server.store.revision();
        Ok(self.server.store.compact(revision).await?)
    }

    /// Adds a node without containers; see [`hollow`].
    pub async fn hollow_node(&self, name: &str) -> Result<HollowNode, Status> {
        self.hollow_node_of(name, Shape::default()).await
    }

    /// As [`ControlPlane::hollow_node`], with this capacity and these labels.
    pub async fn hollow_node_of(&self, name: &str, shape: Shape) -> Result<HollowNode, Status> {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        let (doors, faults) = (self.server.doors.clone(), self.faults.clone());
        let (user, identity) = (format!("system:node:{name}"), format!("kubelet/{name}"));
        let transports = move |killed: Shutdown| -> Arc<dyn Transport> {
            Arc::new(faults::Wire {
                servers: doors.clone(),
                user: UserInfo::new(&user, &["system:nodes"]),
                identity: Some(identity.clone()),
                faults: faults.clone(),
                killed,
            })
        };
        let parts = hollow::Parts {
            transports: Box::new(transports),
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            metrics: self.server.metrics.clone(),
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

    /// A transport that may do everything, and is spared of faults.
    #[must_use]
    pub fn admin(&self) -> Arc<dyn Transport> {
        self.user("admin", &["system:masters"])
    }

    /// A transport with the rights of a user, spared of faults.
    #[must_use]
    pub fn user(&self, name: &str, groups: &[&str]) -> Arc<dyn Transport> {
        self.server.wire(UserInfo::new(name, groups), None, &self.faults, Shutdown::new())
    }

    /// A transport for a component of the test's own, which faults find by its name.
    #[must_use]
    pub fn component(&self, name: &str, groups: &[&str]) -> Arc<dyn Transport> {
        self.server.wire(UserInfo::new(name, groups), Some(name), &self.faults, Shutdown::new())
    }

    /// Ends everything in order.
    pub async fn stop(self) {
        self.controllers.stop().await;
        self.scheduler.stop().await;
        self.server.doors.close();
        self.supervisor.stop().await;
    }
}
