//! Services: the node's part of them, in nftables.
//!
//! [`plan`] decides what a Service means on this node, [`layout`] how that is said in nftables, [`program`]
//! what changes; this file listens to the API and hands transactions to the kernel. Changes are applied as
//! they come; what comes while one is being applied makes the next. Established connections are never
//! touched, except datagram flows to endpoints that are gone ([`conntrack`]).

mod change;
pub mod conntrack;
mod groups;
mod health;
pub mod healthz;
mod http;
pub mod layout;
pub mod plan;
pub mod program;
mod rules;

use crate::addr::Cidr;
use crate::link::{self, routes::NodeView, rtnl::Rtnl, sysctl};
use crate::nft::{self, Family, Transaction};
use crate::views::{RangesView, ServiceView, SliceView};
use healthz::Health;
use krate_api::types::core::v1::{Node as ApiNode, Service};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_api::types::networking::v1::ServiceCIDR;
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown};
use krate_client::{Index, Informer, Informers, Recorder, Source};
use layout::{Layout, SERVICE_LINK, TABLE};
use parking_lot::Mutex;
use plan::{Node, ServicePlan};
use program::{Program, Stale};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// First pause after the kernel refused a transaction; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Bounds of the histogram of synchronization times, in seconds.
const SYNC_BUCKETS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048];

/// What a proxy is made of.
#[derive(Clone)]
pub struct Config {
    pub informers: Informers,
    pub metrics: Metrics,
    pub clock: Clock,
    pub rng: Rng,
    pub recorder: Recorder,
    pub node_name: String,
    /// The node's own addresses: the source of its connections to Services.
    pub node_ips: Vec<IpAddr>,
    /// The pods of the whole cluster: they reach Services with their own address.
    pub pod_cidrs: Vec<Cidr>,
    /// The addresses of Services; one range per family that is served.
    pub service_cidrs: Vec<Cidr>,
    /// Service addresses at which the node itself answers: the cluster's DNS.
    pub answered_here: Vec<IpAddr>,
}

/// Why the proxy failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Link(#[from] link::Error),
    #[error(transparent)]
    Nft(#[from] nft::Error),
    #[error("forget connections: {0}")]
    Conntrack(#[source] crate::netlink::Error),
    #[error("proxy thread: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// The proxy of one node.
pub struct Proxy {
    config: Config,
    services: Informer<ServiceView>,
    slices: Index<SliceView>,
    slice_informer: Informer<SliceView>,
    nodes: Informer<NodeView>,
    /// Ranges that were added to the configured ones.
    ranges: Informer<RangesView>,
    dirty: Arc<Dirty>,
    health: Health,
    applied: watch::Sender<u64>,
}

/// Keys of Services that changed since they were last looked at.
struct Dirty {
    keys: Mutex<BTreeSet<String>>,
    changed: Notify,
    health: Health,
}

impl Dirty {
    /// All at once: who is woken finds all of them.
    fn add(&self, keys: impl IntoIterator<Item = String>) {
        let count = {
            let mut all = self.keys.lock();
            all.extend(keys);
            all.len()
        };
        if count > 0 {
            self.health.queued();
            self.changed.notify_one();
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.keys.lock()).into_iter().collect()
    }
}

impl Proxy {
    /// Subscribes to Services and slices; nothing is programmed yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let services = config.informers.get::<ServiceView>(Source::of::<Service>());
        let slice_informer = config.informers.get::<SliceView>(Source::of::<EndpointSlice>());
        let slices = slice_informer.index("service", |s: &SliceView| s.service_key().into_iter().collect());
        let families = layouts(&config).into_iter().map(|l| l.family).collect();
        let health = Health::new(config.clock.clone(), families);
        let dirty =
            Arc::new(Dirty { keys: Mutex::default(), changed: Notify::new(), health: health.clone() });
        // The informers outlive a proxy that is started again.
        let told = Arc::downgrade(&dirty);
        services.subscribe(move |old, new| {
            let Some(dirty) = told.upgrade() else { return };
            dirty.add(old.or(new).map(|s| s.key()));
        });
        let told = Arc::downgrade(&dirty);
        slice_informer.subscribe(move |old, new| {
            let Some(dirty) = told.upgrade() else { return };
            dirty.add([old, new].into_iter().flatten().filter_map(|s| s.service_key()));
        });
        let nodes = config.informers.get::<NodeView>(Source::of::<ApiNode>());
        let (told, all, own) = (Arc::downgrade(&dirty), services.clone(), config.node_name.clone());
        nodes.subscribe(move |old, new| {
            let zone = |node: Option<&Arc<NodeView>>| node.and_then(|n| n.zone.clone());
            let Some(dirty) = told.upgrade() else { return };
            // Which endpoints are near follows the node's zone; it seldom changes.
            if new.or(old).is_some_and(|n| n.name == own) && zone(old) != zone(new) {
                dirty.add(all.keys());
            }
        });
        let ranges = config.informers.get::<RangesView>(Source::of::<ServiceCIDR>());
        let told = Arc::downgrade(&dirty);
        ranges.subscribe(move |_, _| {
            if let Some(dirty) = told.upgrade() {
                dirty.changed.notify_one();
            }
        });
        let applied = watch::Sender::new(0);
        Self { config, services, slices, slice_informer, nodes, ranges, dirty, health, applied }
    }

    /// Counts the transactions that the kernel has carried out.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Programs the node until shutdown. What is programmed then stays: connections go on while the
    /// process is replaced.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let (nodes, own) = (self.nodes.clone(), self.config.node_name.clone());
        let is_eligible = move || nodes.get(&own).is_some_and(|node| !node.leaves);
        let answer = self.health.clone().serve(self.config.metrics.clone(), is_eligible);
        let both = async {
            tokio::select! {
                ended = self.follow() => ended,
                () = answer => Ok(()),
            }
        };
        shutdown.run_until_cancelled(both).await.unwrap_or(Ok(()))
    }

    async fn follow(&self) -> Result<(), Error> {
        let (config, mut routed) = (self.config.clone(), self.config.service_cidrs.clone());
        tokio::task::spawn_blocking(move || prepare_node(&config)).await??;
        self.services.synced().await;
        self.slice_informer.synced().await;
        self.nodes.synced().await;
        let mut programs: Vec<Program> = layouts(&self.config).into_iter().map(Program::new).collect();
        let mut rebuild = true;
        let mut stale = Vec::new();
        let mut checks = Checks::default();
        let mut ports =
            health::Ports::new(self.health.clone(), self.config.recorder.clone(), &self.config.node_name);
        let mut pause = RETRY_FIRST;
        let (mut connection, mut ports_are_due) = (None, false);
        loop {
            let started = Instant::now();
            let keys = self.dirty.take();
            let plans = self.plans(&keys);
            ports_are_due |= checks.change(&plans);
            let (transactions, more) = transactions(&mut programs, &plans, rebuild);
            stale.extend(more);
            let forget = stale.clone();
            self.route_further_ranges(&mut routed).await;
            let (kernel, done) =
                tokio::task::spawn_blocking(move || carry_out(connection, &transactions, &forget)).await?;
            connection = kernel;
            match done {
                Ok(()) => {
                    (rebuild, pause) = (false, RETRY_FIRST);
                    stale.clear();
                    self.health.updated();
                    if std::mem::take(&mut ports_are_due) || !ports.are_open() {
                        ports.set(checks.by_port()).await;
                    }
                    self.count(started, &programs);
                    self.applied.send_modify(|n| *n += 1);
                    self.dirty.changed.notified().await;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot program Services; it will be tried again");
                    let help = "Cumulative proxy rules sync failures";
                    self.config.metrics.add("kubeproxy_sync_proxy_rules_failures_total", help, vec![], 1.0);
                    rebuild = true;
                    tokio::time::sleep(self.config.rng.jitter(pause, 1.0)).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Service addresses need a route on the node, those of added ranges too. A route that is not needed any
    /// more does no harm; one that would hide the nodes or the pods is not made.
    async fn route_further_ranges(&self, routed: &mut Vec<Cidr>) {
        let hides = |range: &Cidr| {
            let pods = &self.config.pod_cidrs;
            self.config.node_ips.iter().any(|ip| range.contains(*ip))
                || pods.iter().any(|p| range.contains(p.base()) || p.contains(range.base()))
        };
        let mut new: Vec<Cidr> = self.ranges.list().iter().flat_map(|r| r.0.clone()).collect();
        new.retain(|range| !routed.contains(range) && !hides(range));
        if new.is_empty() {
            return;
        }
        routed.extend(&new);
        let config = Config { service_cidrs: new, ..self.config.clone() };
        match tokio::task::spawn_blocking(move || prepare_node(&config)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "an added range of Service addresses has no route"),
            Err(error) => tracing::error!(%error, "routes to Service addresses"),
        }
    }

    /// What the Services of these keys mean on this node; `None` for one that is gone.
    fn plans(&self, keys: &[String]) -> Plans {
        let node = Node {
            name: self.config.node_name.clone(),
            zone: self.nodes.get(&self.config.node_name).and_then(|n| n.zone.clone()),
            answered_here: self.config.answered_here.clone(),
        };
        let plan_of = |key: &String| {
            let slices = self.slices.get(key);
            let service = self.services.get(key)?;
            Some(Arc::new(plan::plan(&service, slices.iter().map(|s| &**s), &node)))
        };
        keys.iter().map(|key| (key.clone(), plan_of(key))).collect()
    }

    fn count(&self, started: Instant, programs: &[Program]) {
        let seconds = started.elapsed().as_secs_f64();
        let metrics = &self.config.metrics;
        let help = "SyncProxyRules latency in seconds";
        metrics.observe("kubeproxy_sync_proxy_rules_duration_seconds", help, SYNC_BUCKETS, vec![], seconds);
        let frontends: usize = programs.iter().map(Program::len).sum();
        let help = "Number of addresses and ports that the proxy serves or refuses";
        metrics.set("krate_proxy_frontends", help, vec![], frontends as f64);
    }
}

/// Plans by the Service's key.
type Plans = Vec<(String, Option<Arc<ServicePlan>>)>;

/// What to tell the kernel about changed plans, in every family, and what it is to forget.
fn transactions(programs: &mut [Program], plans: &Plans, rebuild: bool) -> (Vec<Transaction>, Vec<Stale>) {
    let mut stale = Vec::new();
    let each = |program: &mut Program| {
        let update = program.update(plans.iter().map(|(key, plan)| (key.as_str(), plan.clone())));
        stale.extend(update.stale);
        let ops = if rebuild { program.rebuild() } else { update.ops };
        Transaction { family: program.family(), table: TABLE, ops }
    };
    (programs.iter_mut().map(each).collect(), stale)
}

/// The health checks of all Services.
#[derive(Default)]
struct Checks(BTreeMap<String, (u16, usize)>);

impl Checks {
    /// Whether anything is different now.
    fn change(&mut self, plans: &Plans) -> bool {
        let mut changed = false;
        for (key, plan) in plans {
            let health = plan.as_ref().and_then(|p| p.health);
            let before = match health {
                Some(health) => self.0.insert(key.clone(), health),
                None => self.0.remove(key),
            };
            changed |= before != health;
        }
        changed
    }

    fn by_port(&self) -> BTreeMap<u16, health::Check> {
        let check = |(key, (port, local_endpoints)): (&String, &(u16, usize))| {
            let (namespace, name) = krate_api::object::split_key(key);
            let check = health::Check {
                namespace: namespace.into(),
                name: name.into(),
                local_endpoints: *local_endpoints,
            };
            (*port, check)
        };
        self.0.iter().map(check).collect()
    }
}

/// One table for each family that has Services.
fn layouts(config: &Config) -> Vec<Layout> {
    let of = |family: Family, ranges: &[Cidr]| -> Vec<Cidr> {
        ranges.iter().copied().filter(|c| Family::of(c.base()) == family).collect()
    };
    let layout = |family| Layout {
        family,
        pods: of(family, &config.pod_cidrs),
        services: of(family, &config.service_cidrs),
    };
    [Family::Ip, Family::Ip6].map(layout).into_iter().filter(|l| !l.services.is_empty()).collect()
}

/// Service addresses need a route, or a node without default route could not even try to reach them; and
/// node ports on loopback addresses need these to be routable (the table keeps strangers off them).
fn prepare_node(config: &Config) -> Result<(), Error> {
    sysctl::set("net/ipv4/ip_forward", "1")?;
    sysctl::set("net/ipv4/conf/all/route_localnet", "1")?;
    let rtnl = Rtnl::open()?;
    rtnl.add_island(SERVICE_LINK)?;
    let index = rtnl.link_index(SERVICE_LINK)?;
    rtnl.set_up(index)?;
    for range in &config.service_cidrs {
        let from = config.node_ips.iter().find(|ip| ip.is_ipv4() == range.base().is_ipv4());
        rtnl.add_link_route(index, *range, from.copied())?;
    }
    Ok(())
}

/// Tells the kernel, over a connection that is opened if there is none and given back if it is still good.
fn carry_out(
    connection: Option<nft::Connection>,
    transactions: &[Transaction],
    stale: &[Stale],
) -> (Option<nft::Connection>, Result<(), Error>) {
    let told = connection.map_or_else(nft::Connection::open, Ok).and_then(|kernel| {
        kernel.commit(transactions)?;
        Ok(kernel)
    });
    match told {
        Ok(kernel) => (Some(kernel), forget(transactions, stale)),
        Err(error) => (None, Err(error.into())),
    }
}

fn forget(transactions: &[Transaction], stale: &[Stale]) -> Result<(), Error> {
    for family in transactions.iter().map(|t| t.family) {
        let of_family: Vec<Stale> = stale.iter().filter(|s| s.frontend.family == family).cloned().collect();
        conntrack::forget(family, &of_family).map_err(Error::Conntrack)?;
    }
    Ok(())
}
