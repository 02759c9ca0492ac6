//! How long a change takes on a node with 5,000 Services, one of which has 5,000 endpoints: planned, told to the
//! kernel, done. It works in a network namespace of its own, which ends with it.
//!
//! `cargo run --release -p krate-network --example service_scale` (as root)

use krate_network::nft::{self, Family, Transaction};
use krate_network::proxy::layout::{Layout, TABLE};
use krate_network::proxy::plan::{Node, plan};
use krate_network::proxy::program::Program;
use krate_network::views::{EndpointView, Protocol, ServicePort, ServiceView, SlicePort, SliceView};
use std::net::IpAddr;
use std::sync::Arc;

const SERVICES: u16 = 5000;
const ENDPOINTS: u16 = 5000;
const PER_SLICE: u16 = 100;
const ROUNDS: u16 = 20;

fn ip(a: u8, b: u8, n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::from([a, b, high, low])
}

fn service(name: String, index: u16) -> ServiceView {
    let port = ServicePort {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: Some(20_000 + index),
    };
    ServiceView {
        namespace: "a".into(),
        name,
        cluster_ips: vec![ip(10, 96, index)],
        ports: vec![port],
        ..ServiceView::default()
    }
}

fn slice(service: &str, name: u16, endpoints: std::ops::Range<u16>, net: u8) -> SliceView {
    let endpoint = |n| EndpointView {
        addresses: vec![ip(10, net, n)],
        node: Some(format!("node-{}", n % 50)),
        ready: true,
        serving: true,
        ..EndpointView::default()
    };
    SliceView {
        namespace: "a".into(),
        name: format!("{service}-{name}"),
        service: service.into(),
        ports: vec![SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.map(endpoint).collect(),
    }
}

struct Bench {
    kernel: nft::Connection,
    program: Program,
    node: Node,
    total: std::collections::BTreeMap<&'static str, Vec<(f64, f64, nft::Size)>>,
}

impl Bench {
    fn change(&mut self, what: &'static str, key: &str, of: Option<(&ServiceView, &[SliceView])>) {
        let start = tokio::time::Instant::now();
        let planned = of.map(|(service, slices)| Arc::new(plan(service, slices, &self.node)));
        let update = self.program.update([(key, planned)]);
        let planned = start.elapsed().as_secs_f64() * 1e3;
        let start = tokio::time::Instant::now();
        let transaction = [Transaction { family: Family::Ip, table: TABLE, ops: update.ops }];
        self.kernel.commit(&transaction).unwrap();
        let told = start.elapsed().as_secs_f64() * 1e3;
        self.total.entry(what).or_default().push((planned, told, nft::size(&transaction)));
    }
}

fn main() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let layout = Layout {
        family: Family::Ip,
        pods: vec!["10.244.0.0/16".parse().unwrap()],
        services: vec!["10.96.0.0/16".parse().unwrap()],
    };
    let mut b = Bench {
        kernel: nft::Connection::open().unwrap(),
        program: Program::new(layout),
        node: Node { name: "node-7".into(), ..Node::default() },
        total: Default::default(),
    };
    let start = tokio::time::Instant::now();
    let plans: Vec<_> = (0..SERVICES)
        .map(|i| {
            let name = format!("web-{i}");
            let slices = [slice(&name, 0, (i % 1000) * 3..(i % 1000) * 3 + 3, 245)];
            (format!("a/{name}"), Arc::new(plan(&service(name, i), &slices, &b.node)))
        })
        .collect();
    b.program.update(plans.iter().map(|(k, p)| (k.as_str(), Some(p.clone()))));
    let planned = start.elapsed();
    let start = tokio::time::Instant::now();
    let ops = b.program.rebuild();
    let transaction = [Transaction { family: Family::Ip, table: TABLE, ops }];
    b.kernel.commit(&transaction).unwrap();
    println!("all {SERVICES}: plan {planned:?}, kernel {:?}, {:?}", start.elapsed(), nft::size(&transaction));

    let mut big = service("big".into(), SERVICES + 1);
    let mut slices: Vec<SliceView> = (0..ENDPOINTS / PER_SLICE)
        .map(|i| slice("big", i, i * PER_SLICE..(i + 1) * PER_SLICE, 244))
        .collect();
    b.change("big: made", "a/big", Some((&big, &slices)));
    for round in 0..ROUNDS {
        let gone = slices[usize::from(round)].endpoints.remove(50);
        b.change("big: an endpoint goes", "a/big", Some((&big, &slices)));
        slices[usize::from(round)].endpoints.push(gone);
        b.change("big: an endpoint comes", "a/big", Some((&big, &slices)));
    }
    for (name, index) in [("two LB addresses", 0u16), ("64 LB addresses, affinity", 1)] {
        let addresses = if index == 0 { 2 } else { 64 };
        big.balancer_ips = (0..addresses).map(|n| ip(172, 18, n)).collect();
        big.affinity_seconds = (index == 1).then_some(10_800);
        let (made, goes, comes): (&'static str, &'static str, &'static str) = if index == 0 {
            ("2 LB addresses: made", "2 LB addresses: an endpoint goes", "2 LB addresses: an endpoint comes")
        } else {
            (
                "64 LB addresses, affinity: made",
                "64 LB, affinity: an endpoint goes",
                "64 LB, affinity: an endpoint comes",
            )
        };
        let _ = name;
        b.change(made, "a/big", Some((&big, &slices)));
        for round in 0..ROUNDS {
            let gone = slices[usize::from(round)].endpoints.remove(50);
            b.change(goes, "a/big", Some((&big, &slices)));
            slices[usize::from(round)].endpoints.push(gone);
            b.change(comes, "a/big", Some((&big, &slices)));
        }
    }
    for round in 0..ROUNDS {
        let name = format!("new-{round}");
        let key = format!("a/{name}");
        let one = service(name.clone(), SERVICES + 10 + round);
        let of = [slice(&name, 0, 0..3, 246)];
        b.change("one of 5,000 Services: comes", &key, Some((&one, &of)));
        let of = [slice(&name, 0, 0..2, 246)];
        b.change("one of 5,000 Services: an endpoint goes", &key, Some((&one, &of)));
        b.change("one of 5,000 Services: goes", &key, None);
    }
    for (what, each) in &b.total {
        let mid = |pick: fn(&(f64, f64, nft::Size)) -> f64| {
            let mut all: Vec<f64> = each.iter().map(pick).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let sent = &each[each.len() / 2].2;
        println!(
            "{what:45} plan {:8.3} ms, kernel {:8.3} ms, {} messages, {} elements, {} bytes",
            mid(|e| e.0),
            mid(|e| e.1),
            sent.messages,
            sent.elements,
            sent.bytes
        );
    }
}
