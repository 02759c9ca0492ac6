//! DNS as pods see it: at the Service address, on their own node, beside the proxy; all in namespaces of the
//! test.

mod common;

use common::{Ns, may_make_namespaces};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use krate_api::Kind;
use krate_api::types::core::v1::{Namespace, Service};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::testing::Fake;
use krate_client::{Informers, Recorder};
use krate_network::dns::{self, Dns};
use krate_network::link::{self, PodNetwork};
use krate_network::proxy::{self, Proxy};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

const SERVER: &str = "10.96.0.10:53";
const PATIENCE: Duration = Duration::from_secs(10);

/// One node with its DNS, and a pod on it.
struct World {
    api: Fake,
    node: Ns,
    pod: Ns,
    shutdown: Shutdown,
    thread: Option<std::thread::JoinHandle<()>>,
    _state: tempfile::TempDir,
}

impl World {
    fn new(upstreams: Vec<SocketAddr>) -> Self {
        let (api, state) = (Fake::new(Clock::system(), Rng::from_seed(7)), tempfile::tempdir().unwrap());
        for json in [r#"{"metadata":{"name":"default"}}"#, r#"{"metadata":{"name":"kube-system"}}"#] {
            api.put(&Namespace::decode(json.as_bytes()).unwrap());
        }
        put_service(
            &api,
            "kube-system",
            "kube-dns",
            r#"{"clusterIP":"10.96.0.10","ports":[{"port":53,"protocol":"UDP","name":"dns"}]}"#,
        );
        put_service(
            &api,
            "default",
            "web",
            r#"{"clusterIP":"10.96.0.7","ports":[{"port":80,"name":"http"}]}"#,
        );
        put_service(&api, "default", "db", r#"{"clusterIP":"None","ports":[{"port":70,"name":"peer"}]}"#);
        put_service(&api, "default", "far", r#"{"type":"ExternalName","externalName":"example.com"}"#);
        let (node, pod, shutdown) = (Ns::new(), Ns::new(), Shutdown::new());
        let config = link::Config {
            pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
            mtu: 1500,
            state_dir: state.path().to_owned(),
        };
        let path = pod.path();
        node.block_on(move || async move {
            PodNetwork::new(config).await.unwrap().attach("pod", &path).await.unwrap();
        });
        let (inside, transport, stop) = (node.clone(), api.transport(), shutdown.clone());
        let (tell, ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            inside.block_on(move || async move {
                let (rng, metrics) = (Rng::from_seed(1), Metrics::default());
                let supervisor = Supervisor::new(stop.clone());
                let informers =
                    Informers::new(transport.clone(), rng.clone(), metrics.clone(), supervisor.clone());
                let recorder = Recorder::start(
                    transport.clone(),
                    "kube-proxy",
                    "one",
                    &Clock::system(),
                    &rng,
                    &metrics,
                    &supervisor,
                );
                let proxy = Proxy::new(proxy::Config {
                    recorder,
                    informers: informers.clone(),
                    metrics: metrics.clone(),
                    clock: krate_base::Clock::system(),
                    rng: rng.clone(),
                    node_name: "one".into(),
                    node_ips: vec![],
                    pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
                    service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
                    answered_here: vec!["10.96.0.10".parse().unwrap()],
                });
                let dns = Dns::new(dns::Config {
                    informers,
                    clock: Clock::system(),
                    rng,
                    metrics,
                    domain: "cluster.local".into(),
                    addresses: vec!["10.96.0.10".parse().unwrap()],
                    listen: vec![],
                    upstreams,
                });
                let mut applied = proxy.applied();
                let proxy = tokio::spawn(proxy.run(stop.clone()));
                let dns = tokio::spawn(dns.run(stop));
                let mut listening = dns_listens().await;
                while !listening {
                    tokio::task::yield_now().await;
                    assert!(!dns.is_finished(), "{:?}", dns.await);
                    listening = dns_listens().await;
                }
                applied.wait_for(|n| *n > 0).await.unwrap();
                tell.send(()).unwrap();
                proxy.await.unwrap().unwrap();
                dns.await.unwrap().unwrap();
                supervisor.stop().await;
            });
        });
        ready.recv_timeout(PATIENCE).expect("the node starts");
        Self { api, node, pod, shutdown, thread: Some(thread), _state: state }
    }
}

/// Whether the server's socket is there: TCP tells at once.
async fn dns_listens() -> bool {
    tokio::net::TcpStream::connect(SERVER).await.is_ok()
}

impl Drop for World {
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

fn put_service(api: &Fake, namespace: &str, name: &str, spec: &str) {
    let json = format!(r#"{{"metadata":{{"namespace":"{namespace}","name":"{name}"}},"spec":{spec}}}"#);
    api.put(&Service::decode(json.as_bytes()).unwrap());
}

fn request(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn ask(ns: &Ns, name: &'static str, kind: RecordType) -> Message {
    ns.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(SERVER).unwrap();
        socket.send(&request(name, kind)).unwrap();
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{name}: {e}"));
        Message::from_vec(&buffer[..n]).unwrap()
    })
}

fn answers(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[test]
fn a_pod_finds_services_on_its_own_node() {
    if !may_make_namespaces() {
        return;
    }
    let world = World::new(vec![]);
    for ns in [&world.pod, &world.node] {
        let reply = ask(ns, "web.default.svc.cluster.local.", RecordType::A);
        assert_eq!((reply.metadata.id, answers(&reply)), (4242, vec!["10.96.0.7".to_owned()]));
    }
    let reply = ask(&world.pod, "7.0.96.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(answers(&reply), ["web.default.svc.cluster.local."]);
    let reply = ask(&world.pod, "example.com.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused, "nobody is asked unless configured");
    let reply = ask(&world.pod, "db.default.svc.cluster.local.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);

    let slice = r#"{"metadata":{"namespace":"default","name":"db-1","labels":{"kubernetes.io/service-name":"db"}},
        "addressType":"IPv4","ports":[{"name":"peer","port":71}],"endpoints":[{"addresses":["10.244.0.9"],"hostname":"db-0"}]}"#;
    world.api.put(&EndpointSlice::decode(slice.as_bytes()).unwrap());
    let name = "_peer._tcp.db.default.svc.cluster.local.";
    // The informer's event is on its way: bounded tries, each as long as one exchange.
    let found = (0..10_000)
        .find_map(|_| Some(answers(&ask(&world.pod, name, RecordType::SRV))).filter(|a| !a.is_empty()));
    assert_eq!(found.unwrap(), ["0 100 71 db-0.db.default.svc.cluster.local."]);
}

#[test]
fn several_requests_over_one_tcp_connection() {
    if !may_make_namespaces() {
        return;
    }
    let world = World::new(vec![]);
    let mut stream = world.pod.run(|| {
        let stream = TcpStream::connect_timeout(&SERVER.parse().unwrap(), PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    });
    for _ in 0..3 {
        let request = request("web.default.svc.cluster.local.", RecordType::A);
        stream.write_all(&(request.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&request).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(answers(&Message::from_vec(&reply).unwrap()), ["10.96.0.7"]);
    }
}

#[test]
fn other_names_are_asked_of_upstreams() {
    if !may_make_namespaces() {
        return;
    }
    let world = World::new(vec!["127.0.0.1:1053".parse().unwrap()]);
    let upstream = world.node.run(|| UdpSocket::bind("127.0.0.1:1053").unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((n, client)) = upstream.recv_from(&mut buffer) {
            let request = Message::from_vec(&buffer[..n]).unwrap();
            let mut reply = Message::response(request.metadata.id, OpCode::Query);
            reply.add_query(request.queries[0].clone());
            let address = RData::A(A(Ipv4Addr::new(192, 0, 2, 53)));
            reply.add_answer(Record::from_rdata(request.queries[0].name.clone(), 60, address));
            upstream.send_to(&reply.to_vec().unwrap(), client).unwrap();
        }
    });
    let reply = ask(&world.pod, "example.com.", RecordType::A);
    assert_eq!((reply.metadata.id, answers(&reply)), (4242, vec!["192.0.2.53".to_owned()]));
    let reply = ask(&world.pod, "far.default.svc.cluster.local.", RecordType::A);
    assert_eq!(answers(&reply), ["example.com.", "192.0.2.53"]);
    assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
}
