//! What is proxied believes to be the whole of its host: its links and redirects are brought below the path
//! that the client asked.
//!
//! Promises: only links to the backend itself change; a page passes in bounded pieces, never whole. Never reads
//! anything but HTML.

use super::html::Rewriter;
use crate::http::respond::{Body, BoxError};
use bytes::{Buf as _, Bytes};
use flate2::write::GzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How much of a page is worked on at once, bytes: what a packed piece can become stays small.
const PIECE: usize = 4_096;

/// What a backend's links are brought below.
#[derive(Clone)]
pub(super) struct Links {
    /// The path of the proxy itself, without a slash at its end.
    pub prefix: String,
    /// Names of the backend: what a link to itself may say.
    pub hosts: Vec<String>,
}

impl Links {
    /// What a link becomes; none when it is right as it is.
    pub fn rewrite(&self, link: &str) -> Option<String> {
        let (host, path) = split(link)?;
        let elsewhere = !host.is_empty() && !self.hosts.iter().any(|h| h == host);
        if elsewhere || !path.starts_with('/') {
            return None;
        }
        if path.starts_with(&self.prefix) {
            return (!host.is_empty()).then(|| path.to_owned());
        }
        Some(format!("{}{path}", self.prefix))
    }
}

/// A link's host (empty when it names none) and what follows.
fn split(link: &str) -> Option<(&str, &str)> {
    let scheme = link.find(':').filter(|at| !link[..*at].contains(['/', '?', '#']));
    let after = scheme.map_or(link, |at| &link[at + 1..]);
    match after.strip_prefix("//") {
        Some(rest) => Some(rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))),
        None if scheme.is_some() => None,
        None => Some(("", link)),
    }
}

/// The answer with its redirect or its page's links changed.
pub(super) fn apply(mut response: Response<Body>, links: Links) -> Response<Body> {
    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
    if let Some(location) = location {
        if let Some(new) = links.rewrite(location).and_then(|l| HeaderValue::from_str(&l).ok()) {
            response.headers_mut().insert(LOCATION, new);
        }
        return response;
    }
    let text = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = text(CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    let gzip = match text(CONTENT_ENCODING) {
        "" => false,
        "gzip" => true,
        // Packed in a way that cannot be looked into: the page works where its links are relative.
        _ => return response,
    };
    if !kind.eq_ignore_ascii_case("text/html") {
        return response;
    }
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(CONTENT_ENCODING);
    response.map(|inner| Page::new(inner, links, gzip).boxed_unsync())
}

/// A page that is rewritten while it passes.
struct Page {
    inner: Body,
    unpack: Option<GzDecoder<Vec<u8>>>,
    rewriter: Rewriter<Box<dyn Fn(&str) -> Option<String> + Send>>,
    input: Bytes,
    ended: bool,
}

impl Page {
    fn new(inner: Body, links: Links, gzip: bool) -> Self {
        let link: Box<dyn Fn(&str) -> Option<String> + Send> = Box::new(move |l| links.rewrite(l));
        let unpack = gzip.then(|| GzDecoder::new(Vec::new()));
        Self { inner, unpack, rewriter: Rewriter::new(link), input: Bytes::new(), ended: false }
    }

    /// Works on the next piece of what has come.
    fn piece(&mut self) -> std::io::Result<Vec<u8>> {
        let piece = self.input.split_to(self.input.len().min(PIECE));
        let Some(unpack) = &mut self.unpack else { return Ok(self.rewriter.push(&piece)) };
        unpack.write_all(&piece)?;
        Ok(self.rewriter.push(&std::mem::take(unpack.get_mut())))
    }

    fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        if let Some(unpack) = &mut self.unpack {
            unpack.try_finish()?;
            out = self.rewriter.push(&std::mem::take(unpack.get_mut()));
        }
        out.extend(self.rewriter.finish());
        Ok(out)
    }
}

impl hyper::body::Body for Page {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            while self.input.has_remaining() {
                match self.piece() {
                    Ok(out) if out.is_empty() => {}
                    Ok(out) => return Poll::Ready(Some(Ok(Frame::data(out.into())))),
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                }
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.input = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.ended = true;
                    let rest = self.rest().map(|r| Frame::data(r.into())).map_err(Into::into);
                    return Poll::Ready(Some(rest));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::respond::full;
    use flate2::{Compression, write::GzEncoder};

    fn links() -> Links {
        Links {
            prefix: "/api/p/proxy".to_owned(),
            hosts: vec!["10.0.0.1:80".into(), "localhost:8001".into()],
        }
    }

    #[test]
    fn links_to_the_backend_go_below_the_proxy() {
        let cases = [
            ("/x", Some("/api/p/proxy/x")),
            ("/x/?q=/y#z", Some("/api/p/proxy/x/?q=/y#z")),
            ("http://10.0.0.1:80/x", Some("/api/p/proxy/x")),
            ("//localhost:8001/x", Some("/api/p/proxy/x")),
            ("http://localhost:8001/api/p/proxy/x", Some("/api/p/proxy/x")),
            ("/api/p/proxy/x", None),
            ("http://example.com/x", None),
            ("//example.com/x", None),
            ("x/y", None),
            ("mailto:a@b", None),
            ("#top", None),
            ("", None),
        ];
        for (link, want) in cases {
            assert_eq!(links().rewrite(link).as_deref(), want, "{link}");
        }
    }

    async fn page(encoding: &str, body: Vec<u8>) -> (http::response::Parts, Bytes) {
        let mut response = Response::new(full(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
        let (parts, body) = apply(response, links()).into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_packed_page_is_unpacked_and_an_unknown_packing_left_alone() {
        let html = format!("{}<a href='/x'>", "text ".repeat(PIECE));
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(html.as_bytes()).unwrap();
        let (parts, body) = page("gzip", packed.finish().unwrap()).await;
        assert!(!parts.headers.contains_key(CONTENT_ENCODING));
        assert_eq!(body, html.replace("/x", "/api/p/proxy/x"));
        let (parts, body) = page("br", b"<a href='/x'>".to_vec()).await;
        assert!(parts.headers.contains_key(CONTENT_ENCODING));
        assert_eq!(&body[..], b"<a href='/x'>");
    }
}
