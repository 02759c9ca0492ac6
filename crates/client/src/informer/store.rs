//! The cache of an informer: objects by key, with secondary indexes. Pure; knows no transport and no task.

use super::{Informer, View};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

pub(super) struct Entry<V> {
    pub(super) revision: u64,
    pub(super) uid: String,
    pub(super) view: Arc<V>,
}

/// A change of the cache: the old and the new state of one object.
pub(super) struct Change<V> {
    pub(super) old: Option<Arc<V>>,
    pub(super) new: Option<Arc<V>>,
}

/// What became of an object that was to be kept.
pub(super) enum Put<V> {
    Added,
    Changed(Entry<V>),
    /// The one that is there is as new.
    Stale,
}

type Values<V> = Box<dyn Fn(&V) -> Vec<String> + Send + Sync>;

struct IndexState<V> {
    name: &'static str,
    values: Values<V>,
    keys: HashMap<String, BTreeSet<Arc<str>>>,
}

impl<V> IndexState<V> {
    /// Brings the index from one state of an object to another; most changes leave its values as they are.
    fn change(&mut self, key: impl Fn() -> Arc<str>, old: Option<&V>, new: &V) {
        let (old, new) = (old.map(|view| (self.values)(view)), (self.values)(new));
        if old.as_ref() == Some(&new) {
            return;
        }
        let key = key();
        self.remove(&key, old.unwrap_or_default());
        for value in new {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &str, values: Vec<String>) {
        for value in values {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

pub(super) struct Store<V> {
    items: BTreeMap<Arc<str>, Entry<V>>,
    indexes: Vec<IndexState<V>>,
}

impl<V> Store<V> {
    pub(super) fn new() -> Self {
        Self { items: BTreeMap::new(), indexes: vec![] }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<V>> {
        self.items.get(key).map(|e| e.view.clone())
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry<V>> {
        self.items.get(key)
    }

    pub(super) fn list(&self) -> Vec<Arc<V>> {
        self.items.values().map(|e| e.view.clone()).collect()
    }

    pub(super) fn list_in(&self, namespace: &str) -> Vec<Arc<V>> {
        if namespace.is_empty() {
            return self.list();
        }
        // '0' is the character after '/': the range holds exactly the keys that begin with `namespace/`.
        let (from, to) = (format!("{namespace}/"), format!("{namespace}0"));
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        self.items.range::<str, _>(range).map(|(_, e)| e.view.clone()).collect()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.items.keys().map(ToString::to_string).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn index(&mut self, name: &'static str, values: Values<V>) -> usize {
        if let Some(slot) = self.indexes.iter().position(|i| i.name == name) {
            return slot;
        }
        let mut index = IndexState { name, values, keys: HashMap::new() };
        for (key, entry) in &self.items {
            index.change(|| key.clone(), None, &entry.view);
        }
        self.indexes.push(index);
        self.indexes.len() - 1
    }

    /// Keeps an object, unless what is there is not older. What was there before.
    pub(super) fn put(&mut self, key: &str, entry: Entry<V>) -> Put<V> {
        if let Some(present) = self.items.get_mut(key) {
            if present.revision >= entry.revision {
                return Put::Stale;
            }
            let new = entry.view.clone();
            let old = std::mem::replace(present, entry);
            let shared = || self.items.get_key_value(key).map_or_else(|| key.into(), |(key, _)| key.clone());
            for index in &mut self.indexes {
                index.change(shared, Some(&old.view), &new);
            }
            return Put::Changed(old);
        }
        let key: Arc<str> = key.into();
        for index in &mut self.indexes {
            index.change(|| key.clone(), None, &entry.view);
        }
        self.items.insert(key, entry);
        Put::Added
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Entry<V>> {
        let old = self.items.remove(key)?;
        for index in &mut self.indexes {
            index.remove(key, (index.values)(&old.view));
        }
        Some(old)
    }
}

/// A secondary index of an informer.
pub struct Index<V: View> {
    pub(super) informer: Informer<V>,
    pub(super) slot: usize,
}

impl<V: View> Clone for Index<V> {
    fn clone(&self) -> Self {
        Self { informer: self.informer.clone(), slot: self.slot }
    }
}

impl<V: View> Index<V> {
    /// The objects under a value, ordered by key.
    #[must_use]
    pub fn get(&self, value: &str) -> Vec<Arc<V>> {
        let store = self.informer.0.store.read();
        let keys = store.indexes.get(self.slot).and_then(|i| i.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| store.get(key)).collect()
    }

    /// The keys of the objects under a value.
    #[must_use]
    pub fn keys(&self, value: &str) -> Vec<String> {
        let store = self.informer.0.store.read();
        let keys = store.indexes.get(self.slot).and_then(|i| i.keys.get(value));
        keys.into_iter().flatten().map(ToString::to_string).collect()
    }

    /// How many objects are under a value.
    #[must_use]
    pub fn count(&self, value: &str) -> usize {
        let store = self.informer.0.store.read();
        store.indexes.get(self.slot).and_then(|i| i.keys.get(value)).map_or(0, BTreeSet::len)
    }

    /// Every value under which there is an object.
    #[must_use]
    pub fn values(&self) -> Vec<String> {
        let store = self.informer.0.store.read();
        store.indexes.get(self.slot).map(|i| i.keys.keys().cloned().collect()).unwrap_or_default()
    }
}
