//! The ConfigMaps and Secrets that this node's pods refer to: each is watched by itself, for as long as a
//! pod needs it, so that the node needs no right to see any other.

use crate::env::{self, Referenced};
use crate::spec;
use crate::volumes;
use krate_api::Kind;
use krate_api::types::core::v1::{ConfigMap, Pod, Secret};
use krate_base::Supervisor;
use krate_client::informer::{Informer, Informers, Source};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Tells a pod's worker that something it refers to has changed.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Namespace and name.
type Name = (String, String);

struct Watched<K: Kind> {
    informer: Informer<K>,
    /// Wakers by pod uid.
    pods: Arc<Mutex<BTreeMap<String, Wake>>>,
}

struct Kept<K: Kind>(Mutex<HashMap<Name, Watched<K>>>);

impl<K: Kind> Default for Kept<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// What informers are started with.
#[derive(Clone)]
struct Start {
    informers: Informers,
    supervisor: Supervisor,
}

impl<K: Kind> Kept<K> {
    /// Makes the pod wait for exactly `names` of its namespace.
    fn hold(&self, start: &Start, namespace: &str, uid: &str, names: &BTreeSet<String>, wake: &Wake) {
        let mut all = self.0.lock();
        for name in names {
            let watched = all
                .entry((namespace.to_owned(), name.clone()))
                .or_insert_with(|| watch::<K>(start, namespace, name));
            watched.pods.lock().insert(uid.to_owned(), wake.clone());
        }
        all.retain(|(within, name), watched| {
            let mut pods = watched.pods.lock();
            if within == namespace && !names.contains(name) {
                pods.remove(uid);
            }
            if pods.is_empty() {
                watched.informer.stop();
            }
            !pods.is_empty()
        });
    }

    /// The present objects, or `None` while one of them has not been read yet.
    fn get(&self, namespace: &str, names: &BTreeSet<String>) -> Option<BTreeMap<String, Arc<K>>> {
        let all = self.0.lock();
        let mut out = BTreeMap::new();
        for name in names {
            let informer = &all.get(&(namespace.to_owned(), name.clone()))?.informer;
            if !informer.has_synced() {
                return None;
            }
            out.extend(informer.get(&krate_api::object::key(namespace, name)).map(|o| (name.clone(), o)));
        }
        Some(out)
    }
}

fn watch<K: Kind>(start: &Start, namespace: &str, name: &str) -> Watched<K> {
    let source = Source::of::<K>().namespace(namespace).fields(&format!("metadata.name={name}"));
    let informer = start.informers.own(source);
    let pods: Arc<Mutex<BTreeMap<String, Wake>>> = Arc::default();
    let (told, first) = (pods.clone(), informer.clone());
    let tell = move || {
        let wakers: Vec<Wake> = told.lock().values().cloned().collect();
        wakers.iter().for_each(|wake| wake());
    };
    let changed = tell.clone();
    informer.subscribe(move |_, _| changed());
    let stop = start.supervisor.shutdown();
    start.supervisor.spawn(async move {
        // An object that does not exist causes no event: the end of the first list is one.
        if stop.run_until_cancelled(first.synced()).await.is_some() {
            tell();
        }
    });
    Watched { informer, pods }
}

/// Names by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

/// Everything that a pod refers to: for variables, for volumes, for pulling its images.
pub fn names(pod: &Pod) -> Names {
    let (env_maps, env_secrets) = env::references(pod);
    let (volume_maps, volume_secrets) = volumes::references(pod);
    let pull = spec::spec(pod).image_pull_secrets.iter().flatten().map(|s| s.name.clone());
    let named = |list: Vec<String>| list.into_iter().filter(|n| !n.is_empty());
    Names {
        config_maps: named(env_maps).chain(named(volume_maps)).collect(),
        secrets: named(env_secrets)
            .chain(named(volume_secrets))
            .chain(pull.filter(|n| !n.is_empty()))
            .collect(),
    }
}

/// All references of the node.
pub struct References {
    start: Start,
    config_maps: Kept<ConfigMap>,
    secrets: Kept<Secret>,
}

impl References {
    pub fn new(informers: &Informers, supervisor: &Supervisor) -> Self {
        let start = Start { informers: informers.clone(), supervisor: supervisor.clone() };
        Self { start, config_maps: Kept::default(), secrets: Kept::default() }
    }

    /// Follows what the pod refers to; `wake` is called when any of it has been read or has changed.
    pub fn hold(&self, pod: &Pod, wake: &Wake) {
        let names = names(pod);
        let (namespace, uid) = (spec::namespace(pod), spec::uid(pod));
        self.config_maps.hold(&self.start, namespace, uid, &names.config_maps, wake);
        self.secrets.hold(&self.start, namespace, uid, &names.secrets, wake);
    }

    /// What the pod refers to, or `None` while some of it has not been read yet.
    pub fn get(&self, pod: &Pod) -> Option<Referenced> {
        let names = names(pod);
        Some(Referenced {
            config_maps: self.config_maps.get(spec::namespace(pod), &names.config_maps)?,
            secrets: self.secrets.get(spec::namespace(pod), &names.secrets)?,
            files: Default::default(),
        })
    }

    /// Stops following for a pod that is over.
    pub fn release(&self, namespace: &str, uid: &str) {
        let (none, wake): (BTreeSet<String>, Wake) = (BTreeSet::new(), Arc::new(|| {}));
        self.config_maps.hold(&self.start, namespace, uid, &none, &wake);
        self.secrets.hold(&self.start, namespace, uid, &none, &wake);
    }
}
