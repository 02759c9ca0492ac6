//! A small API server in memory for unit tests of what works with a [`Transport`]: revisions, conflicts,
//! finalizers, graceful deletion, watches with history. Feature `testing`.
//!
//! It knows no kinds: it defaults, validates and authorizes nothing, and answers 415 to patches that it
//! cannot apply as the API would. Whoever needs more uses the real server through `krate-testing`.

mod objects;
mod watches;

use crate::request::{Body, PatchKind, Reply, Request, Transport, Verb, WatchStream};
use async_trait::async_trait;
use krate_api::{Kind, Reason, Shared, Status};
use krate_base::{Clock, Rng};
use objects::Stored;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Decides whether a request fails before it does anything.
type Fault = Box<dyn FnMut(&Request) -> Option<Status> + Send>;

/// A handle on a server; clones share it.
#[derive(Clone)]
pub struct Fake(Arc<Inner>);

struct Inner {
    clock: Clock,
    rng: Rng,
    state: Mutex<State>,
    /// The last revision, and the number of times that all watches were broken.
    moved: watch::Sender<(u64, u64)>,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// By resource (`deployments.apps`), then key.
    objects: BTreeMap<String, BTreeMap<String, Stored>>,
    history: Vec<Logged>,
    /// Watches from before this revision are told that it has expired.
    compacted: u64,
    fault: Option<Fault>,
    writes: Vec<String>,
}

struct Logged {
    revision: u64,
    resource: String,
    old: Option<Shared>,
    new: Option<Shared>,
    /// For a deletion: the last state with the deletion's revision.
    last: Option<Shared>,
}

impl Fake {
    #[must_use]
    pub fn new(clock: Clock, rng: Rng) -> Self {
        // No real server is ever at revision 0, which in a request means "any".
        let state = State { revision: 1, ..State::default() };
        Self(Arc::new(Inner { clock, rng, state: Mutex::new(state), moved: watch::Sender::new((1, 0)) }))
    }

    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(self.clone())
    }

    /// Every request is shown to `fault` first, which may answer it with a failure.
    pub fn fail(&self, fault: impl FnMut(&Request) -> Option<Status> + Send + 'static) {
        self.0.state.lock().fault = Some(Box::new(fault));
    }

    pub fn heal(&self) {
        self.0.state.lock().fault = None;
    }

    /// Ends all watches, as a restart of the server would.
    pub fn break_watches(&self) {
        self.0.moved.send_modify(|(_, breaks)| *breaks += 1);
    }

    /// Forgets the history: watches can go on only from the present.
    pub fn compact(&self) {
        let mut state = self.0.state.lock();
        state.compacted = state.revision;
        state.history.clear();
    }

    /// Stores an object as it is, status and all, whatever was there before.
    pub fn put<K: Kind>(&self, object: &K) -> Arc<K> {
        let value = object.to_value();
        let shared = self.0.state.lock().store_raw(&resource(K::GROUP, K::PLURAL), value, &self.0);
        self.announce();
        shared.typed().expect("what was encoded as a kind is of the kind")
    }

    #[must_use]
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = krate_api::object::key(namespace, name);
        let state = self.0.state.lock();
        let stored = state.objects.get(&resource(K::GROUP, K::PLURAL))?.get(&key)?;
        Some(stored.shared.typed().expect("a test stores objects of their kind"))
    }

    /// All objects of a kind, ordered by key.
    #[must_use]
    pub fn list<K: Kind>(&self) -> Vec<Arc<K>> {
        let state = self.0.state.lock();
        let all = state.objects.get(&resource(K::GROUP, K::PLURAL));
        let typed = |s: &Stored| s.shared.typed().expect("a test stores objects of their kind");
        all.into_iter().flat_map(|m| m.values()).map(typed).collect()
    }

    /// Removes an object at once, finalizers or not.
    pub fn remove<K: Kind>(&self, namespace: &str, name: &str) {
        let key = krate_api::object::key(namespace, name);
        self.0.state.lock().remove(&resource(K::GROUP, K::PLURAL), &key);
        self.announce();
    }

    /// The writes so far, as `create pods default/web`. Taking them begins a new count.
    #[must_use]
    pub fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state.lock().writes)
    }

    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.state.lock().revision
    }

    fn announce(&self) {
        let revision = self.0.state.lock().revision;
        self.0.moved.send_if_modified(|(at, _)| std::mem::replace(at, revision) != revision);
    }
}

fn resource(group: &str, plural: &str) -> String {
    krate_api::status::qualified(group, plural)
}

#[async_trait]
impl Transport for Fake {
    async fn send(&self, request: Request) -> Result<Reply, Status> {
        // Over any real transport other tasks run before the answer comes.
        tokio::task::yield_now().await;
        let reply = {
            let mut state = self.0.state.lock();
            if let Some(status) = state.fault.as_mut().and_then(|fault| fault(&request)) {
                return Err(status);
            }
            state.handle(request, &self.0)
        };
        self.announce();
        reply
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, Status> {
        tokio::task::yield_now().await;
        if let Some(status) = self.0.state.lock().fault.as_mut().and_then(|fault| fault(&request)) {
            return Err(status);
        }
        watches::open(self.clone(), &request)
    }
}

impl State {
    fn handle(&mut self, request: Request, inner: &Inner) -> Result<Reply, Status> {
        let resource = resource(&request.group, &request.plural);
        let key = krate_api::object::key(&request.namespace, &request.name);
        if !matches!(request.verb, Verb::Get | Verb::List) {
            let verb = format!("{:?}", request.verb).split('(').next().unwrap_or_default().to_lowercase();
            let sub = if request.subresource.is_empty() { "" } else { "/" };
            self.writes.push(format!("{verb} {resource}{sub}{} {key}", request.subresource));
        }
        match request.verb {
            Verb::List => self.list(&resource, &request),
            Verb::Create if !request.subresource.is_empty() => {
                self.create_at(&request, &resource, &key, inner)
            }
            Verb::Create => self.create(&request, &resource, inner),
            Verb::DeleteCollection => self.delete_collection(&request, &resource, inner),
            Verb::Get => Ok(Reply::Object(self.find(&request, &resource, &key)?.shared.clone())),
            Verb::Update => {
                let body = body(&request)?;
                self.update(&request, &resource, &key, body)
            }
            Verb::Patch(kind) => {
                let patch = body(&request)?;
                let mut value = self.find(&request, &resource, &key)?.value.clone();
                if kind == PatchKind::Merge || (kind == PatchKind::StrategicMerge && !has_lists(&patch)) {
                    objects::merge(&mut value, &patch);
                } else if kind == PatchKind::Json {
                    objects::json_patch(&mut value, &patch)?;
                } else {
                    let message = "the in-memory server cannot apply this patch";
                    return Err(Status::failure(Reason::UnsupportedMediaType, message));
                }
                self.update(&request, &resource, &key, value)
            }
            Verb::Delete => self.delete(&request, &resource, &key, inner),
        }
    }
}

fn body(request: &Request) -> Result<Value, Status> {
    let bytes = match &request.body {
        Some(Body::Object(object)) => object.encode().into(),
        Some(Body::Bytes(bytes)) => bytes.clone(),
        None => return Err(Status::bad_request("a body is needed")),
    };
    serde_json::from_slice(&bytes).map_err(|e| Status::bad_request(e.to_string()))
}

fn has_lists(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(map) => map.values().any(has_lists),
        _ => false,
    }
}
