//! Where a request is handed on to: address, transport, path and query.

use crate::admission::cast;
use crate::call::Call;
use crate::options;
use crate::path::Info;
use crate::pki::Authority;
use crate::query::Query;
use crate::rest::list;
use crate::server::{Inner, StartError};
use krate_api::Status;
use krate_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::types::core::v1::{Node, Pod, Service};
use krate_api::types::discovery::v1::{Endpoint, EndpointSlice};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The kubelet's port, where a node does not name another.
const KUBELET_PORT: u16 = 10_250;

/// How the backend is spoken to.
pub(super) enum Transport {
    Plain,
    Tls(Arc<ClientConfig>),
}

/// A backend's request line.
pub(super) struct Target {
    pub address: SocketAddr,
    pub transport: Transport,
    pub path_and_query: String,
    /// A kubelet: what it refuses is told as the API's own error.
    pub is_kubelet: bool,
}

/// TLS towards kubelets (the server's client certificate, the cluster's authority) and towards pods and
/// services that say `https:` (whose certificates nobody here can know).
pub(crate) struct KubeletTls {
    kubelet: Arc<ClientConfig>,
    pod: Arc<ClientConfig>,
}

impl KubeletTls {
    pub fn new(authority: &Authority) -> Result<Self, StartError> {
        let bad = |e: rustls_pki_types::pem::Error| StartError::Keys(crate::pki::Error::Key(e.to_string()));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.ca_certificate().as_bytes()).map_err(bad)?)?;
        let pair = authority.client("kube-apiserver-kubelet-client", &[])?;
        let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(bad)?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(bad)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let kubelet = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        let pod = krate_client::tls::any_server()?;
        Ok(Self { kubelet: Arc::new(kubelet), pod: Arc::new(pod) })
    }
}

/// The backend of a request.
pub(super) async fn find(
    server: &Inner,
    call: &Call,
    info: &Info,
    query: &Query,
    raw_query: &str,
) -> Result<Option<Target>, Status> {
    match (info.resource.as_str(), call.subresource.as_str()) {
        ("nodes", _) => node(server, call, info, raw_query).await.map(Some),
        ("services", _) => service(server, call, info, raw_query).await.map(Some),
        ("pods", "proxy") => pod_itself(server, call, info, raw_query).await.map(Some),
        _ => pod_by_kubelet(server, call, query, raw_query).await,
    }
}

fn to_kubelet(server: &Inner, address: SocketAddr, path_and_query: String) -> Target {
    let transport = Transport::Tls(server.kubelet_tls.kubelet.clone());
    Target { address, transport, path_and_query, is_kubelet: true }
}

fn proxied_path(info: &Info, raw_query: &str) -> String {
    // A slash at the end matters to what is behind the proxy.
    let slash = if info.path.ends_with('/') && !info.rest.is_empty() { "/" } else { "" };
    let mut path = format!("/{}{slash}", escape(&info.rest));
    if !raw_query.is_empty() {
        let _ = write!(path, "?{raw_query}");
    }
    path
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A value of a query, where `/` has to be escaped too.
fn escape_value(text: &str) -> String {
    escape(text).replace('&', "%26").replace('+', "%2B").replace('=', "%3D").replace(';', "%3B")
}

/// A node's kubelet, or whatever else listens at the node's address.
async fn node(server: &Inner, call: &Call, info: &Info, raw_query: &str) -> Result<Target, Status> {
    let (scheme, name, port) = split_name("node", &call.name)?;
    let kubelet = kubelet(server, name).await?;
    let path_and_query = proxied_path(info, raw_query);
    if port.is_empty() || port.parse() == Ok(kubelet.port()) {
        return Ok(to_kubelet(server, kubelet, path_and_query));
    }
    if !is_of_a_pod(kubelet.ip()) {
        return Err(Status::bad_request("address not allowed"));
    }
    let port = port.parse().map_err(|_| Status::bad_request(format!("invalid port \"{port}\"")))?;
    let address = SocketAddr::new(kubelet.ip(), port);
    Ok(Target { address, transport: transport(server, scheme), path_and_query, is_kubelet: false })
}

/// The address of a node's kubelet.
async fn kubelet(server: &Inner, node: &str) -> Result<SocketAddr, Status> {
    let Some(found) = server.read::<Node>("", node).await? else {
        return Err(Status::not_found("", "nodes", node));
    };
    let status = found.status.clone().unwrap_or_default();
    let of = |kind: &str| {
        let addresses = status.addresses.iter().flatten().filter(move |a| a.type_ == kind);
        addresses.filter_map(|a| a.address.parse::<IpAddr>().ok()).next()
    };
    let address = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"));
    let Some(address) = address else {
        return Err(Status::internal(format!("no preferred addresses found; known addresses: {}", node)));
    };
    let port = status
        .daemon_endpoints
        .and_then(|d| d.kubelet_endpoint)
        .and_then(|e| u16::try_from(e.port).ok())
        .filter(|p| *p != 0)
        .unwrap_or(KUBELET_PORT);
    Ok(SocketAddr::new(address, port))
}

async fn pod_of(server: &Inner, call: &Call, name: &str) -> Result<Arc<Pod>, Status> {
    let found = server.read::<Pod>(&call.namespace, name).await?;
    found.ok_or_else(|| Status::not_found("", "pods", name))
}

/// Logs, exec, attach and port-forward; nowhere for the logs of a pod that has no node yet.
async fn pod_by_kubelet(
    server: &Inner,
    call: &Call,
    query: &Query,
    raw_query: &str,
) -> Result<Option<Target>, Status> {
    if call.subresource == "log" {
        options::log(query, &call.name)?;
    }
    let entry = list::entry(server, call).await?.ok_or_else(|| call.not_found())?;
    let object = call.rows.held(&entry)?;
    let Some(pod) = cast::<Pod>(&*object) else { return Err(Status::internal("not a pod")) };
    let (namespace, name) = (&call.namespace, &call.name);
    let place = format!("{namespace}/{name}");
    let path = match call.subresource.as_str() {
        "portforward" => {
            // What the API calls `ports`, the kubelet calls `port`.
            let ports: Vec<String> = query.all("ports").map(escape_value).collect();
            let named = if ports.is_empty() { String::new() } else { format!("port={}", ports.join(",")) };
            with_query(format!("/portForward/{place}"), &named)
        }
        "log" => {
            let container = container_of(pod, query.get("container"))?;
            let kept = raw_query.split('&').filter(|p| !p.starts_with("container=") && !p.is_empty());
            with_query(format!("/containerLogs/{place}/{container}"), &kept.collect::<Vec<_>>().join("&"))
        }
        sub => {
            let container = container_of(pod, query.get("container"))?;
            with_query(format!("/{sub}/{place}/{container}"), &streams_query(query, sub))
        }
    };
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
    if node.is_empty() {
        if call.subresource == "log" {
            return Ok(None);
        }
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let address = kubelet(server, node).await?;
    Ok(Some(to_kubelet(server, address, path)))
}

fn with_query(path: String, query: &str) -> String {
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// The parameters of exec and attach, in the kubelet's spelling.
fn streams_query(query: &Query, sub: &str) -> String {
    let mut parts = Vec::new();
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(ours) {
            parts.push(format!("{theirs}=1"));
        }
    }
    if sub == "exec" {
        parts.extend(query.all("command").map(|c| format!("command={}", escape_value(c))));
    }
    parts.join("&")
}

/// The container that is meant, when that is clear.
fn container_of(pod: &Pod, wanted: &str) -> Result<String, Status> {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let spec = pod.spec.clone().unwrap_or_default();
    let names: Vec<String> = spec.containers.iter().map(|c| c.name.clone()).collect();
    let init: Vec<String> = spec.init_containers.iter().flatten().map(|c| c.name.clone()).collect();
    let ephemeral: Vec<String> = spec.ephemeral_containers.iter().flatten().map(|c| c.name.clone()).collect();
    if !wanted.is_empty() {
        let known = names.iter().chain(&init).chain(&ephemeral).any(|n| n == wanted);
        let why = format!("container {wanted} is not valid for pod {name}");
        return if known { Ok(wanted.to_owned()) } else { Err(Status::bad_request(why)) };
    }
    match names.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut why = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                let _ = write!(why, " or one of the init containers: [{}]", init.join(" "));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// `[scheme:]name[:port]`, of a pod, a service or a node.
fn split_name<'a>(what: &str, text: &'a str) -> Result<(&'a str, &'a str, &'a str), Status> {
    let parts: Vec<&str> = text.split(':').collect();
    match *parts.as_slice() {
        [name] if !name.is_empty() => Ok(("", name, "")),
        [name, port] if !name.is_empty() => Ok(("", name, port)),
        [scheme @ ("" | "http" | "https"), name, port] if !name.is_empty() => Ok((scheme, name, port)),
        _ => Err(Status::bad_request(format!("invalid {what} request \"{text}\""))),
    }
}

/// Whether a pod (or a node that is asked for another port than its kubelet's) may really have the address: not the
/// server's own machine, nothing but a single host.
fn is_of_a_pod(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_multicast() || address.is_unspecified() || link_local)
}

fn transport(server: &Inner, scheme: &str) -> Transport {
    if scheme == "https" { Transport::Tls(server.kubelet_tls.pod.clone()) } else { Transport::Plain }
}

async fn pod_itself(server: &Inner, call: &Call, info: &Info, raw_query: &str) -> Result<Target, Status> {
    let (scheme, name, port) = split_name("pod", &call.name)?;
    let pod = pod_of(server, call, name).await?;
    let address = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
    let Some(address) = address.filter(|a| is_of_a_pod(*a)) else {
        return Err(Status::bad_request("address not allowed"));
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let mut ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    let number = match port.parse::<u16>() {
        Ok(number) => Some(number),
        Err(_) if port.is_empty() => ports.next().and_then(|p| u16::try_from(p.container_port).ok()),
        Err(_) => {
            ports.find(|p| p.name.as_deref() == Some(port)).and_then(|p| u16::try_from(p.container_port).ok())
        }
    };
    let number = number.unwrap_or(if scheme == "https" { 443 } else { 80 });
    Ok(Target {
        address: SocketAddr::new(address, number),
        transport: transport(server, scheme),
        path_and_query: proxied_path(info, raw_query),
        is_kubelet: false,
    })
}

/// One of a service's ready endpoints, by chance.
async fn service(server: &Inner, call: &Call, info: &Info, raw_query: &str) -> Result<Target, Status> {
    let (scheme, name, port) = split_name("service", &call.name)?;
    let Some(service) = server.read::<Service>(&call.namespace, name).await? else {
        return Err(Status::not_found("", "services", name));
    };
    let ports = service.spec.as_ref().and_then(|s| s.ports.clone()).unwrap_or_default();
    let chosen = match port {
        "" if ports.len() == 1 => ports.first(),
        "" => ports.iter().find(|p| p.name.as_deref().unwrap_or("").is_empty()),
        _ => ports.iter().find(|p| p.name.as_deref() == Some(port) || p.port.to_string() == port),
    };
    let unavailable = |why: String| Status::failure(krate_api::Reason::ServiceUnavailable, why);
    let nobody = || unavailable(format!("no endpoints available for service \"{name}\""));
    let chosen = chosen.ok_or_else(|| match port.parse::<u64>() {
        Ok(number) => unavailable(format!("no service port {number} found for service \"{name}\"")),
        Err(_) => nobody(),
    })?;
    let found = endpoints(server, &call.namespace, name, chosen.name.as_deref().unwrap_or("")).await?;
    if found.is_empty() {
        return Err(nobody());
    }
    let pick = usize::try_from(server.rng.below(found.len() as u64)).unwrap_or(0);
    let https =
        matches!(&chosen.target_port, Some(IntOrString::String(n)) if n == "https") && scheme == "https";
    Ok(Target {
        address: found[pick],
        transport: transport(server, if https { "https" } else { scheme }),
        path_and_query: proxied_path(info, raw_query),
        is_kubelet: false,
    })
}

/// The ready endpoints of a service's port that are what they say: pods of its namespace. Whoever may write
/// EndpointSlices is not to reach with the server's rights what he likes.
async fn endpoints(
    server: &Inner,
    namespace: &str,
    name: &str,
    port_name: &str,
) -> Result<Vec<SocketAddr>, Status> {
    let mut found = Vec::new();
    for slice in server.read_all::<EndpointSlice>(namespace).await? {
        if slice.view.labels.get("kubernetes.io/service-name").map(String::as_str) != Some(name) {
            continue;
        }
        let slice = slice.typed::<EndpointSlice>().map_err(Status::internal)?;
        let mut ports = slice.ports.iter().flatten();
        let number = ports.find(|p| p.name.as_deref().unwrap_or("") == port_name).and_then(|p| p.port);
        let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            if let (true, Some(address)) = (ready, pod_address(server, namespace, endpoint).await?) {
                found.push(SocketAddr::new(address, number));
            }
        }
    }
    Ok(found)
}

/// An endpoint's address, when it is its pod's.
async fn pod_address(server: &Inner, namespace: &str, endpoint: &Endpoint) -> Result<Option<IpAddr>, Status> {
    let Some(target) = endpoint.target_ref.as_ref() else { return Ok(None) };
    let (Some(address), Some(name)) = (endpoint.addresses.first(), target.name.as_deref()) else {
        return Ok(None);
    };
    if target.namespace.as_deref() != Some(namespace) {
        return Ok(None);
    }
    let Some(pod) = server.read::<Pod>(namespace, name).await? else { return Ok(None) };
    let mut ips = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten());
    Ok(ips.any(|ip| ip.ip == *address).then(|| address.parse().ok()).flatten().filter(|a| is_of_a_pod(*a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_proxied_things() {
        let split = |text| split_name("pod", text).map_err(|e| e.message().to_owned());
        assert_eq!(split("web"), Ok(("", "web", "")));
        assert_eq!(split("web:80"), Ok(("", "web", "80")));
        assert_eq!(split("https:web:tls"), Ok(("https", "web", "tls")));
        assert_eq!(split("http:web:"), Ok(("http", "web", "")));
        assert_eq!(split("ftp:web:1"), Err(r#"invalid pod request "ftp:web:1""#.to_owned()));
        assert_eq!(split("a:b:c:d"), Err(r#"invalid pod request "a:b:c:d""#.to_owned()));
    }

    #[test]
    fn exec_speaks_the_kubelets_words() {
        let query =
            Query::parse("command=sh&command=-c&command=a%20%26%20b&stdin=true&stdout=true&tty=false");
        let want = "input=1&output=1&command=sh&command=-c&command=a%20%26%20b";
        assert_eq!(streams_query(&query, "exec"), want);
    }
}
