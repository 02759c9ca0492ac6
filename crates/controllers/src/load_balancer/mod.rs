//! Load balancers out of the box: a Service of type LoadBalancer gets the addresses of the nodes themselves,
//! at which every node's service proxy answers.
//!
//! Every Ready node serves, or with the external traffic policy `Local` every one with a ready endpoint. An
//! address goes to one Service per port: what the node itself uses (its kubelet, the API server, ports of
//! pods, node ports) comes first, then the older Service. Who is kept off an address is told why, in a condition
//! and an event, and gets it as soon as it is free. There is nothing outside of the Service to clean up, so
//! no finalizer holds its deletion. Services of another `loadBalancerClass` are never touched.

mod plan;
#[cfg(test)]
mod tests;

use crate::env::{Env, synced};
use crate::meta;
use crate::nodes::{self, NodeView};
use crate::pods::{self, PodView};
use krate_api::Status;
use krate_api::meta::{Condition, Time};
use krate_api::types::core::v1::{LoadBalancerStatus, Service};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_base::Clock;
use krate_client::recorder::reference;
use krate_client::{Api, Index, Informer, Outcome, Queue, Recorder};
use plan::{Choice, Port, Site};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

const ACCOUNT: &str = "service-controller";
/// One: two Services that want the same port are looked at one after the other.
const WORKERS: usize = 1;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The slice of the API server's own endpoints.
const API_SERVER: &str = "default/kubernetes";
/// Tells that some or all nodes cannot serve the ports.
const PORTS_ERROR: &str = "LoadBalancerPortsError";
const IN_USE: &str = "PortsInUse";
/// The one value of the index of all Services that are served here.
const ALL: &str = "all";

struct Controller {
    api: Api<Service>,
    services: Informer<Service>,
    nodes: Informer<NodeView>,
    slices: Informer<EndpointSlice>,
    clients: Clients,
    slices_of: Index<EndpointSlice>,
    host_ports: Index<PodView>,
    recorder: Recorder,
    clock: Clock,
}

/// Services by what they ask for.
#[derive(Clone)]
struct Clients {
    ours: Index<Service>,
    by_port: Index<Service>,
    by_node_port: Index<Service>,
}

impl Clients {
    fn new(services: &Informer<Service>) -> Self {
        let when = |yes: bool, keys: Vec<String>| if yes { keys } else { vec![] };
        Self {
            ours: services
                .index("load balancer", move |s: &Service| when(plan::is_ours(s), vec![ALL.to_owned()])),
            by_port: services
                .index("load balancer port", move |s: &Service| when(plan::is_ours(s), plan::ports(s))),
            by_node_port: services.index("node port", plan::node_ports),
        }
    }
}

pub fn start(env: &Env) {
    let (services, slices) = (env.informers.of::<Service>(), env.informers.of::<EndpointSlice>());
    let (pods, nodes) = (pods::informer(&env.informers), nodes::informer(&env.informers));
    let queue: Queue = env.queue("service_lb");
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        services: services.clone(),
        nodes: nodes.clone(),
        slices: slices.clone(),
        clients: Clients::new(&services),
        slices_of: slices.index("service of any manager", |s: &EndpointSlice| {
            let name = meta::labels(&s.metadata).get(SERVICE_NAME);
            name.map(|n| krate_api::object::key(meta::namespace(&s.metadata), n)).into_iter().collect()
        }),
        host_ports: pods.index("host port", |pod: &PodView| {
            host_ports(pod).map(|(port, _)| format!("{} {port}", pod.spec.node_name)).collect()
        }),
        recorder: env.recorder(ACCOUNT, ACCOUNT),
        clock: env.clock.clone(),
    });
    follow(&controller, &queue, &pods);
    env.run(&queue, WORKERS, synced!(services, nodes, slices, pods), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

/// Wakes whom a change concerns.
fn follow(controller: &Arc<Controller>, queue: &Queue, pods: &Informer<PodView>) {
    let (q, clients) = (queue.clone(), controller.clients.clone());
    controller.services.subscribe(move |old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && old.spec == new.spec
            && old.status == new.status
        {
            return;
        }
        for service in [old, new].into_iter().flatten() {
            if plan::is_balanced(service) || plan::held(service).next().is_some() {
                q.add(meta::key(&service.metadata));
            }
            let ports = plan::ports(service).into_iter().filter(|_| plan::is_ours(service));
            wake(&q, &clients, ports.chain(plan::node_ports(service)));
        }
    });
    let (q, clients) = (queue.clone(), controller.clients.clone());
    controller.nodes.subscribe(move |old, new| {
        if old.map(|n| facts(n)) != new.map(|n| facts(n)) {
            clients.ours.keys(ALL).into_iter().for_each(|key| q.add(key));
        }
    });
    let (q, clients, services) = (queue.clone(), controller.clients.clone(), controller.services.clone());
    controller.slices.subscribe(move |old, new| {
        let Some(slice) = new.or(old) else { return };
        if meta::key(&slice.metadata) == API_SERVER {
            clients.ours.keys(ALL).into_iter().for_each(|key| q.add(key));
        }
        let Some(name) = meta::labels(&slice.metadata).get(SERVICE_NAME) else { return };
        let key = krate_api::object::key(meta::namespace(&slice.metadata), name);
        if services.get(&key).is_some_and(|s| plan::is_ours(&s) && plan::is_local(&s)) {
            q.add(key);
        }
    });
    let (q, clients) = (queue.clone(), controller.clients.clone());
    pods.subscribe(move |old, new| {
        let ports = |pod: Option<&Arc<PodView>>| -> BTreeSet<Port> {
            pod.into_iter().flat_map(|p| host_ports(p)).map(|(port, _)| port).collect()
        };
        let (was, now) = (ports(old), ports(new));
        if was != now {
            wake(&q, &clients, was.symmetric_difference(&now).cloned());
        }
    });
}

fn wake(queue: &Queue, clients: &Clients, ports: impl Iterator<Item = Port>) {
    ports.flat_map(|port| clients.by_port.keys(&port)).for_each(|key| queue.add(key));
}

/// What of a node counts here.
fn facts(node: &NodeView) -> (bool, Vec<IpAddr>, Option<i32>) {
    (plan::is_usable(node), plan::addresses(node).collect(), node.kubelet_port())
}

/// The ports of its node that a pod has, and on which address.
fn host_ports(pod: &PodView) -> impl Iterator<Item = (Port, Option<IpAddr>)> + '_ {
    let lives = !pod.spec.node_name.is_empty() && !pod.is_finished();
    let ports = pod.spec.containers.iter().chain(&pod.spec.init_containers).flat_map(|c| &c.ports);
    ports.filter(move |_| lives).filter_map(|p| {
        let number = p.host_port.filter(|n| *n > 0)?;
        let ip =
            p.host_ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|ip: &IpAddr| !ip.is_unspecified());
        Some((plan::port(p.protocol.as_deref(), number), ip))
    })
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(service) = self.services.get(key) else { return Ok(Outcome::Done) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        if !plan::is_balanced(&service) {
            return self.give_up(&service).await;
        }
        if !plan::is_ours(&service) {
            return Ok(Outcome::Done);
        }
        let sites = self.sites(&service);
        let choice = plan::choose(&service.spec.clone().unwrap_or_default(), sites);
        self.publish(&service, &choice).await
    }

    /// The Service is no load balancer any more.
    async fn give_up(&self, service: &Service) -> Result<Outcome, Status> {
        if plan::held(service).next().is_none() {
            return Ok(Outcome::Done);
        }
        let about = reference(service);
        self.recorder.normal(&about, "DeletingLoadBalancer", "Deleting load balancer");
        let mut wanted = service.clone();
        wanted.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus::default());
        set_condition(&mut wanted, None, &self.clock);
        self.api.update_status(wanted).await?;
        self.recorder.normal(&about, "DeletedLoadBalancer", "Deleted load balancer");
        Ok(Outcome::Done)
    }

    async fn publish(&self, service: &Service, choice: &Choice) -> Result<Outcome, Status> {
        let mut wanted = service.clone();
        let status = wanted.status.get_or_insert_default();
        let balancer = status.load_balancer.get_or_insert_default();
        balancer.ingress = plan::ingress(&choice.addresses);
        set_condition(&mut wanted, choice.refused.as_deref(), &self.clock);
        let ingress = |s: &Service| s.status.as_ref()?.load_balancer.as_ref()?.ingress.clone();
        let (was, now) = (ingress(service).filter(|i| !i.is_empty()), ingress(&wanted));
        if was == now && conditions(service) == conditions(&wanted) {
            return Ok(Outcome::Done);
        }
        let about = reference(service);
        if was.is_none() && now.is_some() {
            self.recorder.normal(&about, "EnsuringLoadBalancer", "Ensuring load balancer");
        }
        if conditions(service) != conditions(&wanted)
            && let Some(why) = &choice.refused
        {
            let message = format!("Error syncing load balancer: failed to ensure load balancer: {why}");
            self.recorder.warning(&about, "SyncLoadBalancerFailed", message);
        }
        self.api.update_status(wanted).await?;
        match (was, now) {
            (None, Some(_)) => self.recorder.normal(&about, "EnsuredLoadBalancer", "Ensured load balancer"),
            (Some(was), Some(now)) if was != now => {
                self.recorder.normal(&about, "UpdatedLoadBalancer", "Updated load balancer with new hosts");
            }
            (Some(_), None) => {
                let message = "There are no available nodes for LoadBalancer";
                self.recorder.warning(&about, "UnAvailableLoadBalancer", message);
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }

    /// Every address that the Service could have, and who else has its ports there.
    fn sites(&self, service: &Service) -> Vec<Site> {
        let local = plan::is_local(service).then(|| self.nodes_with_endpoints(service));
        let ports = plan::ports(service);
        let mut sites = Vec::new();
        for node in self.nodes.list() {
            if !plan::is_usable(&node) || local.as_ref().is_some_and(|l| !l.contains(node.name())) {
                continue;
            }
            for address in plan::addresses(&node) {
                let holder = |port: &Port| Some((port.clone(), self.holder(service, &node, address, port)?));
                let taken = ports.iter().find_map(holder);
                sites.push(Site { node: node.name().to_owned(), address, taken });
            }
        }
        sites
    }

    fn nodes_with_endpoints(&self, service: &Service) -> BTreeSet<String> {
        let slices = self.slices_of.get(&meta::key(&service.metadata));
        let endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
        let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        ready.filter_map(|e| e.node_name.clone()).collect()
    }

    /// Who keeps the Service off a port of an address.
    fn holder(&self, service: &Service, node: &NodeView, address: IpAddr, port: &Port) -> Option<String> {
        if node.kubelet_port().is_some_and(|p| plan::port(None, p) == *port) {
            return Some("the kubelet".to_owned());
        }
        if self.is_api_server(address, port) {
            return Some("the API server".to_owned());
        }
        let own = meta::key(&service.metadata);
        if let Some(other) = self.clients.by_node_port.keys(port).into_iter().find(|other| *other != own) {
            return Some(format!("the node port of Service {other}"));
        }
        let pods = self.host_ports.get(&format!("{} {port}", node.name()));
        let on_it =
            |pod: &PodView| host_ports(pod).any(|(p, ip)| p == *port && ip.is_none_or(|ip| ip == address));
        if let Some(pod) = pods.iter().find(|p| on_it(p)) {
            return Some(format!("Pod {}", pod.metadata.key()));
        }
        let text = address.to_string();
        let holds = |s: &Service| plan::held(s).any(|ip| ip == text);
        let before = |other: &Service| holds(other) && (!holds(service) || plan::is_older(other, service));
        let mut others = self.clients.by_port.get(port).into_iter();
        let other = others.find(|s| s.metadata.uid != service.metadata.uid && before(s))?;
        Some(format!("Service {}", meta::key(&other.metadata)))
    }

    fn is_api_server(&self, address: IpAddr, port: &Port) -> bool {
        let text = address.to_string();
        self.slices.get(API_SERVER).is_some_and(|slice| {
            let ports = slice.ports.as_deref().unwrap_or_default();
            let here = slice.endpoints.iter().flatten().any(|e| e.addresses.contains(&text));
            let mut numbers = ports.iter().filter_map(|p| Some(plan::port(p.protocol.as_deref(), p.port?)));
            here && numbers.any(|p| p == *port)
        })
    }
}

fn conditions(service: &Service) -> &[Condition] {
    service.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

/// Says (or says no more) that ports are in use on some nodes.
fn set_condition(service: &mut Service, refused: Option<&str>, clock: &Clock) {
    let generation = service.metadata.generation;
    let all = service.status.get_or_insert_default().conditions.get_or_insert_default();
    let present = all.iter().position(|c| c.type_ == PORTS_ERROR);
    match (present, refused) {
        (Some(at), None) if all[at].reason == IN_USE => drop(all.remove(at)),
        (_, None) => {}
        (Some(at), Some(why)) => why.clone_into(&mut all[at].message),
        (None, Some(why)) => all.push(Condition {
            type_: PORTS_ERROR.to_owned(),
            status: "True".to_owned(),
            reason: IN_USE.to_owned(),
            message: why.to_owned(),
            last_transition_time: Time(clock.now_seconds()),
            observed_generation: generation,
        }),
    }
    if all.is_empty() {
        service.status.get_or_insert_default().conditions = None;
    }
}
