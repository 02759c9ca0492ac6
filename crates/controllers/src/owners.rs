//! Owners of pods: their informer, their queue, what they expect of their pods, and who is woken by what.
//!
//! A change of an owner wakes it; a change of a pod wakes the pod's owner and meets its expectations; a pod
//! without an owner wakes all that would want it.

use crate::env::Env;
use crate::meta;
use crate::pods::{self, PodView, Wake};
use krate_api::Kind;
use krate_api::labels::Selector;
use krate_api::meta::OwnerReference;
use krate_client::{Expectations, Informer, Queue};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The owners of one kind.
pub struct Owners<K: Kind> {
    pub informer: Informer<K>,
    pub queue: Queue,
    pub expectations: Expectations,
    /// Owners (by uid) that the API says are gone although the cache still has them.
    gone: Mutex<BTreeSet<String>>,
    /// The pods that an owner wants; none of an owner whose selector is malformed.
    selector: fn(&K) -> Option<Selector>,
}

impl<K: Kind> Owners<K> {
    /// Watches the owners, and pods for them.
    pub fn watch(
        env: &Env,
        queue: &str,
        pods: &Informer<PodView>,
        selector: fn(&K) -> Option<Selector>,
    ) -> Arc<Self> {
        let owners = Arc::new(Self {
            informer: env.informers.of::<K>(),
            queue: env.queue(queue),
            expectations: Expectations::default(),
            gone: Mutex::default(),
            selector,
        });
        let o = owners.clone();
        owners.informer.subscribe(move |old, new| o.owner_changed(old, new));
        let o = owners.clone();
        pods.subscribe(move |old, new| pods::wakes(old, new, |wake| o.wake(&wake)));
        owners
    }

    fn owner_changed(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        if let (Some(gone), None) = (old, new) {
            self.expectations.forget(&meta::key(gone.meta()));
            self.gone.lock().remove(meta::uid(gone.meta()));
        }
        if let Some(owner) = new.or(old) {
            self.queue.add(meta::key(owner.meta()));
        }
    }

    /// The API says that an owner is not there. Nothing more is to be made for it, or its controller and the
    /// garbage collector would chase each other until the cache catches up.
    pub fn say_gone(&self, owner: &K) {
        self.gone.lock().insert(meta::uid(owner.meta()).to_owned());
    }

    /// Whether only the cache still has an owner.
    #[must_use]
    pub fn is_gone(&self, owner: &K) -> bool {
        self.gone.lock().contains(meta::uid(owner.meta()))
    }

    fn wake(&self, wake: &Wake) {
        match wake {
            Wake::Created(owner, pod) => {
                if let Some(key) = self.key_of(owner, pod.namespace()) {
                    self.expectations.creation_observed(&key);
                    self.queue.add(key);
                }
            }
            Wake::Deleted(owner, pod) => {
                if let Some(key) = self.key_of(owner, pod.namespace()) {
                    self.expectations.deletion_observed(&key, pod.uid());
                    self.queue.add(key);
                }
            }
            Wake::Changed(owner, pod) => {
                if let Some(key) = self.key_of(owner, pod.namespace()) {
                    self.queue.add(key);
                }
            }
            Wake::Orphan(pod) => self.wake_all(pod.namespace(), &pod.metadata.labels),
        }
    }

    /// Wakes every owner in the namespace that wants an object with these labels.
    pub fn wake_all(&self, namespace: &str, labels: &krate_api::labels::Labels) {
        for owner in self.informer.list_in(namespace) {
            if (self.selector)(&owner).is_some_and(|s| s.matches(labels)) {
                self.queue.add(meta::key(owner.meta()));
            }
        }
    }

    /// The key of the owner that an object refers to, if it is one of ours and still the same.
    #[must_use]
    pub fn key_of(&self, owner: &OwnerReference, namespace: &str) -> Option<String> {
        let key = krate_api::object::key(namespace, &owner.name);
        let known = meta::refers_to::<K>(owner)
            && self.informer.get(&key).is_some_and(|o| meta::uid(o.meta()) == owner.uid);
        known.then_some(key)
    }
}
