//! A node: the runtime, the kubelet, and the network around its pods, each speaking to the API with the node's
//! identity.

use super::control::{DNS_ADDRESS, nth_address};
use super::identity;
use super::pod_network::SandboxNetwork;
use crate::cli::{Egress, NodeArgs};
use crate::ui::{Explain, Failure, Outcome};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Supervisor};
use krate_client::{Informers, Recorder, Transport};
use krate_kubelet::paths::Paths;
use krate_kubelet::volumes::mount;
use krate_network::link::{edge, routes::Routes};
use krate_network::{Cidr, Dns, Proxy, dns, proxy};
use krate_runtime::EmbeddedRuntime;
use krate_runtime::images::PullOptions;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The port of the kubelet's server.
const KUBELET_PORT: u16 = 10250;
const CLUSTER_DOMAIN: &str = "cluster.local";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Pods that a node takes by default.
const MAX_PODS: u32 = 110;

/// What a node is made with.
pub struct Settings {
    /// With the node's identity.
    pub transport: Arc<dyn Transport>,
    /// With that of the service proxy; remote nodes have one identity for both.
    pub proxy_transport: Arc<dyn Transport>,
    pub data_dir: PathBuf,
    pub name: String,
    pub address: IpAddr,
    pub cluster_cidr: String,
    pub service_cidr: String,
    pub args: NodeArgs,
}

/// The node's name: as given, or the host's.
pub fn name(args: &NodeArgs) -> Outcome<String> {
    if let Some(name) = &args.node_name {
        return Ok(name.clone());
    }
    let host = nix::unistd::gethostname().explain("the host has no name", "Give --node-name NAME.")?;
    let name = host.to_string_lossy().to_ascii_lowercase();
    if name.is_empty() {
        Err(Failure::new("the host has no name", "Give --node-name NAME."))
    } else {
        Ok(name)
    }
}

/// Starts a node under `supervisor`; returns when everything runs, before the node is Ready.
pub async fn start(settings: Settings, supervisor: &Supervisor) -> Outcome<()> {
    let parts = Parts {
        clock: Clock::system(),
        rng: Rng::from_entropy(),
        metrics: Metrics::default(),
        supervisor: supervisor.clone(),
        dns: nth_address(&settings.service_cidr, DNS_ADDRESS).ok_or_else(|| {
            Failure::new(
                format!("{:?} is not an address range", settings.service_cidr),
                "Write it as 10.96.0.0/16.",
            )
        })?,
        settings,
    };
    let informers = Informers::new(
        parts.settings.proxy_transport.clone(),
        parts.rng.clone(),
        parts.metrics.clone(),
        supervisor.clone(),
    );
    parts.routes(&informers);
    parts.services(&informers)?;
    parts.resolve(&informers);
    let egress = parts.egress()?;
    let state = parts.settings.data_dir.join("network");
    let network = SandboxNetwork::new(&parts.settings.name, &informers, egress, state);
    let runtime = parts.runtime(Arc::new(network)).await?;
    parts.kubelet(runtime).await
}

fn range(text: &str) -> Outcome<Cidr> {
    text.parse().explain(&format!("{text:?} is not an address range"), "Write it as 10.96.0.0/16.")
}

/// Below what pods are evicted.
fn eviction(args: &NodeArgs) -> krate_kubelet::eviction::Config {
    let mut config = krate_kubelet::eviction::Config::default();
    if let Some(thresholds) = &args.eviction_hard {
        config.thresholds.clone_from(thresholds);
    }
    config
}

/// What pods cannot have, whoever it is for.
fn reserved(args: &NodeArgs) -> std::collections::BTreeMap<String, String> {
    let mut all = std::collections::BTreeMap::<String, krate_api::quantity::Quantity>::new();
    for (name, amount) in args.system_reserved.iter().chain(&args.kube_reserved).flatten() {
        all.entry(name.clone()).and_modify(|sum| sum.add(amount)).or_insert(*amount);
    }
    all.into_iter().map(|(name, amount)| (name, amount.text().0)).collect()
}

/// The prefix of a range of one address.
fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

struct Parts {
    settings: Settings,
    clock: Clock,
    rng: Rng,
    metrics: Metrics,
    supervisor: Supervisor,
    dns: IpAddr,
}

impl Parts {
    /// Keeps the routes to the other nodes' pods.
    fn routes(&self, informers: &Informers) {
        let (own, informers, rng) = (self.settings.name.clone(), informers.clone(), self.rng.clone());
        self.supervisor
            .component("routes", move |shutdown| Routes::new(&own, &informers, rng.clone()).run(shutdown));
    }

    /// How pods leave the cluster.
    fn egress(&self) -> Outcome<edge::Egress> {
        let (settings, node) =
            (&self.settings, Cidr::new(self.settings.address, host_prefix(self.settings.address)));
        Ok(match settings.args.egress {
            Egress::None => edge::Egress::None,
            Egress::Nat => {
                let mut inside = vec![range(&settings.service_cidr)?, range(&settings.cluster_cidr)?];
                inside.extend(node);
                edge::Egress::Nat { inside }
            }
        })
    }

    /// Programs Services.
    fn services(&self, informers: &Informers) -> Outcome<()> {
        let (service_cidr, pod_cidr) =
            (range(&self.settings.service_cidr)?, range(&self.settings.cluster_cidr)?);
        let (informers, metrics, rng) = (informers.clone(), self.metrics.clone(), self.rng.clone());
        let clock = self.clock.clone();
        let recorder = Recorder::start(
            self.settings.proxy_transport.clone(),
            "kube-proxy",
            &self.settings.name,
            &clock,
            &rng,
            &metrics,
            &self.supervisor,
        );
        let (name, address, dns) = (self.settings.name.clone(), self.settings.address, self.dns);
        self.supervisor.component("service-proxy", move |shutdown| {
            Proxy::new(proxy::Config {
                informers: informers.clone(),
                metrics: metrics.clone(),
                clock: clock.clone(),
                rng: rng.clone(),
                recorder: recorder.clone(),
                node_name: name.clone(),
                node_ips: vec![address],
                pod_cidrs: vec![pod_cidr],
                service_cidrs: vec![service_cidr],
                answered_here: vec![dns],
            })
            .run(shutdown)
        });
        Ok(())
    }

    /// Who is asked for names outside of the cluster: nobody when nothing may leave it.
    fn upstreams(&self) -> Vec<SocketAddr> {
        if self.settings.args.egress == Egress::None {
            return vec![];
        }
        let resolv_conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        dns::resolvers(&resolv_conf).into_iter().filter(|server| server.ip() != self.dns).collect()
    }

    /// Answers names.
    fn resolve(&self, informers: &Informers) {
        let (informers, metrics, rng) = (informers.clone(), self.metrics.clone(), self.rng.clone());
        let (clock, address) = (self.clock.clone(), self.dns);
        let upstreams = self.upstreams();
        self.supervisor.component("dns", move |shutdown| {
            Dns::new(dns::Config {
                informers: informers.clone(),
                clock: clock.clone(),
                rng: rng.clone(),
                metrics: metrics.clone(),
                domain: CLUSTER_DOMAIN.to_owned(),
                addresses: vec![address],
                listen: vec![],
                upstreams: upstreams.clone(),
            })
            .run(shutdown)
        });
    }

    async fn runtime(&self, network: Arc<SandboxNetwork>) -> Outcome<Arc<EmbeddedRuntime>> {
        let dir = &self.settings.data_dir;
        let config = krate_runtime::Config {
            root: dir.join("runtime"),
            image_root: self.settings.args.image_dir.clone().unwrap_or_else(|| dir.join("images")),
            cgroup_parent: self.settings.args.cgroup.clone(),
            network,
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            shim_command: krate_runtime::Config::own_shim(),
            pull: PullOptions::default(),
        };
        EmbeddedRuntime::open(config)
            .await
            .explain("the container runtime cannot be started", "Give another --data-dir, or see the log.")
    }

    async fn kubelet(&self, runtime: Arc<EmbeddedRuntime>) -> Outcome<()> {
        let settings = &self.settings;
        let address = SocketAddr::new(settings.address, KUBELET_PORT);
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .explain(&format!("the kubelet cannot listen on {address}"), "Is another kubelet running?")?;
        let logs = PathBuf::from("/var/log");
        let config = krate_kubelet::Config {
            node_name: settings.name.clone(),
            node_ips: vec![settings.address],
            labels: Default::default(),
            max_pods: MAX_PODS,
            capacity: Default::default(),
            reserved: reserved(&settings.args),
            eviction: eviction(&settings.args),
            // A folder of images that was given to the node is shared: others use what is in it.
            image_garbage: settings.args.image_dir.is_none().then(Default::default),
            log_limits: Default::default(),
            transport: settings.transport.clone(),
            runtime: runtime.clone(),
            images: runtime.clone(),
            streams: runtime,
            mounter: Arc::new(mount::Kernel),
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            metrics: self.metrics.clone(),
            paths: Paths {
                root: settings.data_dir.join("kubelet"),
                pod_logs: logs.join("pods"),
                container_logs: logs.join("containers"),
            },
            volume_folder: settings.args.volume_dir.clone(),
            static_pods: settings.args.static_pods.clone(),
            cluster_dns: vec![self.dns],
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            cgroup_parent: settings.args.cgroup.clone(),
            resolv_conf: PathBuf::from(RESOLV_CONF),
            hosts_file: PathBuf::from("/etc/hosts"),
            server: Some((listener, server_tls(&settings.data_dir)?)),
        };
        let kubelet = krate_kubelet::Kubelet::new(config);
        let name = settings.name.clone();
        let shutdown = self.supervisor.shutdown();
        self.supervisor.spawn(async move {
            if let Err(error) = kubelet.run(shutdown).await {
                tracing::error!(%error, node = name, "the kubelet ended");
            }
        });
        Ok(())
    }
}

/// TLS of the kubelet's server: clients must show a certificate of the cluster's authority.
fn server_tls(dir: &Path) -> Outcome<Arc<rustls::ServerConfig>> {
    let next = "Start the node anew, so that its certificates are made again.";
    let read = |name: &str| {
        std::fs::read(dir.join(name)).explain(&format!("{name} of the node cannot be read"), next)
    };
    let (cert, key, ca) =
        (read(identity::SERVING_CERT)?, read(identity::SERVING_KEY)?, read(identity::CLIENT_CA)?);
    let certificates = |text: &[u8]| -> Outcome<Vec<CertificateDer<'static>>> {
        let blocks = pem::parse_many(text).explain("a certificate of the node is damaged", next)?;
        Ok(blocks.into_iter().map(|b| CertificateDer::from(b.into_contents())).collect())
    };
    let mut roots = rustls::RootCertStore::empty();
    for authority in certificates(&ca)? {
        roots.add(authority).explain("the cluster's authority is damaged", next)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .explain("the cluster's authority is damaged", next)?;
    let key = pem::parse(&key).explain("the node's key is damaged", next)?;
    let key = PrivateKeyDer::try_from(key.into_contents()).explain("the node's key is damaged", next)?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .explain("internal error", "")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&cert)?, key)
        .explain("the node's certificate is damaged", next)?;
    Ok(Arc::new(config))
}
