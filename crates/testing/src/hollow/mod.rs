//! Hollow nodes: kubelets without containers. They register, renew their lease, take the pods that are
//! bound to them through running and ready to their end, all over the client and with a kubelet's rights;
//! what the containers do is told by a [`Stage`]. They open no port: logs and exec have nothing to answer. Their
//! addresses are of the loopback range, so that no such call leaves the machine; what runs in a host's network
//! has that address, which a Service cannot point to.

mod node;
pub mod play;
pub mod pod;

pub use node::Shape;
pub use play::{Exits, Play, Stage};

use krate_api::meta::{DeleteOptions, MicroTime};
use krate_api::types::coordination::v1::Lease;
use krate_api::types::core::v1::{Node, Pod};
use krate_api::{Object, Reason, Status};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::controller::{self, Outcome};
use krate_client::{Api, Informer, Informers, Queue, Source, Transport, api};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// For how long the lease is good, in seconds.
const LEASE_SECONDS: i32 = 40;
/// How often the status is written although nothing changed.
const REPORT: Duration = Duration::from_secs(300);
/// How often, and how soon again, a node tries to register.
const REGISTER_ATTEMPTS: u32 = 60;
const REGISTER_PAUSE: Duration = Duration::from_secs(1);
/// Pods that are worked on at once.
const WORKERS: usize = 4;
/// Where the leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// What a hollow node is made from.
pub(crate) struct Parts {
    /// The way to the API of one life, which ends when that is killed.
    pub transports: Box<dyn Fn(Shutdown) -> Arc<dyn Transport> + Send + Sync>,
    pub clock: Clock,
    pub rng: Rng,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    pub stage: Stage,
    pub address: String,
}

/// A node that has no containers. Dropping the handle leaves it running.
pub struct HollowNode {
    shared: Arc<Shared>,
    /// The present life; none after it vanished.
    life: Mutex<Option<Life>>,
}

/// What outlives a kubelet: the machine.
struct Shared {
    name: String,
    shape: Shape,
    parts: Parts,
    /// Whether the kubelet finds its runtime broken.
    ill: watch::Sender<bool>,
    addresses: Mutex<HashMap<String, Ipv4Addr>>,
}

/// One incarnation of the kubelet.
struct Kubelet {
    machine: Arc<Shared>,
    transport: Arc<dyn Transport>,
    nodes: Api<Node>,
    pods: Api<Pod>,
    leases: Api<Lease>,
    /// Somebody has written that nothing is known of the node.
    doubted: Arc<Notify>,
}

struct Life {
    supervisor: Supervisor,
    killed: Shutdown,
}

impl HollowNode {
    pub(crate) async fn start(name: &str, shape: Shape, parts: Parts) -> Result<Self, Status> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            shape,
            parts,
            ill: watch::Sender::new(false),
            addresses: Mutex::default(),
        });
        let kubelet = Kubelet::new(&shared, Shutdown::new());
        let mut attempt = 1;
        while let Err(status) = kubelet.register().await {
            if attempt == REGISTER_ATTEMPTS {
                return Err(status);
            }
            attempt += 1;
            tokio::time::sleep(REGISTER_PAUSE).await;
        }
        let node = Self { shared, life: Mutex::default() };
        node.come_back();
        Ok(node)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The node falls silent: no lease, no status, pods as they last were. Returns when nothing of it runs.
    pub async fn vanish(&self) {
        let life = self.life.lock().take();
        if let Some(life) = life {
            life.killed.cancel();
            life.supervisor.stop().await;
        }
    }

    /// The node is there again; its pods go on as if it had only lost its connection.
    pub fn come_back(&self) {
        let mut life = self.life.lock();
        if life.is_none() {
            let killed = Shutdown::new();
            let supervisor = Kubelet::live(&self.shared, killed.clone());
            *life = Some(Life { supervisor, killed });
        }
    }

    /// The kubelet is killed and starts again at once; its pods run on.
    pub async fn restart(&self) {
        self.vanish().await;
        self.come_back();
    }

    /// The kubelet lives, but says that its runtime does not: the node is not ready.
    pub fn fail(&self) {
        self.shared.ill.send_replace(true);
    }

    /// The runtime works again.
    pub fn recover(&self) {
        self.shared.ill.send_replace(false);
    }
}

impl Kubelet {
    fn new(machine: &Arc<Shared>, killed: Shutdown) -> Self {
        let transport = (machine.parts.transports)(killed);
        Self {
            machine: machine.clone(),
            nodes: Api::new(transport.clone()).managed_by("kubelet"),
            pods: Api::new(transport.clone()).managed_by("kubelet"),
            leases: Api::new(transport.clone()).managed_by("kubelet"),
            doubted: Arc::default(),
            transport,
        }
    }

    async fn register(&self) -> Result<(), Status> {
        let mut node = node::object(&self.machine.name, &self.machine.shape);
        self.fill(&mut node);
        match self.nodes.create(node).await {
            Err(status) if status.reason() != Some(Reason::AlreadyExists) => Err(status),
            _ => {
                self.report().await?;
                self.renew().await
            }
        }
    }

    fn fill(&self, node: &mut Node) {
        let Shared { name, shape, parts, ill, .. } = &*self.machine;
        let now = parts.clock.now_seconds();
        let status = node.status.get_or_insert_default();
        node::report(status, name, &parts.address, shape, *ill.borrow(), now);
    }

    /// Writes the status. A node that was deleted meanwhile is registered anew by the next life only.
    async fn report(&self) -> Result<(), Status> {
        let change = |node: &mut Node| {
            self.fill(node);
            true
        };
        self.nodes.modify_status("", &self.machine.name, change).await.map(drop)
    }

    async fn renew(&self) -> Result<(), Status> {
        let now = MicroTime(self.machine.parts.clock.now_micros());
        let change = |lease: &mut Lease| {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(self.machine.name.clone());
            spec.lease_duration_seconds = Some(LEASE_SECONDS);
            spec.renew_time = Some(now.clone());
            true
        };
        match self.leases.modify(LEASES, &self.machine.name, change).await {
            Err(status) if status.is_not_found() => {
                let mut lease = Lease::default();
                lease.metadata.name = Some(self.machine.name.clone());
                lease.metadata.namespace = Some(LEASES.to_owned());
                change(&mut lease);
                self.leases.create(lease).await.map(drop)
            }
            result => result.map(drop),
        }
    }

    /// Starts everything that a node does.
    fn live(machine: &Arc<Shared>, killed: Shutdown) -> Supervisor {
        let life = Supervisor::new(machine.parts.shutdown.child_token());
        let (machine, inner) = (machine.clone(), life.clone());
        life.component(&format!("hollow node {}", machine.name), move |shutdown| {
            let (this, life) = (Self::new(&machine, killed.clone()), inner.clone());
            async move {
                let work = async { tokio::try_join!(this.beat(), this.repeat_report(), this.work(&life)) };
                shutdown.run_until_cancelled(work).await.map_or(Ok(()), |result| result.map(drop))
            }
        });
        life
    }

    /// Renews the lease. What fails is tried again at the next beat, as the original does.
    async fn beat(&self) -> Result<Infallible, Status> {
        loop {
            if let Err(status) = self.renew().await {
                tracing::debug!(node = %self.machine.name, %status, "cannot renew the lease");
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Writes the status when it changes, and every now and then; soon again after a failure.
    async fn repeat_report(&self) -> Result<Infallible, Status> {
        let mut ill = self.machine.ill.subscribe();
        loop {
            ill.mark_unchanged();
            let pause = match self.report().await {
                Ok(()) => REPORT,
                Err(status) => {
                    tracing::debug!(node = %self.machine.name, %status, "cannot report");
                    RENEW
                }
            };
            // The sender lives in the machine: this wait ends by a change only.
            tokio::select! {
                biased;
                _ = ill.changed() => {}
                () = self.doubted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes care of the pods that are bound here.
    async fn work(&self, life: &Supervisor) -> Result<Infallible, Status> {
        let Parts { rng, metrics, stage, .. } = &self.machine.parts;
        let transport = &self.transport;
        let mine = Source::of::<Pod>().fields(&format!("spec.nodeName={}", self.machine.name));
        let informers = Informers::new(transport.clone(), rng.clone(), metrics.clone(), life.clone());
        let pods = informers.own::<Pod>(mine);
        let me = Source::of::<Node>().fields(&format!("metadata.name={}", self.machine.name));
        let nodes = informers.own::<Node>(me);
        let queue: Queue = Queue::new("hollow", metrics);
        let to = queue.clone();
        pods.subscribe(move |old, new| {
            if let Some(pod) = new.or(old) {
                to.add(key(pod));
            }
        });
        let (to, all, doubted) = (queue.clone(), pods.clone(), self.doubted.clone());
        nodes.subscribe(move |old, new| {
            let conditions = new.and_then(|node| node.status.as_ref()?.conditions.as_ref());
            if conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "Unknown") {
                doubted.notify_one();
            }
            let range = |node: Option<&Arc<Node>>| node.and_then(|n| n.spec.as_ref()?.pod_cidr.clone());
            if range(old) != range(new) {
                all.keys().into_iter().for_each(|key| to.add(key));
            }
        });
        tokio::join!(pods.synced(), nodes.synced());
        let changes = stage.changes();
        let again = async {
            loop {
                changes.notified().await;
                pods.keys().into_iter().for_each(|key| queue.add(key));
            }
        };
        let run = controller::run(queue.clone(), WORKERS, life.shutdown(), |key: String| {
            self.reconcile(key, &pods, &nodes)
        });
        tokio::select! {
            biased;
            () = run => std::future::pending().await,
            never = again => never,
        }
    }

    async fn reconcile(
        &self,
        key: String,
        pods: &Informer<Pod>,
        nodes: &Informer<Node>,
    ) -> Result<Outcome, Status> {
        let Some(pod) = pods.get(&key) else {
            self.free(pods);
            return Ok(Outcome::Done);
        };
        let play = self.machine.parts.stage.of(&pod);
        let Some(addresses) = self.addresses(&pod, nodes) else { return Ok(Outcome::Done) };
        let plan = pod::plan(&pod, &play, &addresses, self.machine.parts.clock.now_seconds());
        if let Some(status) = plan.status {
            let changed = Pod { status: Some(status), ..(*pod).clone() };
            gone_is_fine(self.pods.update_status(changed).await.map(drop))?;
        }
        if plan.remove {
            self.remove(&pod).await?;
        }
        Ok(plan.again.map_or(Outcome::Done, Outcome::After))
    }

    async fn remove(&self, pod: &Pod) -> Result<(), Status> {
        let meta = pod.meta();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let options = DeleteOptions { grace_period_seconds: Some(0), ..api::delete_uid(uid) };
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        self.machine.parts.stage.forget(pod);
        let deleted =
            self.pods.delete(namespace.unwrap_or_default(), name.unwrap_or_default(), options).await;
        gone_is_fine(deleted)
    }

    /// The addresses of a pod; none before the node has a range.
    fn addresses(&self, pod: &Pod, nodes: &Informer<Node>) -> Option<pod::Addresses> {
        let host = self.machine.parts.address.clone();
        if let Some(ip) = pod.status.as_ref().and_then(|s| s.pod_ip.clone()) {
            if let Ok(ip) = ip.parse() {
                self.machine.addresses.lock().insert(uid(pod), ip);
            }
            return Some(pod::Addresses { pod: ip, host });
        }
        let range = nodes.get(&self.machine.name)?.spec.as_ref()?.pod_cidr.clone()?;
        let (base, length) = range.split_once('/')?;
        let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
        let size = 1_u32.checked_shl(32_u32.checked_sub(length.parse().ok()?)?)?;
        let mut taken = self.machine.addresses.lock();
        let ip = match taken.get(&uid(pod)) {
            Some(ip) => *ip,
            None => {
                let used: HashSet<Ipv4Addr> = taken.values().copied().collect();
                let free = |n: &u32| !used.contains(&Ipv4Addr::from(base + n));
                let ip = Ipv4Addr::from(base + (2..size.saturating_sub(1)).find(free)?);
                taken.insert(uid(pod), ip);
                ip
            }
        };
        Some(pod::Addresses { pod: ip.to_string(), host })
    }

    fn free(&self, pods: &Informer<Pod>) {
        let present: HashSet<String> = pods.list().iter().map(|pod| uid(pod)).collect();
        self.machine.addresses.lock().retain(|uid, _| present.contains(uid));
    }
}

fn key(pod: &Pod) -> String {
    let meta = pod.meta();
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", text(&meta.namespace), text(&meta.name))
}

fn uid(pod: &Pod) -> String {
    pod.meta().uid.clone().unwrap_or_default()
}

fn gone_is_fine(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.is_not_found() => Ok(()),
        result => result,
    }
}
