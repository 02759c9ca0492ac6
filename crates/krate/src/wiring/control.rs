//! A control plane: store, API server, controllers, scheduler, each with the identity and the rights of its own.

use super::{addons, encryption, identity};
use crate::ui::{Explain, Failure, Outcome};
use krate_api::Catalogue;
use krate_apiserver::{ApiServer, Authority, Config, ServiceRanges, UserInfo};
use krate_base::{Clock, Rng, Supervisor};
use krate_client::Elector;
use krate_store::{Store as _, embedded};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// The port of the API inside a cluster.
pub const PORT: u16 = 6443;
/// The scheduler's user is `system:` and this, and its lease is named so.
const SCHEDULER: &str = "kube-scheduler";
/// Place of the address of DNS in the range of Services, by convention.
pub const DNS_ADDRESS: u32 = 10;

/// What a control plane is made with.
pub struct Settings {
    pub data_dir: PathBuf,
    /// How values of the store are encrypted, instead of the server's own file.
    pub encryption: Option<PathBuf>,
    /// Listeners of the API, opened in whatever namespace they belong to.
    pub listeners: Vec<std::net::TcpListener>,
    /// Whether the scheduler runs here.
    pub schedule: bool,
    /// Where nodes and pods reach the API.
    pub advertise: IpAddr,
    pub port: u16,
    pub tls_san: Vec<String>,
    pub cluster_cidr: String,
    pub service_cidr: String,
    /// The folder of the volumes that the cluster makes, and whether all nodes see the same files there.
    pub volumes: PathBuf,
    pub shared_volumes: bool,
    /// This server in the elections of controllers and scheduler. Without it they are taken to be alone.
    pub candidate: Option<String>,
    /// The address for the administrator's kubeconfig.
    pub public: String,
}

/// A running control plane.
pub struct Control {
    pub api: ApiServer,
    pub store: Arc<embedded::Embedded>,
    /// Tells the controllers of new resources.
    _resources: watch::Sender<Arc<Catalogue>>,
}

/// Starts a control plane under `supervisor`. When this returns, the API serves.
pub async fn start(settings: Settings, supervisor: &Supervisor) -> Outcome<Control> {
    let (clock, rng) = (Clock::system(), Rng::from_entropy());
    let next = "See the message above; the data folder may be damaged or of another version.";
    let folder = settings.data_dir.join("store");
    let keys = encryption::load(&settings.data_dir, settings.encryption.as_deref())?;
    let seal: Option<Arc<dyn krate_store::Seal>> = Some(keys.encryption.clone());
    let options = embedded::Options { seal, ..embedded::Options::folder(folder, clock.clone()) };
    let store =
        Arc::new(embedded::Embedded::open(options).await.explain("the store cannot be opened", next)?);
    encryption::follow(keys, &store, supervisor);
    let authority = Authority::load_or_create(&settings.data_dir.join(identity::PKI), &clock)
        .explain("the cluster's authority cannot be read", next)?;
    let mut config = Config::new(store.clone(), clock.clone(), rng.clone(), authority);
    config.services =
        ServiceRanges { cidrs: vec![settings.service_cidr.clone()], ..ServiceRanges::default() };
    // Nobody else reaches a loopback address; the `kubernetes` Service then has no endpoints.
    config.advertise = if settings.advertise.is_loopback() { vec![] } else { vec![settings.advertise] };
    config.port = settings.port;
    let api = ApiServer::new(config).explain("the API server cannot be made", next)?;
    api.bootstrap().await.explain("the cluster's first objects cannot be written", next)?;
    let dns = nth_address(&settings.service_cidr, DNS_ADDRESS).ok_or_else(|| {
        Failure::new(
            format!("{:?} is not an address range", settings.service_cidr),
            "Write it as 10.96.0.0/16.",
        )
    })?;
    tracing::info!(
        folder = %settings.data_dir.join("store").display(),
        revision = store.revision(),
        "the store is open"
    );
    addons::install(api.transport(UserInfo::apiserver()), dns).await?;
    serve(&api, &settings, supervisor)?;
    tracing::info!(version = krate_api::KUBERNETES_VERSION, at = %settings.public, "serving the Kubernetes API");
    let resources = watch::Sender::new(api.catalogue());
    start_controllers(&api, &clock, &rng, &settings, &resources, supervisor);
    if settings.schedule {
        start_scheduler(&api, &clock, &rng, settings.candidate.as_deref(), supervisor);
    }
    Ok(Control { api, store, _resources: resources })
}

fn serve(api: &ApiServer, settings: &Settings, supervisor: &Supervisor) -> Outcome<()> {
    let tls = api.tls(&names(settings)).explain("the API's certificate cannot be made", "")?;
    for listener in &settings.listeners {
        let listener = listener.try_clone().explain("internal error", "")?;
        listener.set_nonblocking(true).explain("internal error", "")?;
        let listener = tokio::net::TcpListener::from_std(listener).explain("internal error", "")?;
        let (api, tls, shutdown) = (api.clone(), tls.clone(), supervisor.shutdown());
        supervisor.spawn(async move { api.serve(listener, tls, shutdown).await });
    }
    write_admin(api.authority(), &settings.data_dir, &settings.public)
}

/// Every name and address by which the API is reached.
fn names(settings: &Settings) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push(settings.advertise.to_string());
    names.extend(nth_address(&settings.service_cidr, 1).map(|ip| ip.to_string()));
    names.extend(settings.tls_san.iter().cloned());
    names
}

/// The n-th address of a range: 1 is the API's, 10 is DNS's, by convention.
pub fn nth_address(cidr: &str, n: u32) -> Option<IpAddr> {
    let (base, _) = cidr.split_once('/')?;
    match base.parse().ok()? {
        IpAddr::V4(ip) => Some(IpAddr::V4(u32::from(ip).checked_add(n)?.into())),
        IpAddr::V6(ip) => Some(IpAddr::V6(u128::from(ip).checked_add(u128::from(n))?.into())),
    }
}

/// The administrator's kubeconfig; kept when there is one for the same address.
fn write_admin(authority: &Authority, data_dir: &Path, public: &str) -> Outcome<()> {
    let file = data_dir.join("admin.kubeconfig");
    let current = std::fs::read_to_string(&file).unwrap_or_default();
    if krate_client::kubeconfig::remote_config(&current, None).is_ok_and(|c| c.server == public) {
        return Ok(());
    }
    identity::write_kubeconfig(authority, &file, "krate", public, "kubernetes-admin", "system:masters")
}

fn start_controllers(
    api: &ApiServer,
    clock: &Clock,
    rng: &Rng,
    settings: &Settings,
    resources: &watch::Sender<Arc<Catalogue>>,
    supervisor: &Supervisor,
) {
    let server = api.clone();
    let transports = move |name: &str| server.transport(UserInfo::component(name));
    let resources = resources.subscribe();
    let (signer, authority) = (api.clone(), api.authority().clone());
    let alone = krate_controllers::Context::new(transports, clock, rng, api.metrics(), resources, supervisor);
    krate_controllers::start(&krate_controllers::Context {
        elect: settings.candidate.is_some(),
        identity: settings.candidate.clone().unwrap_or_else(|| alone.identity.clone()),
        storage: Some(krate_controllers::Storage {
            folder: settings.volumes.clone(),
            shared: settings.shared_volumes,
            remove: Arc::new(|folder| Box::pin(super::storage::remove(folder))),
        }),
        cluster: krate_controllers::Cluster {
            pod_cidrs: vec![settings.cluster_cidr.clone()],
            ca_pem: api.authority().ca_certificate().to_owned(),
            ..krate_controllers::Cluster::default()
        },
        sign: Some(Arc::new(move |token| {
            let account = (&*token.account, &*token.account_uid);
            signer.sign_secret_token(&token.namespace, account, &token.secret)
        })),
        certify: Some(Arc::new(move |order| {
            authority.sign_request(order.request, order.usages, order.lifetime).map_err(|e| e.to_string())
        })),
        ..alone
    });
}

fn start_scheduler(
    api: &ApiServer,
    clock: &Clock,
    rng: &Rng,
    candidate: Option<&str>,
    supervisor: &Supervisor,
) {
    let config = krate_scheduler::Config {
        transport: api.transport(UserInfo::component(SCHEDULER)),
        clock: clock.clone(),
        rng: rng.clone(),
        profiles: vec![],
        metrics: api.metrics().clone(),
    };
    let elector =
        candidate.map(|id| Elector::new(config.transport.clone(), "kube-system", SCHEDULER, id, clock, rng));
    let start = move |supervisor: &Supervisor| {
        let config = config.clone();
        supervisor.component("scheduler", move |shutdown| {
            let config = config.clone();
            async move { krate_scheduler::Scheduler::new(config).run(shutdown).await }
        });
    };
    let Some(elector) = elector else { return start(supervisor) };
    let whole = supervisor.clone();
    supervisor.spawn(async move { elector.supervise(&whole, whole.shutdown(), start).await });
}
