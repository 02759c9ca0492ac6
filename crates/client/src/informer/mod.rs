//! Informers: a cache of a collection that follows it by watching, and tells handlers what changed.
//!
//! An informer lists, then watches from the list's revision; a broken watch goes on from the last revision
//! that was delivered, and only an expired one lists again. Handlers hear of every difference between two
//! states of the cache, in order, exactly once; what came and went while the watch was broken beyond
//! history is compressed, never invented. The same promises hold over every [`Transport`].
//!
//! What is kept is a [`View`]: for a kind the typed value (shared with all others in the process who hold
//! it), for big collections a slim struct of the fields that a component reads.
//!
//! An object that a view cannot read is logged and counted (`informer_undecodable_objects_total`); its last
//! readable state stays in the cache until the object changes or goes.

mod reflect;
mod store;
#[cfg(test)]
mod tests;

pub use store::Index;

use crate::request::{Options, Request, Transport, Verb};
use krate_api::object::DecodeError;
use krate_api::{Kind, Resource, Shared};
use krate_base::metrics::Metrics;
use krate_base::{Rng, Shutdown, Supervisor};
use parking_lot::{Mutex, RwLock};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use store::Store;

/// What an informer keeps of an object.
pub trait View: Sized + Send + Sync + 'static {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError>;
}

impl<K: Kind> View for K {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        object.kept()
    }
}

/// The encoded object itself, for those who decode when they need to.
#[derive(Clone, Debug)]
pub struct Raw(pub Shared);

impl View for Raw {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        Ok(Arc::new(Self(object.clone())))
    }
}

impl std::ops::Deref for Raw {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Which collection is followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Source {
    pub group: String,
    pub version: String,
    pub plural: String,
    /// Empty for all namespaces.
    pub namespace: String,
    pub label_selector: String,
    pub field_selector: String,
}

impl Source {
    /// All objects of kind `K`.
    #[must_use]
    pub fn of<K: Kind>() -> Self {
        Self::named(K::GROUP, K::VERSION, K::PLURAL)
    }

    /// All objects of a resource of the catalogue.
    #[must_use]
    pub fn resource(resource: &Resource) -> Self {
        Self::named(&resource.group, &resource.version, &resource.plural)
    }

    #[must_use]
    pub fn named(group: &str, version: &str, plural: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.to_owned();
        self
    }

    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.label_selector = selector.to_owned();
        self
    }

    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.field_selector = selector.to_owned();
        self
    }

    fn request(&self, options: Options) -> Request {
        Request {
            verb: Verb::List,
            group: self.group.clone(),
            version: self.version.clone(),
            plural: self.plural.clone(),
            namespace: self.namespace.clone(),
            name: String::new(),
            subresource: String::new(),
            options: Options {
                label_selector: self.label_selector.clone(),
                field_selector: self.field_selector.clone(),
                ..options
            },
            body: None,
        }
    }

    fn qualified(&self) -> String {
        krate_api::status::qualified(&self.group, &self.plural)
    }
}

/// Called with the old and the new state: `(None, Some)` for an addition, `(Some, None)` for a deletion.
type Handler<V> = Box<dyn Fn(Option<&Arc<V>>, Option<&Arc<V>>) + Send + Sync>;

/// A handle on an informer; clones share it.
pub struct Informer<V: View>(Arc<Inner<V>>);

impl<V: View> Clone for Informer<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<V: View> {
    source: Source,
    reach: Arc<Reach>,
    store: RwLock<Store<V>>,
    /// Held while a change is applied and told, so that a new subscriber misses and repeats nothing.
    handlers: Mutex<Vec<Handler<V>>>,
    /// Ends when the first list has been told. Who waits is woken in the order of asking.
    synced: Shutdown,
    stop: Shutdown,
}

impl<V: View> Informer<V> {
    /// Starts it. It runs until the supervisor's shutdown or [`Informer::stop`].
    fn start(source: Source, reach: &Arc<Reach>) -> Self {
        let supervisor = &reach.supervisor;
        let inner = Arc::new(Inner {
            source,
            reach: reach.clone(),
            store: RwLock::new(Store::new()),
            handlers: Mutex::new(vec![]),
            synced: Shutdown::new(),
            stop: supervisor.shutdown().child_token(),
        });
        let task = inner.clone();
        supervisor.component(&format!("informer {}", inner.source.qualified()), move |_| {
            let inner = task.clone();
            async move {
                let stop = inner.stop.clone();
                stop.run_until_cancelled(reflect::run(&inner)).await;
                Ok::<(), std::convert::Infallible>(())
            }
        });
        Self(inner)
    }

    /// The object of a key (`namespace/name`, or `name`).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<V>> {
        self.0.store.read().get(key)
    }

    /// All objects, ordered by key.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<V>> {
        self.0.store.read().list()
    }

    /// The objects of one namespace, ordered by name. All of them when it is empty.
    #[must_use]
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<V>> {
        self.0.store.read().list_in(namespace)
    }

    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.0.store.read().keys()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.store.read().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A secondary index: each object is found under every value that `values` gives for it. Asking again
    /// for an index of the same name gives the first one.
    pub fn index(
        &self,
        name: &'static str,
        values: impl Fn(&V) -> Vec<String> + Send + Sync + 'static,
    ) -> Index<V> {
        let slot = self.0.store.write().index(name, Box::new(values));
        Index { informer: self.clone(), slot }
    }

    /// Calls `handler` with every object there is now, as additions, and then with every change. It is
    /// called from the informer's task and must be quick (typically it enqueues a key); it may read the
    /// informer but not subscribe to it.
    pub fn subscribe(&self, handler: impl Fn(Option<&Arc<V>>, Option<&Arc<V>>) + Send + Sync + 'static) {
        let mut handlers = self.0.handlers.lock();
        for object in self.list() {
            handler(None, Some(&object));
        }
        handlers.push(Box::new(handler));
    }

    /// Returns when the first list has been applied and told to the handlers.
    pub async fn synced(&self) {
        self.0.synced.cancelled().await;
    }

    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.0.synced.is_cancelled()
    }

    /// Ends the informer for all who share it. Its cache stays as it is.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }
}

/// The informers of one process: one per collection and view, shared by all who ask for it.
#[derive(Clone)]
pub struct Informers(Arc<Factory>);

struct Factory {
    reach: Arc<Reach>,
    started: Mutex<HashMap<(TypeId, Source), Box<dyn Any + Send>>>,
}

/// What every informer of a process needs to follow its collection.
struct Reach {
    transport: Arc<dyn Transport>,
    rng: Rng,
    metrics: Metrics,
    supervisor: Supervisor,
    recovered: reflect::Recovered,
}

impl Informers {
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, rng: Rng, metrics: Metrics, supervisor: Supervisor) -> Self {
        let recovered = reflect::Recovered::default();
        let reach = Arc::new(Reach { transport, rng, metrics, supervisor, recovered });
        Self(Arc::new(Factory { reach, started: Mutex::default() }))
    }

    /// The informer of a collection, started if nobody asked for it before.
    #[must_use]
    pub fn get<V: View>(&self, source: Source) -> Informer<V> {
        let mut started = self.0.started.lock();
        let slot = started
            .entry((TypeId::of::<V>(), source.clone()))
            .or_insert_with(|| Box::new(Informer::<V>::start(source, &self.0.reach)));
        slot.downcast_ref::<Informer<V>>().expect("the slot's key holds the view's type").clone()
    }

    /// An informer that is shared with nobody, so that it may be stopped.
    #[must_use]
    pub fn own<V: View>(&self, source: Source) -> Informer<V> {
        Informer::start(source, &self.0.reach)
    }

    /// The informer of all objects of a kind.
    #[must_use]
    pub fn of<K: Kind>(&self) -> Informer<K> {
        self.get(Source::of::<K>())
    }
}
