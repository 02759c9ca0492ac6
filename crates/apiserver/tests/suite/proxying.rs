//! Pods and services behind the API's proxy. What listens at a pod's address are servers of a few lines in this
//! process: the server reaches them by a way of its own.

use crate::common::{admin, pod, pods, remote, serve, server_with};
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use krate_api::Kind;
use krate_api::types::core::v1::Service;
use krate_api::types::discovery::v1::EndpointSlice;
use krate_apiserver::{ApiServer, Dial, Stream};
use krate_base::Clock;
use krate_client::Api;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

const POD: &str = "10.244.0.5";

/// Everything listens at the pod's address: on 80 an echo of the method, elsewhere a page that says its port.
#[derive(Default)]
struct Network {
    tls: OnceLock<Arc<rustls::ServerConfig>>,
}

#[async_trait::async_trait]
impl Dial for Network {
    async fn dial(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        assert_eq!(address.ip().to_string(), POD);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (port, tls) = (address.port(), self.tls.get().unwrap().clone());
        tokio::spawn(async move {
            let answer =
                service_fn(move |request| async move { Ok::<_, Infallible>(answer(port, &request)) });
            let http = hyper::server::conn::http1::Builder::new();
            if [443, 460].contains(&port) {
                let far = tokio_rustls::TlsAcceptor::from(tls).accept(far).await.unwrap();
                let _ = http.serve_connection(TokioIo::new(far), answer).await;
            } else {
                let _ = http.serve_connection(TokioIo::new(far), answer).await;
            }
        });
        Ok(Box::new(near))
    }
}

fn answer(port: u16, request: &http::Request<hyper::body::Incoming>) -> http::Response<Full<Bytes>> {
    let (kind, text) = match port {
        80 => {
            let answer = json!({"method": request.method().as_str(), "asked": request.uri().to_string()});
            ("application/json", answer.to_string())
        }
        443 | 1080 => ("text/html; charset=utf-8", r#"<a href="/rewriteme">test</a>"#.to_owned()),
        _ => ("text/plain", format!("from {port}")),
    };
    http::Response::builder().header("content-type", kind).body(Full::new(text.into())).unwrap()
}

fn of<K: Kind>(value: Value) -> K {
    K::from_value(value).unwrap()
}

/// A server with a pod, and a service of it with plain and encrypted ports.
async fn cluster() -> ApiServer {
    let network = Arc::new(Network::default());
    let dial = network.clone();
    let server = server_with(Clock::system(), |config| config.dial = dial).await;
    let _ = network.tls.set(server.tls(&["anything".to_owned()]).unwrap());
    let transport = admin(&server);
    pods(&transport).create(pod("default", "a")).await.unwrap();
    let mut made = (*pods(&transport).get("default", "a").await.unwrap()).clone();
    let status = made.status.get_or_insert_default();
    (status.pod_ip, status.phase) = (Some(POD.to_owned()), Some("Running".to_owned()));
    status.pod_ips = serde_json::from_value(json!([{"ip": POD}])).unwrap();
    pods(&transport).update_status(made).await.unwrap();
    let ports = json!([
        {"name": "echo", "port": 8000, "targetPort": 80},
        {"name": "portname1", "port": 80, "targetPort": "dest1"},
        {"name": "tlsportname1", "port": 444, "targetPort": "tlsdest1"},
    ]);
    let service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": ports}});
    Api::<Service>::new(transport.clone()).create(of(service)).await.unwrap();
    let slice = json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "echo", "port": 80}, {"name": "portname1", "port": 160}, {"name": "tlsportname1", "port": 460}],
        "endpoints": [{"addresses": [POD], "targetRef": {"kind": "Pod", "namespace": "default", "name": "a"}}],
    });
    Api::<EndpointSlice>::new(transport.clone()).create(of(slice)).await.unwrap();
    let single =
        json!({"metadata": {"name": "one", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}});
    Api::<Service>::new(transport.clone()).create(of(single)).await.unwrap();
    let slice = json!({
        "metadata": {"name": "one-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "one"}},
        "addressType": "IPv4", "ports": [{"port": 80}],
        "endpoints": [{"addresses": [POD], "targetRef": {"kind": "Pod", "namespace": "default", "name": "a"}}],
    });
    Api::<EndpointSlice>::new(transport).create(of(slice)).await.unwrap();
    server
}

fn path(what: &str) -> String {
    format!("/api/v1/namespaces/default/{what}/proxy")
}

#[tokio::test]
async fn every_name_of_a_port_leads_to_it_and_pages_link_to_where_they_were_asked() {
    let server = cluster().await;
    let served = serve(&server).await;
    let client = remote(&served, &server, "admin", "system:masters");
    for (what, wanted) in [
        ("services/web:portname1", "from 160"),
        ("services/http:web:portname1", "from 160"),
        ("services/web:80", "from 160"),
        ("services/https:web:tlsportname1", "from 460"),
        ("services/https:web:444", "from 460"),
        ("pods/a:160", "from 160"),
        ("pods/http:a:162", "from 162"),
        ("pods/https:a:460", "from 460"),
        ("pods/a:1080", r#"<a href="LINK/rewriteme">test</a>"#),
        ("pods/http:a:1080", r#"<a href="LINK/rewriteme">test</a>"#),
        ("pods/https:a:443", r#"<a href="LINK/rewriteme">test</a>"#),
        ("pods/https:a:", r#"<a href="LINK/rewriteme">test</a>"#),
    ] {
        let link = path(what);
        let (code, body) = client.raw(Method::GET, &format!("{link}/"), None, Bytes::new()).await.unwrap();
        let body = String::from_utf8_lossy(&body);
        assert_eq!((code.as_u16(), &*body), (200, &*wanted.replace("LINK", &link)), "{what}");
    }
}

#[tokio::test]
async fn every_method_is_handed_on_and_a_page_without_its_slash_is_elsewhere() {
    let server = cluster().await;
    let served = serve(&server).await;
    let client = remote(&served, &server, "admin", "system:masters");
    let ask = async |method: &str, path: &str| {
        let answer = client.raw(method.parse().unwrap(), path, None, Bytes::new()).await.unwrap();
        let body: Value = serde_json::from_slice(&answer.1).unwrap_or_default();
        (answer.0.as_u16(), body["method"].as_str().unwrap_or("").to_owned(), body["asked"].clone())
    };
    for what in ["pods/a", "services/one"] {
        for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] {
            let page = matches!(method, "GET" | "HEAD");
            let said = if method == "HEAD" { "" } else { method };
            let deep = ask(method, &format!("{}/some/path/with/{method}", path(what))).await;
            assert_eq!((deep.0, &*deep.1), (200, said), "{method} {what}");
            let root = ask(method, &format!("{}?method={method}", path(what))).await;
            assert_eq!((root.0, &*root.1), if page { (301, "") } else { (200, method) }, "{method} {what}");
        }
        let slash = ask("GET", &format!("{}/dir/?x=1", path(what))).await;
        assert_eq!(slash.2, "/dir/?x=1");
    }
    let pair = server.authority().client("admin", &["system:masters"]).unwrap();
    let mut sender = crate::common::connect(&served, &pair).await;
    let request = http::Request::get(format!("{}?a=b", path("pods/a"))).header("host", "localhost");
    let response = sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["location"], format!("{}/?a=b", path("pods/a")));
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}
