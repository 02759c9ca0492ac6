//! Bodies to objects and objects to what the store keeps: one parse, one encoding.
//!
//! Nothing here decides; it reads, writes and says in the original's words what could not be read.

use bytes::Bytes;
use krate_api::encode::Encoded;
use krate_api::{Object, Resource, Shared, Status, View};
use krate_store::{Entry, Value};
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many written values are kept for their readers; a pod's is about 10 KiB.
const WARM: usize = 512;

/// Makes what is stored of objects.
pub(crate) struct Encoder {
    /// A value that no request can contain, to find the place of the revision in an encoding.
    nonce: String,
    warm: Warm,
}

impl Encoder {
    pub fn new(rng: &krate_base::Rng) -> Self {
        Self { nonce: format!("krate-{:016x}", rng.next_u64()), warm: Warm::default() }
    }

    /// The value to store: encoded once, with an empty `resourceVersion` that the store fills, and with
    /// what selection needs beside it.
    pub fn value(&self, rows: &Rows, object: Box<dyn Object>) -> Value {
        let mut stored = match rows.shown.conversion {
            Some(conversion) => (conversion.to_stored)(&*object),
            None => object,
        };
        stored.meta_mut().resource_version = Some(self.nonce.clone());
        let Encoded { mut bytes, altered } = stored.encoded();
        stored.meta_mut().resource_version = None;
        let place = memchr::memmem::find(&bytes, self.nonce.as_bytes());
        if let Some(at) = place {
            bytes.drain(at..at + self.nonce.len());
        }
        debug_assert!(altered || reads_as(rows, &bytes, &*stored), "an encoding reads as another object");
        let fields = rows.stored.behaviour.fields(&*stored);
        // Events are many, and nobody in the process reads them.
        let view = if rows.stored.space == "events" {
            Arc::new(View::of(&*stored, fields))
        } else {
            self.warm.keep(View::warm(stored, !altered, fields))
        };
        Value { bytes: Bytes::from(bytes), stamp_at: place, note: Some(view) }
    }
}

/// Whether an encoding reads as an object, whatever the revision.
fn reads_as(rows: &Rows, bytes: &[u8], object: &dyn Object) -> bool {
    let Ok(mut read) = (rows.stored.codec.decode)(bytes) else { return false };
    read.meta_mut().resource_version = None;
    read.equals(object)
}

/// The values of the newest writes: informers and the next writers of an object take them as they are instead of
/// parsing what was just encoded.
#[derive(Default)]
struct Warm(Mutex<VecDeque<Arc<View>>>);

impl Warm {
    fn keep(&self, view: View) -> Arc<View> {
        let view = Arc::new(view);
        let mut kept = self.0.lock();
        let oldest = if kept.len() < WARM { None } else { kept.pop_front() };
        kept.push_back(view.clone());
        drop(kept);
        if let Some(oldest) = oldest {
            oldest.cool();
        }
        view
    }
}

/// An older version of an object with a later revision written into it: what a watcher is shown when an
/// object ceases to match.
pub(crate) fn at_revision(entry: &Entry, revision: u64) -> Arc<Entry> {
    let (Some(cut), Some((at, _))) = (restamped(entry), entry.stamp) else {
        let note = entry.note(|e| Arc::new(View::parse(&e.value).map(|(v, _)| v).unwrap_or_default()));
        let (key, value) = (entry.key.clone(), entry.value.clone());
        return Arc::new(Entry::new(key, value, entry.created, revision, None, Some(note.clone())));
    };
    let text = revision.to_string();
    let mut bytes = cut.bytes.to_vec();
    bytes.splice(at..at, text.bytes());
    let stamp = Some((at, text.len()));
    Arc::new(Entry::new(entry.key.clone(), bytes.into(), entry.created, revision, stamp, cut.note))
}

/// The row that a request is about, and the row of what its space holds (the same, but where one space is
/// shown in two shapes).
#[derive(Clone)]
pub(crate) struct Rows {
    pub shown: Arc<Resource>,
    pub stored: Arc<Resource>,
}

impl Rows {
    pub fn of(catalogue: &krate_api::Catalogue, shown: &Arc<Resource>) -> Self {
        let stored = if shown.conversion.is_some() {
            catalogue.iter().find(|r| r.space == shown.space && r.conversion.is_none()).unwrap_or(shown)
        } else {
            shown
        };
        Self { shown: shown.clone(), stored: stored.clone() }
    }

    fn stored_view(&self, object: &dyn Object) -> View {
        View::of(object, self.stored.behaviour.fields(object))
    }

    /// What selection needs of an entry: no parse but after a restart.
    pub fn view(&self, entry: &Entry) -> Arc<View> {
        let note = entry.note(|e| Arc::new(self.parse_view(&e.value)));
        note.clone().downcast::<View>().unwrap_or_else(|_| Arc::new(self.parse_view(&entry.value)))
    }

    fn parse_view(&self, bytes: &[u8]) -> View {
        match (self.stored.codec.decode)(bytes) {
            Ok(object) => self.stored_view(&*object),
            Err(_) => View::parse(bytes).map(|(view, _)| view).unwrap_or_default(),
        }
    }

    /// The shared form of a stored entry: no copy but where the shapes differ.
    pub fn shared(&self, entry: &Entry) -> Shared {
        Shared { bytes: self.bytes(entry), revision: entry.modified, view: self.view(entry) }
    }

    /// The bytes of an entry as the row shows them.
    pub fn bytes(&self, entry: &Entry) -> Bytes {
        match self.shown.conversion {
            Some(c) => {
                (c.from_stored)(&entry.value).map_or_else(|_| entry.value.clone(), |o| o.encode().into())
            }
            None => entry.value.clone(),
        }
    }

    /// The object that an entry holds, as the row shows it.
    fn decode(&self, entry: &Entry) -> Result<Box<dyn Object>, Status> {
        let read = match self.shown.conversion {
            Some(c) => (c.from_stored)(&entry.value),
            None => (self.shown.codec.decode)(&entry.value),
        };
        read.map_err(|e| Status::internal(format!("unable to decode {}: {e}", entry.key.path)))
    }

    /// The object that an entry holds, to change.
    pub fn copy(&self, entry: &Entry) -> Result<Box<dyn Object>, Status> {
        if self.shown.conversion.is_none()
            && let Some(object) = self.shared(entry).at_hand()
        {
            let mut copy = object.boxed_clone();
            copy.meta_mut().resource_version = Some(entry.modified.to_string());
            return Ok(copy);
        }
        self.decode(entry)
    }

    /// The object that an entry holds, to look at: no decoding while an informer of this process holds it.
    pub fn held(&self, entry: &Entry) -> Result<Arc<dyn Object>, Status> {
        if self.shown.conversion.is_some() {
            return self.decode(entry).map(Arc::from);
        }
        (self.shown.codec.held)(&self.shared(entry))
            .map_err(|e| Status::internal(format!("unable to decode {}: {e}", entry.key.path)))
    }

    /// The shared form of an object that was not stored (dry run).
    pub fn unstored(&self, object: &dyn Object, revision: u64) -> Shared {
        let view = View::of(object, Vec::new());
        Shared { bytes: Bytes::from(object.encode()), revision, view: Arc::new(view) }
    }
}

/// What a stored entry looks like with the revision cut out again: the last state of a deletion.
pub(crate) fn restamped(entry: &Entry) -> Option<Value> {
    let (at, len) = entry.stamp?;
    let mut bytes = Vec::with_capacity(entry.value.len());
    bytes.extend_from_slice(&entry.value[..at]);
    bytes.extend_from_slice(&entry.value[at + len..]);
    let note = entry.note(|e| Arc::new(View::parse(&e.value).map(|(v, _)| v).unwrap_or_default())).clone();
    Some(Value { bytes: Bytes::from(bytes), stamp_at: Some(at), note: Some(note) })
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    api_version: String,
    kind: String,
}

/// Go's name of the package of a group's internal types.
fn internal_package(group: &str) -> &str {
    group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core")
}

/// Where the original keeps the kinds that it knows; its errors say so.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// Why a body that says of which kind it is cannot be an object of another.
pub(crate) enum HeadFault {
    /// It is of a kind that there is not, or of one that cannot become the wanted one; with the kind and version that
    /// it says, and the error.
    Kind(String, String, String),
    /// It is of the wanted kind in another group or version.
    Version(Status),
}

/// Whether a body says that it is of another kind than it should be.
pub(crate) fn head_fault(group: &str, version: &str, kind: &str, bytes: &[u8]) -> Option<HeadFault> {
    let mut head = serde_json::from_slice::<Head>(bytes).ok()?;
    let wanted = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    if head.api_version.is_empty() {
        head.api_version.clone_from(&wanted);
    }
    if head.kind.is_empty() {
        head.kind = kind.to_owned();
    }
    if head.api_version == wanted && head.kind == kind {
        return None;
    }
    let (said_group, said_version) = head.api_version.split_once('/').unwrap_or(("", &head.api_version));
    let error = if krate_api::schema::of_kind(said_group, said_version, &head.kind).is_none() {
        format!(
            "no kind {:?} is registered for version {:?} in scheme {SCHEME:?}",
            head.kind, head.api_version
        )
    } else if head.kind != kind {
        let package = internal_package(group);
        format!("converting ({said_version}.{}) to ({package}.{kind}): unknown conversion", head.kind)
    } else {
        let said = &head.api_version;
        return Some(HeadFault::Version(Status::bad_request(format!(
            "the API version in the data ({said}) does not match the expected API version ({wanted})"
        ))));
    };
    Some(HeadFault::Kind(head.kind.clone(), said_version.to_owned(), error))
}

/// [`head_fault`] as the answer to a body.
pub(crate) fn check_head(group: &str, version: &str, kind: &str, bytes: &[u8]) -> Result<(), Status> {
    match head_fault(group, version, kind, bytes) {
        None => Ok(()),
        Some(HeadFault::Version(status)) => Err(status),
        Some(HeadFault::Kind(said, version, error)) => {
            Err(krate_api::strict::cannot_be_handled(&said, &version, kind, &error))
        }
    }
}

/// Reads encoded bytes of ours or of a patch that has been checked.
pub(crate) fn decode(resource: &Resource, bytes: &[u8]) -> Result<Box<dyn Object>, Status> {
    (resource.codec.decode)(bytes).map_err(|e| {
        krate_api::strict::cannot_be_handled(
            &resource.kind,
            &resource.version,
            &resource.kind,
            &e.to_string(),
        )
    })
}
