//! What the server hands on to kubelets, against a kubelet of a few lines on loopback.

use crate::common::{admin, pod, pods, remote, serve, server};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use krate_api::Kind as _;
use krate_api::types::core::v1::Node;
use krate_apiserver::ApiServer;
use krate_client::Api;
use serde_json::json;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A kubelet that answers logs with its path, refuses `bad`, and echoes what it is sent after an upgrade.
async fn kubelet(server: &ApiServer) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = server.tls(&["127.0.0.1".to_owned()]).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                assert!(stream.get_ref().1.peer_certificates().is_some(), "the server shows who it is");
                let service = service_fn(answer);
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    });
    port
}

async fn answer(
    mut request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    assert!(!request.headers().contains_key("authorization"));
    let text = request.uri().to_string();
    if text.contains("bad") {
        let mut refusal = http::Response::new(Full::new(Bytes::from("container is waiting to start")));
        *refusal.status_mut() = http::StatusCode::BAD_REQUEST;
        return Ok(refusal);
    }
    if !request.headers().contains_key("upgrade") {
        return Ok(http::Response::new(Full::new(Bytes::from(text))));
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.unwrap());
        let mut buffer = [0u8; 64];
        while let Ok(n @ 1..) = io.read(&mut buffer).await {
            io.write_all(&buffer[..n]).await.unwrap();
        }
    });
    let mut response = http::Response::new(Full::new(Bytes::new()));
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
    response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    Ok(response)
}

/// A server with a pod on a node whose kubelet is ours.
async fn cluster() -> ApiServer {
    let server = server().await;
    let port = kubelet(&server).await;
    let transport = admin(&server);
    let nodes = Api::<Node>::new(transport.clone());
    let made = nodes.create(Node::from_value(json!({"metadata": {"name": "n1"}})).unwrap()).await.unwrap();
    let mut node = (*made).clone();
    node.status = serde_json::from_value(json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }))
    .unwrap();
    nodes.update_status(node).await.unwrap();
    pods(&transport).create(pod("default", "a")).await.unwrap();
    pods(&transport).bind("default", "a", "", "n1").await.unwrap();
    server
}

#[tokio::test]
async fn logs_come_from_the_kubelet_and_so_do_its_refusals() {
    let server = cluster().await;
    let served = serve(&server).await;
    let client = remote(&served, &server, "admin", "system:masters");
    let path = "/api/v1/namespaces/default/pods/a/log?tailLines=5&container=main";
    let (code, body) = client.raw(http::Method::GET, path, None, Bytes::new()).await.unwrap();
    assert_eq!((code.as_u16(), &body[..]), (200, &b"/containerLogs/default/a/main?tailLines=5"[..]));
    let (code, status) = crate::common::get(&client, "/api/v1/namespaces/default/pods/a/log?bad=1").await;
    assert_eq!((code, status["message"].as_str()), (400, Some("container is waiting to start")));
    let (code, status) =
        crate::common::get(&client, "/api/v1/namespaces/default/pods/a/log?container=x").await;
    assert_eq!((code, status["message"].as_str()), (400, Some("container x is not valid for pod a")));
    pods(&admin(&server)).create(pod("default", "unbound")).await.unwrap();
    let path = "/api/v1/namespaces/default/pods/unbound/log";
    let (code, body) = client.raw(http::Method::GET, path, None, Bytes::new()).await.unwrap();
    assert_eq!((code.as_u16(), body.len()), (200, 0));
    let (code, body) = client
        .raw(http::Method::GET, "/api/v1/nodes/n1/proxy/metrics?x=1", None, Bytes::new())
        .await
        .unwrap();
    assert_eq!((code.as_u16(), &body[..]), (200, &b"/metrics?x=1"[..]));
}

#[tokio::test]
async fn a_node_is_named_with_scheme_and_port() {
    let server = cluster().await;
    let node = Api::<Node>::new(admin(&server)).get("", "n1").await.unwrap();
    let status = node.status.as_ref().unwrap();
    let port = status.daemon_endpoints.as_ref().unwrap().kubelet_endpoint.as_ref().unwrap().port;
    let served = serve(&server).await;
    let client = remote(&served, &server, "admin", "system:masters");
    for name in [format!("n1:{port}"), format!("https:n1:{port}"), "https:n1:".to_owned()] {
        let path = format!("/api/v1/nodes/{name}/proxy/logs/?x=1");
        let (code, body) = client.raw(http::Method::GET, &path, None, Bytes::new()).await.unwrap();
        assert_eq!((code.as_u16(), &body[..]), (200, &b"/logs/?x=1"[..]), "{name}");
    }
    let refused = [
        ("n1:1", 400, "address not allowed"),
        ("ftp:n1:1", 400, r#"invalid node request "ftp:n1:1""#),
        ("n2:10250", 404, r#"nodes "n2" not found"#),
    ];
    for (name, wanted, text) in refused {
        let (code, status) =
            crate::common::get(&client, &format!("/api/v1/nodes/{name}/proxy/healthz")).await;
        assert_eq!((code, status["message"].as_str()), (wanted, Some(text)), "{name}");
    }
}

#[tokio::test]
async fn an_upgrade_is_passed_through_both_ways() {
    let server = cluster().await;
    let served = serve(&server).await;
    let pair = server.authority().client("admin", &["system:masters"]).unwrap();
    let mut sender = crate::common::connect(&served, &pair).await;
    let request = http::Request::builder()
        .method("POST")
        .uri("/api/v1/namespaces/default/pods/a/exec?command=sh&stdin=true")
        .header("host", "localhost")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("authorization", "Bearer ignored")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        panic!("{:?} {:?}", response.status(), response.into_body().collect().await.unwrap().to_bytes());
    }
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    for text in ["first", "second"] {
        io.write_all(text.as_bytes()).await.unwrap();
        let mut back = vec![0u8; text.len()];
        io.read_exact(&mut back).await.unwrap();
        assert_eq!(back, text.as_bytes());
    }
}
