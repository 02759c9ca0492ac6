//! Slices that mirror Endpoints written by people, for Services without a selector.

use super::legacy::MANAGED_BY as LEGACY_MANAGED_BY;
use super::members::Family;
use super::plan::{self, Group, MANAGED_BY, Owner, SERVICE_NAME, Wanted};
use super::services::selector;
use super::slices::{PATIENCE, Writer, by_service};
use crate::env::{Env, synced};
use crate::meta;
use krate_api::Status;
use krate_api::types::core::v1::{EndpointAddress, Endpoints, Service};
use krate_api::types::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use krate_client::recorder::reference;
use krate_client::{Index, Informer, Outcome, Queue, Recorder};
use std::collections::BTreeMap;
use std::sync::Arc;

const ACCOUNT: &str = "endpointslicemirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const WORKERS: usize = 5;
/// Addresses of one subset that are mirrored.
const MAX_ADDRESSES: usize = 1000;

struct Controller {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    by_service: Index<EndpointSlice>,
    writer: Writer,
    recorder: Recorder,
}

pub fn start(env: &Env) {
    let (services, endpoints) = (env.informers.of::<Service>(), env.informers.of::<Endpoints>());
    let slices = env.informers.of::<EndpointSlice>();
    let queue: Queue = env.queue("endpoint_slice_mirroring");
    let controller = Arc::new(Controller {
        services: services.clone(),
        endpoints: endpoints.clone(),
        by_service: by_service(&slices),
        writer: Writer::new(env.api(ACCOUNT), &slices),
        recorder: env.recorder(ACCOUNT, ACCOUNT),
    });
    let q = queue.clone();
    services.subscribe(move |old, new| {
        if old.map(|s| selector(s).is_some()) != new.map(|s| selector(s).is_some())
            && let Some(service) = new.or(old)
        {
            q.add(meta::key(&service.metadata));
        }
    });
    let q = queue.clone();
    endpoints.subscribe(move |old, new| {
        if let Some(object) = new.or(old).filter(|o| !is_managed(o)) {
            q.add(meta::key(&object.metadata));
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
    env.run(&queue, WORKERS, synced!(services, endpoints, slices), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

fn is_managed(endpoints: &Endpoints) -> bool {
    meta::labels(&endpoints.metadata).contains_key(LEGACY_MANAGED_BY)
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        if self.writer.is_behind(key) {
            return Ok(Outcome::After(PATIENCE));
        }
        let existing = self.by_service.get(&format!("{MANAGER} {key}"));
        let mirrored = self.mirrored(key);
        let plan = match &mirrored {
            Some(endpoints) => {
                let wanted = wanted(endpoints);
                let families: Vec<Family> = wanted.keys().map(|g| g.family).collect();
                plan::plan(&owner(endpoints), &families, wanted, &existing)
            }
            None => plan::Plan { delete: existing, ..plan::Plan::default() },
        };
        if let Err(status) = self.writer.carry_out(key, plan).await {
            if let Some(endpoints) = mirrored {
                let message =
                    format!("Error updating mirrored Endpoint Slices for Endpoints {key}: {status}");
                self.recorder.warning(&reference(&*endpoints), "FailedToUpdateEndpointSlices", message);
            }
            return Err(status);
        }
        Ok(Outcome::Done)
    }

    /// The Endpoints of a key, if they are to be mirrored.
    fn mirrored(&self, key: &str) -> Option<Arc<Endpoints>> {
        let endpoints = self.endpoints.get(key)?;
        let labels = meta::labels(&endpoints.metadata);
        let skipped = labels.get(SKIP).is_some_and(|v| v == "true")
            || meta::annotation(&endpoints.metadata, LEADER).is_some();
        let wanted = self.services.get(key).is_some_and(|s| selector(&s).is_none());
        (wanted && !skipped).then_some(endpoints)
    }
}

fn wanted(endpoints: &Endpoints) -> Wanted {
    let mut wanted = Wanted::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                port: Some(p.port),
                protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let other = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        for (address, ready) in ready.chain(other).take(MAX_ADDRESSES) {
            if let Some(family) = Family::of(&address.ip) {
                wanted.entry(Group::new(family, &ports)).or_default().push(endpoint(address, ready));
            }
        }
    }
    wanted
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn owner(endpoints: &Endpoints) -> Owner {
    let metadata = &endpoints.metadata;
    let mut labels = meta::labels(metadata).clone();
    labels.insert(SERVICE_NAME.to_owned(), meta::name(metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations: BTreeMap<String, String> = metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    Owner {
        namespace: meta::namespace(metadata).to_owned(),
        name: meta::name(metadata).to_owned(),
        labels,
        annotations,
        reference: meta::controller_reference(endpoints),
    }
}
