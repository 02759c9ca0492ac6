//! One question to a container: over HTTP, a TCP connection, gRPC, or a command run in it.

use super::http;
use crate::spec;
use krate_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::types::core::v1::{Container, HTTPGetAction, HTTPHeader, Probe};
use krate_runtime::cri::{Error, Runtime};
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Most of a probe's output that is kept, in bytes.
const MAX_OUTPUT: usize = 10 << 10;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Success,
    /// Success with something to say.
    Warning(String),
    Failure(String),
    /// It could not be asked.
    Unknown(String),
}

impl Answer {
    pub fn passed(&self) -> bool {
        matches!(self, Self::Success | Self::Warning(_))
    }
}

/// Who is asked.
pub struct Target<'a> {
    pub runtime: &'a dyn Runtime,
    pub container: &'a Container,
    pub id: &'a str,
    /// The pod's primary address.
    pub ip: &'a str,
}

/// Asks once, within the probe's timeout.
pub async fn ask(target: &Target<'_>, probe: &Probe) -> Answer {
    let timeout = seconds(probe.timeout_seconds, 1);
    if let Some(exec) = &probe.exec {
        return command(target, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return match request(target.container, action, target.ip) {
            Ok(request) => get(&request, timeout).await,
            Err(error) => Answer::Unknown(error),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(target.ip);
        return match port(target.container, &action.port) {
            Ok(port) => connect(host, port, timeout).await,
            Err(error) => Answer::Unknown(error),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.as_deref().unwrap_or_default();
        let Ok(port) = u16::try_from(action.port) else {
            return Answer::Unknown("invalid port number".into());
        };
        return super::grpc::check(target.ip, port, service, timeout).await;
    }
    Answer::Unknown(format!("missing probe handler for {}", target.container.name))
}

pub fn seconds(value: Option<i32>, default: i32) -> Duration {
    Duration::from_secs(u64::try_from(value.filter(|v| *v > 0).unwrap_or(default)).unwrap_or(1))
}

async fn command(target: &Target<'_>, command: &[String], timeout: Duration) -> Answer {
    match target.runtime.exec_sync(target.id, command, timeout).await {
        Ok(done) => {
            let mut output = done.stdout;
            output.extend(done.stderr);
            output.truncate(MAX_OUTPUT);
            let text = String::from_utf8_lossy(&output).into_owned();
            if done.exit_code == 0 { Answer::Success } else { Answer::Failure(text) }
        }
        Err(Error::DeadlineExceeded(_)) => Answer::Failure(format!(
            "command timed out: \"{}\" timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

/// The port of a number or of a name among the container's ports.
pub fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    match number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0) {
        Some(port) => Ok(port),
        None => Err(match port {
            IntOrString::String(name) => format!("couldn't find port: {name}"),
            IntOrString::Int(number) => format!("invalid port number: {number}"),
        }),
    }
}

/// The request of an HTTP action. `User-Agent` and `Accept` are ours unless the action sets them; an empty
/// `Accept` leaves it out.
pub fn request(container: &Container, action: &HTTPGetAction, ip: &str) -> Result<http::Get, String> {
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip).to_owned();
    let path = action.path.as_deref().unwrap_or_default();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut headers: Vec<HTTPHeader> = action.http_headers.clone().unwrap_or_default();
    let has = |headers: &[HTTPHeader], name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    for (name, value) in [("User-Agent", "kube-probe/1.36"), ("Accept", "*/*")] {
        if !has(&headers, name) {
            headers.push(HTTPHeader { name: name.to_owned(), value: value.to_owned() });
        }
    }
    headers.retain(|h| !(h.name.eq_ignore_ascii_case("Accept") && h.value.is_empty()));
    Ok(http::Get {
        tls: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
        host,
        port: port(container, &action.port)?,
        path,
        headers: headers.into_iter().map(|h| (h.name, h.value)).collect(),
    })
}

async fn get(request: &http::Get, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, http::get_following(request)).await {
        Err(_) => Answer::Failure(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            request.url()
        )),
        Ok(Err(error)) => Answer::Failure(format!("Get \"{}\": {error}", request.url())),
        Ok(Ok(answer)) if answer.left_host => {
            Answer::Warning(format!("Probe terminated redirects, Response body: {}", answer.text(MAX_OUTPUT)))
        }
        Ok(Ok(answer)) if (200..400).contains(&answer.status) => Answer::Success,
        Ok(Ok(answer)) => Answer::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
    }
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Answer {
    let address = http::authority(host, port);
    match tokio::time::timeout(timeout, http::dial(host, port)).await {
        Err(_) => Answer::Failure(format!("dial tcp {address}: i/o timeout")),
        Ok(Err(error)) => Answer::Failure(error),
        Ok(Ok(stream)) => {
            let _: TcpStream = stream;
            Answer::Success
        }
    }
}

/// The address by which a pod's containers are asked.
pub fn address(pod_ips: &[String], node_ips: &[IpAddr], pod: &krate_api::types::core::v1::Pod) -> String {
    let own = pod_ips.first().cloned();
    let node = || spec::is_host_network(pod).then(|| node_ips.first().map(ToString::to_string)).flatten();
    own.or_else(node).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::container;
    use krate_api::types::core::v1::ContainerPort;

    #[test]
    fn ports_by_name() {
        let mut c = container("web");
        c.ports = Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: 8080,
            ..Default::default()
        }]);
        assert_eq!(port(&c, &IntOrString::String("http".into())), Ok(8080));
        assert_eq!(port(&c, &IntOrString::Int(80)), Ok(80));
        assert!(port(&c, &IntOrString::String("none".into())).is_err());
    }

    #[test]
    fn headers_of_a_request() {
        let action = HTTPGetAction {
            path: Some("healthz?x=1".into()),
            port: IntOrString::Int(80),
            http_headers: Some(vec![HTTPHeader { name: "accept".into(), value: String::new() }]),
            ..Default::default()
        };
        let got = request(&container("web"), &action, "fd00::1").unwrap();
        assert_eq!(got.url(), "http://[fd00::1]:80/healthz?x=1");
        assert_eq!(got.headers, [("User-Agent".to_owned(), "kube-probe/1.36".to_owned())]);
    }

    #[tokio::test]
    async fn a_refused_connection_reads_as_the_original() {
        // A port that was just free: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let answer = connect("127.0.0.1", port, Duration::from_secs(1)).await;
        assert_eq!(
            answer,
            Answer::Failure(format!("dial tcp 127.0.0.1:{port}: connect: connection refused"))
        );
    }
}
