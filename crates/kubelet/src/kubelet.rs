//! The kubelet as a whole: what it is given, and the wiring of its parts.

use crate::context::Context;
use crate::dns::ClusterDns;
use crate::eviction::{self, Pressure};
use crate::housekeeping::Housekeeping;
use crate::image::Puller;
use crate::image::garbage::{self, Collector};
use crate::logs::rotate;
use crate::mirror::Mirrors;
use crate::node::status::{allocatable, capacity};
use crate::node::{Facts, NodeAgent, NodeSpec};
use crate::orphans;
use crate::paths::Paths;
use crate::publish::Publisher;
use crate::references::References;
use crate::server::{Lookup, Server};
use crate::spec;
use crate::statics::{Source as StaticSource, Statics};
use crate::volumes::Volumes;
use crate::volumes::atomic::Stamp;
use crate::volumes::claims::Claims;
use crate::volumes::folders::{self, Folders};
use crate::volumes::mount::Mounter;
use crate::volumes::tokens::Tokens;
use crate::workers::Workers;
use krate_api::types::core::v1::{Node, PersistentVolume, Pod, Service};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::informer::{Informer, Informers, Source};
use krate_client::recorder::Recorder;
use krate_client::{Api, Transport};
use krate_runtime::cri::{Images, Runtime, Streams};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

/// Everything that a kubelet is given.
pub struct Config {
    pub node_name: String,
    /// Primary first.
    pub node_ips: Vec<IpAddr>,
    /// Labels of the node beside those that every node carries.
    pub labels: BTreeMap<String, String>,
    pub max_pods: u32,
    /// Replaces what the machine has, such as `cpu: 4`.
    pub capacity: BTreeMap<String, String>,
    /// What pods cannot have: for the system and Kubernetes' own programs, such as `memory: 200Mi`.
    pub reserved: BTreeMap<String, String>,
    pub eviction: eviction::Config,
    /// When unused images are removed; `None` where others than this node's pods use them too.
    pub image_garbage: Option<garbage::Policy>,
    pub log_limits: rotate::Limits,
    pub transport: Arc<dyn Transport>,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn Images>,
    pub streams: Arc<dyn Streams>,
    pub mounter: Arc<dyn Mounter>,
    pub clock: Clock,
    pub rng: Rng,
    pub metrics: Metrics,
    pub paths: Paths,
    /// Where the cluster's own volumes are; what is elsewhere is never removed.
    pub volume_folder: PathBuf,
    /// Manifests of static pods; none are run without.
    pub static_pods: Option<PathBuf>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The node's control group, such as `/krate/dev/node-1`; the pods' are made in it.
    pub cgroup_parent: String,
    /// The node's own resolver configuration and hosts file.
    pub resolv_conf: PathBuf,
    pub hosts_file: PathBuf,
    /// Where the kubelet's server listens, and with what. Without, nobody can ask this kubelet.
    pub server: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
}

/// Why a kubelet cannot run at all. What can heal is retried and does not end it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kubelet's folder {path} cannot be made: {error}")]
    Folder { path: String, error: std::io::Error },
    #[error("the kubelet's server has no address: {0}")]
    Server(std::io::Error),
}

/// A kubelet, ready to run.
pub struct Kubelet {
    config: Config,
}

impl Kubelet {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Runs until shutdown. Containers go on running after it.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let config = self.config;
        for path in [&config.paths.root, &config.paths.pod_logs] {
            std::fs::create_dir_all(path)
                .map_err(|error| Error::Folder { path: path.display().to_string(), error })?;
        }
        let supervisor = Supervisor::new(shutdown.child_token());
        let running = Running::start(config, &supervisor)?;
        running.follow(&supervisor).await;
        running.publisher.shutdown();
        running.mirrors.shutdown();
        supervisor.stop().await;
        Ok(())
    }
}

/// The parts that work together.
struct Running {
    context: Arc<Context>,
    workers: Workers,
    pods: Informer<Pod>,
    statics: Statics,
    mirrors: Mirrors,
    publisher: Publisher,
    informers: Informers,
    transport: Arc<dyn Transport>,
}

impl Running {
    fn start(config: Config, supervisor: &Supervisor) -> Result<Self, Error> {
        let Config { transport, clock, rng, metrics, .. } = &config;
        let recorder =
            Recorder::start(transport.clone(), "kubelet", &config.node_name, clock, rng, metrics, supervisor);
        let of_node = Source::of::<Pod>().fields(&format!("spec.nodeName={}", config.node_name));
        let informers = Informers::new(transport.clone(), rng.clone(), metrics.clone(), supervisor.clone());
        let pods: Informer<Pod> = informers.own(of_node);
        let publisher =
            Publisher::new(Api::new(transport.clone()).managed_by("kubelet"), pods.clone(), metrics);
        let node = node_spec(&config)?;
        let (tell, pressures) = watch::channel(BTreeSet::new());
        let context =
            context(&config, &node, recorder.clone(), &informers, publisher.clone(), pressures, supervisor);
        let context = Arc::new(context);
        let workers = Workers::new(context.clone(), supervisor.shutdown());
        let statics = Statics::default();
        let mirrors =
            Mirrors::new(&config.node_name, transport.clone(), statics.clone(), publisher.clone(), metrics);
        let transport = transport.clone();
        let running = Self { context, workers, pods, statics, mirrors, publisher, informers, transport };
        running.keep_house(&config, tell, supervisor);
        running.start_tasks(config, node, recorder, supervisor);
        Ok(running)
    }

    /// Starts what looks after memory, disk, images and logs.
    fn keep_house(&self, config: &Config, tell: watch::Sender<BTreeSet<Pressure>>, supervisor: &Supervisor) {
        let collector = |policy| Collector::new(config.images.clone(), config.runtime.clone(), policy);
        let house = Housekeeping {
            context: self.context.clone(),
            eviction: eviction::Manager::new(
                config.eviction.clone(),
                self.context.clone(),
                self.workers.clone(),
                tell,
            ),
            images: config.image_garbage.map(collector),
            logs: config.log_limits,
        };
        let shutdown = supervisor.shutdown();
        supervisor.spawn(async move {
            shutdown.run_until_cancelled(house.run()).await;
        });
        // An image that was imported is what a pod with the policy Never waits for.
        let (workers, mut images) = (self.workers.clone(), config.images.changes());
        let shutdown = supervisor.shutdown();
        supervisor.spawn(async move {
            while let Some(Ok(())) = shutdown.run_until_cancelled(images.changed()).await {
                workers.wake_all();
            }
        });
    }

    /// Starts everything that runs beside the pods' workers.
    fn start_tasks(&self, config: Config, node: NodeSpec, recorder: Recorder, supervisor: &Supervisor) {
        let me = Source::of::<Node>().fields(&format!("metadata.name={}", config.node_name));
        let agent = NodeAgent {
            own: self.informers.own(me),
            spec: node,
            transport: config.transport.clone(),
            runtime: config.runtime.clone(),
            images: config.images.clone(),
            pressures: self.context.pressures.clone(),
            recorder,
            clock: config.clock.clone(),
            rng: config.rng.clone(),
        };
        supervisor.spawn(agent.run(supervisor.shutdown()));
        let (publisher, mirrors) = (self.publisher.clone(), self.mirrors.clone());
        supervisor.spawn(async move { publisher.run().await });
        supervisor.spawn(async move { mirrors.run().await });
        let configz = crate::configz::describe(&config).to_string().into();
        if let Some((listener, tls)) = config.server {
            let server = Server {
                configz,
                runtime: config.runtime.clone(),
                streams: config.streams.clone(),
                pods: Arc::new(Known { pods: self.pods.clone(), statics: self.statics.clone() }),
                clock: config.clock.clone(),
                metrics: config.metrics.clone(),
            };
            supervisor.spawn(server.serve(listener, tls, supervisor.shutdown()));
        }
        let own = Source::of::<PersistentVolume>().labels(&folders::selector(&config.node_name));
        let folders = Folders {
            node: config.node_name.clone(),
            folder: config.volume_folder.clone(),
            volumes: self.informers.own(own),
            api: Api::new(config.transport),
            recorder: self.context.recorder.clone(),
        };
        supervisor.spawn(folders.run(config.metrics, supervisor.shutdown()));
        if let Some(folder) = config.static_pods {
            self.follow_folder(folder, supervisor);
        }
    }

    fn follow_folder(&self, folder: PathBuf, supervisor: &Supervisor) {
        let (context, statics) = (self.context.clone(), self.statics.clone());
        let (workers, mirrors) = (self.workers.clone(), self.mirrors.clone());
        supervisor.component("static pods", move |shutdown| {
            let mirrors = mirrors.clone();
            let source = StaticSource {
                folder: folder.clone(),
                node: context.node_name.clone(),
                clock: context.clock.clone(),
                statics: statics.clone(),
                workers: workers.clone(),
                changed: Box::new(move |key| mirrors.look(key)),
            };
            async move { shutdown.run_until_cancelled(source.run()).await.unwrap_or(Ok(())) }
        });
    }

    /// Tells the workers what the API and the runtime say, until shutdown.
    async fn follow(&self, supervisor: &Supervisor) {
        let shutdown = supervisor.shutdown();
        // Subscribed before the first worker looks, so that nothing between is missed.
        let mut events = self.context.runtime.get_container_events();
        self.subscribe();
        let this = orphans::Orphans {
            context: self.context.clone(),
            workers: self.workers.clone(),
            statics: self.statics.clone(),
            pods: self.pods.clone(),
            api: Api::new(self.transport.clone()),
        };
        supervisor.spawn({
            let shutdown = shutdown.clone();
            async move {
                shutdown.run_until_cancelled(this.clean_up()).await;
            }
        });
        let (workers, services) = (self.workers.clone(), self.context.services.clone());
        supervisor.spawn({
            let shutdown = shutdown.clone();
            async move {
                // Pods wait for the services' variables; the list has no event if it is empty.
                if shutdown.run_until_cancelled(services.synced()).await.is_some() {
                    workers.wake_all();
                }
            }
        });
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(event) => self.tell(&event),
                // Whoever missed events looks for itself.
                Err(RecvError::Lagged(_)) => self.workers.wake_all(),
                Err(RecvError::Closed) => {
                    shutdown.cancelled().await;
                    return;
                }
            }
        }
    }

    fn tell(&self, event: &krate_runtime::cri::ContainerEvent) {
        let labels = event.pod_sandbox_status.as_ref().map(|s| &s.labels);
        let labels = labels.or(event.containers_statuses.first().map(|c| &c.labels));
        match labels.and_then(|l| l.get(crate::observed::POD_UID)) {
            Some(uid) => self.workers.wake(uid),
            None => self.workers.wake_all(),
        }
    }

    /// Follows the pods of the API. Mirror pods have no worker of their own.
    fn subscribe(&self) {
        let (workers, mirrors, publisher) =
            (self.workers.clone(), self.mirrors.clone(), self.publisher.clone());
        self.pods.subscribe(move |old, new| {
            let Some(pod) = new.or(old) else { return };
            if spec::is_mirror(pod) {
                mirrors.look(&krate_api::object::key(spec::namespace(pod), spec::name(pod)));
                return;
            }
            match (old, new) {
                (Some(old), Some(new)) if spec::uid(old) != spec::uid(new) => {
                    workers.gone(spec::uid(old));
                    workers.update(new);
                }
                (_, Some(new)) => {
                    workers.update(new);
                    if old.is_some_and(|old| old.status != new.status) {
                        // Somebody else may have written over ours.
                        publisher.refresh(spec::uid(new));
                    }
                }
                (_, None) => workers.gone(spec::uid(pod)),
            }
        });
    }
}

fn node_spec(config: &Config) -> Result<NodeSpec, Error> {
    let port = match &config.server {
        Some((listener, _)) => listener.local_addr().map_err(Error::Server)?.port(),
        None => 10250,
    };
    Ok(NodeSpec {
        name: config.node_name.clone(),
        ips: config.node_ips.clone(),
        labels: config.labels.clone(),
        kubelet_port: port,
        max_pods: config.max_pods,
        capacity: config.capacity.clone(),
        reserved: config.reserved.clone(),
        eviction: config.eviction.clone(),
        root_dir: config.paths.root.clone(),
    })
}

fn context(
    config: &Config,
    node: &NodeSpec,
    recorder: Recorder,
    informers: &Informers,
    publisher: Publisher,
    pressures: watch::Receiver<BTreeSet<Pressure>>,
    supervisor: &Supervisor,
) -> Context {
    let (transport, clock, rng, metrics) = (&config.transport, &config.clock, &config.rng, &config.metrics);
    let facts = Facts::read(&config.paths.root);
    let memory = capacity(node, &facts).get("memory").map_or(0, spec::resources::value);
    let volumes = Volumes {
        paths: config.paths.clone(),
        mounter: config.mounter.clone(),
        claims: Claims::new(transport, &config.node_name),
        tokens: Arc::new(Tokens::new(Api::new(transport.clone()), clock.clone())),
        stamp: Stamp { clock: clock.clone(), rng: rng.clone() },
    };
    Context {
        node_name: config.node_name.clone(),
        node_ips: config.node_ips.clone(),
        paths: config.paths.clone(),
        cluster_dns: ClusterDns {
            servers: config.cluster_dns.clone(),
            domain: config.cluster_domain.clone(),
        },
        cgroup_parent: config.cgroup_parent.clone(),
        resolv_conf: config.resolv_conf.clone(),
        hosts_file: config.hosts_file.clone(),
        runtime: config.runtime.clone(),
        puller: Arc::new(Puller::new(config.images.clone())),
        recorder,
        references: References::new(informers, supervisor),
        volumes,
        services: informers.of::<Service>(),
        runtime_classes: Api::new(transport.clone()),
        publisher,
        memory,
        pressures,
        allocatable: allocatable(node, &facts),
        clock: clock.clone(),
        rng: rng.clone(),
        metrics: metrics.clone(),
        supervisor: supervisor.clone(),
    }
}

/// The pods of the node, as the kubelet's server looks them up.
struct Known {
    pods: Informer<Pod>,
    statics: Statics,
}

impl Lookup for Known {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let key = krate_api::object::key(namespace, name);
        self.pods.get(&key).or_else(|| self.statics.get(&key))
    }

    fn list(&self) -> Vec<Arc<Pod>> {
        let mut all = self.pods.list();
        let shown = |pod: &Pod| {
            self.pods.get(&krate_api::object::key(spec::namespace(pod), spec::name(pod))).is_some()
        };
        all.extend(self.statics.list().into_iter().filter(|pod| !shown(pod)));
        all
    }

    fn runtime_uid(&self, pod: &Pod) -> String {
        spec::annotation(pod, spec::MIRROR_ANNOTATION).unwrap_or_else(|| spec::uid(pod)).to_owned()
    }
}
