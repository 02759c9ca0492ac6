//! Claims, volumes and storage classes as the scheduler knows them: what the API says, and over it what the
//! scheduler has decided and not yet written (assumed).
//!
//! Plugins read it while they look at a pod; the informers write it. An assumption ends when it is taken back
//! or when the API says what it said.

use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use krate_api::types::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use krate_api::{Kind, Object};
use krate_client::{Api, Transport};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// Objects of one kind by their keys.
type Map<K> = HashMap<String, Arc<K>>;

/// Everything that is known.
#[derive(Default)]
pub struct State {
    claims: Map<PersistentVolumeClaim>,
    volumes: Map<PersistentVolume>,
    classes: Map<StorageClass>,
    nodes: Map<CSINode>,
    drivers: Map<CSIDriver>,
    capacities: Map<CSIStorageCapacity>,
    /// Volumes that are meant for a claim (its key and uid), before the API says so.
    taken: HashMap<String, (String, String)>,
}

/// Clients for what binding writes.
pub struct Writers {
    pub claims: Api<PersistentVolumeClaim>,
    pub volumes: Api<PersistentVolume>,
    pub pods: Api<Pod>,
}

struct Inner {
    state: RwLock<State>,
    writers: OnceLock<Writers>,
    /// Grows with every change.
    changes: watch::Sender<u64>,
}

/// Shared by the plugins of all profiles.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

impl Default for Storage {
    fn default() -> Self {
        Self(Arc::new(Inner {
            state: RwLock::default(),
            writers: OnceLock::new(),
            changes: watch::Sender::new(0),
        }))
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

/// A kind that is kept here.
pub trait Kept: Kind {
    #[doc(hidden)]
    fn map(state: &mut State) -> &mut HashMap<String, Arc<Self>>;
}

macro_rules! kept {
    ($($kind:ty, $field:ident;)+) => {$(
        impl Kept for $kind {
            fn map(state: &mut State) -> &mut HashMap<String, Arc<Self>> {
                &mut state.$field
            }
        }
    )+};
}
kept! {
    PersistentVolumeClaim, claims;
    PersistentVolume, volumes;
    StorageClass, classes;
    CSINode, nodes;
    CSIDriver, drivers;
    CSIStorageCapacity, capacities;
}

impl Storage {
    /// Says by whom binding writes. Only the first call counts.
    pub fn write_through(&self, transport: &Arc<dyn Transport>) {
        let api = || transport.clone();
        let writers = Writers { claims: Api::new(api()), volumes: Api::new(api()), pods: Api::new(api()) };
        let _ = self.0.writers.set(writers);
    }

    #[must_use]
    pub fn writers(&self) -> Option<&Writers> {
        self.0.writers.get()
    }

    /// Takes over what the API says of an object.
    pub fn set<K: Kept>(&self, key: &str, object: Option<Arc<K>>) {
        let mut state = self.0.state.write();
        match object {
            Some(object) => drop(K::map(&mut state).insert(key.to_owned(), object)),
            None => drop(K::map(&mut state).remove(key)),
        }
        drop(state);
        self.0.changes.send_modify(|n| *n += 1);
    }

    /// Learns of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    #[must_use]
    pub fn claim(&self, key: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.0.state.read().claims.get(key).cloned()
    }

    #[must_use]
    pub fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.0.state.read().volumes.get(name).cloned()
    }

    #[must_use]
    pub fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.0.state.read().classes.get(name).cloned()
    }

    #[must_use]
    pub fn csi_node(&self, name: &str) -> Option<Arc<CSINode>> {
        self.0.state.read().nodes.get(name).cloned()
    }

    #[must_use]
    pub fn driver(&self, name: &str) -> Option<Arc<CSIDriver>> {
        self.0.state.read().drivers.get(name).cloned()
    }

    /// What drivers say that they can still provide for a class.
    #[must_use]
    pub fn capacities(&self, class: &str) -> Vec<Arc<CSIStorageCapacity>> {
        let state = self.0.state.read();
        state.capacities.values().filter(|c| c.storage_class_name == class).cloned().collect()
    }

    /// The volumes of a class that a claim may have: not those that are meant for another one.
    #[must_use]
    pub fn volumes_for(&self, class: &str, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
        let state = self.0.state.read();
        let uid = claim.meta().uid.as_deref().unwrap_or_default();
        let meant = |name: &String| state.taken.get(name).is_none_or(|(_, of)| of == uid);
        let of_class = state
            .volumes
            .iter()
            .filter(|(name, v)| krate_api::volumes::class_of_volume(v) == class && meant(name));
        of_class.map(|(_, volume)| volume.clone()).collect()
    }

    /// Takes a volume to be meant for a claim. False if another claim has it.
    #[must_use]
    pub fn take(&self, volume: &str, claim: &str, uid: &str) -> bool {
        let mut state = self.0.state.write();
        let entry = state.taken.entry(volume.to_owned());
        entry.or_insert_with(|| (claim.to_owned(), uid.to_owned())).1 == uid
    }

    /// Ends all that was assumed for a claim.
    pub fn give_back(&self, uid: &str) {
        self.0.state.write().taken.retain(|_, (_, of)| of != uid);
    }
}
