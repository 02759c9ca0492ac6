//! Hands a request on and its answer back; joins the two connections when both have been upgraded.

use super::links::{self, Links};
use super::socket::Socket;
use super::target::{Target, Transport};
use crate::call::Call;
use crate::http::Stream;
use crate::http::respond::{Body, BoxError};
use crate::path::Info;
use crate::server::Inner;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, LOCATION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use krate_api::Status;
use krate_api::status::Reason;
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// How long a backend may take to accept a connection.
const DIAL: Duration = Duration::from_secs(10);
/// How much of a backend's refusal is told, bytes.
const TOLD: usize = 2_048;

/// Headers that belong to one connection only.
const HOP: [HeaderName; 4] =
    [CONNECTION, TRANSFER_ENCODING, HeaderName::from_static("keep-alive"), HeaderName::from_static("te")];

/// The answer to a page asked for without the slash at its end: relative links would go astray.
pub(super) fn redirect(call: &Call, info: &Info, request: &Request<Incoming>) -> Option<Response<Body>> {
    let bare = call.subresource == "proxy" && info.rest.is_empty() && !info.path.ends_with('/');
    let page = matches!(*request.method(), Method::GET | Method::HEAD);
    if !bare || !page || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", request.uri().path())).ok()?;
    let mut response = Response::new(crate::http::respond::full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

pub(super) async fn forward(
    server: &Inner,
    call: &Call,
    info: &Info,
    target: Target,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let socket = if call.subresource == "log" { Socket::take(&mut request)? } else { None };
    let upgrades = request.headers().contains_key(UPGRADE);
    let failed = |error: io::Error| unreachable(call, &target, upgrades, &error.to_string());
    let stream = match tokio::time::timeout(DIAL, connect(server, &target)).await {
        Ok(connected) => connected.map_err(failed)?,
        Err(_) => return Err(failed(io::Error::other(format!("dial tcp {}: i/o timeout", target.address)))),
    };
    let failed = |error: hyper::Error| unreachable(call, &target, upgrades, &in_words(&error));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    let client = upgrades.then(|| hyper::upgrade::on(&mut request));
    let links = (call.subresource == "proxy").then(|| links(info, &target, &request));
    let mut onward = rewrite(request, &target, upgrades)?;
    if let Some(links) = &links {
        introduce(&mut onward, &target, links);
    }
    let response = sender.send_request(onward).await.map_err(failed)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        return Ok(join(client, response));
    }
    if target.is_kubelet && call.subresource != "proxy" && !response.status().is_success() {
        return Err(told(call, response).await);
    }
    let passed = pass(response, call);
    Ok(match (links, socket) {
        (Some(links), _) => links::apply(passed, links),
        (None, Some(socket)) => socket.send(passed.into_body()),
        (None, None) => passed,
    })
}

/// What the backend's links to itself are brought below.
fn links(info: &Info, target: &Target, request: &Request<Incoming>) -> Links {
    let place = match info.namespace.as_str() {
        "" => String::new(),
        namespace => format!("namespaces/{namespace}/"),
    };
    let prefix = format!("/api/{}/{place}{}/{}/proxy", info.version, info.resource, info.name);
    let hosts = [Some(target.address.to_string()), asked_host(request)];
    Links { prefix, hosts: hosts.into_iter().flatten().collect() }
}

/// The host that the client asked.
fn asked_host(request: &Request<Incoming>) -> Option<String> {
    let header = || request.headers().get(HOST)?.to_str().ok().map(str::to_owned);
    request.uri().authority().map(ToString::to_string).or_else(header)
}

/// Tells the backend by which path it was asked for.
fn introduce(onward: &mut Request<Incoming>, target: &Target, links: &Links) {
    let path = target.path_and_query.split('?').next().unwrap_or("");
    if let Ok(uri) = HeaderValue::from_str(&format!("{}{path}", links.prefix)) {
        onward.headers_mut().insert("x-forwarded-uri", uri);
    }
}

/// That the backend cannot be reached, in the words of each way to ask it.
fn unreachable(call: &Call, target: &Target, upgrades: bool, error: &str) -> Status {
    if call.subresource == "proxy" && !upgrades {
        let text = format!("error trying to reach service: {error}");
        return Status::failure(Reason::ServiceUnavailable, text);
    }
    let path = target.path_and_query.split('?').next().unwrap_or("");
    let text = match upgrades {
        true => format!("error dialing backend: {error}"),
        false => format!("Get \"https://{}{path}\": {error}", target.address),
    };
    let mut status = Status::failure(Reason::InternalError, text);
    status.0.reason = None;
    status
}

/// Why a backend that was reached gave no answer.
fn in_words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() }
}

/// Why there is no connection, in the words that clients show and people search for.
fn undialled(address: &impl std::fmt::Display, error: &io::Error) -> io::Error {
    use std::io::ErrorKind;
    let why = match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("dial tcp {address}: {why}"))
}

async fn connect(server: &Inner, target: &Target) -> io::Result<Box<dyn Stream>> {
    let stream = server.dial.dial(target.address).await.map_err(|e| undialled(&target.address, &e))?;
    match &target.transport {
        Transport::Plain => Ok(stream),
        Transport::Tls(config) => {
            let name = ServerName::IpAddress(target.address.ip().into());
            let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
            Ok(Box::new(stream))
        }
    }
}

/// The request as the backend gets it: its own path, none of the client's credentials.
fn rewrite(request: Request<Incoming>, target: &Target, upgrades: bool) -> Result<Request<Incoming>, Status> {
    let (mut parts, body) = request.into_parts();
    let bad = |e: http::uri::InvalidUri| Status::bad_request(e.to_string());
    parts.uri = target.path_and_query.parse::<Uri>().map_err(bad)?;
    parts.version = http::Version::HTTP_11;
    let upgrade = parts.headers.get(UPGRADE).cloned();
    strip(&mut parts.headers);
    parts.headers.remove(AUTHORIZATION);
    let host =
        HeaderValue::from_str(&target.address.to_string()).map_err(|e| Status::internal(e.to_string()))?;
    parts.headers.insert(HOST, host);
    if let (true, Some(protocol)) = (upgrades, upgrade) {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(UPGRADE, protocol);
    }
    Ok(Request::from_parts(parts, body))
}

fn strip(headers: &mut HeaderMap) {
    for name in &HOP {
        headers.remove(name);
    }
    headers.remove(UPGRADE);
}

/// Joins the client's and the backend's upgraded connections until either ends.
fn join(client: hyper::upgrade::OnUpgrade, mut response: Response<Incoming>) -> Response<Body> {
    let backend = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "an upgrade did not happen");
                return;
            }
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
            tracing::debug!(%error, "a proxied stream ended");
        }
    });
    let (parts, _) = response.into_parts();
    Response::from_parts(parts, crate::http::respond::full(bytes::Bytes::new()))
}

/// The backend's answer, as it comes.
fn pass(response: Response<Incoming>, call: &Call) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    parts.version = http::Version::default();
    if call.subresource == "log" {
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        parts.headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    Response::from_parts(parts, body.map_err(|e| Box::new(e) as BoxError).boxed_unsync())
}

/// A kubelet's refusal as the API's own error.
async fn told(call: &Call, response: Response<Incoming>) -> Status {
    let code = response.status();
    let body = Limited::new(response.into_body(), TOLD).collect().await;
    let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim().to_owned()).unwrap_or_default();
    let what = format!("pods/{} {}", call.subresource, call.name);
    let mut status = match code.as_u16() {
        400 => return Status::bad_request(text),
        404 => Status::failure(
            Reason::NotFound,
            format!("the server could not find the requested resource ( {what})"),
        ),
        401 => Status::failure(
            Reason::Unauthorized,
            "the server has asked for the client to provide credentials".to_owned() + &format!(" ( {what})"),
        ),
        _ => Status::failure(
            Reason::InternalError,
            format!("an error on the server ({text:?}) has prevented the request from succeeding ( {what})"),
        ),
    };
    status.0.code = Some(i32::from(code.as_u16()));
    status = status.about("", &format!("pods/{}", call.subresource), &call.name);
    status.0.details.get_or_insert_default().causes = Some(vec![krate_api::meta::StatusCause {
        reason: Some("UnexpectedServerResponse".to_owned()),
        message: Some(text),
        field: None,
    }]);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_told_with_its_address() {
        let error = io::Error::from_raw_os_error(111);
        let text = undialled(&"127.0.0.1:10250", &error).to_string();
        assert_eq!(text, "dial tcp 127.0.0.1:10250: connect: connection refused");
    }
}
