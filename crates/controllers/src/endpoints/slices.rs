//! The EndpointSlices of Services that have a selector, and the writing of slices for all who plan them.

use super::members::{self, Family};
use super::plan::{self, Group, MANAGED_BY, Owner, SERVICE_NAME, Wanted};
use super::services::{Selected, Selecting, selector};
use super::topology;
use super::trigger::{self, Triggers};
use crate::env::{Env, synced};
use crate::meta;
use crate::nodes::{self, NodeView};
use crate::pods::{self, PodView};
use krate_api::Status;
use krate_api::types::core::v1::Service;
use krate_api::types::discovery::v1::EndpointSlice;
use krate_client::api::delete_uid;
use krate_client::recorder::reference;
use krate_client::{Api, Index, Informer, Outcome, Queue, Recorder};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const ACCOUNT: &str = "endpointslice-controller";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const WORKERS: usize = 5;
/// How long the cache may be behind a write before it is believed again: the slice may have been removed
/// before the cache ever showed it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// On slices and Endpoints of headless Services.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// Slices by the Service that they are of: `manager namespace/service`.
#[must_use]
pub fn by_service(slices: &Informer<EndpointSlice>) -> Index<EndpointSlice> {
    slices.index("service", |slice: &EndpointSlice| {
        let labels = meta::labels(&slice.metadata);
        let (manager, name) = (labels.get(MANAGED_BY), labels.get(SERVICE_NAME));
        let namespace = meta::namespace(&slice.metadata);
        manager.zip(name).map(|(m, n)| format!("{m} {namespace}/{n}")).into_iter().collect()
    })
}

/// Writes slices, and remembers what it wrote until the cache shows it.
pub struct Writer {
    api: Api<EndpointSlice>,
    slices: Informer<EndpointSlice>,
    /// By slice, its revision as written, and when.
    written: Mutex<HashMap<String, HashMap<String, (u64, Instant)>>>,
}

impl Writer {
    #[must_use]
    pub fn new(api: Api<EndpointSlice>, slices: &Informer<EndpointSlice>) -> Self {
        Self { api, slices: slices.clone(), written: Mutex::default() }
    }

    /// Whether the cache is still behind what was written for this owner. Its event will wake the owner.
    #[must_use]
    pub fn is_behind(&self, owner: &str) -> bool {
        let mut all = self.written.lock();
        let Some(written) = all.get_mut(owner) else { return false };
        written.retain(|key, (revision, at)| {
            at.elapsed() < PATIENCE && self.slices.get(key).is_none_or(|slice| version(&slice) < *revision)
        });
        let behind = !written.is_empty();
        if !behind {
            all.remove(owner);
        }
        behind
    }

    /// A slice is gone: nobody waits for it any more.
    pub fn gone(&self, owner: &str, slice: &EndpointSlice) {
        if let Some(written) = self.written.lock().get_mut(owner) {
            written.remove(&meta::key(&slice.metadata));
        }
    }

    pub async fn carry_out(&self, owner: &str, plan: plan::Plan) -> Result<(), Status> {
        for slice in plan.create {
            let created = self.api.create(slice).await;
            match created {
                Err(status) if meta::namespace_is_terminating(&status) => return Ok(()),
                result => {
                    let created = result?;
                    self.note(owner, &created);
                }
            }
        }
        for slice in plan.update {
            let updated = self.api.update(slice).await?;
            self.note(owner, &updated);
        }
        for slice in plan.delete {
            let m = &slice.metadata;
            match self.api.delete(meta::namespace(m), meta::name(m), delete_uid(meta::uid(m))).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&self, owner: &str, slice: &EndpointSlice) {
        let mut all = self.written.lock();
        let written = all.entry(owner.to_owned()).or_default();
        written.insert(meta::key(&slice.metadata), (version(slice), Instant::now()));
    }
}

fn version(slice: &EndpointSlice) -> u64 {
    slice.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

struct Controller {
    services: Informer<Service>,
    pods: Selected,
    nodes: Informer<NodeView>,
    by_service: Index<EndpointSlice>,
    writer: Writer,
    triggers: Triggers,
    /// What was last told of the hints of a Service that asks for them.
    told: Mutex<HashMap<(String, Family), Told>>,
    recorder: Recorder,
}

/// Whether there are hints, or why there are none.
type Told = Result<(), String>;

pub fn start(env: &Env) {
    let (services, slices) = (env.informers.of::<Service>(), env.informers.of::<EndpointSlice>());
    let (pods, nodes) = (pods::informer(&env.informers), nodes::informer(&env.informers));
    let queue: Queue = env.queue("endpoint_slice");
    let controller = Arc::new(Controller {
        services: services.clone(),
        pods: Selected::new(&pods),
        nodes: nodes.clone(),
        by_service: by_service(&slices),
        writer: Writer::new(env.api(ACCOUNT), &slices),
        triggers: Triggers::default(),
        told: Mutex::default(),
        recorder: env.recorder(ACCOUNT, ACCOUNT),
    });
    let (q, selecting) = (queue.clone(), Selecting::new(&services));
    pods.subscribe(move |old, new| selecting.wake(old, new, |key| q.add(key)));
    let q = queue.clone();
    services.subscribe(move |old, new| {
        if let Some(service) = new.or(old) {
            q.add(meta::key(&service.metadata));
        }
    });
    let (q, c) = (queue.clone(), controller.clone());
    slices.subscribe(move |old, new| {
        let Some(slice) = new.or(old) else { return };
        let labels = meta::labels(&slice.metadata);
        if let (Some(MANAGER), Some(name)) =
            (labels.get(MANAGED_BY).map(String::as_str), labels.get(SERVICE_NAME))
        {
            let key = krate_api::object::key(meta::namespace(&slice.metadata), name);
            if new.is_none() {
                c.writer.gone(&key, slice);
            }
            q.add(key);
        }
    });
    let (q, s, p) = (queue.clone(), services.clone(), pods::by_node(&pods));
    let selecting = Selecting::new(&services);
    nodes.subscribe(move |old, new| {
        let weight = |node: Option<&Arc<NodeView>>| {
            node.and_then(|n| topology::weight(n).map(|(zone, cpu)| (zone.map(str::to_owned), cpu)))
        };
        if weight(old) != weight(new) {
            let asking = s.list().into_iter().filter(|service| topology::is_asked(service));
            asking.for_each(|service| q.add(meta::key(&service.metadata)));
        }
        // Zones matter; they are seldom given after the pods have come.
        if s.is_empty() || old.map(|n| n.zone()) == new.map(|n| n.zone()) {
            return;
        }
        let Some(node) = new.or(old) else { return };
        for pod in p.get(node.name()) {
            selecting.wake(None, Some(&pod), |key| q.add(key));
        }
    });
    env.run(&queue, WORKERS, synced!(services, pods, slices, nodes), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(service) = self.services.get(key) else {
            self.triggers.forget(key);
            self.told.lock().retain(|(of, _), _| of != key);
            return Ok(Outcome::Done);
        };
        let external = service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName");
        if selector(&service).is_none() || external || service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        if self.writer.is_behind(key) {
            return Ok(Outcome::After(PATIENCE));
        }
        let families = members::families(&service);
        let pods = self.members(&service);
        let at = self.triggers.next(key, &service, pods.iter());
        let mut wanted = self.wanted(&service, &pods, &families);
        for family in &families {
            self.hint(key, &service, *family, &mut wanted);
        }
        let existing = self.by_service.get(&format!("{MANAGER} {key}"));
        let mut plan = plan::plan(&owner(&service), &families, wanted, &existing);
        for slice in plan.create.iter_mut().chain(&mut plan.update) {
            trigger::annotate(&mut slice.metadata, at);
        }
        if let Err(status) = self.writer.carry_out(key, plan).await {
            let message = format!("Error updating Endpoint Slices for Service {key}: {status}");
            self.recorder.warning(&reference(&*service), "FailedToUpdateEndpointSlices", message);
            return Err(status);
        }
        Ok(Outcome::Done)
    }

    fn members(&self, service: &Service) -> Vec<Arc<PodView>> {
        let mut pods = self.pods.of(service);
        pods.retain(|pod| members::is_member(service, pod, true));
        pods
    }

    /// Shares the endpoints of a family out among the zones, if the Service asks for that, and tells what came of it
    /// when it changes.
    fn hint(&self, key: &str, service: &Service, family: Family, wanted: &mut Wanted) {
        let of = (key.to_owned(), family);
        let asked = topology::is_asked(service);
        let now = asked.then(|| {
            let nodes = self.nodes.list();
            let shares = topology::shares(nodes.iter().map(|n| &**n));
            let groups = wanted.iter_mut().filter(|(group, _)| group.family == family);
            let mut endpoints: Vec<_> = groups.flat_map(|(_, endpoints)| endpoints).collect();
            topology::hint(&mut endpoints, &shares)
        });
        let before = match &now {
            Some(now) => self.told.lock().insert(of, now.clone()),
            None => self.told.lock().remove(&of),
        };
        let tell = |message: &str| format!("{message}, addressType: {}", family.as_str());
        let disabled =
            |why: &str| self.recorder.warning(&reference(service), "TopologyAwareHintsDisabled", tell(why));
        match (now, before) {
            (now, before) if now == before => {}
            (Some(Ok(())), _) => {
                let message = tell("Topology Aware Hints has been enabled");
                self.recorder.normal(&reference(service), "TopologyAwareHintsEnabled", message);
            }
            (Some(Err(why)), _) => disabled(&why),
            (None, Some(Ok(()))) => disabled("Topology Aware Hints has been disabled"),
            (None, _) => {}
        }
    }

    fn wanted(&self, service: &Service, pods: &[Arc<PodView>], families: &[Family]) -> Wanted {
        let mut wanted = Wanted::new();
        for pod in pods {
            let node = self.nodes.get(&pod.spec.node_name);
            let ports = members::ports(service, pod);
            if ports.is_empty() && !members::service_ports(service).is_empty() {
                continue;
            }
            for family in families {
                let endpoint = members::endpoint(service, pod, node.as_deref(), *family);
                if !endpoint.addresses.is_empty() {
                    wanted.entry(Group::new(*family, &ports)).or_default().push(endpoint);
                }
            }
        }
        wanted
    }
}

/// What all slices of a Service have alike.
fn owner(service: &Service) -> Owner {
    let metadata = &service.metadata;
    let mut labels = meta::labels(metadata).clone();
    labels.remove(HEADLESS);
    if members::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), meta::name(metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    Owner {
        namespace: meta::namespace(metadata).to_owned(),
        name: meta::name(metadata).to_owned(),
        labels,
        annotations: BTreeMap::new(),
        reference: meta::controller_reference(service),
    }
}
