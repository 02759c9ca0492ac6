//! What a control plane consists of, each part with lives of its own: it is killed, and starts afresh.

use crate::faults::{Faults, Servers, Wire};
use crate::{ControlPlane, Error};
use krate_api::Catalogue;
use krate_apiserver::{ApiServer, Authority, Config, StartError, UserInfo};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::Transport;
use krate_client::kubeconfig::{Entry, with_entry};
use krate_controllers::{Cluster, Context};
use krate_store::embedded::Embedded;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// What can be killed and started again at any step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The process of all controllers.
    Controllers,
    Scheduler,
    /// The API server; the store stays.
    ApiServer,
}

/// What every incarnation of the API server is made of.
pub(crate) struct Server {
    pub store: Arc<Embedded>,
    pub clock: Clock,
    pub rng: Rng,
    pub metrics: Metrics,
    pub authority: Authority,
    pub admission: bool,
    pub listener: Option<Listener>,
    pub doors: Servers,
}

impl Server {
    /// Starts an incarnation, which takes over.
    pub async fn open(&self, supervisor: &Supervisor) -> Result<(), StartError> {
        let mut config =
            Config::new(self.store.clone(), self.clock.clone(), self.rng.clone(), self.authority.clone());
        config.metrics = self.metrics.clone();
        config.admission = self.admission;
        let api = ApiServer::new(config)?;
        api.bootstrap().await?;
        let life = supervisor.shutdown().child_token();
        if let Some(listener) = &self.listener {
            listener.serve(&api, &life, supervisor)?;
        }
        self.doors.open(api, life);
        Ok(())
    }

    pub fn wire(
        &self,
        user: UserInfo,
        identity: Option<&str>,
        faults: &Faults,
        killed: Shutdown,
    ) -> Arc<dyn Transport> {
        let identity = identity.map(str::to_owned);
        Arc::new(Wire { servers: self.doors.clone(), user, identity, faults: faults.clone(), killed })
    }
}

/// Where the API is served over HTTPS, through all incarnations.
pub(crate) struct Listener {
    socket: std::net::TcpListener,
    pub kubeconfig: String,
}

impl Listener {
    pub fn open(authority: &Authority) -> Result<Self, Error> {
        let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let pair = authority.client("admin", &["system:masters"])?;
        let entry = Entry {
            name: "krate-testing",
            server: &format!("https://{}", socket.local_addr()?),
            ca_pem: authority.ca_certificate().as_bytes(),
            cert_pem: pair.certificate.as_bytes(),
            key_pem: pair.key.as_bytes(),
        };
        let kubeconfig = with_entry("", &entry)?;
        Ok(Self { socket, kubeconfig })
    }

    fn serve(&self, api: &ApiServer, life: &Shutdown, supervisor: &Supervisor) -> Result<(), StartError> {
        let tls = api.tls(&["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        let socket = self.socket.try_clone().and_then(tokio::net::TcpListener::from_std);
        let socket = socket.map_err(|error| krate_api::Status::internal(format!("the listener: {error}")))?;
        let (api, life) = (api.clone(), life.clone());
        supervisor.spawn(async move { api.serve(socket, tls, life).await });
        Ok(())
    }
}

type Start = Box<dyn Fn(&ControlPlane, &Life) + Send + Sync>;

/// A component that works with the API.
pub(crate) struct Part {
    start: Start,
    life: Mutex<Option<Life>>,
}

/// One incarnation.
pub(crate) struct Life {
    pub supervisor: Supervisor,
    /// Nothing that this incarnation still does arrives after this.
    pub killed: Shutdown,
    _resources: watch::Sender<Arc<Catalogue>>,
}

impl Part {
    pub fn controllers(cluster: Cluster) -> Self {
        let start = move |plane: &ControlPlane, life: &Life| {
            let (doors, faults, killed) =
                (plane.server.doors.clone(), plane.faults.clone(), life.killed.clone());
            let transports = move |name: &str| -> Arc<dyn Transport> {
                Arc::new(Wire {
                    servers: doors.clone(),
                    user: UserInfo::component(name),
                    identity: Some(name.to_owned()),
                    faults: faults.clone(),
                    killed: killed.clone(),
                })
            };
            let resources = life._resources.subscribe();
            let metrics = &plane.server.metrics;
            let context =
                Context::new(transports, &plane.clock, &plane.rng, metrics, resources, &life.supervisor);
            krate_controllers::start(&Context {
                cluster: cluster.clone(),
                storage: Some(storage()),
                ..context
            });
        };
        Self { start: Box::new(start), life: Mutex::default() }
    }

    pub fn scheduler() -> Self {
        let start = |plane: &ControlPlane, life: &Life| {
            const NAME: &str = "kube-scheduler";
            let user = UserInfo::component(NAME);
            let config = krate_scheduler::Config {
                transport: plane.server.wire(user, Some(NAME), &plane.faults, life.killed.clone()),
                clock: plane.clock.clone(),
                rng: plane.rng.clone(),
                profiles: vec![],
                metrics: plane.server.metrics.clone(),
            };
            life.supervisor.component("scheduler", move |shutdown| {
                let scheduler = krate_scheduler::Scheduler::new(config.clone());
                async move { scheduler.run(shutdown).await }
            });
        };
        Self { start: Box::new(start), life: Mutex::default() }
    }

    /// Starts it unless it runs.
    pub async fn start(&self, plane: &ControlPlane) {
        let mut life = self.life.lock().await;
        if life.is_none() {
            let catalogue = plane.server.doors.current().map(|api| api.catalogue());
            let catalogue = catalogue.unwrap_or_else(|| Arc::new(Catalogue::builtin()));
            let end = plane.supervisor.shutdown().child_token();
            let new = Life {
                supervisor: Supervisor::new(end),
                killed: Shutdown::new(),
                _resources: watch::Sender::new(catalogue),
            };
            (self.start)(plane, &new);
            *life = Some(new);
        }
    }

    /// Kills it: what it was about to write is not written. Returns when nothing of it runs.
    pub async fn kill(&self) {
        let life = self.life.lock().await.take();
        if let Some(life) = life {
            life.killed.cancel();
            life.supervisor.stop().await;
        }
    }

    /// Ends it in order.
    pub async fn stop(&self) {
        let life = self.life.lock().await.take();
        if let Some(life) = life {
            life.supervisor.stop().await;
        }
    }
}

/// Hollow nodes have no files: nothing is to be removed.
fn storage() -> krate_controllers::Storage {
    krate_controllers::Storage {
        folder: "/volumes".into(),
        shared: true,
        remove: Arc::new(|_| Box::pin(async { Ok(()) })),
    }
}
