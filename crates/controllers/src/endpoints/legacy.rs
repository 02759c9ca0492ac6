//! The Endpoints objects of Services that have a selector: one per Service, of its first address family.

use super::members;
use super::services::{Selected, Selecting, selector};
use super::slices::HEADLESS;
use super::trigger::{self, Triggers};
use crate::env::{Env, synced};
use crate::meta;
use crate::pods::{self, PodView};
use krate_api::Status;
use krate_api::types::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use krate_client::api::delete_uid;
use krate_client::recorder::reference;
use krate_client::{Api, Informer, Outcome, Queue, Recorder};
use std::collections::BTreeMap;
use std::sync::Arc;

const ACCOUNT: &str = "endpoint-controller";
const WORKERS: usize = 5;
/// Addresses in one object; what is beyond is left out and told by [`OVER_CAPACITY`].
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Marks the objects that are kept by this controller.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

struct Controller {
    api: Api<Endpoints>,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    pods: Selected,
    triggers: Triggers,
    recorder: Recorder,
}

pub fn start(env: &Env) {
    let (services, endpoints) = (env.informers.of::<Service>(), env.informers.of::<Endpoints>());
    let pods = pods::informer(&env.informers);
    let queue: Queue = env.queue("endpoint");
    let (q, selecting) = (queue.clone(), Selecting::new(&services));
    pods.subscribe(move |old, new| selecting.wake(old, new, |key| q.add(key)));
    let q = queue.clone();
    services.subscribe(move |old, new| {
        if let Some(service) = new.or(old) {
            q.add(meta::key(&service.metadata));
        }
    });
    let q = queue.clone();
    endpoints.subscribe(move |old, new| {
        if let Some(object) = new.or(old) {
            q.add(meta::key(&object.metadata));
        }
    });
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        services: services.clone(),
        endpoints: endpoints.clone(),
        pods: Selected::new(&pods),
        triggers: Triggers::default(),
        recorder: env.recorder(ACCOUNT, ACCOUNT),
    });
    env.run(&queue, WORKERS, synced!(services, pods, endpoints), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let present = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            self.triggers.forget(key);
            if let Some(left) = present.filter(|e| is_ours(e)) {
                let m = &left.metadata;
                let gone = self.api.delete(meta::namespace(m), meta::name(m), delete_uid(meta::uid(m)));
                gone.await.or_else(|status| if status.is_not_found() { Ok(()) } else { Err(status) })?;
            }
            return Ok(Outcome::Done);
        };
        let external = service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName");
        if selector(&service).is_none() || external {
            return Ok(Outcome::Done);
        }
        let pods = self.pods.of(&service);
        let at = self.triggers.next(key, &service, pods.iter());
        let mut wanted = wanted(&service, &pods, present.as_deref());
        if present.as_ref().is_some_and(|present| **present == wanted) {
            return Ok(Outcome::Done);
        }
        trigger::annotate(&mut wanted.metadata, at);
        let written = match &present {
            Some(_) => self.api.update(wanted).await,
            None => self.api.create(wanted).await,
        };
        match written {
            Err(status) if meta::namespace_is_terminating(&status) => Ok(Outcome::Done),
            // The cache is behind, most often behind a write of our own: nothing that a user should hear of.
            Err(status) if status.is_already_exists() || status.is_conflict() => Err(status),
            Err(status) => {
                let (what, reason) = match present {
                    Some(_) => ("update", "FailedToUpdateEndpoint"),
                    None => ("create", "FailedToCreateEndpoint"),
                };
                let message = format!("Failed to {what} endpoint {key}: {status}");
                self.recorder.warning(&reference(&*service), reason, message);
                Err(status)
            }
            Ok(_) => Ok(Outcome::Done),
        }
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    meta::labels(&endpoints.metadata).contains_key(MANAGED_BY)
}

/// The object as it should be, made from the present one so that it is equal when nothing changes.
fn wanted(service: &Service, pods: &[Arc<PodView>], present: Option<&Endpoints>) -> Endpoints {
    let mut wanted = present.cloned().unwrap_or_default();
    wanted.metadata.namespace.clone_from(&service.metadata.namespace);
    wanted.metadata.name.clone_from(&service.metadata.name);
    let mut labels = meta::labels(&service.metadata).clone();
    labels.remove(HEADLESS);
    if members::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
    wanted.metadata.labels = Some(labels);
    let (subsets, truncated) = subsets(service, pods);
    wanted.subsets = Some(subsets).filter(|s| !s.is_empty());
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        wanted.metadata.annotations = None;
    }
    wanted
}

/// Ready and other addresses by their ports, in a stable order; and whether there were too many.
fn subsets(service: &Service, pods: &[Arc<PodView>]) -> (Vec<EndpointSubset>, bool) {
    type Addresses = (Vec<EndpointAddress>, Vec<EndpointAddress>);
    let not_ready = members::publishes_not_ready(service);
    let family = members::families(service)[0];
    let mut by_ports: BTreeMap<Vec<(String, String, i32)>, (Vec<EndpointPort>, Addresses)> = BTreeMap::new();
    for pod in pods.iter().filter(|p| members::is_member(service, p, not_ready)) {
        let Some(ip) = members::addresses(pod, family).into_iter().next() else { continue };
        let ports: Vec<EndpointPort> = members::ports(service, pod).into_iter().map(port).collect();
        if ports.is_empty() && !members::service_ports(service).is_empty() {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: members::hostname(service, pod),
            node_name: Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty()),
            target_ref: Some(members::target(pod)),
        };
        let name = |p: &EndpointPort| {
            (p.name.clone().unwrap_or_default(), p.protocol.clone().unwrap_or_default(), p.port)
        };
        let key = ports.iter().map(name).collect();
        let (_, (ready, other)) = by_ports.entry(key).or_insert_with(|| (ports, Addresses::default()));
        if not_ready || pod.is_ready() { ready.push(address) } else { other.push(address) }
    }
    let mut room = CAPACITY;
    let mut truncated = false;
    let mut take = |addresses: &mut Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| (ip_order(&a.ip), uid(a)).cmp(&(ip_order(&b.ip), uid(b))));
        truncated |= addresses.len() > room;
        addresses.truncate(room);
        room -= addresses.len();
    };
    // Ready ones first: they are what the room is for.
    by_ports.values_mut().for_each(|(_, (ready, _))| take(ready));
    by_ports.values_mut().for_each(|(_, (_, other))| take(other));
    let subset = |(ports, (ready, other)): (Vec<EndpointPort>, Addresses)| EndpointSubset {
        addresses: Some(ready).filter(|a| !a.is_empty()),
        not_ready_addresses: Some(other).filter(|a| !a.is_empty()),
        ports: Some(ports).filter(|p| !p.is_empty()),
    };
    (by_ports.into_values().map(subset).collect(), truncated)
}

fn port(port: krate_api::types::discovery::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: port.name.filter(|n| !n.is_empty()),
        port: port.port.unwrap_or(0),
        protocol: port.protocol,
        app_protocol: port.app_protocol,
    }
}

fn ip_order(ip: &str) -> Option<std::net::IpAddr> {
    ip.parse().ok()
}

fn uid(address: &EndpointAddress) -> Option<&str> {
    address.target_ref.as_ref()?.uid.as_deref()
}
