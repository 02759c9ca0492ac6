//! Endpoints and slices on the in-memory API.

use super::plan::{MANAGED_BY, SERVICE_NAME};
use crate::world::{World, named};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::Kind;
use krate_api::meta::ObjectMeta;
use krate_api::types::core::v1::{
    Container, ContainerPort, EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Node, Pod, Service,
    ServicePort,
};
use krate_api::types::discovery::v1::{Endpoint, EndpointSlice};

fn world() -> World {
    World::new(&[super::slices::start, super::legacy::start, super::mirror::start])
}

fn service(name: &str) -> Service {
    let mut service = Service::default();
    named(&mut service, name);
    let spec = service.spec.get_or_insert_default();
    spec.selector = Some([("app".to_owned(), name.to_owned())].into());
    spec.cluster_ip = Some("10.96.0.10".to_owned());
    spec.ports = Some(vec![ServicePort {
        port: 80,
        target_port: Some(IntOrString::String("http".to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }]);
    service
}

fn pod(w: &World, name: &str, app: &str, port: i32, ready: bool) {
    let mut pod = Pod::default();
    named(&mut pod, name);
    pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
    let port =
        ContainerPort { name: Some("http".to_owned()), container_port: port, ..ContainerPort::default() };
    pod.spec.get_or_insert_default().containers =
        vec![Container { name: "main".to_owned(), ports: Some(vec![port]), ..Container::default() }];
    w.set_ready(&w.fake.put(&pod), ready);
}

fn conditions(e: &Endpoint) -> (bool, bool, bool) {
    let c = e.conditions.clone().unwrap();
    (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
}

#[tokio::test(start_paused = true)]
async fn pods_become_endpoints_with_the_port_that_they_name() {
    let w = world();
    pod(&w, "a", "web", 8080, true);
    pod(&w, "b", "web", 8080, false);
    pod(&w, "c", "other", 8080, true);
    w.fake.put(&service("web"));
    w.settle().await;
    let slices = w.fake.list::<EndpointSlice>();
    assert_eq!(slices.len(), 1);
    let slice = &slices[0];
    assert_eq!(slice.metadata.labels.as_ref().unwrap()[SERVICE_NAME], "web");
    assert_eq!(slice.metadata.labels.as_ref().unwrap()[MANAGED_BY], "endpointslice-controller.k8s.io");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some(""), Some(8080)));
    let endpoints = slice.endpoints.as_ref().unwrap();
    assert_eq!(
        endpoints.iter().map(conditions).collect::<Vec<_>>(),
        [(true, true, false), (false, false, false)]
    );
    let old = w.fake.get::<Endpoints>("default", "web").unwrap();
    let subset = &old.subsets.as_ref().unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap().len(), 1);
    assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 1);
    for metadata in [&slice.metadata, &old.metadata] {
        assert!(super::trigger::shown(metadata).is_some_and(|at| at.ends_with('Z')), "{metadata:?}");
    }
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    assert_eq!(w.fake.take_writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_terminating_pod_still_serves_until_it_is_gone() {
    let w = world();
    pod(&w, "a", "web", 8080, true);
    w.fake.put(&service("web"));
    w.settle().await;
    w.api::<Pod>().delete("default", "a", Default::default()).await.unwrap();
    w.settle().await;
    let slice = &w.fake.list::<EndpointSlice>()[0];
    assert_eq!(conditions(&slice.endpoints.as_ref().unwrap()[0]), (false, true, true));
    assert_eq!(w.fake.get::<Endpoints>("default", "web").unwrap().subsets, None);
    w.finish_deletions();
    w.settle().await;
    assert!(w.fake.list::<EndpointSlice>()[0].endpoints.iter().flatten().next().is_none());
}

#[tokio::test(start_paused = true)]
async fn pods_that_name_different_ports_are_in_different_slices() {
    let w = world();
    pod(&w, "a", "web", 8080, true);
    pod(&w, "b", "web", 9090, true);
    w.fake.put(&service("web"));
    w.settle().await;
    assert_eq!(w.fake.list::<EndpointSlice>().len(), 2);
    assert_eq!(w.fake.get::<Endpoints>("default", "web").unwrap().subsets.as_ref().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn unready_pods_are_published_if_asked_and_headless_services_say_so() {
    let w = world();
    pod(&w, "a", "web", 8080, false);
    let mut s = service("web");
    let spec = s.spec.as_mut().unwrap();
    spec.publish_not_ready_addresses = Some(true);
    spec.cluster_ip = Some("None".to_owned());
    spec.ports = None;
    w.fake.put(&s);
    w.settle().await;
    let slice = &w.fake.list::<EndpointSlice>()[0];
    assert_eq!(conditions(&slice.endpoints.as_ref().unwrap()[0]), (true, false, false));
    assert!(slice.metadata.labels.as_ref().unwrap().contains_key("service.kubernetes.io/headless"));
    let old = w.fake.get::<Endpoints>("default", "web").unwrap();
    assert_eq!(old.subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_people_write_are_mirrored() {
    let w = world();
    let mut s = service("db");
    s.spec.as_mut().unwrap().selector = None;
    w.fake.put(&s);
    let metadata = ObjectMeta {
        name: Some("db".to_owned()),
        namespace: Some("default".to_owned()),
        ..ObjectMeta::default()
    };
    let address = |ip: &str| EndpointAddress { ip: ip.to_owned(), ..EndpointAddress::default() };
    let port = EndpointPort { port: 5432, ..EndpointPort::default() };
    w.fake.put(&Endpoints {
        metadata,
        subsets: Some(vec![EndpointSubset {
            addresses: Some(vec![address("192.0.2.1"), address("2001:db8::1")]),
            ports: Some(vec![port]),
            ..EndpointSubset::default()
        }]),
    });
    w.settle().await;
    let mut types: Vec<_> = w.fake.list::<EndpointSlice>().iter().map(|s| s.address_type.clone()).collect();
    types.sort();
    assert_eq!(types, ["IPv4", "IPv6"]);
    w.fake.remove::<Endpoints>("default", "db");
    w.settle().await;
    assert!(w.fake.list::<EndpointSlice>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_endpoints_of_a_deleted_service_go() {
    let w = world();
    w.fake.put(&service("web"));
    w.settle().await;
    w.fake.remove::<Service>("default", "web");
    w.settle().await;
    assert!(w.fake.list::<Endpoints>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_of_many_endpoints_is_one_slice() {
    let w = world();
    for i in 0..1250 {
        pod(&w, &format!("p{i:04}"), "web", 8080, true);
    }
    w.fake.put(&service("web"));
    w.settle().await;
    assert_eq!(w.fake.list::<EndpointSlice>().len(), 13);
    let writes = async || {
        w.settle().await;
        let all = w.fake.take_writes();
        all.into_iter().filter(|write| write.contains("endpointslices")).collect::<Vec<_>>()
    };
    let _ = writes().await;
    let one =
        |writes: &[String]| assert!(matches!(writes, [only] if only.starts_with("update")), "{writes:?}");
    w.set_ready(&w.fake.get::<Pod>("default", "p0007").unwrap(), false);
    one(&writes().await);
    w.fake.remove::<Pod>("default", "p0107");
    one(&writes().await);
    pod(&w, "p9999", "web", 8080, true);
    one(&writes().await);
}

#[tokio::test(start_paused = true)]
async fn topology_aware_routing_shares_endpoints_out_and_says_so() {
    let w = world();
    let node = |name: &str, zone: &str| {
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","labels":{{"topology.kubernetes.io/zone":"{zone}"}}}},
            "status":{{"allocatable":{{"cpu":"2"}},"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
        );
        w.fake.put(&Node::decode(json.as_bytes()).unwrap());
    };
    node("n1", "z1");
    for name in ["a", "b", "c", "d"] {
        pod(&w, name, "web", 8080, true);
        let mut pod = (*w.fake.get::<Pod>("default", name).unwrap()).clone();
        pod.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
        w.fake.put(&pod);
    }
    let mut web = service("web");
    let mode = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
    web.metadata.annotations = Some([mode].into());
    w.fake.put(&web);
    w.settle().await;
    let zones = || {
        let slice = w.fake.list::<EndpointSlice>()[0].clone();
        let zone = |e: &Endpoint| e.hints.clone()?.for_zones?.first().map(|z| z.name.clone());
        let mut zones: Vec<_> = slice.endpoints.iter().flatten().filter_map(zone).collect();
        zones.sort();
        zones
    };
    assert!(zones().is_empty());
    assert!(
        w.events().iter().any(|e| e.starts_with("TopologyAwareHintsDisabled Insufficient Node information"))
    );
    node("n2", "z2");
    w.settle().await;
    assert_eq!(zones(), ["z1", "z1", "z2", "z2"]);
    let enabled = "TopologyAwareHintsEnabled Topology Aware Hints has been enabled, addressType: IPv4";
    assert!(w.events().iter().any(|e| e == enabled), "{:?}", w.events());
    web.metadata.annotations = None;
    w.fake.put(&web);
    w.settle().await;
    assert!(zones().is_empty());
}
