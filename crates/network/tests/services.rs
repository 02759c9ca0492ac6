//! Services as clients see them: two nodes, pods and a machine outside, all in namespaces of the test.

mod common;

use common::{Ns, may_make_namespaces};
use krate_api::Kind;
use krate_api::types::core::v1::{Event, Service};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::testing::Fake;
use krate_client::{Informers, Recorder};
use krate_network::link::edge::HostPort;
use krate_network::link::routes::{self, NodeView};
use krate_network::link::{self, PodNetwork};
use krate_network::nft::Family;
use krate_network::proxy::plan::Frontend;
use krate_network::proxy::program::Stale;
use krate_network::proxy::{self, Proxy, conntrack};
use krate_network::views::Protocol;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest that a change may take to arrive: a bound for failures, never waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node of the test cluster with its pod network and its proxy.
struct Node {
    ns: Ns,
    name: &'static str,
    network: PodNetwork,
    applied: watch::Receiver<u64>,
    shutdown: Shutdown,
    thread: Option<std::thread::JoinHandle<()>>,
    _state: tempfile::TempDir,
}

fn pod_cidrs(index: u8) -> Vec<krate_network::Cidr> {
    [format!("10.244.{index}.0/24"), format!("fd00:244:0:{index}::/64")].map(|c| c.parse().unwrap()).into()
}

fn node_ips(index: u8) -> Vec<IpAddr> {
    [format!("172.18.0.{}", index + 2), format!("fd00:18::{}", index + 2)].map(|a| a.parse().unwrap()).into()
}

/// Two nodes on one link, and a machine outside that reaches the first node only.
struct Cluster {
    api: Fake,
    one: Node,
    two: Node,
    outside: Ns,
    pods: u32,
}

impl Node {
    fn new(name: &'static str, ns: Ns, index: u8, api: &Fake) -> Self {
        let state = tempfile::tempdir().unwrap();
        let config =
            link::Config { pod_cidrs: pod_cidrs(index), mtu: 1500, state_dir: state.path().to_owned() };
        let network = ns.block_on(|| PodNetwork::new(config)).unwrap();
        let (shutdown, transport) = (Shutdown::new(), api.transport());
        let (tell, told) = mpsc::channel();
        let (stop, inside) = (shutdown.clone(), ns.clone());
        let thread = std::thread::spawn(move || {
            inside.block_on(move || async move {
                let (rng, metrics) = (Rng::from_seed(1), Metrics::default());
                let supervisor = Supervisor::new(stop.clone());
                let recorder = Recorder::start(
                    transport.clone(),
                    "kube-proxy",
                    name,
                    &Clock::system(),
                    &rng,
                    &metrics,
                    &supervisor,
                );
                let proxy = Proxy::new(proxy::Config {
                    recorder,
                    informers: Informers::new(transport, rng.clone(), metrics.clone(), supervisor.clone()),
                    metrics,
                    clock: Clock::system(),
                    rng,
                    node_name: name.into(),
                    node_ips: node_ips(index),
                    pod_cidrs: ["10.244.0.0/16", "fd00:244::/48"].map(|c| c.parse().unwrap()).into(),
                    service_cidrs: ["10.96.0.0/16", "fd00:96::/108"].map(|c| c.parse().unwrap()).into(),
                    answered_here: vec![],
                });
                tell.send(proxy.applied()).unwrap();
                proxy.run(stop).await.unwrap();
                supervisor.stop().await;
            });
        });
        let applied = told.recv().unwrap();
        Self { ns, name, network, applied, shutdown, thread: Some(thread), _state: state }
    }

    /// Waits until `done`, looking again each time that the proxy has told the kernel something.
    fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut applied = self.applied.clone();
        loop {
            applied.mark_unchanged();
            if let Some(value) = done() {
                return value;
            }
            let changed = runtime.block_on(async { tokio::time::timeout(PATIENCE, applied.changed()).await });
            if !matches!(changed, Ok(Ok(()))) {
                panic!("{what}: not in time\n{}", self.ns.sh("nft list ruleset || true"));
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

impl Cluster {
    fn new() -> Self {
        let api = Fake::new(Clock::system(), Rng::from_seed(7));
        let (one, two, outside) = (Ns::new(), Ns::new(), Ns::new());
        one.join("eth0", "172.18.0.2/24", &two, "eth0", "172.18.0.3/24");
        one.join("eth1", "192.168.9.1/24", &outside, "eth0", "192.168.9.2/24");
        one.address("eth0", "fd00:18::2/64");
        two.address("eth0", "fd00:18::3/64");
        one.address("eth1", "fd00:9::1/64");
        outside.address("eth0", "fd00:9::2/64");
        let cluster = Self {
            one: Node::new("one", one, 0, &api),
            two: Node::new("two", two, 1, &api),
            api,
            outside,
            pods: 0,
        };
        let view = |node: &Node, index: u8| NodeView {
            name: node.name.into(),
            pod_cidrs: pod_cidrs(index),
            internal_ips: node_ips(index),
            ..NodeView::default()
        };
        let nodes = [view(&cluster.one, 0), view(&cluster.two, 1)];
        for node in [&cluster.one, &cluster.two] {
            let wanted = routes::plan(node.name, &nodes);
            assert!(node.ns.block_on(|| routes::apply(wanted)).unwrap().is_empty());
        }
        cluster
    }

    /// A pod on a node, and its address.
    fn pod(&mut self, first: bool) -> (Ns, String) {
        let (pod, ips) = self.dual_pod(first);
        (pod, ips[0].clone())
    }

    /// A pod on a node, and its addresses of both families.
    fn dual_pod(&mut self, first: bool) -> (Ns, Vec<String>) {
        let (pod, id) = (Ns::new(), format!("sandbox-{}", self.pods));
        self.pods += 1;
        let node = if first { &self.one } else { &self.two };
        let (network, path) = (node.network.clone(), pod.path());
        let ips = node.ns.block_on(move || async move { network.attach(&id, &path).await }).unwrap();
        (pod, ips.iter().map(ToString::to_string).collect())
    }

    fn service(&self, spec: &str) {
        let json = format!(r#"{{"metadata":{{"namespace":"a","name":"web"}},"spec":{spec}}}"#);
        self.api.put(&Service::decode(json.as_bytes()).unwrap());
    }

    /// Endpoints written as `address node`.
    fn endpoints(&self, protocol: &str, endpoints: &[(&str, &str)]) {
        self.slice("web-1", protocol, endpoints);
    }

    fn slice(&self, name: &str, protocol: &str, endpoints: &[(&str, &str)]) {
        let list: Vec<String> = endpoints
            .iter()
            .map(|(ip, node)| {
                format!(r#"{{"addresses":["{ip}"],"nodeName":"{node}","conditions":{{"ready":true}}}}"#)
            })
            .collect();
        let family = if endpoints.iter().any(|(ip, _)| ip.contains(':')) { "IPv6" } else { "IPv4" };
        let json = format!(
            r#"{{"metadata":{{"namespace":"a","name":"{name}","labels":{{"kubernetes.io/service-name":"web"}}}},
            "addressType":"{family}","ports":[{{"port":8080,"protocol":"{protocol}"}}],"endpoints":[{}]}}"#,
            list.join(",")
        );
        self.api.put(&EndpointSlice::decode(json.as_bytes()).unwrap());
    }
}

const CLUSTER_IP: &str =
    r#"{"type":"ClusterIP","clusterIP":"10.96.0.7","ports":[{"port":80,"protocol":"TCP"}]}"#;
const NODE_PORT: &str =
    r#"{"type":"NodePort","clusterIP":"10.96.0.7","ports":[{"port":80,"nodePort":30080,"protocol":"TCP"}]}"#;

#[test]
fn pods_reach_a_service_on_both_nodes_and_themselves() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, client_ip) = c.pod(true);
    let (near, near_ip) = c.pod(true);
    let (far, far_ip) = c.pod(false);
    near.serve_tcp(8080, "near");
    far.serve_tcp(8080, "far");
    c.service(CLUSTER_IP);
    c.endpoints("TCP", &[(&near_ip, "one")]);
    let ok = |ns: &Ns| ns.greet("10.96.0.7:80").ok();
    let seen = c.one.until("a backend on the same node", || ok(&client));
    assert_eq!(seen, ("near".into(), client_ip.parse().unwrap()), "the source is the pod's own");
    let seen = c.two.until("from the other node", || ok(&far));
    assert_eq!(seen, ("near".into(), far_ip.parse().unwrap()));

    let (name, source) = ok(&near).expect("a pod reaches itself through its Service");
    assert_eq!((name.as_str(), source.to_string().as_str()), ("near", "10.244.0.1"));

    c.endpoints("TCP", &[(&far_ip, "two")]);
    let seen = c.one.until("a backend on the other node", || ok(&client).filter(|(name, _)| name == "far"));
    assert_eq!(seen.1.to_string(), client_ip);
    let (name, _) = c.one.ns.greet("10.96.0.7:80").expect("the node's own processes reach Services");
    assert_eq!(name, "far");
}

#[test]
fn every_endpoint_gets_its_share() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, _) = c.pod(true);
    let (near, near_ip) = c.pod(true);
    let (far, far_ip) = c.pod(false);
    near.serve_tcp(8080, "near");
    far.serve_tcp(8080, "far");
    c.service(CLUSTER_IP);
    c.endpoints("TCP", &[(&near_ip, "one"), (&far_ip, "two")]);
    c.one.until("an answer", || client.greet("10.96.0.7:80").ok());
    let names: Vec<String> = (0..64).map(|_| client.greet("10.96.0.7:80").unwrap().0).collect();
    // Each is missed by 64 fair choices once in 2^64 runs.
    assert!(names.iter().any(|n| n == "near") && names.iter().any(|n| n == "far"), "{names:?}");
}

#[test]
fn without_endpoints_clients_are_refused_at_once() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, _) = c.pod(true);
    c.service(NODE_PORT);
    for (ns, to) in [
        (&client, "10.96.0.7:80"),
        (&c.one.ns, "10.96.0.7:80"),
        (&c.outside, "192.168.9.1:30080"),
        // A Service address that no Service has.
        (&client, "10.96.200.200:80"),
        (&c.one.ns, "10.96.200.200:80"),
    ] {
        c.one.until("a refusal", || {
            let error = ns.greet(to).unwrap_err();
            (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
        });
    }
}

#[test]
fn node_ports_work_on_every_address_and_hide_the_source() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (far, far_ip) = c.pod(false);
    let (near, near_ip) = c.pod(true);
    far.serve_tcp(8080, "far");
    near.serve_tcp(8080, "near");
    c.service(NODE_PORT);
    c.endpoints("TCP", &[(&far_ip, "two")]);
    let (name, source) = c.one.until("from outside", || c.outside.greet("192.168.9.1:30080").ok());
    assert_eq!((name.as_str(), source.to_string().as_str()), ("far", "172.18.0.2"));
    for (ns, to) in [
        (&c.one.ns, "127.0.0.1:30080"),
        (&c.one.ns, "172.18.0.2:30080"),
        (&near, "10.244.0.1:30080"),
        (&near, "172.18.0.2:30080"),
    ] {
        assert_eq!(ns.greet(to).unwrap_or_else(|e| panic!("{to}: {e}")).0, "far");
    }
    c.endpoints("TCP", &[(&near_ip, "one")]);
    c.one.until("a backend on the node", || {
        c.outside.greet("192.168.9.1:30080").ok().filter(|(name, _)| name == "near")
    });
    assert_eq!(c.one.ns.greet("127.0.0.1:30080").unwrap().0, "near");
}

#[test]
fn the_local_policy_keeps_the_source_and_stays_on_the_node() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (near, near_ip) = c.pod(true);
    let (far, far_ip) = c.pod(false);
    near.serve_tcp(8080, "near");
    far.serve_tcp(8080, "far");
    c.service(
        r#"{"type":"NodePort","clusterIP":"10.96.0.7","externalTrafficPolicy":"Local",
        "healthCheckNodePort":31999,"ports":[{"port":80,"nodePort":30080}]}"#,
    );
    c.endpoints("TCP", &[(&near_ip, "one"), (&far_ip, "two")]);
    c.one.ns.sh("ip route add 192.168.9.0/24 dev eth1 || true");
    c.one.until("from outside", || c.outside.greet("192.168.9.1:30080").ok());
    for _ in 0..16 {
        let (name, source) = c.outside.greet("192.168.9.1:30080").unwrap();
        assert_eq!((name.as_str(), source.to_string().as_str()), ("near", "192.168.9.2"));
    }
    let health = || http_get(&c.outside, "192.168.9.1:31999");
    let healthy = || health().filter(|reply| reply.starts_with("HTTP/1.1 200"));
    assert!(c.one.until("health", healthy).contains(r#""localEndpoints": 1"#));
    c.endpoints("TCP", &[(&far_ip, "two")]);
    c.one.until("no health", || health().filter(|reply| reply.starts_with("HTTP/1.1 503")));
    let from_inside = || near.greet("172.18.0.2:30080").ok().filter(|(name, _)| name == "far");
    let (_, source) = c.one.until("from inside the cluster it goes anywhere", from_inside);
    assert_eq!(source.to_string(), near_ip);
    // At the other node's port, whether or not it has endpoints; one on the client's own node is no exception.
    let greets = |name: &str| near.greet("172.18.0.3:30080").ok().filter(|seen| seen.0 == name);
    let (_, source) = c.two.until("endpoints there keep the source", || greets("far"));
    assert_eq!(source.to_string(), near_ip);
    c.endpoints("TCP", &[(&near_ip, "one")]);
    c.two.until("else any endpoint", || greets("near"));
}

#[test]
fn a_health_check_port_that_is_taken_is_told_of() {
    if !may_make_namespaces() {
        return;
    }
    let c = Cluster::new();
    let taken = c.one.ns.run(|| std::net::TcpListener::bind("0.0.0.0:31999").unwrap());
    c.service(
        r#"{"type":"NodePort","clusterIP":"10.96.0.7","externalTrafficPolicy":"Local",
        "healthCheckNodePort":31999,"ports":[{"port":80,"nodePort":30080}]}"#,
    );
    // It is tried again at each change.
    let mut changes = 0;
    let mut change = || {
        changes += 1;
        assert!(changes < 10_000, "nothing comes of it");
        c.endpoints("TCP", &[(&format!("10.244.0.{}", 2 + changes % 2), "one")]);
    };
    let event = c.one.until("an event", || {
        change();
        c.api.list::<Event>().pop()
    });
    assert_eq!(event.reason.as_deref(), Some("FailedToStartServiceHealthcheck"));
    assert_eq!(event.involved_object.name.as_deref(), Some("web"));
    let text = r#"node one failed to start healthcheck "a/web" on port 31999: listen tcp :31999: bind: address already in use"#;
    assert_eq!(event.message.as_deref(), Some(text));
    drop(taken);
    c.one.until("the port", || {
        change();
        http_get(&c.two.ns, "172.18.0.2:31999")
    });
}

#[test]
fn a_node_says_whether_it_takes_new_connections() {
    if !may_make_namespaces() {
        return;
    }
    let c = Cluster::new();
    let node = |spec: &str| {
        let json = format!(r#"{{"metadata":{{"name":"one"}},"spec":{spec}}}"#);
        c.api.put(&krate_api::types::core::v1::Node::decode(json.as_bytes()).unwrap());
    };
    let health = |path| http_get_path(&c.outside, "192.168.9.1:10256", path);
    let says = |status: &'static str| move |reply: &String| reply.starts_with(status);
    node("{}");
    // Each look comes after something was told to the kernel; so tell it something.
    let taken = |status| {
        c.service(CLUSTER_IP);
        c.one.until(status, || {
            let found = health("/healthz").filter(says(status));
            if found.is_none() {
                c.api.remove::<Service>("a", "web");
                c.service(CLUSTER_IP);
            }
            found
        })
    };
    assert!(taken("HTTP/1.1 200").contains(r#""nodeEligible":true,"healthy":true,"status":{"IPv4":"#));
    node(r#"{"taints":[{"key":"ToBeDeletedByClusterAutoscaler","effect":"NoSchedule"}]}"#);
    assert!(taken("HTTP/1.1 503").contains(r#""nodeEligible":false,"healthy":true"#));
    let alive = health("/livez").unwrap();
    assert!(alive.starts_with("HTTP/1.1 200") && !alive.contains("nodeEligible"), "{alive}");
}

fn http_get(ns: &Ns, to: &'static str) -> Option<String> {
    http_get_path(ns, to, "/")
}

fn http_get_path(ns: &Ns, to: &'static str, path: &'static str) -> Option<String> {
    use std::io::{Read, Write};
    ns.run(move || {
        let mut stream = std::net::TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok().map(|_| reply)
    })
}

#[test]
fn clients_stay_with_their_endpoint_until_it_goes() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, _) = c.pod(true);
    let names = ["0", "1", "2", "3"];
    let pods: Vec<(Ns, String)> = (0..4).map(|i| c.pod(i % 2 == 0)).collect();
    for (name, (pod, _)) in names.iter().zip(&pods) {
        pod.serve_tcp(8080, name);
    }
    let list = |keep: &[usize]| -> Vec<(String, &'static str)> {
        keep.iter().map(|i| (pods[*i].1.clone(), if i % 2 == 0 { "one" } else { "two" })).collect()
    };
    let put = |c: &Cluster, keep: &[usize]| {
        let list = list(keep);
        let list: Vec<(&str, &str)> = list.iter().map(|(ip, node)| (ip.as_str(), *node)).collect();
        c.endpoints("TCP", &list);
    };
    c.service(
        r#"{"type":"NodePort","clusterIP":"10.96.0.7","sessionAffinity":"ClientIP",
        "sessionAffinityConfig":{"clientIP":{"timeoutSeconds":600}},"ports":[{"port":80,"nodePort":30080}]}"#,
    );
    put(&c, &[0, 1, 2, 3]);
    for (ns, to) in [(&client, "10.96.0.7:80"), (&c.outside, "192.168.9.1:30080")] {
        let (first, _) = c.one.until("an answer", || ns.greet(to).ok());
        for _ in 0..20 {
            assert_eq!(ns.greet(to).unwrap().0, first);
        }
    }
    let (first, _) = client.greet("10.96.0.7:80").unwrap();
    let gone: usize = first.parse().unwrap();
    let rest: Vec<usize> = (0..4).filter(|i| *i != gone).collect();
    put(&c, &rest);
    let other = || client.greet("10.96.0.7:80").ok().filter(|(name, _)| *name != first);
    let (second, _) = c.one.until("another endpoint", other);
    for _ in 0..20 {
        assert_eq!(client.greet("10.96.0.7:80").unwrap().0, second);
    }
}

#[test]
fn established_connections_outlive_changes() {
    if !may_make_namespaces() {
        return;
    }
    use std::io::{Read, Write};
    let mut c = Cluster::new();
    let (client, _) = c.pod(true);
    let (near, near_ip) = c.pod(true);
    let (far, far_ip) = c.pod(false);
    near.serve_tcp(8080, "near");
    far.serve_tcp(8080, "far");
    c.service(CLUSTER_IP);
    c.endpoints("TCP", &[(&near_ip, "one")]);
    let (mut stream, ..) = c.one.until("a connection", || client.connect("10.96.0.7:80").ok());
    let mut echo = |text: &[u8]| {
        stream.write_all(text).unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    };
    echo(b"before");
    c.endpoints("TCP", &[(&far_ip, "two")]);
    c.one.until("the change", || client.greet("10.96.0.7:80").ok().filter(|(name, _)| name == "far"));
    echo(b"while the endpoint is gone");
    c.api.remove::<Service>("a", "web");
    c.one.until("the Service is gone", || client.greet("10.96.0.7:80").err());
    echo(b"after the Service is gone");
    let left = c.one.ns.sh("nft list table ip krate-proxy");
    let is_left = |ip: &String| left.contains(&format!("{ip} "));
    assert!(!is_left(&near_ip) && !is_left(&far_ip), "nothing of it is left:\n{left}");
}

#[test]
fn datagrams_follow_the_endpoints() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, _) = c.pod(true);
    let (near, near_ip) = c.pod(true);
    let (far, far_ip) = c.pod(false);
    near.serve_udp(8080, "near");
    far.serve_udp(8080, "far");
    c.service(r#"{"type":"ClusterIP","clusterIP":"10.96.0.7","ports":[{"port":53,"protocol":"UDP"}]}"#);
    c.endpoints("UDP", &[(&near_ip, "one")]);
    // One socket for all, as a client that never closes it.
    let socket = client.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.96.0.7:53").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket
    });
    let ask = || {
        let mut buffer = [0; 16];
        socket.send(b"?").ok()?;
        socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
    };
    assert_eq!(c.one.until("an answer", ask), "near");
    c.endpoints("UDP", &[(&far_ip, "two")]);
    c.one.until("the same flow reaches the new endpoint", || ask().filter(|name| name == "far"));
}

#[test]
fn of_many_connections_only_those_of_the_service_are_looked_at() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, _) = c.pod(true);
    let (near, near_ip) = c.pod(true);
    near.serve_udp(8080, "near");
    c.service(r#"{"type":"ClusterIP","clusterIP":"10.96.0.7","ports":[{"port":53,"protocol":"UDP"}]}"#);
    c.endpoints("UDP", &[(&near_ip, "one")]);
    let ask = |to: &'static str| {
        client.run(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket.send(b"?").ok()?;
            socket.recv(&mut [0; 16]).ok()
        })
    };
    c.one.until("an answer", || ask("10.96.0.7:53"));
    let direct: &'static str = format!("{near_ip}:8080").leak();
    for _ in 0..20 {
        ask(direct).unwrap();
    }
    let stale = |port: u16| Stale {
        frontend: Frontend {
            family: Family::Ip,
            address: Some("10.96.0.7".parse().unwrap()),
            protocol: Protocol::Udp,
            port,
        },
        keep: BTreeSet::new(),
    };
    // Nobody is asked about too many Services one by one.
    let kept = Stale { keep: [(near_ip.parse().unwrap(), 8080)].into(), ..stale(53) };
    let many: Vec<Stale> = (1000..1010).map(stale).chain([kept.clone()]).collect();
    let forget = |stale: Vec<Stale>| c.one.ns.run(move || conntrack::forget(Family::Ip, &stale).unwrap());
    let seen = forget(many);
    assert!(seen.shown > 20 && seen.gone == 0, "{seen:?}");
    let of_service = forget(vec![kept]);
    assert!(of_service.shown > 0 && of_service.shown < 20 && of_service.gone == 0, "{of_service:?}");
    let forgotten = forget(vec![stale(53), stale(1000)]);
    assert_eq!((forgotten.shown, forgotten.gone), (of_service.shown, of_service.shown));
    assert_eq!(forget(vec![stale(53)]).shown, 0);
}

#[test]
fn sctp_reaches_services_node_ports_and_host_ports() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, _) = c.pod(true);
    let (far, far_ip) = c.pod(false);
    let arrives = |at: &common::sctp::Listener, from: &Ns, to: &str, expected: &str| {
        from.send_sctp(to);
        at.next().map(|to| to.to_string()) == Some(expected.to_owned())
    };
    let (seen, target) = (far.listen_sctp(), format!("{far_ip}:8080"));
    c.service(
        r#"{"type":"NodePort","clusterIP":"10.96.0.7","ports":[{"port":80,"nodePort":30080,"protocol":"SCTP"}]}"#,
    );
    c.endpoints("SCTP", &[(&far_ip, "two")]);
    c.one.until("a packet", || arrives(&seen, &client, "10.96.0.7:80", &target).then_some(()));
    assert!(arrives(&seen, &c.outside, "192.168.9.1:30080", &target), "a node port");

    let pod = Ns::new();
    let host_port = HostPort { protocol: Protocol::Sctp, host_ip: None, host_port: 9000, container_port: 90 };
    let (network, path) = (c.one.network.clone(), pod.path());
    let attach = move || async move { network.attach_with_ports("ported", &path, &[host_port]).await };
    let ips = c.one.ns.block_on(attach).unwrap();
    let seen = pod.listen_sctp();
    assert!(arrives(&seen, &c.outside, "192.168.9.1:9000", &format!("{}:90", ips[0])), "a host port");
}

#[test]
fn load_balancer_addresses_serve_their_source_ranges() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (near, near_ip) = c.pod(true);
    near.serve_tcp(8080, "near");
    c.outside.sh("ip route add 10.99.0.1/32 via 192.168.9.1");
    c.outside.sh("ip addr add 192.168.77.2/32 dev eth0");
    c.one.ns.sh("ip route add 192.168.77.2/32 dev eth1");
    let json = r#"{"metadata":{"namespace":"a","name":"web"},"spec":{"type":"LoadBalancer","clusterIP":"10.96.0.7",
        "loadBalancerSourceRanges":["192.168.9.0/24","192.168.9.0/28","172.16.0.0/12"],"ports":[{"port":80}]},
        "status":{"loadBalancer":{"ingress":[{"ip":"10.99.0.1"}]}}}"#;
    c.api.put(&Service::decode(json.as_bytes()).unwrap());
    c.endpoints("TCP", &[(&near_ip, "one")]);
    c.one.until("an address in the range", || c.outside.greet("10.99.0.1:80").ok());
    c.outside.sh("ip route replace 10.99.0.1/32 via 192.168.9.1 src 192.168.77.2");
    let other = c.outside.greet("10.99.0.1:80");
    assert!(other.is_err(), "an address outside of the range");
}

#[test]
fn both_families_of_a_service_work() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, client_ips) = c.dual_pod(true);
    let (near, near_ips) = c.dual_pod(true);
    let (far, far_ips) = c.dual_pod(false);
    for (pod, name) in [(&near, "near"), (&far, "far")] {
        pod.serve_tcp(8080, name);
        pod.serve_udp(8080, name);
    }
    c.service(
        r#"{"type":"NodePort","clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00:96::7"],
        "externalIPs":["fd00:77::1"],
        "ports":[{"port":80,"nodePort":30080,"protocol":"TCP"}]}"#,
    );
    c.slice("web-1", "TCP", &[(&far_ips[0], "two")]);
    c.slice("web-2", "TCP", &[(&far_ips[1], "two")]);
    let ok = |ns: &Ns, to: &str| ns.greet(to).ok();
    for (to, ip) in [("10.96.0.7:80", &client_ips[0]), ("[fd00:96::7]:80", &client_ips[1])] {
        let (name, source) = c.one.until("the far one", || ok(&client, to));
        assert_eq!((name.as_str(), source), ("far", ip.parse().unwrap()), "the source is the pod's own");
    }
    let to = "[fd00:9::1]:30080";
    let (name, source) = c.one.until("a node port from outside", || ok(&c.outside, to));
    assert_eq!((name.as_str(), source.to_string().as_str()), ("far", "fd00:18::2"));
    for (ns, to) in [
        (&c.one.ns, "[fd00:96::7]:80"),
        (&c.one.ns, "[fd00:18::2]:30080"),
        (&near, "[fd00:18::2]:30080"),
        (&near, "[fd00:18::3]:30080"),
        (&near, "[fd00:77::1]:80"),
    ] {
        assert_eq!(ns.greet(to).unwrap_or_else(|e| panic!("{to}: {e}")).0, "far");
    }
    c.slice("web-2", "TCP", &[(&near_ips[1], "one")]);
    let (name, _) = c.one.until("itself", || ok(&near, "[fd00:96::7]:80").filter(|(name, _)| name == "near"));
    assert_eq!(name, "near", "a pod reaches itself through its Service");
    c.slice("web-2", "TCP", &[]);
    c.one.until("a refusal", || {
        let error = client.greet("[fd00:96::7]:80").err()?;
        (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    });
    assert_eq!(client.greet("10.96.0.7:80").unwrap().0, "far", "the other family goes on");

    c.service(
        r#"{"type":"ClusterIP","clusterIP":"fd00:96::7","clusterIPs":["fd00:96::7"],
        "ports":[{"port":53,"protocol":"UDP"}]}"#,
    );
    c.slice("web-2", "UDP", &[(&near_ips[1], "one")]);
    assert_eq!(c.one.until("a datagram", || client.ask_udp("[fd00:96::7]:53").ok()), "near");
}

#[test]
fn a_node_prefers_the_endpoints_that_are_meant_for_it() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    for (name, zone) in [("one", "z1"), ("two", "z2")] {
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","labels":{{"topology.kubernetes.io/zone":"{zone}"}}}}}}"#
        );
        c.api.put(&krate_api::types::core::v1::Node::decode(json.as_bytes()).unwrap());
    }
    let (near, near_ip) = c.pod(true);
    let (far, far_ip) = c.pod(false);
    near.serve_tcp(8080, "near");
    far.serve_tcp(8080, "far");
    c.service(CLUSTER_IP);
    let slice = |zones: [&str; 2]| {
        let json = format!(
            r#"{{"metadata":{{"namespace":"a","name":"web-1","labels":{{"kubernetes.io/service-name":"web"}}}},
            "addressType":"IPv4","ports":[{{"port":8080}}],"endpoints":[
            {{"addresses":["{near_ip}"],"nodeName":"one","hints":{{"forZones":[{{"name":"{}"}}]}}}},
            {{"addresses":["{far_ip}"],"nodeName":"two","hints":{{"forZones":[{{"name":"{}"}}]}}}}]}}"#,
            zones[0], zones[1]
        );
        c.api.put(&EndpointSlice::decode(json.as_bytes()).unwrap());
    };
    let all = |ns: &Ns, name: &str| (0..16).all(|_| ns.greet("10.96.0.7:80").is_ok_and(|(n, _)| n == name));
    slice(["z1", "z2"]);
    c.one.until("its own zone's", || all(&near, "near").then_some(()));
    c.two.until("its own zone's", || all(&far, "far").then_some(()));
    slice(["z2", "z2"]);
    c.two.until("both of its zone", || (!all(&far, "far") && !all(&far, "near")).then_some(()));
}

#[test]
fn the_load_balancer_address_of_a_node_serves_inside_and_outside() {
    if !may_make_namespaces() {
        return;
    }
    let mut c = Cluster::new();
    let (client, _) = c.pod(true);
    let (far, far_ip) = c.pod(false);
    far.serve_tcp(8080, "far");
    let json = r#"{"metadata":{"namespace":"a","name":"web"},"spec":{"type":"LoadBalancer","clusterIP":"10.96.0.7",
        "allocateLoadBalancerNodePorts":false,"ports":[{"port":80}]},
        "status":{"loadBalancer":{"ingress":[{"ip":"172.18.0.2","ipMode":"VIP"},{"ip":"192.168.9.1","ipMode":"VIP"}]}}}"#;
    c.api.put(&Service::decode(json.as_bytes()).unwrap());
    c.endpoints("TCP", &[(&far_ip, "two")]);
    c.one.until("from outside", || c.outside.greet("192.168.9.1:80").ok());
    for (ns, to) in [(&client, "172.18.0.2:80"), (&c.one.ns, "172.18.0.2:80"), (&far, "172.18.0.2:80")] {
        assert_eq!(ns.greet(to).unwrap_or_else(|e| panic!("{to}: {e}")).0, "far");
    }
}
