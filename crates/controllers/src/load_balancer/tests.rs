//! Load balancers on the in-memory API.

use super::plan::CLASS;
use crate::world::{World, named};
use krate_api::types::core::v1::{
    Container, ContainerPort, Node, NodeAddress, NodeCondition, Pod, Service, ServicePort,
};
use krate_api::types::discovery::v1::EndpointSlice;

fn world() -> World {
    let w = World::new(&[super::start]);
    for n in 1..=2 {
        node(&w, n, true);
    }
    w
}

fn node(w: &World, n: u8, ready: bool) {
    let mut node = Node::default();
    node.metadata.name = Some(format!("node-{n}"));
    let status = node.status.get_or_insert_default();
    status.addresses =
        Some(vec![NodeAddress { type_: "InternalIP".to_owned(), address: format!("172.18.0.{n}") }]);
    status.conditions = Some(vec![NodeCondition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        ..NodeCondition::default()
    }]);
    w.fake.put(&node);
}

fn service(name: &str, port: i32) -> Service {
    let mut service = Service::default();
    named(&mut service, name);
    let spec = service.spec.get_or_insert_default();
    spec.type_ = Some("LoadBalancer".to_owned());
    spec.ports = Some(vec![ServicePort { port, protocol: Some("TCP".to_owned()), ..ServicePort::default() }]);
    service
}

fn addresses(w: &World, name: &str) -> Vec<String> {
    let service = w.fake.get::<Service>("default", name).unwrap();
    super::plan::held(&service).map(str::to_owned).collect()
}

fn problem(w: &World, name: &str) -> Option<String> {
    let service = w.fake.get::<Service>("default", name).unwrap();
    super::conditions(&service).first().map(|c| format!("{} {}", c.type_, c.message))
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_has_the_addresses_of_the_ready_nodes() {
    let w = world();
    w.fake.put(&service("web", 80));
    w.settle().await;
    assert_eq!(addresses(&w, "web"), ["172.18.0.1", "172.18.0.2"]);
    node(&w, 2, false);
    w.settle().await;
    assert_eq!(addresses(&w, "web"), ["172.18.0.1"]);
    assert_eq!(
        w.events(),
        [
            "EnsuringLoadBalancer Ensuring load balancer",
            "EnsuredLoadBalancer Ensured load balancer",
            "UpdatedLoadBalancer Updated load balancer with new hosts",
        ]
    );
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    assert_eq!(w.fake.take_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn another_class_is_left_alone() {
    let w = world();
    let mut other = service("other", 80);
    other.spec.as_mut().unwrap().load_balancer_class = Some("example.com/internal".to_owned());
    w.fake.put(&other);
    let mut named = service("named", 80);
    named.spec.as_mut().unwrap().load_balancer_class = Some(CLASS.to_owned());
    w.fake.put(&named);
    w.settle().await;
    assert!(addresses(&w, "other").is_empty());
    assert_eq!(addresses(&w, "named").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_port_belongs_to_one_service_and_goes_to_the_next_when_it_is_free() {
    let w = world();
    w.fake.put(&service("one", 80));
    w.settle().await;
    w.fake.put(&service("two", 80));
    w.fake.put(&service("three", 81));
    w.settle().await;
    assert_eq!((addresses(&w, "two").len(), addresses(&w, "three").len()), (0, 2));
    let message = "port TCP/80 of node-1, node-2 is in use by Service default/one";
    assert_eq!(problem(&w, "two"), Some(format!("LoadBalancerPortsError {message}")));
    let event = format!(
        "SyncLoadBalancerFailed Error syncing load balancer: failed to ensure load balancer: {message}"
    );
    assert!(w.events().contains(&event), "{:?}", w.events());
    w.fake.remove::<Service>("default", "one");
    w.settle().await;
    assert_eq!((addresses(&w, "two").len(), problem(&w, "two")), (2, None));
}

#[tokio::test(start_paused = true)]
async fn what_a_node_uses_itself_comes_first() {
    let w = world();
    w.fake.put(&service("web", 8080));
    w.settle().await;
    assert_eq!(addresses(&w, "web").len(), 2);
    let mut pod = Pod::default();
    named(&mut pod, "edge");
    let port = ContainerPort { container_port: 1, host_port: Some(8080), ..ContainerPort::default() };
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some("node-2".to_owned());
    spec.containers = vec![Container { ports: Some(vec![port]), ..Container::default() }];
    w.fake.put(&pod);
    w.settle().await;
    assert_eq!(addresses(&w, "web"), ["172.18.0.1"]);
    let mut ports = service("ports", 9090);
    ports.spec.as_mut().unwrap().type_ = Some("NodePort".to_owned());
    ports.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].node_port = Some(30080);
    w.fake.put(&ports);
    w.fake.put(&service("high", 30080));
    w.settle().await;
    assert!(addresses(&w, "high").is_empty());
    assert!(problem(&w, "high").unwrap().ends_with("is in use by the node port of Service default/ports"));
}

#[tokio::test(start_paused = true)]
async fn the_local_policy_needs_ready_endpoints() {
    let w = world();
    let mut web = service("web", 80);
    web.spec.as_mut().unwrap().external_traffic_policy = Some("Local".to_owned());
    w.fake.put(&web);
    w.settle().await;
    assert!(addresses(&w, "web").is_empty());
    let mut slice = EndpointSlice::default();
    named(&mut slice, "web-1");
    slice.metadata.labels = Some([("kubernetes.io/service-name".to_owned(), "web".to_owned())].into());
    slice.address_type = "IPv4".to_owned();
    let endpoint = |ip: &str, node: &str, ready| krate_api::types::discovery::v1::Endpoint {
        addresses: vec![ip.to_owned()],
        node_name: Some(node.to_owned()),
        conditions: Some(krate_api::types::discovery::v1::EndpointConditions {
            ready: Some(ready),
            ..Default::default()
        }),
        ..Default::default()
    };
    slice.endpoints = Some(vec![endpoint("10.1.0.1", "node-1", false), endpoint("10.1.0.2", "node-2", true)]);
    w.fake.put(&slice);
    w.settle().await;
    assert_eq!(addresses(&w, "web"), ["172.18.0.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_type_gives_the_addresses_back() {
    let w = world();
    w.fake.put(&service("web", 80));
    w.settle().await;
    let mut web = (*w.fake.get::<Service>("default", "web").unwrap()).clone();
    web.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
    w.fake.put(&web);
    w.settle().await;
    assert!(addresses(&w, "web").is_empty());
    assert!(w.events().contains(&"DeletedLoadBalancer Deleted load balancer".to_owned()));
}
