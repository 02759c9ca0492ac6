//! Pods get addresses and reach each other, on one node and across two, all in namespaces of the test.

mod common;

use common::{Ns, may_make_namespaces};
use krate_network::link::routes::{self, NodeView};
use krate_network::link::{self, PodNetwork};
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
    received.set_nonblocking(true).unwrap();
    // The kernel delivers within the send, so what is not there afterwards was dropped.
    a.run(|| {
        std::net::UdpSocket::bind("10.244.0.77:0").unwrap().send_to(b"forged", "10.244.0.3:10").unwrap()
    });
    a.run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"honest", "10.244.0.3:10").unwrap());
    let mut buffer = [0; 16];
    let (n, from) = received.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..n], from.ip().to_string().as_str()), (&b"honest"[..], "10.244.0.2"));
}
