//! The body of a watch: one frame per change, encoded once for all watchers of the same form. Changes that are
//! there at once go out together.

use super::negotiate::{Form, Format, Shape};
use super::respond::{Body, BoxError, meta_version, metadata_of, to_yaml};
use super::table::{Page, Style, table};
use crate::codec::Rows;
use crate::rest::watch::{Change, Feed, Item};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use krate_api::{Shared, Status};
use krate_base::Clock;
use krate_store::Entry;

/// Annotations of the bookmark that ends the initial events (KEP-3157).
const INITIAL_END: &str = "k8s.io/initial-events-end";
const LIST_BLUEPRINT: &str = "kubernetes.io/initial-events-list-blueprint";
/// How many bytes of events that are ready at once are put into one piece of the body. A piece costs a turn of the
/// connection, whatever its size; a slow watcher holds one.
const TOGETHER: usize = 32 * 1024;

/// A watch's events as a body that ends when the watch does.
pub(crate) fn body(feed: Feed, form: Form, style: Style, clock: Clock) -> Body {
    let state = Writer { feed, form, style, clock, ended: false };
    let frames = futures::stream::unfold(state, |mut writer| async move {
        let bytes = writer.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), writer))
    });
    StreamBody::new(frames.fuse()).boxed_unsync()
}

struct Writer {
    feed: Feed,
    form: Form,
    style: Style,
    clock: Clock,
    ended: bool,
}

impl Writer {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let item = self.feed.next().await?;
        let first = self.encoded(item);
        let Some(second) = self.ready() else { return Some(first) };
        let mut out = Vec::with_capacity(TOGETHER.max(first.len() + second.len()));
        out.extend_from_slice(&first);
        out.extend_from_slice(&second);
        while out.len() < TOGETHER
            && let Some(more) = self.ready()
        {
            out.extend_from_slice(&more);
        }
        Some(Bytes::from(out))
    }

    /// What can be sent without waiting.
    fn ready(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let item = self.feed.ready()?;
        Some(self.encoded(Ok(item)))
    }

    fn encoded(&mut self, item: Result<Item, Status>) -> Bytes {
        match item {
            Ok(Item::Bookmark { revision, initial_end }) => self.bookmark(revision, initial_end),
            Ok(Item::Change { change, entry, event }) => {
                let plain = self.form.shape == Shape::Whole
                    && self.form.format == Format::Json
                    && self.feed.rows().shown.conversion.is_none();
                match event {
                    Some(event) if plain => {
                        event.frame.get_or_init(|| frame(change.as_str(), &entry.value)).clone()
                    }
                    _ if plain => frame(change.as_str(), &entry.value),
                    _ => self.transformed(change, &entry),
                }
            }
            Err(status) => {
                self.ended = true;
                self.error(&status)
            }
        }
    }

    fn transformed(&mut self, change: Change, entry: &Entry) -> Bytes {
        let rows = self.feed.rows().clone();
        let object = rows.shared(entry);
        match self.shaped(&rows, &object) {
            Ok(bytes) => self.wrap(change.as_str(), &bytes),
            Err(status) => {
                self.ended = true;
                self.error(&status)
            }
        }
    }

    fn shaped(&mut self, rows: &Rows, object: &Shared) -> Result<Bytes, Status> {
        match self.form.shape {
            Shape::Whole => Ok(object.bytes.clone()),
            Shape::Metadata { beta } => metadata_of(&object.bytes, beta).map(Bytes::from),
            Shape::Table { beta } => {
                let style = Style { beta, now: self.clock.now(), ..self.style.clone() };
                self.style.headers = false;
                let revision = object.revision.to_string();
                let page = Page { revision: &revision, ..Page::default() };
                table(rows, std::slice::from_ref(object), &page, &style)
            }
        }
    }

    fn wrap(&self, kind: &str, object: &[u8]) -> Bytes {
        let json = frame(kind, object);
        match self.form.format {
            Format::Json => json,
            Format::Yaml => Bytes::from(format!("---\n{}", to_yaml(&json).unwrap_or_default())),
        }
    }

    fn error(&self, status: &Status) -> Bytes {
        self.wrap("ERROR", &status.encode())
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let (kind, version) = match self.form.shape {
            Shape::Whole => (self.feed.rows().shown.kind.clone(), self.feed.rows().shown.api_version()),
            Shape::Metadata { .. } => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            Shape::Table { .. } => ("Table".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let mut metadata = serde_json::json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] =
                serde_json::json!({INITIAL_END: "true", LIST_BLUEPRINT: STANDARD.encode(self.blueprint())});
        }
        let mut object = serde_json::json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        if let Shape::Table { .. } = self.form.shape {
            object["columnDefinitions"] = serde_json::Value::Null;
            object["rows"] = serde_json::json!([]);
        } else {
            object["metadata"]["creationTimestamp"] = serde_json::Value::Null;
        }
        self.wrap("BOOKMARK", object.to_string().as_bytes())
    }

    /// The list, still empty, that a client makes of the initial events, encoded as a list would be.
    fn blueprint(&self) -> Vec<u8> {
        let shown = &self.feed.rows().shown;
        let (kind, version) = match self.form.shape {
            Shape::Metadata { beta } => {
                ("PartialObjectMetadataList".to_owned(), meta_version(beta).to_owned())
            }
            _ => (shown.list_kind(), shown.api_version()),
        };
        let list = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{{}},\"items\":null}}\n"
        );
        match self.form.format {
            Format::Json => list.into_bytes(),
            Format::Yaml => to_yaml(list.as_bytes()).unwrap_or_default().into_bytes(),
        }
    }
}

fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}
