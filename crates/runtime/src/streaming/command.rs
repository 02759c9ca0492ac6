//! Exec and attach: choosing the protocol, and giving each its channels.

use super::outgoing::{INCOMING, Out, QUEUE};
use super::session::{Channels, run};
use super::{PROTOCOL_HEADER, Upgrade, offered, refuse, spdy, switching, upgrade_of, websocket};
use crate::cri::{Result, Session, StreamFlags};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long a SPDY client may take to open its streams.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

/// SPDY protocols, the newest first.
const SPDY_PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// WebSocket protocols, the newest first.
const WEBSOCKET_PROTOCOLS: [&str; 10] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
    "channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "v5.base64.channel.k8s.io",
    "v3.base64.channel.k8s.io",
    "v2.base64.channel.k8s.io",
];

/// Which streams a query asks for, in the API's spelling (`stdin=true`) or the kubelet's (`input=1`).
#[must_use]
pub fn flags(query: &str) -> StreamFlags {
    let on = |names: [&str; 2]| {
        query.split('&').filter_map(|pair| pair.split_once('=')).any(|(name, value)| {
            names.contains(&name) && matches!(value, "1" | "true" | "True" | "TRUE" | "t" | "T")
        })
    };
    let tty = on(["tty", "tty"]);
    StreamFlags {
        stdin: on(["stdin", "input"]),
        stdout: on(["stdout", "output"]),
        // A terminal has one output.
        stderr: on(["stderr", "error"]) && !tty,
        tty,
    }
}

/// Answers an exec or attach request. `start` is polled once the client's streams are there.
pub fn remote_command(
    mut request: Request<Incoming>,
    flags: StreamFlags,
    start: impl Future<Output = Result<Session>> + Send + 'static,
) -> Response<Full<Bytes>> {
    if !(flags.stdin || flags.stdout || flags.stderr) {
        return refuse(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let Some(upgrade) = upgrade_of(&request) else {
        return refuse(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request");
    };
    let (supported, header): (&[&'static str], &str) = match upgrade {
        Upgrade::Spdy => (&SPDY_PROTOCOLS, PROTOCOL_HEADER),
        Upgrade::WebSocket => (&WEBSOCKET_PROTOCOLS, header::SEC_WEBSOCKET_PROTOCOL.as_str()),
    };
    let offered = offered(&request, header);
    let chosen = supported.iter().copied().find(|p| offered.iter().any(|o| o == p));
    // Without an offer, the first version is spoken.
    let protocol = match chosen {
        Some(protocol) => protocol,
        None if offered.is_empty() => "channel.k8s.io",
        None => {
            let text = format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {supported:?}"
            );
            return refuse(StatusCode::FORBIDDEN, &text);
        }
    };
    let response = switching(&request, upgrade, chosen);
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(connection) = upgraded.await else { return };
        let connection = TokioIo::new(connection);
        match upgrade {
            Upgrade::Spdy => over_spdy(connection, protocol, flags, start).await,
            Upgrade::WebSocket => over_websocket(connection, protocol, flags, start).await,
        }
    });
    response
}

fn version(protocol: &str) -> u32 {
    protocol.strip_prefix('v').and_then(|p| p.split('.').next()).and_then(|v| v.parse().ok()).unwrap_or(1)
}

async fn over_spdy<S>(
    connection: S,
    protocol: &str,
    flags: StreamFlags,
    start: impl Future<Output = Result<Session>>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let version = version(protocol);
    let mut connection = spdy::Connection::accept(connection);
    let mut wanted = vec!["error"];
    wanted.extend(
        [("stdin", flags.stdin), ("stdout", flags.stdout), ("stderr", flags.stderr)]
            .iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| *name),
    );
    if flags.tty && version >= 3 {
        wanted.push("resize");
    }
    let mut streams = BTreeMap::new();
    let collect = async {
        while streams.len() < wanted.len() {
            let Some(stream) = connection.next_stream().await else { return };
            stream.reply().await;
            let kind = stream.header("streamtype").unwrap_or("").to_owned();
            if wanted.contains(&kind.as_str()) {
                streams.insert(kind, stream);
            }
        }
    };
    if tokio::time::timeout(STREAMS_TIMEOUT, collect).await.is_err() || streams.len() < wanted.len() {
        tracing::debug!("a client did not open the streams that it asked for");
        return;
    }
    let out = |name: &str| streams.get(name).map(spdy::Stream::out);
    let (error, stdout, stderr) = (out("error"), out("stdout"), out("stderr"));
    let mut input = |name: &str| streams.get_mut(name).and_then(spdy::Stream::take_incoming);
    let (stdin, resize) = (input("stdin"), input("resize"));
    let Some(error) = error else { return };
    run(
        Channels { stdin, stdout, stderr, error, resize, structured: version >= 4, gone: connection.gone() },
        start,
    )
    .await;
    connection.close().await;
}

async fn over_websocket<S>(
    connection: S,
    protocol: &str,
    flags: StreamFlags,
    start: impl Future<Output = Result<Session>>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    const STDIN: u32 = 0;
    const STDOUT: u32 = 1;
    const STDERR: u32 = 2;
    const ERROR: u32 = 3;
    const RESIZE: u32 = 4;
    let (queue, outgoing) = mpsc::channel(QUEUE);
    let (stdin_to, stdin) = mpsc::channel(INCOMING);
    let (resize_to, resize) = mpsc::channel(INCOMING);
    let gone = CancellationToken::new();
    let mut routes = BTreeMap::new();
    if flags.stdin {
        routes.insert(STDIN, stdin_to);
    }
    if flags.tty {
        routes.insert(RESIZE, resize_to);
    }
    let wire = websocket::Wire { base64: protocol.contains("base64"), can_close: version(protocol) >= 5 };
    let server = tokio::spawn(websocket::serve(connection, wire, routes, outgoing, gone.clone()));
    let out = |channel| Out::new(channel, queue.clone());
    let channels = Channels {
        stdin: flags.stdin.then_some(stdin),
        stdout: flags.stdout.then(|| out(STDOUT)),
        stderr: flags.stderr.then(|| out(STDERR)),
        error: out(ERROR),
        resize: flags.tty.then_some(resize),
        structured: version(protocol) >= 4,
        gone,
    };
    run(channels, start).await;
    drop(queue);
    // The server flushes what is queued and closes.
    let _ = server.await;
}
