//! What controllers are given to work with.

use crate::certificates::Certify;
use crate::meta;
use futures::future::BoxFuture;
use krate_api::{Catalogue, Kind};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Supervisor};
use krate_client::controller::{self, Outcome};
use krate_client::queue::Key;
use krate_client::{Api, Informer, Informers, Queue, Recorder, Transport};
use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Whose rights the shared informers and the election have: the user `system:kube-controller-manager`.
pub const MANAGER: &str = "kube-controller-manager";

/// What the program gives to the controllers.
#[derive(Clone)]
pub struct Context {
    /// A transport by identity: [`MANAGER`] for the user `system:kube-controller-manager`, any other name
    /// for the service account of that name in `kube-system` (`deployment-controller`).
    pub transports: Arc<dyn Fn(&str) -> Arc<dyn Transport> + Send + Sync>,
    pub clock: Clock,
    pub rng: Rng,
    pub metrics: Metrics,
    pub supervisor: Supervisor,
    /// Whether to compete for the lease first. One process alone need not.
    pub elect: bool,
    /// This process in the election: `host_uuid`.
    pub identity: String,
    pub cluster: Cluster,
    /// The resources that are served now; custom ones come and go.
    pub resources: Resources,
    /// Signs the token of a `kubernetes.io/service-account-token` Secret. Without it they stay empty.
    pub sign: Option<SignToken>,
    /// Where the cluster's own volumes are. Without it, no volume is made.
    pub storage: Option<crate::Storage>,
    /// Makes the certificates of approved requests. Without it they are left to others.
    pub certify: Option<Certify>,
}

impl Context {
    /// The context of the only controllers of a cluster: they need not be elected, sign nothing, and keep the
    /// usual times. Change what is different.
    #[must_use]
    pub fn new(
        transports: impl Fn(&str) -> Arc<dyn Transport> + Send + Sync + 'static,
        clock: &Clock,
        rng: &Rng,
        metrics: &Metrics,
        resources: Resources,
        supervisor: &Supervisor,
    ) -> Self {
        Self {
            transports: Arc::new(transports),
            clock: clock.clone(),
            rng: rng.clone(),
            metrics: metrics.clone(),
            supervisor: supervisor.clone(),
            elect: false,
            identity: format!("krate_{}", rng.uuid()),
            cluster: Cluster::default(),
            resources,
            sign: None,
            storage: None,
            certify: None,
        }
    }
}

/// The present catalogue, and word of its changes.
pub type Resources = tokio::sync::watch::Receiver<Arc<Catalogue>>;

/// Makes the token of a Secret.
pub type SignToken = Arc<dyn Fn(&SecretToken) -> String + Send + Sync>;

/// Whose token is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretToken {
    pub namespace: String,
    pub account: String,
    pub account_uid: String,
    pub secret: String,
}

/// Facts of the cluster that controllers need.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Address ranges for pods, at most one of each family (`10.244.0.0/16`). Empty: nodes get none.
    pub pod_cidrs: Vec<String>,
    /// Prefix length of a node's share of an IPv4 range.
    pub node_mask_v4: u8,
    /// Prefix length of a node's share of an IPv6 range.
    pub node_mask_v6: u8,
    /// The certificate authority of the API, for pods (PEM).
    pub ca_pem: String,
    /// A node that is silent for this long is no longer ready.
    pub node_grace: Duration,
    /// As `node_grace`, for a node that never reported.
    pub node_startup_grace: Duration,
    /// Finished pods beyond this number are removed, the oldest first.
    pub terminated_pods: usize,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            pod_cidrs: vec!["10.244.0.0/16".to_owned()],
            node_mask_v4: 24,
            node_mask_v6: 64,
            ca_pem: String::new(),
            node_grace: Duration::from_secs(50),
            node_startup_grace: Duration::from_secs(60),
            terminated_pods: 12_500,
        }
    }
}

/// The context of one term of leadership.
#[derive(Clone)]
pub struct Env {
    transports: Arc<dyn Fn(&str) -> Arc<dyn Transport> + Send + Sync>,
    pub informers: Informers,
    pub clock: Clock,
    pub rng: Rng,
    pub metrics: Metrics,
    pub supervisor: Supervisor,
    pub cluster: Arc<Cluster>,
    pub resources: Resources,
    pub sign: Option<SignToken>,
    pub storage: Option<crate::Storage>,
    pub certify: Option<Certify>,
    recorders: Arc<parking_lot::Mutex<HashMap<String, Recorder>>>,
}

impl Env {
    #[must_use]
    pub fn new(context: &Context, supervisor: Supervisor) -> Self {
        let informers = Informers::new(
            (context.transports)(MANAGER),
            context.rng.clone(),
            context.metrics.clone(),
            supervisor.clone(),
        );
        Self {
            transports: context.transports.clone(),
            informers,
            clock: context.clock.clone(),
            rng: context.rng.clone(),
            metrics: context.metrics.clone(),
            supervisor,
            cluster: Arc::new(context.cluster.clone()),
            resources: context.resources.clone(),
            sign: context.sign.clone(),
            storage: context.storage.clone(),
            certify: context.certify.clone(),
            recorders: Arc::default(),
        }
    }

    #[must_use]
    pub fn transport(&self, account: &str) -> Arc<dyn Transport> {
        (self.transports)(account)
    }

    /// A client with the rights of a service account.
    #[must_use]
    pub fn api<K: Kind>(&self, account: &str) -> Api<K> {
        Api::new(self.transport(account)).managed_by(MANAGER)
    }

    #[must_use]
    pub fn queue<K: Key>(&self, name: &str) -> Queue<K> {
        Queue::new(name, &self.metrics)
    }

    /// The recorder of a component, which records with the rights of the service account.
    #[must_use]
    pub fn recorder(&self, account: &str, component: &str) -> Recorder {
        let start = || {
            let transport = self.transport(account);
            Recorder::start(transport, component, "", &self.clock, &self.rng, &self.metrics, &self.supervisor)
        };
        self.recorders.lock().entry(component.to_owned()).or_insert_with(start).clone()
    }

    /// Runs a controller: waits for its caches, then works on its queue until the term ends.
    pub fn run<K, F, Fut, E>(
        &self,
        queue: &Queue<K>,
        workers: usize,
        synced: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
        reconcile: F,
    ) where
        K: Key + Sync,
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let (queue, shared) = (queue.clone(), Arc::new((synced, reconcile)));
        let name = queue.name().to_owned();
        self.supervisor.component(&name, move |shutdown| {
            let (queue, shared) = (queue.clone(), shared.clone());
            async move {
                let (synced, reconcile) = &*shared;
                if shutdown.run_until_cancelled(synced()).await.is_some() {
                    controller::run(queue, workers, shutdown, reconcile).await;
                }
                Ok::<(), std::convert::Infallible>(())
            }
        });
    }
}

/// Adds the key of every object that is new or changed and that `due` finds work in.
pub(crate) fn wake_due<K: Kind>(informer: &Informer<K>, queue: &Queue, due: fn(&K) -> bool) {
    let queue = queue.clone();
    informer.subscribe(move |_, new| {
        if let Some(object) = new.filter(|object| due(object)) {
            queue.add(meta::key(object.meta()));
        }
    });
}

/// A future factory that waits for several informers.
macro_rules! synced {
    ($($informer:expr),+ $(,)?) => {{
        let waits = ($($informer.clone(),)+);
        move || {
            let waits = waits.clone();
            let wait: futures::future::BoxFuture<'static, ()> = Box::pin(async move {
                crate::env::Wait::wait(&waits).await;
            });
            wait
        }
    }};
}
pub(crate) use synced;

/// Several informers to wait for.
pub(crate) trait Wait {
    fn wait(&self) -> impl Future<Output = ()> + Send;
}

macro_rules! wait_for {
    ($($name:ident),+) => {
        impl<$($name: krate_client::View),+> Wait for ($(krate_client::Informer<$name>,)+) {
            #[allow(non_snake_case)]
            async fn wait(&self) {
                let ($($name,)+) = self;
                $($name.synced().await;)+
            }
        }
    };
}
wait_for!(A);
wait_for!(A, B);
wait_for!(A, B, C);
wait_for!(A, B, C, D);
wait_for!(A, B, C, D, E);
