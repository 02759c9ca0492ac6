//! A server over a store in memory, and clients of it.
#![allow(dead_code)]

use krate_api::types::core::v1 as core;
use krate_apiserver::{ApiServer, Authority, Config, UserInfo};
use krate_base::{Clock, Rng, Shutdown};
use krate_client::remote::{Remote, RemoteConfig};
use krate_client::{Api, Transport};
use krate_store::{Embedded, Options as StoreOptions};
use std::sync::Arc;

/// A bootstrapped server in memory.
pub async fn server() -> ApiServer {
    server_at(Clock::system()).await
}

pub async fn server_at(clock: Clock) -> ApiServer {
    server_with(clock, |_| {}).await
}

/// A bootstrapped server in memory, configured by `change`.
pub async fn server_with(clock: Clock, change: impl FnOnce(&mut Config)) -> ApiServer {
    let store = Embedded::open(StoreOptions::memory(clock.clone())).await.unwrap();
    let authority = Authority::generate(&clock).unwrap();
    let mut config = Config::new(Arc::new(store), clock, Rng::from_seed(7), authority);
    config.advertise = vec!["192.0.2.1".parse().unwrap()];
    change(&mut config);
    let server = ApiServer::new(config).unwrap();
    server.bootstrap().await.unwrap();
    // In a whole cluster the service account controller makes it.
    let mut account = core::ServiceAccount::default();
    account.metadata.name = Some("default".to_owned());
    account.metadata.namespace = Some("default".to_owned());
    Api::new(admin(&server)).create(account).await.unwrap();
    server
}

pub fn admin(server: &ApiServer) -> Arc<dyn Transport> {
    server.transport(UserInfo::new("admin", &["system:masters"]))
}

pub fn user(server: &ApiServer, name: &str) -> Arc<dyn Transport> {
    server.transport(UserInfo::new(name, &[]))
}

pub fn pods(transport: &Arc<dyn Transport>) -> Api<core::Pod> {
    Api::new(transport.clone())
}

pub fn config_maps(transport: &Arc<dyn Transport>) -> Api<core::ConfigMap> {
    Api::new(transport.clone())
}

pub fn config_map(namespace: &str, name: &str) -> core::ConfigMap {
    let mut map = core::ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.namespace = Some(namespace.to_owned());
    map
}

pub fn pod(namespace: &str, name: &str) -> core::Pod {
    let mut pod = core::Pod::default();
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.namespace = Some(namespace.to_owned());
    pod.spec = Some(core::PodSpec {
        containers: vec![core::Container {
            name: "main".to_owned(),
            image: Some("app:1".to_owned()),
            ..Default::default()
        }],
        ..Default::default()
    });
    pod
}

/// Serves on loopback; ends with the returned guard.
pub struct Served {
    pub address: std::net::SocketAddr,
    pub ca: String,
    shutdown: Shutdown,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub async fn serve(server: &ApiServer) -> Served {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = server.tls(&["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let shutdown = Shutdown::new();
    let (serving, stop) = (server.clone(), shutdown.clone());
    tokio::spawn(async move { serving.serve(listener, tls, stop).await });
    Served { address, ca: server.authority().ca_certificate().to_owned(), shutdown }
}

/// A client over TLS with a certificate of `user` in `group`.
pub fn remote(served: &Served, server: &ApiServer, user: &str, group: &str) -> Remote {
    let groups: Vec<&str> = if group.is_empty() { vec![] } else { vec![group] };
    let pair = server.authority().client(user, &groups).unwrap();
    Remote::new(&RemoteConfig {
        server: format!("https://{}", served.address),
        ca_pem: served.ca.clone().into_bytes(),
        identity: Some((pair.certificate.into_bytes(), pair.key.into_bytes())),
        ..RemoteConfig::default()
    })
    .unwrap()
}

/// A client over TLS with a token or (empty) nothing.
pub fn bearer(served: &Served, token: &str) -> Remote {
    Remote::new(&RemoteConfig {
        server: format!("https://{}", served.address),
        ca_pem: served.ca.clone().into_bytes(),
        token: (!token.is_empty()).then(|| token.to_owned()),
        ..RemoteConfig::default()
    })
    .unwrap()
}

/// GET of a path as JSON, with its code.
pub async fn get(remote: &Remote, path: &str) -> (u16, serde_json::Value) {
    let (code, body) = remote.raw(http::Method::GET, path, None, Default::default()).await.unwrap();
    (code.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}

/// Any request with a JSON body, its code and answer.
pub async fn send(
    remote: &Remote,
    method: &str,
    path: &str,
    content_type: &str,
    body: serde_json::Value,
) -> (u16, serde_json::Value) {
    let method = method.parse().unwrap();
    let (code, body) = remote.raw(method, path, Some(content_type), body.to_string().into()).await.unwrap();
    (code.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}

/// One HTTP/1.1 connection over TLS, for headers and upgrades of one's own.
pub async fn connect(
    served: &Served,
    pair: &krate_apiserver::pki::Pair,
) -> hyper::client::conn::http1::SendRequest<http_body_util::Full<bytes::Bytes>> {
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(served.ca.as_bytes()).unwrap()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
            )
            .unwrap();
    let stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}
