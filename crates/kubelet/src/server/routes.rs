//! The paths of the kubelet's API, each answered in a few lines.

use super::find::{Finder, NotFound};
use super::{Body, Server, streamed};
use crate::logs::{self, LogQuery};
use bytes::Bytes;
use futures::TryFutureExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use krate_api::Object as _;
use krate_runtime::cri::{ContainerEventType, ContainerState, ContainerStatsFilter, StreamFlags};
use krate_runtime::streaming;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

type Answer = Result<Response<Body>, NotFound>;

pub async fn route(
    server: &Server,
    finder: &Finder<'_>,
    request: Request<Incoming>,
    allowed: bool,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if parts == ["healthz"] {
        return text(StatusCode::OK, "ok");
    }
    if !allowed {
        return text(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    let get = request.method() == Method::GET;
    let answer = match parts.as_slice() {
        ["pods"] if get => Ok(pods(finder)),
        ["configz"] if get => Ok(json(server.configz.clone())),
        ["metrics"] if get => Ok(text(StatusCode::OK, &server.metrics.render())),
        ["metrics", "resource"] if get => resource_metrics(server).await,
        ["stats", "summary"] if get => super::summary::summary(server, finder).await,
        ["containerLogs", namespace, pod, container] if get => {
            container_logs(server, finder, &request, namespace, pod, container).await
        }
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            exec(server, finder, request, namespace, pod, container).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            attach(server, finder, request, namespace, pod, container).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            port_forward(server, finder, request, namespace, pod).await
        }
        _ => Ok(text(StatusCode::NOT_FOUND, "404 page not found\n")),
    };
    answer.unwrap_or_else(|NotFound(code, message)| text(code, &message))
}

fn json(body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn pods(finder: &Finder<'_>) -> Response<Body> {
    let mut body = br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#.to_vec();
    for (i, pod) in finder.pods.list().iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&pod.encode());
    }
    body.extend_from_slice(b"]}");
    json(body)
}

async fn container_logs(
    server: &Server,
    finder: &Finder<'_>,
    request: &Request<Incoming>,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Answer {
    let pairs = pairs(request.uri().query().unwrap_or(""));
    let query = LogQuery::parse(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())))
        .map_err(|e| NotFound(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()))?;
    let pod = finder.pod(namespace, pod)?;
    // Subscribed before the state is read, so that an end between the two is not missed.
    let events = server.runtime.get_container_events();
    let found = finder.logged(&pod, container, &query).await?;
    let ended = CancellationToken::new();
    if found.state != ContainerState::Running {
        ended.cancel();
    } else if query.follow {
        tokio::spawn(watch_end(events, found.id.clone(), ended.clone()));
    }
    let (out, pieces) = mpsc::channel(logs::QUEUE);
    let now = server.clock.now();
    let stop = ended.clone();
    tokio::spawn(async move {
        if let Err(error) = logs::read(found.log_path.into(), query, now, ended, out).await {
            tracing::debug!(%error, "a container log could not be read");
        }
        stop.cancel();
    });
    let mut response = Response::new(streamed(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Cancels `ended` when the container has stopped.
async fn watch_end(
    mut events: broadcast::Receiver<Arc<krate_runtime::cri::ContainerEvent>>,
    id: String,
    ended: CancellationToken,
) {
    loop {
        let event = tokio::select! {
            () = ended.cancelled() => return,
            event = events.recv() => event,
        };
        let over = match event {
            Ok(event) => {
                let kind = event.container_event_type;
                event.container_id == id
                    && matches!(kind, ContainerEventType::Stopped | ContainerEventType::Deleted)
            }
            // What was missed may have been the end: the log is read to what is there.
            Err(_) => true,
        };
        if over {
            ended.cancel();
            return;
        }
    }
}

async fn exec(
    server: &Server,
    finder: &Finder<'_>,
    request: Request<Incoming>,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Answer {
    let query = request.uri().query().unwrap_or("").to_owned();
    let command: Vec<String> =
        pairs(&query).into_iter().filter(|(k, _)| k == "command").map(|(_, v)| v).collect();
    if command.is_empty() {
        return Err(NotFound(StatusCode::BAD_REQUEST, "you must specify at least one command".to_owned()));
    }
    let pod = finder.pod(namespace, pod)?;
    let id = finder.to_exec(&pod, container).await?;
    let (streams, flags) = (server.streams.clone(), streaming::flags(&query));
    let start = async move { streams.exec(&id, &command, flags).await };
    Ok(upgraded(streaming::remote_command(request, flags, start)))
}

async fn attach(
    server: &Server,
    finder: &Finder<'_>,
    request: Request<Incoming>,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Answer {
    let flags: StreamFlags = streaming::flags(request.uri().query().unwrap_or(""));
    let pod = finder.pod(namespace, pod)?;
    let id = finder.to_attach(&pod, container).await?;
    let streams = server.streams.clone();
    let start = async move {
        let mut session = streams.attach(&id, flags).await?;
        // How the container ends is its own matter: whoever watched has seen all of it. A client that is told of
        // a failure here takes the attachment for lost and prints the log once more.
        session.exit = Box::pin(session.exit.map_ok(|_| 0));
        Ok(session)
    };
    Ok(upgraded(streaming::remote_command(request, flags, start)))
}

async fn port_forward(
    server: &Server,
    finder: &Finder<'_>,
    request: Request<Incoming>,
    namespace: &str,
    pod: &str,
) -> Answer {
    let pod = finder.pod(namespace, pod)?;
    let sandbox: Arc<str> = finder.sandbox(&pod).await?.into();
    let streams = server.streams.clone();
    let connect = Arc::new(move |port: u16| {
        let (streams, sandbox) = (streams.clone(), sandbox.clone());
        let connecting: futures::future::BoxFuture<'static, _> =
            Box::pin(async move { streams.port_forward(&sandbox, port).await });
        connecting
    });
    Ok(upgraded(streaming::port_forward(request, connect)))
}

/// CPU and memory of the node's containers in the Prometheus format.
async fn resource_metrics(server: &Server) -> Answer {
    let filter = ContainerStatsFilter::default();
    let stats = server.runtime.list_container_stats(&filter).await;
    let stats = stats.map_err(|e| NotFound(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let mut cpu = String::from(
        "# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed by the container in core-seconds\n\
         # TYPE container_cpu_usage_seconds_total counter\n",
    );
    let mut memory = String::from(
        "# HELP container_memory_working_set_bytes Current working set of the container in bytes\n\
         # TYPE container_memory_working_set_bytes gauge\n",
    );
    for s in &stats {
        let label = |name: &str| s.labels.get(name).map_or("", String::as_str);
        let series = format!(
            "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
            label(super::find::CONTAINER_NAME),
            label("io.kubernetes.pod.namespace"),
            label("io.kubernetes.pod.name")
        );
        cpu.push_str(&format!(
            "container_cpu_usage_seconds_total{series} {} {}\n",
            s.cpu.usage_core_nano_seconds as f64 / 1e9,
            s.cpu.timestamp / 1_000_000
        ));
        memory.push_str(&format!(
            "container_memory_working_set_bytes{series} {} {}\n",
            s.memory.working_set_bytes,
            s.memory.timestamp / 1_000_000
        ));
    }
    Ok(text(StatusCode::OK, &(cpu + &memory)))
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

fn upgraded(response: Response<Full<Bytes>>) -> Response<Body> {
    response.map(BodyExt::boxed_unsync)
}

pub fn text(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(text.to_owned()));
    *response.status_mut() = code;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// The decoded parameters of a query.
fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|p| !p.is_empty());
    parts
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (decode(k), decode(&v.replace('+', " "))))
        .collect()
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = (byte == b'%').then(|| bytes.as_slice_hex()).flatten();
        match hex {
            Some(value) => {
                out.push(value);
                bytes.nth(1);
            }
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Looks at the next two bytes as hexadecimal digits.
trait Hex {
    fn as_slice_hex(&self) -> Option<u8>;
}

impl Hex for std::str::Bytes<'_> {
    fn as_slice_hex(&self) -> Option<u8> {
        let mut ahead = self.clone();
        let (high, low) = (char::from(ahead.next()?).to_digit(16)?, char::from(ahead.next()?).to_digit(16)?);
        u8::try_from(high * 16 + low).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let got = pairs("command=sh&command=-c&command=echo+a%20b%26&tty");
        let values: Vec<&str> = got.iter().map(|(_, v)| v.as_str()).collect();
        assert_eq!(values, ["sh", "-c", "echo a b&", ""]);
        assert_eq!(decode("100%"), "100%");
    }
}
