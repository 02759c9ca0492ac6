//! The gRPC health protocol (`grpc.health.v1.Health/Check`), by hand: one unary call over HTTP/2.

use super::ask::Answer;
use super::http::{authority, dial};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;

const SERVING: u64 = 1;
/// gRPC's code for a method that the server does not have.
const UNIMPLEMENTED: &str = "12";

/// Asks whether `service` (the whole server when empty) is being served.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Answer {
    let address = authority(host, port);
    match tokio::time::timeout(timeout, call(host, port, service)).await {
        Err(_) => Answer::Failure(format!(
            "timeout: failed to connect service \"{address}\" within {}s: context deadline exceeded",
            timeout.as_secs()
        )),
        Ok(Err(error)) => Answer::Failure(error),
        Ok(Ok(SERVING)) => Answer::Success,
        Ok(Ok(status)) => {
            let word = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
            let word = usize::try_from(status).ok().and_then(|i| word.get(i)).unwrap_or(&"UNKNOWN");
            Answer::Failure(format!("service unhealthy (responded with \"{word}\")"))
        }
    }
}

/// The status in the answer.
async fn call(host: &str, port: u16, service: &str) -> Result<u64, String> {
    let address = authority(host, port);
    let unreachable = |e: String| {
        format!(
            "error: health rpc probe failed: connection error: desc = \"transport: Error while dialing: {e}\""
        )
    };
    let stream = dial(host, port).await.map_err(unreachable)?;
    let failed = |e: hyper::Error| format!("error: health rpc probe failed: {e}");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(failed)?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|e| e.to_string())?;
    let result = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let code = |headers: &http::HeaderMap| {
            let text =
                |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            (text("grpc-status"), text("grpc-message"))
        };
        let early = code(response.headers());
        let body = response.into_body().collect().await.map_err(failed)?;
        let late = body.trailers().map(code).unwrap_or(early);
        judge(&late.0, &late.1, &body.to_bytes())
    }
    .await;
    driver.abort();
    result
}

fn judge(code: &str, text: &str, body: &[u8]) -> Result<u64, String> {
    match code {
        "0" => status(body).ok_or_else(|| "error: health rpc probe failed: malformed answer".to_owned()),
        UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {text}"
        )),
        code => Err(format!("error: health rpc probe failed: rpc error: code = {code} desc = {text}")),
    }
}

/// `HealthCheckRequest { string service = 1; }` with gRPC's five bytes before it.
fn message(service: &str) -> Bytes {
    let mut proto = BytesMut::new();
    if !service.is_empty() {
        proto.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            proto.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        proto.put_u8(length as u8);
        proto.put_slice(service.as_bytes());
    }
    let mut out = BytesMut::with_capacity(proto.len() + 5);
    out.put_u8(0);
    out.put_u32(u32::try_from(proto.len()).unwrap_or(u32::MAX));
    out.put_slice(&proto);
    out.freeze()
}

/// Field 1 of `HealthCheckResponse`, an enumeration; absent means 0.
fn status(body: &[u8]) -> Option<u64> {
    let message = body.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, value, ..] => Some(u64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[]), None);
        assert!(judge("12", "no", &[]).unwrap_err().contains("does not implement the grpc health protocol"));
    }
}
