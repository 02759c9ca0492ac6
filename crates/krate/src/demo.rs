//! The demo: a small web application from an image that the program carries in itself, deployed, exposed and
//! fetched through a published NodePort. Works without any network.

use crate::cli;
use crate::cluster::{Cluster, Spec};
use crate::ui::{Explain, Failure, Outcome, Steps, say};
use futures::StreamExt as _;
use krate_api::types::apps::v1::Deployment;
use krate_api::types::core::v1::Service;
use krate_api::{Kind, Status};
use krate_client::remote::Remote;
use krate_client::{Body, Request, Transport, Verb, WatchEvent};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Node port of the demo's Service.
pub const NODE_PORT: u16 = 30080;
/// The port of this machine that it is published on, if free.
pub const HOST_PORT: u16 = 8080;
/// The demo's image, made from this program.
pub const IMAGE: &str = "krate.local/demo:1";
const NAME: &str = "demo";
const REPLICAS: i32 = 2;
/// How long the application may take to become available.
const AVAILABLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest request head that the demo's server reads, in bytes.
const MAX_HEAD: usize = 8 << 10;

/// Deploys the application, waits for it, fetches its page and says what to type next.
pub async fn run(cluster: &Cluster, spec: &Spec, remote: &Remote, steps: &Steps) -> Outcome<()> {
    let publish = spec.publish.iter().find(|p| p.node_port == NODE_PORT).copied();
    let publish = publish.ok_or_else(|| {
        Failure::new("the demo's port is not published", "Start it with `krate up --demo`.")
    })?;
    let step = steps.begin(&format!("Making the image {IMAGE} from this program"));
    crate::wiring::images::build_demo(cluster).await?;
    step.done();
    let step = steps.begin(&format!("Deploying {REPLICAS} replicas and a Service"));
    let next = "See `kubectl describe deployment demo`.";
    create(remote, &deployment()).await.explain("the Deployment was refused", next)?;
    create(remote, &service()).await.explain("the Service was refused", next)?;
    let wait = tokio::time::timeout(AVAILABLE_TIMEOUT, available(remote, &step));
    wait.await.explain("the application did not become available in time", next)??;
    step.done();
    let url = format!("http://{}/", publish.listen);
    let step = steps.begin(&format!("Fetching {url}"));
    let page = fetch(publish.listen)
        .await
        .explain("the page could not be fetched", "See `kubectl get pods,svc`.")?;
    step.done();
    say!("\n{}\n", page.trim_end());
    say!(
        "That came from a container, through NodePort {NODE_PORT}, published on {}. What to type next:",
        publish.listen
    );
    for line in [
        "kubectl get pods -o wide".to_owned(),
        "kubectl scale deployment demo --replicas=5".to_owned(),
        format!("curl {url}"),
        "kubectl logs -l app=demo --tail=5".to_owned(),
        if spec.name == "krate" {
            "krate down".to_owned()
        } else {
            format!("krate down --name {}", spec.name)
        },
    ] {
        say!("  {line}");
    }
    Ok(())
}

fn deployment() -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": "default", "labels": {"app": NAME}},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": NAME}}, "template": {
            "metadata": {"labels": {"app": NAME}},
            "spec": {"terminationGracePeriodSeconds": 2, "containers": [{
                "name": "web", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 8080}],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}}]}}}
    })
}

fn service() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": "default"},
        "spec": {"type": "NodePort", "selector": {"app": NAME},
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]}
    })
}

/// Creates an object; one that is there already is fine.
async fn create(remote: &Remote, object: &serde_json::Value) -> Result<(), Status> {
    let mut request = match object["kind"].as_str() {
        Some("Deployment") => Request::of::<Deployment>(Verb::Create, "default", ""),
        _ => Request::of::<Service>(Verb::Create, "default", ""),
    };
    request.body = Some(Body::Bytes(object.to_string().into()));
    match remote.send(request).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

async fn available(remote: &Remote, step: &crate::ui::Step) -> Outcome<()> {
    let mut request = Request::of::<Deployment>(Verb::List, "default", "");
    request.options.resource_version = "0".to_owned();
    request.options.field_selector = format!("metadata.name={NAME}");
    let mut watch =
        remote.watch(request).await.explain("the API server does not answer", "See `krate logs`.")?;
    while let Some(event) = watch.next().await {
        if let Ok(WatchEvent::Added(shared) | WatchEvent::Modified(shared)) = event
            && let Ok(deployment) = Deployment::decode(&shared.bytes)
        {
            let available = deployment.status.and_then(|s| s.available_replicas).unwrap_or(0);
            step.note(&format!("{available} of {REPLICAS} available"));
            if available >= REPLICAS {
                return Ok(());
            }
        }
    }
    Err(Failure::new("the watch of the Deployment ended", "Try `krate up --demo` again."))
}

async fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("unexpected answer {text:?}"))),
    }
}

/// The web application itself, as it runs in its container.
pub async fn serve(args: &cli::DemoWeb) -> Outcome<()> {
    let listener = TcpListener::bind(args.listen).await.explain("cannot listen", "")?;
    say!("listening on {}", args.listen);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .explain("internal error", "")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                tokio::spawn(async move {
                    // A client that goes away early is its own business.
                    let _ = answer(stream, peer).await;
                });
            }
        }
    }
}

async fn answer(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or("").to_owned();
    say!("{peer} {line}");
    let name = |key: &str| std::env::var(key).unwrap_or_else(|_| "?".to_owned());
    let page = format!("Hello from Krate: pod {} on {}\n", name("POD_NAME"), name("NODE_NAME"));
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
