//! Pods get addresses and reach each other, on one node and across two, all in namespaces of the test.

mod common;

use common::{Ns, may_make_namespaces};
use krate_network::link::edge::{Egress, HostPort};
use krate_network::link::routes::{self, NodeView};
use krate_network::link::{self, PodNetwork};
use krate_network::views::Protocol;
use std::collections::BTreeSet;
use std::net::IpAddr;

fn network(node: &Ns, cidr: &str, state: &std::path::Path) -> PodNetwork {
    let config =
        link::Config { pod_cidrs: vec![cidr.parse().unwrap()], mtu: 1500, state_dir: state.to_owned() };
    node.block_on(|| PodNetwork::new(config)).unwrap()
}

fn attach(node: &Ns, network: &PodNetwork, sandbox: &'static str, pod: &Ns) -> IpAddr {
    let (network, path) = (network.clone(), pod.path());
    node.block_on(move || async move { network.attach(sandbox, &path).await }).unwrap()[0]
}

fn view(name: &str, cidr: &str, ip: &str) -> NodeView {
    NodeView {
        name: name.into(),
        pod_cidrs: vec![cidr.parse().unwrap()],
        internal_ips: vec![ip.parse().unwrap()],
        ..NodeView::default()
    }
}

#[test]
fn pods_of_one_node_reach_each_other_and_the_node() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (node, a, b) = (Ns::new(), Ns::new(), Ns::new());
    let network = network(&node, "10.244.0.0/24", folder.path());
    let (ip_a, ip_b) = (attach(&node, &network, "a", &a), attach(&node, &network, "b", &b));
    assert_eq!((ip_a.to_string().as_str(), ip_b.to_string().as_str()), ("10.244.0.2", "10.244.0.3"));
    b.serve_tcp(80, "b");
    assert_eq!(a.greet("10.244.0.3:80").unwrap(), ("b".into(), ip_a));
    assert_eq!(node.greet("10.244.0.3:80").unwrap(), ("b".into(), network.gateways()[0]));
    node.serve_tcp(81, "node");
    assert_eq!(a.greet("10.244.0.1:81").unwrap().0, "node");
    let refused = a.greet("10.244.0.99:80").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::HostUnreachable, "no pod has the address: {refused}");
}

#[test]
fn pods_of_two_nodes_reach_each_other_over_the_nodes_routes() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (one, two, a, b) = (Ns::new(), Ns::new(), Ns::new(), Ns::new());
    one.join("eth0", "172.18.0.2/24", &two, "eth0", "172.18.0.3/24");
    let first = network(&one, "10.244.0.0/24", &folder.path().join("one"));
    let second = network(&two, "10.244.1.0/24", &folder.path().join("two"));
    let nodes = vec![view("one", "10.244.0.0/24", "172.18.0.2"), view("two", "10.244.1.0/24", "172.18.0.3")];
    for (name, ns) in [("one", &one), ("two", &two)] {
        let wanted = routes::plan(name, &nodes);
        let failed = ns.block_on(move || routes::apply(wanted)).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
    }
    let ip_a = attach(&one, &first, "a", &a);
    attach(&two, &second, "b", &b);
    b.serve_tcp(80, "b");
    assert_eq!(a.greet("10.244.1.2:80").unwrap(), ("b".into(), ip_a), "the source is the pod's own");

    let failed = one.block_on(|| routes::apply(BTreeSet::new())).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(!one.sh("ip route").contains("10.244.1.0/24"));
}

#[test]
fn leases_survive_a_restart_and_detached_pods_leave_nothing() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (node, a, b) = (Ns::new(), Ns::new(), Ns::new());
    let before = network(&node, "10.244.0.0/24", folder.path());
    let ip_a = attach(&node, &before, "a", &a);
    attach(&node, &before, "b", &b);

    let after = network(&node, "10.244.0.0/24", folder.path());
    assert_eq!(after.addresses("a"), Some(vec![ip_a]));
    let kept = BTreeSet::from(["a".to_owned()]);
    let network = after.clone();
    node.block_on(move || async move { network.keep_only(&kept).await }).unwrap();
    let links = node.sh("ip -br link");
    assert!(links.contains(&link::link_name("a")) && !links.contains(&link::link_name("b")), "{links}");

    let network = after.clone();
    node.block_on(move || async move {
        network.detach("a").await?;
        network.detach("a").await
    })
    .unwrap();
    assert_eq!(node.sh("ip -br link | grep -c pod || true").trim(), "0");
    assert!(!a.sh("ip -br link").contains("eth0"));
    assert_eq!(after.addresses("a"), None);
    let again = Ns::new();
    assert_eq!(attach(&node, &after, "c", &again).to_string(), "10.244.0.4", "addresses rest before reuse");
}

#[test]
fn a_forged_source_address_does_not_leave_the_pod() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (node, a, b) = (Ns::new(), Ns::new(), Ns::new());
    let network = network(&node, "10.244.0.0/24", folder.path());
    attach(&node, &network, "a", &a);
    attach(&node, &network, "b", &b);
    a.sh("ip addr add 10.244.0.77/32 dev eth0");
    let received = b.run(|| std::net::UdpSocket::bind("0.0.0.0:10").unwrap());
    received.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    a.run(|| {
        let send = |from: &str, text: &[u8]| {
            std::net::UdpSocket::bind(from).unwrap().send_to(text, "10.244.0.3:10").unwrap();
        };
        send("10.244.0.77:0", b"forged");
        send("0.0.0.0:0", b"honest");
    });
    let mut buffer = [0; 16];
    let (n, from) = received.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..n], from.ip().to_string().as_str()), (&b"honest"[..], "10.244.0.2"));
}

#[test]
fn ports_of_the_node_lead_to_a_pod() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (node, outside, pod) = (Ns::new(), Ns::new(), Ns::new());
    node.join("eth1", "192.168.9.1/24", &outside, "eth0", "192.168.9.2/24");
    let port = |host_ip: Option<&str>, host_port| HostPort {
        protocol: Protocol::Tcp,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        container_port: 80,
    };
    let ports = [port(None, 8080), port(Some("192.168.9.1"), 8081), port(Some("127.0.0.1"), 8082)];
    let before = network(&node, "10.244.0.0/24", folder.path());
    let (attaching, path) = (before.clone(), pod.path());
    node.block_on(move || async move { attaching.attach_with_ports("a", &path, &ports).await }).unwrap();
    pod.serve_tcp(80, "pod");
    let check = || {
        for to in ["192.168.9.1:8080", "192.168.9.1:8081"] {
            let seen = outside.greet(to).unwrap_or_else(|e| panic!("{to}: {e}"));
            assert_eq!(seen, ("pod".into(), "192.168.9.2".parse().unwrap()), "the source is kept");
        }
        for to in ["127.0.0.1:8080", "127.0.0.1:8082", "10.244.0.1:8080"] {
            assert_eq!(node.greet(to).unwrap_or_else(|e| panic!("{to}: {e}")).0, "pod");
        }
        assert_eq!(pod.greet("192.168.9.1:8080").expect("a pod reaches itself").0, "pod");
        assert!(outside.greet("192.168.9.1:8082").is_err());
    };
    outside.sh("ip route add default via 192.168.9.1");
    check();
    let after = network(&node, "10.244.0.0/24", folder.path());
    check();
    node.block_on(move || async move { after.detach("a").await }).unwrap();
    assert!(outside.greet("192.168.9.1:8080").is_err());
    assert!(!node.sh("nft list table ip krate-pods").contains("10.244.0.2"));
}

#[test]
fn one_port_of_the_node_leads_to_pods_by_address_and_protocol() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (node, outside) = (Ns::new(), Ns::new());
    node.join("eth1", "192.168.9.1/24", &outside, "eth0", "192.168.9.2/24");
    let network = network(&node, "10.244.0.0/24", folder.path());
    let pods = [
        ("loop", "127.0.0.1", Protocol::Tcp),
        ("wide", "192.168.9.1", Protocol::Tcp),
        ("datagram", "192.168.9.1", Protocol::Udp),
    ];
    let _pods = pods.map(|(name, ip, protocol)| {
        let (pod, network) = (Ns::new(), network.clone());
        let host_ip = Some(ip.parse().unwrap());
        let port = HostPort { protocol, host_ip, host_port: 54323, container_port: 8080 };
        let path = pod.path();
        node.block_on(move || async move { network.attach_with_ports(name, &path, &[port]).await }).unwrap();
        pod.serve_tcp(8080, name);
        pod.serve_udp(8080, name);
        pod
    });
    assert_eq!(node.greet("192.168.9.1:54323").unwrap().0, "wide");
    assert_eq!(outside.greet("192.168.9.1:54323").unwrap().0, "wide");
    // A client that takes the node's own address for its source reaches the loopback port, too.
    let greeting = node.block_on(|| async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("192.168.9.1:0".parse().unwrap()).unwrap();
        let stream = socket.connect("127.0.0.1:54323".parse().unwrap()).await.unwrap();
        stream.readable().await.unwrap();
        let mut greeting = [0; 4];
        stream.try_read(&mut greeting).unwrap();
        greeting
    });
    assert_eq!(&greeting, b"loop");
    let datagram = outside.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("192.168.9.1:54323").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        socket.send(b"?").unwrap();
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    });
    assert_eq!(datagram, b"datagram");
}

#[test]
fn egress_hides_pods_only_if_asked_for() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (node, outside, a, b) = (Ns::new(), Ns::new(), Ns::new(), Ns::new());
    node.join("eth1", "192.168.9.1/24", &outside, "eth0", "192.168.9.2/24");
    let inside = vec!["10.244.0.0/16".parse().unwrap()];
    let config = link::Config {
        pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
        mtu: 1500,
        state_dir: folder.path().to_owned(),
    };
    let network = node.block_on(|| PodNetwork::with_egress(config, Egress::Nat { inside })).unwrap();
    let ip_a = attach(&node, &network, "a", &a);
    attach(&node, &network, "b", &b);
    outside.serve_tcp(80, "outside");
    b.serve_tcp(80, "b");
    assert_eq!(a.greet("192.168.9.2:80").unwrap(), ("outside".into(), "192.168.9.1".parse().unwrap()));
    assert_eq!(a.greet("10.244.0.3:80").unwrap(), ("b".into(), ip_a), "within the cluster nothing is hidden");
}

#[test]
fn pods_have_an_address_of_each_family() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (node, a, b) = (Ns::new(), Ns::new(), Ns::new());
    let config = link::Config {
        pod_cidrs: ["10.244.0.0/24", "fd00:244::/64"].map(|c| c.parse().unwrap()).into(),
        mtu: 1500,
        state_dir: folder.path().to_owned(),
    };
    let network = node.block_on(|| PodNetwork::new(config)).unwrap();
    attach(&node, &network, "a", &a);
    attach(&node, &network, "b", &b);
    let addresses = network.addresses("b").unwrap();
    assert_eq!(addresses, ["10.244.0.3", "fd00:244::3"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    b.run(|| {
        let listener = std::net::TcpListener::bind("[::]:80").unwrap();
        std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, peer) = listener.accept().unwrap();
            writeln!(stream, "b {}", peer.ip()).unwrap();
        });
    });
    assert_eq!(a.greet("[fd00:244::3]:80").unwrap(), ("b".into(), "fd00:244::2".parse().unwrap()));
}
