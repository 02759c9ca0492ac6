//! How a test cluster is to be.

use crate::faults::{Faults, Servers};
use crate::parts::{Listener, Part, Server};
use crate::{ControlPlane, Error, START};
use krate_apiserver::{Authority, UserInfo};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor, Timestamp};
use krate_client::Informers;
use krate_controllers::Cluster;
use krate_store::embedded::{Embedded, Options};
use std::sync::Arc;

/// Parts of a seed's chance that must not shift each other: what the faults take is not missing elsewhere.
const FAULTS: u64 = 0x6661_756c_7473;

/// What a control plane is made of; see [`ControlPlane::builder`].
#[must_use]
pub struct Builder {
    pub(crate) clock: Option<Clock>,
    pub(crate) virtual_time: bool,
    pub(crate) seed: Option<u64>,
    pub(crate) controllers: bool,
    pub(crate) scheduler: bool,
    pub(crate) admission: bool,
    pub(crate) https: bool,
    pub(crate) cluster: Cluster,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            clock: None,
            virtual_time: false,
            seed: None,
            controllers: true,
            scheduler: true,
            admission: true,
            https: false,
            cluster: Cluster::default(),
        }
    }
}

impl Builder {
    /// The calendar begins at [`START`] and follows the runtime's clock, which the test has paused
    /// (`#[tokio::test(start_paused = true)]`): time passes only when nobody has anything to do.
    pub fn virtual_time(mut self) -> Self {
        self.virtual_time = true;
        self
    }

    /// This clock instead of the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Everything that is left to chance (names, uids, jitter, faults) comes from this number. Without it, from
    /// the kernel.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Only the API: nothing reacts to what is written.
    pub fn without_controllers(mut self) -> Self {
        self.controllers = false;
        self
    }

    /// Pods are bound by the test, or not at all.
    pub fn without_scheduler(mut self) -> Self {
        self.scheduler = false;
        self
    }

    /// Writes are validated but pass no admission: no service account is asked for, namespaces need not exist.
    pub fn without_admission(mut self) -> Self {
        self.admission = false;
        self
    }

    /// The API is also served over HTTPS on a free port of 127.0.0.1, for clients of any language; see
    /// [`ControlPlane::kubeconfig`]. Not of use in virtual time, which would run away while a client thinks.
    pub fn https(mut self) -> Self {
        self.https = true;
        self
    }

    /// Changes the times and bounds that the controllers keep.
    pub fn cluster(mut self, change: impl FnOnce(&mut Cluster)) -> Self {
        change(&mut self.cluster);
        self
    }

    /// Starts it. The API answers, and controllers and scheduler are on their way, when this returns.
    pub async fn start(mut self) -> Result<ControlPlane, Error> {
        let start = || Clock::starting_at(Timestamp::from_second(START).unwrap_or_default());
        let usual = if self.virtual_time { start() } else { Clock::system() };
        let clock = self.clock.take().unwrap_or(usual);
        let rng = self.seed.map_or_else(Rng::from_entropy, Rng::from_seed);
        let chance = self.seed.map_or_else(Rng::from_entropy, |seed| Rng::from_seed(seed ^ FAULTS));
        let authority = Authority::generate(&clock)?;
        let server = Server {
            store: Arc::new(Embedded::open(Options::memory(clock.clone())).await?),
            clock: clock.clone(),
            rng: rng.clone(),
            metrics: Metrics::default(),
            admission: self.admission,
            listener: if self.https { Some(Listener::open(&authority)?) } else { None },
            authority,
            doors: Servers::default(),
        };
        self.cluster.ca_pem = server.authority.ca_certificate().to_owned();
        let supervisor = Supervisor::new(Shutdown::new());
        server.open(&supervisor).await?;
        let faults = Faults::new(chance);
        let observer =
            server.wire(UserInfo::new("admin", &["system:masters"]), None, &faults, Shutdown::new());
        let informers = Informers::new(observer, rng.clone(), server.metrics.clone(), supervisor.clone());
        let plane = ControlPlane {
            controllers: Part::controllers(self.cluster),
            scheduler: Part::scheduler(),
            stage: crate::Stage::default(),
            clock,
            rng,
            faults,
            informers,
            nodes: Default::default(),
            supervisor,
            server,
        };
        if self.controllers {
            plane.controllers.start(&plane).await;
        }
        if self.scheduler {
            plane.scheduler.start(&plane).await;
        }
        Ok(plane)
    }
}
