//! All controllers together, elected, on the in-memory API.

use crate::world::{World, deployment, named};
use krate_api::meta::{MicroTime, Time};
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use krate_api::types::coordination::v1::Lease;
use krate_api::types::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, NodeCondition, Pod, Service, ServiceAccount, ServicePort,
};
use krate_api::types::discovery::v1::EndpointSlice;
use std::time::Duration;

/// A cluster with every controller and one living node.
async fn cluster() -> World {
    let w = World::new(&[]);
    let mut context = w.context.clone();
    context.elect = true;
    crate::start(&context);
    let mut node = Node::default();
    node.metadata.name = Some("node-1".to_owned());
    node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        last_heartbeat_time: Some(Time(w.context.clock.now_seconds())),
        ..NodeCondition::default()
    }]);
    w.fake.put(&node);
    let (fake, clock) = (w.fake.clone(), w.context.clock.clone());
    tokio::spawn(async move {
        loop {
            let mut lease = Lease::default();
            lease.metadata.name = Some("node-1".to_owned());
            lease.metadata.namespace = Some("kube-node-lease".to_owned());
            lease.spec.get_or_insert_default().renew_time = Some(MicroTime(clock.now_micros()));
            fake.put(&lease);
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
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

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_and_goes_leads_to_the_same_end() {
    let w = cluster().await;
    w.fake.put(&service("web"));
    let mut n = 0u32;
    w.fake.fail(move |_| {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (n >> 16)
            .is_multiple_of(3)
            .then(|| krate_api::Status::failure(krate_api::Reason::ServiceUnavailable, "the server is away"))
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
    assert_eq!((status.ready_replicas, status.updated_replicas), (Some(7), Some(7)));
    assert_eq!(w.names::<Pod>().len(), 7);
    assert_eq!(addresses(&w), 7);
}
