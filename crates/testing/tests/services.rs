//! Services on a whole control plane with hollow nodes, in virtual time: endpoints, addresses, load balancers.

mod common;

use common::{cluster, deployment, events, is_ready, living};
use krate_api::Kind;
use krate_api::types::core::v1::{Endpoints, Pod, Service};
use krate_api::types::discovery::v1::{Endpoint, EndpointSlice};
use krate_api::types::networking::v1::{IPAddress, ServiceCIDR};
use krate_client::{Informer, PatchKind};
use krate_testing::{ControlPlane, Shape};
use std::collections::BTreeSet;

/// A Service of the pods labelled `app=web` with these further fields of its spec.
fn service(name: &str, spec: &str) -> Service {
    let json = format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"default"}},
        "spec":{{"selector":{{"app":"web"}},"ports":[{{"port":80}}]{spec}}}}}"#
    );
    Service::decode(json.as_bytes()).unwrap()
}

fn of_service(slice: &EndpointSlice, name: &str) -> bool {
    slice
        .metadata
        .labels
        .as_ref()
        .and_then(|l| l.get("kubernetes.io/service-name"))
        .is_some_and(|n| n == name)
}

fn is_up(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(true))
}

/// The addresses that a Service's slices call ready.
fn ready(slices: &Informer<EndpointSlice>, name: &str) -> BTreeSet<String> {
    let slices = slices.list();
    let own = slices.iter().filter(|s| of_service(s, name));
    own.flat_map(|s| s.endpoints.iter().flatten().filter(|e| is_up(e)))
        .flat_map(|e| e.addresses.clone())
        .collect()
}

/// The addresses of the pods that are to be called ready.
async fn ready_pods(cluster: &ControlPlane) -> BTreeSet<String> {
    let pods = cluster.of::<Pod>().list("default", Default::default()).await.unwrap().items;
    let up = living(&pods).into_iter().filter(|p| is_ready(p));
    up.filter_map(|p| p.status.as_ref()?.pod_ip.clone()).collect()
}

/// Waits until so many pods are ready, and the slices and the older Endpoints say just that.
async fn agreed(cluster: &ControlPlane, name: &str, count: usize) {
    cluster
        .until_all(|pods: &Informer<Pod>| {
            living(&pods.list()).iter().filter(|p| is_ready(p)).count() == count
        })
        .await;
    let wanted = ready_pods(cluster).await;
    cluster.until_all(|slices: &Informer<EndpointSlice>| ready(slices, name) == wanted).await;
    cluster
        .until("default", name, |e: Option<&Endpoints>| {
            let subsets = e.and_then(|e| e.subsets.clone()).unwrap_or_default();
            let ips = subsets.iter().flat_map(|s| s.addresses.iter().flatten()).map(|a| a.ip.clone());
            ips.collect::<BTreeSet<_>>() == wanted
        })
        .await;
}

async fn patch(cluster: &ControlPlane, name: &str, patch: &str) -> Service {
    let patched = cluster.of::<Service>().patch("default", name, PatchKind::Merge, patch.to_owned()).await;
    (*patched.unwrap()).clone()
}

fn ingress(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.clone()).unwrap_or_default();
    balancer.ingress.into_iter().flatten().filter_map(|i| i.ip).collect()
}

#[tokio::test(start_paused = true)]
async fn endpoints_follow_pods_that_come_fail_and_go() {
    let (cluster, nodes) = cluster(2).await;
    cluster.of::<Service>().create(service("web", "")).await.unwrap();
    cluster.of::<krate_api::types::apps::v1::Deployment>().create(deployment("web", 4)).await.unwrap();
    agreed(&cluster, "web", 4).await;
    let pods = cluster.of::<Pod>().list("default", Default::default()).await.unwrap().items;
    let first = pods[0].metadata.name.clone().unwrap();
    cluster.set_ready("default", &first, false).await.unwrap();
    agreed(&cluster, "web", 3).await;
    cluster.set_ready("default", &first, true).await.unwrap();
    agreed(&cluster, "web", 4).await;
    cluster.of::<Pod>().delete("default", &first, Default::default()).await.unwrap();
    agreed(&cluster, "web", 4).await;

    // A pod whose node is gone is not ready for anybody.
    nodes[0].vanish().await;
    let on_first = |pods: &[std::sync::Arc<Pod>]| {
        let here = |p: &&std::sync::Arc<Pod>| {
            p.spec.as_ref().is_some_and(|s| s.node_name.as_deref() == Some("node-1")) && is_ready(p)
        };
        pods.iter().filter(here).count()
    };
    cluster.until_all(|pods: &Informer<Pod>| on_first(&pods.list()) == 0).await;
    let wanted = ready_pods(&cluster).await;
    cluster.until_all(|slices: &Informer<EndpointSlice>| ready(slices, "web") == wanted).await;
    agreed(&cluster, "web", 4).await;
    let slices = cluster.of::<EndpointSlice>().list("default", Default::default()).await.unwrap().items;
    let nodes: BTreeSet<_> = slices
        .iter()
        .filter(|s| of_service(s, "web"))
        .flat_map(|s| s.endpoints.iter().flatten().filter(|e| is_up(e)).filter_map(|e| e.node_name.clone()))
        .collect();
    assert_eq!(nodes, BTreeSet::from(["node-2".to_owned()]));
    cluster.stop().await;
}

/// What a Service's slices say: each port number with the pods that have it.
fn pods_by_port(slices: &Informer<EndpointSlice>, name: &str) -> BTreeSet<(i32, String)> {
    let pod = |e: &Endpoint| e.target_ref.as_ref().and_then(|t| t.name.clone());
    let of_slice = |s: &EndpointSlice| -> Vec<(i32, String)> {
        let pods: Vec<String> = s.endpoints.iter().flatten().filter_map(pod).collect();
        let ports = s.ports.iter().flatten().filter_map(|p| p.port);
        ports.flat_map(|port| pods.iter().map(move |pod| (port, pod.clone()))).collect()
    };
    slices.list().iter().filter(|s| of_service(s, name)).flat_map(|s| of_slice(s)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_ports_name_may_be_another_number_in_each_pod() {
    let (cluster, _) = cluster(1).await;
    for (name, ports) in [("one", "[3000]"), ("two", "[3001, 3002]")] {
        let numbers: Vec<i32> = serde_json::from_str(ports).unwrap();
        let named = numbers.iter().zip(["http", "other"]);
        let ports: Vec<String> =
            named.map(|(port, name)| format!(r#"{{"name":"{name}","containerPort":{port}}}"#)).collect();
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"default","labels":{{"app":"web"}}}},
            "spec":{{"containers":[{{"name":"main","image":"web:1","ports":[{}]}}]}}}}"#,
            ports.join(",")
        );
        cluster.of::<Pod>().create(Pod::decode(json.as_bytes()).unwrap()).await.unwrap();
    }
    let mut web = service("web", "");
    let spec = web.spec.as_mut().unwrap();
    spec.ports = serde_json::from_str(r#"[{"name":"web","port":80,"targetPort":"http"}]"#).unwrap();
    cluster.of::<Service>().create(web).await.unwrap();
    let both = BTreeSet::from([(3000, "one".to_owned()), (3001, "two".to_owned())]);
    let agree = |slices: &Informer<EndpointSlice>| pods_by_port(slices, "web") == both;
    cluster.until_all(agree).await;
    cluster
        .until("default", "web", |e: Option<&Endpoints>| {
            let subsets = e.and_then(|e| e.subsets.clone()).unwrap_or_default();
            let ports = subsets.iter().flat_map(|s| s.ports.iter().flatten()).map(|p| p.port);
            subsets.len() == 2 && ports.collect::<BTreeSet<_>>() == BTreeSet::from([3000, 3001])
        })
        .await;

    // Whoever removes the slices gets new ones.
    let slices = cluster.of::<EndpointSlice>();
    let mut before = slices.list("default", Default::default()).await.unwrap().items;
    before.retain(|s| of_service(s, "web"));
    let names: Vec<String> = before.iter().filter_map(|s| s.metadata.name.clone()).collect();
    for name in &names {
        slices.delete("default", name, Default::default()).await.unwrap();
    }
    let is_new = |s: &EndpointSlice| s.metadata.name.as_ref().is_some_and(|n| !names.contains(n));
    cluster
        .until_all(|slices: &Informer<EndpointSlice>| {
            agree(slices) && slices.list().iter().filter(|s| of_service(s, "web")).all(|s| is_new(s))
        })
        .await;
    cluster.of::<Pod>().delete("default", "one", Default::default()).await.unwrap();
    let second = BTreeSet::from([(3001, "two".to_owned())]);
    cluster.until_all(|slices: &Informer<EndpointSlice>| pods_by_port(slices, "web") == second).await;

    // One without pods is there all the same, and has no ports.
    let mut none = service("none", "");
    none.spec.as_mut().unwrap().selector = Some([("app".to_owned(), "none".to_owned())].into());
    cluster.of::<Service>().create(none).await.unwrap();
    cluster
        .until_all(|slices: &Informer<EndpointSlice>| {
            let slices = slices.list();
            let own: Vec<_> = slices.iter().filter(|s| of_service(s, "none")).collect();
            let is_empty = |s: &EndpointSlice| {
                s.ports.iter().flatten().next().is_none() && s.endpoints.iter().flatten().next().is_none()
            };
            own.len() == 1 && own.iter().all(|s| is_empty(s))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_never_shows_an_address_twice_or_too_few() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<Service>().create(service("web", "")).await.unwrap();
    cluster.of::<krate_api::types::apps::v1::Deployment>().create(deployment("web", 6)).await.unwrap();
    agreed(&cluster, "web", 6).await;
    let bounds = cluster
        .always(|slices: &Informer<EndpointSlice>| {
            let all = slices.list();
            let up: Vec<&Endpoint> = all
                .iter()
                .filter(|s| of_service(s, "web"))
                .flat_map(|s| s.endpoints.iter().flatten().filter(|e| is_up(e)))
                .collect();
            let addresses: BTreeSet<_> = up.iter().flat_map(|e| &e.addresses).collect();
            if addresses.len() != up.len() {
                return Err(format!("an address is there twice: {up:#?}"));
            }
            // maxUnavailable is a quarter of six: one.
            if addresses.len() < 5 { Err(format!("{} ready endpoints", addresses.len())) } else { Ok(()) }
        })
        .await;
    let image = r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"web:2"}]}}}}"#;
    let deployments = cluster.of::<krate_api::types::apps::v1::Deployment>();
    deployments.patch("default", "web", PatchKind::StrategicMerge, image.to_owned()).await.unwrap();
    cluster
        .until_all(|pods: &Informer<Pod>| {
            let pods = pods.list();
            let image = |p: &Pod| p.spec.as_ref().and_then(|s| s.containers[0].image.clone());
            pods.len() == 6 && pods.iter().all(|p| image(p).as_deref() == Some("web:2") && is_ready(p))
        })
        .await;
    agreed(&cluster, "web", 6).await;
    bounds.check();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn hints_say_which_zone_an_endpoint_is_for() {
    let cluster = ControlPlane::in_virtual_time(7).await.unwrap();
    for (name, zone) in [("a", "z1"), ("b", "z2")] {
        let shape = Shape::default().label("topology.kubernetes.io/zone", zone);
        cluster.hollow_node_of(name, shape).await.unwrap();
    }
    let near = r#","trafficDistribution":"PreferSameNode""#;
    cluster.of::<Service>().create(service("web", near)).await.unwrap();
    cluster.of::<krate_api::types::apps::v1::Deployment>().create(deployment("web", 4)).await.unwrap();
    agreed(&cluster, "web", 4).await;
    let hinted = |node: bool| {
        move |slices: &Informer<EndpointSlice>| {
            let slices = slices.list();
            let mut up = slices
                .iter()
                .filter(|s| of_service(s, "web"))
                .flat_map(|s| s.endpoints.iter().flatten().filter(|e| is_up(e)));
            up.all(|e| {
                let hints = e.hints.clone().unwrap_or_default();
                let zones: Vec<_> = hints.for_zones.into_iter().flatten().map(|z| z.name).collect();
                let nodes: Vec<_> = hints.for_nodes.into_iter().flatten().map(|n| n.name).collect();
                zones == e.zone.clone().into_iter().collect::<Vec<_>>()
                    && (if node { nodes.first() == e.node_name.as_ref() } else { nodes.is_empty() })
            })
        }
    };
    cluster.until_all(hinted(true)).await;
    patch(&cluster, "web", r#"{"spec":{"trafficDistribution":"PreferSameZone"}}"#).await;
    cluster.until_all(hinted(false)).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn load_balancers_have_the_nodes_addresses_and_do_not_share_a_port() {
    let (cluster, nodes) = cluster(2).await;
    let balanced = r#","type":"LoadBalancer""#;
    cluster.of::<Service>().create(service("one", balanced)).await.unwrap();
    let has = |n: usize| move |s: Option<&Service>| s.is_some_and(|s| ingress(s).len() == n);
    cluster.until("default", "one", has(2)).await;
    cluster.of::<Service>().create(service("two", balanced)).await.unwrap();
    let conditions = |s: &Service| s.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    cluster
        .until("default", "two", |s: Option<&Service>| {
            s.is_some_and(|s| conditions(s).iter().any(|c| c.type_ == "LoadBalancerPortsError"))
        })
        .await;
    let told = events(&cluster).await;
    assert!(told.contains(&"Service/one EnsuredLoadBalancer: Ensured load balancer".to_owned()), "{told:#?}");
    let failed =
        |e: &&String| e.starts_with("Service/two SyncLoadBalancerFailed: Error syncing load balancer");
    assert!(told.iter().find(failed).is_some_and(|e| e.contains("Service default/one")), "{told:#?}");
    nodes[1].vanish().await;
    cluster.until("default", "one", has(1)).await;
    nodes[1].come_back();
    cluster.until("default", "one", has(2)).await;
    patch(&cluster, "one", r#"{"spec":{"type":"ClusterIP"}}"#).await;
    cluster.until("default", "one", has(0)).await;
    let two = cluster.until("default", "two", has(2)).await.unwrap();
    assert!(conditions(&two).is_empty(), "{:?}", two.status);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_type_takes_and_gives_back_addresses_and_ports() {
    let (cluster, _nodes) = cluster(1).await;
    let made = cluster.of::<Service>().create(service("web", r#","type":"NodePort""#)).await.unwrap();
    let spec = made.spec.clone().unwrap();
    let (ip, port) = (spec.cluster_ip.unwrap(), spec.ports.unwrap()[0].node_port.unwrap());
    let address = cluster.of::<IPAddress>().get("", &ip).await.unwrap();
    assert_eq!(address.spec.parent_ref.name, "web");
    let external =
        r#"{"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":"","clusterIPs":null}}"#;
    let spec = patch(&cluster, "web", external).await.spec.unwrap();
    assert_eq!(spec.cluster_ip.unwrap_or_default(), "");
    assert_eq!(spec.ports.unwrap()[0].node_port.unwrap_or(0), 0);
    assert!(cluster.of::<IPAddress>().get("", &ip).await.unwrap_err().is_not_found());
    // The port is free again: another Service can have it.
    let other = format!(r#","type":"NodePort","ports":[{{"port":80,"nodePort":{port}}}]"#);
    let mut other_service = service("other", r#","type":"NodePort""#);
    other_service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].node_port = Some(port);
    cluster.of::<Service>().create(other_service).await.unwrap_or_else(|e| panic!("{other}: {e}"));
    let back = r#"{"spec":{"type":"ClusterIP","externalName":null}}"#;
    let spec = patch(&cluster, "web", back).await.spec.unwrap();
    assert!(spec.cluster_ip.is_some_and(|ip| !ip.is_empty()));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ranges_of_addresses_can_be_added_and_stay_while_they_are_used() {
    let (cluster, _nodes) = cluster(1).await;
    let ready = |c: Option<&ServiceCIDR>| {
        let status = c.and_then(|c| c.status.clone()).unwrap_or_default();
        status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let default = cluster.until("", "kubernetes", ready).await.unwrap();
    assert_eq!(default.spec.as_ref().unwrap().cidrs.as_ref().unwrap().len(), 1);
    let fixed = r#","clusterIP":"10.201.0.7""#;
    let refused = cluster.of::<Service>().create(service("web", fixed)).await.unwrap_err();
    assert!(refused.to_string().contains("is not in the valid range"), "{refused}");
    let json = r#"{"metadata":{"name":"more"},"spec":{"cidrs":["10.201.0.0/24"]}}"#;
    cluster.of::<ServiceCIDR>().create(ServiceCIDR::decode(json.as_bytes()).unwrap()).await.unwrap();
    cluster.until("", "more", ready).await;
    cluster.of::<Service>().create(service("web", fixed)).await.unwrap();
    cluster.of::<ServiceCIDR>().delete("", "more", Default::default()).await.unwrap();
    cluster
        .until("", "more", |c: Option<&ServiceCIDR>| {
            let status = c.and_then(|c| c.status.clone()).unwrap_or_default();
            status.conditions.iter().flatten().any(|c| c.reason == "Terminating" && c.status == "False")
        })
        .await;
    cluster.of::<Service>().delete("default", "web", Default::default()).await.unwrap();
    cluster.until("", "more", |c: Option<&ServiceCIDR>| c.is_none()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_kubernetes_service_comes_back() {
    let (cluster, _nodes) = cluster(1).await;
    let services = cluster.of::<Service>();
    let before = services.get("default", "kubernetes").await.unwrap();
    services.delete("default", "kubernetes", Default::default()).await.unwrap();
    let after = cluster
        .until("default", "kubernetes", |s: Option<&Service>| {
            s.is_some_and(|s| s.metadata.uid != before.metadata.uid)
        })
        .await
        .unwrap();
    let ip = |s: &Service| s.spec.as_ref().and_then(|s| s.cluster_ip.clone());
    assert_eq!(ip(&after), ip(&before));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_one_family_says_so() {
    let (cluster, _nodes) = cluster(1).await;
    let created = async |spec: &str| match cluster.of::<Service>().create(service("web", spec)).await {
        Ok(service) => {
            let deleted = cluster.of::<Service>().delete("default", "web", Default::default()).await;
            deleted.unwrap();
            let spec = service.spec.clone().unwrap();
            let families = spec.ip_families.unwrap().join(",");
            format!("{families} {} {}", spec.ip_family_policy.unwrap(), spec.cluster_ips.unwrap().len())
        }
        Err(status) => status.to_string(),
    };
    let not_dual = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services";
    let not_six =
        |at: usize| format!("spec.ipFamilies[{at}]: Invalid value: \"IPv6\": not configured on this cluster");
    let invalid = |faults: &str| format!("Service \"web\" is invalid: {faults}");
    for (spec, expected) in [
        ("", "IPv4 SingleStack 1".to_owned()),
        (r#","ipFamilyPolicy":"PreferDualStack""#, "IPv4 PreferDualStack 1".to_owned()),
        (r#","ipFamilyPolicy":"RequireDualStack""#, invalid(not_dual)),
        (r#","ipFamilies":["IPv6"]"#, invalid(&not_six(0))),
        (r#","ipFamilies":["IPv4","IPv6"]"#, invalid(&format!("[{not_dual}, {}]", not_six(1)))),
        (
            r#","ipFamilies":["IPv4","IPv4"],"ipFamilyPolicy":"PreferDualStack""#,
            invalid("spec.ipFamilies[1]: Duplicate value: \"IPv4\""),
        ),
        (
            r#","ipFamilies":["IPv5"]"#,
            invalid("spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\""),
        ),
        (r#","clusterIP":"fd00::1""#, invalid(&not_six(0))),
    ] {
        assert_eq!(created(spec).await, expected, "{spec}");
    }
    cluster.stop().await;
}
