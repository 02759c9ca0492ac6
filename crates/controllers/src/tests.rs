//! All controllers together, elected, on the in-memory API.

use crate::world::{World, deployment, named};
use krate_api::meta::{MicroTime, Time};
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use krate_api::types::coordination::v1::Lease;
use krate_api::types::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, NodeCondition, Pod, Service, ServiceAccount, ServicePort,
};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_base::Rng;

/// A node as its kubelet reports it: ready.
fn ready_node(w: &World) -> Node {
    let present = w.fake.get::<Node>("", "node-1");
    let mut node = present.map_or_else(Node::default, |node| (*node).clone());
    node.metadata.name = Some("node-1".to_owned());
    node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        last_heartbeat_time: Some(Time(w.context.clock.now_seconds())),
        ..NodeCondition::default()
    }]);
    node
}

/// Renews the lease of a node for ever. When somebody has written that the node is not known to be ready
/// (controllers that could not read the lease for long), says that it is, as a kubelet would.
fn beat(w: &World) {
    w.fake.put(&ready_node(w));
    let w = World { fake: w.fake.clone(), env: w.env.clone(), context: w.context.clone() };
    tokio::spawn(async move {
        loop {
            let mut lease = Lease::default();
            lease.metadata.name = Some("node-1".to_owned());
            lease.metadata.namespace = Some("kube-node-lease".to_owned());
            lease.spec.get_or_insert_default().renew_time = Some(MicroTime(w.context.clock.now_micros()));
            w.fake.put(&lease);
            let node = w.fake.get::<Node>("", "node-1");
            let conditions = node.and_then(|n| n.status.as_ref()?.conditions.clone()).unwrap_or_default();
            if !conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                w.fake.put(&ready_node(&w));
            }
            w.pass(10).await;
        }
    });
}

/// A cluster with every controller and one living node.
async fn cluster() -> World {
    let w = World::new(&[]);
    let mut context = w.context.clone();
    context.elect = true;
    crate::start(&context);
    beat(&w);
    w.kubelet();
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("default".to_owned());
    w.api::<Namespace>().create(namespace).await.unwrap();
    w
}

fn service(name: &str) -> Service {
    let mut service = Service::default();
    named(&mut service, name);
    let spec = service.spec.get_or_insert_default();
    spec.selector = Some([("app".to_owned(), name.to_owned())].into());
    spec.ports = Some(vec![ServicePort { port: 80, ..ServicePort::default() }]);
    service
}

fn addresses(w: &World) -> usize {
    let slices = w.fake.list::<EndpointSlice>();
    slices.iter().flat_map(|s| s.endpoints.iter().flatten()).count()
}

#[tokio::test(start_paused = true)]
async fn an_application_lives_and_goes_without_a_trace() {
    let w = cluster().await;
    w.fake.put(&deployment("web", 3));
    w.fake.put(&service("web"));
    w.pass(60).await;
    let ready = w.fake.get::<Deployment>("default", "web").unwrap().status.as_ref().unwrap().ready_replicas;
    assert_eq!((ready, addresses(&w)), (Some(3), 3));
    assert_eq!(w.names::<ServiceAccount>(), ["default"]);
    assert_eq!(w.names::<ConfigMap>(), ["kube-root-ca.crt"]);
    assert!(w.fake.get::<Node>("", "node-1").unwrap().spec.as_ref().unwrap().pod_cidr.is_some());
    let options = krate_api::meta::DeleteOptions::default();
    w.api::<Deployment>().delete("default", "web", options).await.unwrap();
    w.pass(60).await;
    assert!(w.names::<ReplicaSet>().is_empty() && w.names::<Pod>().is_empty());
    assert_eq!(addresses(&w), 0);
    w.api::<Namespace>().delete("", "default", Default::default()).await.unwrap();
    w.pass(120).await;
    assert!(w.names::<Namespace>().is_empty());
    assert!(w.names::<Endpoints>().is_empty() && w.names::<Service>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn when_nothing_happens_nothing_is_written_but_the_lease() {
    let w = cluster().await;
    w.fake.put(&deployment("web", 3));
    w.fake.put(&service("web"));
    w.pass(600).await;
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    let writes = w.fake.take_writes();
    let others: Vec<_> = writes.iter().filter(|x| !x.contains("leases")).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Some of these seeds keep the controllers from a node's lease for so long that they take it for lost.
#[tokio::test(start_paused = true)]
async fn a_server_that_comes_and_goes_leads_to_the_same_end() {
    for seed in [7, 25, 33] {
        comes_and_goes(seed).await;
    }
}

async fn comes_and_goes(seed: u64) {
    let w = cluster().await;
    w.fake.put(&service("web"));
    let rng = Rng::from_seed(seed);
    w.fake.fail(move |_| {
        let away = || krate_api::Status::failure(krate_api::Reason::ServiceUnavailable, "the server is away");
        (rng.below(3) == 0).then(away)
    });
    w.fake.put(&deployment("web", 7));
    for _ in 0..20 {
        w.pass(7).await;
        w.fake.break_watches();
        w.fake.compact();
    }
    w.fake.heal();
    w.pass(600).await;
    let status = w.fake.get::<Deployment>("default", "web").unwrap().status.clone().unwrap();
    assert_eq!((status.ready_replicas, status.updated_replicas), (Some(7), Some(7)), "seed {seed}");
    assert_eq!(w.names::<Pod>().len(), 7, "seed {seed}");
    assert_eq!(addresses(&w), 7, "seed {seed}");
    w.context.supervisor.stop().await;
}
